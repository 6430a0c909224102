//! Keys and signatures among devices over the JSON-RPC group relay.

mod connection;
mod membership;
mod message;
mod transport;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use quorate_participant::devices::{ProposedCeremony, RunParameters, SigningRequest};
use quorate_party::Keyring;
use quorate_types::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::peer::{self, Peer};
use super::run::{Observer, Progress, run};
use super::signer::MessageSigner;
use connection::{RelayConnection, RelayError, ResumeTokens};
use membership::{Membership, join_group, strange};
use message::SessionContext;

/// What a device needs to take part in a session; written `group/session`. It is no secret to the
/// relay, but whoever has it can take a place: hand it to the right devices only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invitation {
    /// The group that the relay has made for the session.
    pub group: GroupId,
    /// The session in it.
    pub session: SessionId,
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.session)
    }
}

impl FromStr for Invitation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (group, session) = text.trim().split_once('/').ok_or_else(|| {
            Error::invalid_field("invitation", "an invitation is written GROUP/SESSION")
        })?;
        Ok(Self { group: group.parse()?, session: session.parse()? })
    }
}

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupCeremony {
    /// To make a key.
    Keygen {
        /// The scheme of the new key.
        scheme: Scheme,
        /// Signers needed and holders.
        threshold: Threshold,
    },
    /// To sign this with a key. To a device that was invited it is what the relay says; it is asked
    /// for its approval of what the inviting device has signed for.
    Sign(KeyId, SigningRequest),
    /// To give all holders of a key new shares.
    Refresh(KeyId),
}

/// What a session has made.
#[derive(Clone, Debug)]
pub enum GroupOutcome {
    /// A key, of which this device has kept its share, or a new one.
    Key(KeyRecord),
    /// A signature that verifies under the key.
    Signature(Signature),
}

/// A device and the group relay over which it meets others.
///
/// Devices need not know each other before: each is known by the key with which it signed its first
/// message. So an invitation must go to the right devices, and the holders of a new key are to be
/// compared.
pub struct GroupSession {
    peer: Peer,
    resume_tokens: ResumeTokens,
}

/// The value of a session in which a key is made.
#[derive(Serialize, Deserialize)]
struct WantedKey {
    scheme: Scheme,
}

/// The value of a session in which a key is refreshed. To the relay it is one that makes a key.
#[derive(Serialize, Deserialize)]
struct WantedRefresh {
    refresh: KeyId,
}

/// The value of a session in which something is signed.
#[derive(Serialize, Deserialize)]
struct Wanted {
    key_id: KeyId,
    request: SigningRequest,
}

impl GroupSession {
    /// A device with its keys, at `url`, such as `ws://127.0.0.1:3030/mpc`.
    ///
    /// # Errors
    /// `invalid_request` when the keyring belongs to another device than the signer, or the
    /// address is none of a WebSocket. With `wss` the system's authorities are trusted.
    pub fn new(url: &str, signer: Arc<dyn MessageSigner>, keyring: Arc<Keyring>) -> Result<Self> {
        Ok(Self { peer: Peer::new(url, signer, keyring)?, resume_tokens: ResumeTokens::default() })
    }

    /// The same with another time limit for a run.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.peer.limit = limit;
        self
    }

    /// Creates a group and in it a session that makes a key. The label is for people.
    ///
    /// # Errors
    /// `unavailable` when the relay is not there, `conflict` when it refuses.
    pub async fn keygen(
        &self,
        label: &str,
        scheme: Scheme,
        threshold: Threshold,
    ) -> Result<Participation<'_>> {
        self.in_time(async {
            let mut connection = self.connection().await?;
            let group = create_group(&mut connection, label, threshold).await?;
            let value = json!(WantedKey { scheme });
            let invitation =
                create_session(&mut connection, group, GroupKind::Keygen, value).await?;
            self.seat(connection, invitation, GroupCeremony::Keygen { scheme, threshold }, true)
                .await
        })
        .await
    }

    /// Creates a session that signs with a key: in this group, or else in a new one. A group lives
    /// as long as one of its members is connected, and a minute more.
    ///
    /// # Errors
    /// As [`GroupSession::keygen`]; `not_found` when this device holds no share of the key.
    pub async fn sign(
        &self,
        group: Option<GroupId>,
        key: KeyId,
        request: SigningRequest,
    ) -> Result<Participation<'_>> {
        let threshold = self.key(key).await?.threshold;
        self.in_time(async {
            let mut connection = self.connection().await?;
            let group = match group {
                Some(group) => {
                    let its = self.join_group(&mut connection, group).await?;
                    fits(its, threshold)?;
                    group
                }
                None => create_group(&mut connection, "signature", threshold).await?,
            };
            let wanted = Wanted { key_id: key, request: request.clone() };
            let value = serde_json::to_value(wanted).expect("plain data");
            let invitation = create_session(&mut connection, group, GroupKind::Sign, value).await?;
            self.seat(connection, invitation, GroupCeremony::Sign(key, request), true).await
        })
        .await
    }

    /// Creates a group and in it a session that gives all holders of a key new shares.
    ///
    /// # Errors
    /// As [`GroupSession::sign`].
    pub async fn refresh(&self, key: KeyId) -> Result<Participation<'_>> {
        let threshold = self.key(key).await?.threshold;
        self.in_time(async {
            let mut connection = self.connection().await?;
            let group = create_group(&mut connection, "refresh", threshold).await?;
            let value = json!(WantedRefresh { refresh: key });
            let invitation =
                create_session(&mut connection, group, GroupKind::Keygen, value).await?;
            self.seat(connection, invitation, GroupCeremony::Refresh(key), true).await
        })
        .await
    }

    /// Joins the session of an invitation, whatever it is for.
    ///
    /// # Errors
    /// As [`GroupSession::sign`].
    pub async fn join(&self, invitation: Invitation) -> Result<Participation<'_>> {
        self.in_time(async {
            let mut connection = self.connection().await?;
            let threshold = self.join_group(&mut connection, invitation.group).await?;
            let session = join_session(&mut connection, invitation).await?;
            let task = match session["kind"].as_str() {
                Some("keygen") if session["value"].get("refresh").is_some() => {
                    let wanted = serde_json::from_value(session["value"].clone());
                    let WantedRefresh { refresh } = wanted.map_err(|_| {
                        let why = "this session is not for a refresh as our devices make it";
                        Error::new(ErrorCode::Conflict, why)
                    })?;
                    fits(threshold, self.key(refresh).await?.threshold)?;
                    GroupCeremony::Refresh(refresh)
                }
                Some("keygen") => {
                    let wanted = serde_json::from_value(session["value"].clone());
                    let WantedKey { scheme } = wanted.map_err(|_| {
                        let why = "this session is not for a key as our devices make it";
                        Error::new(ErrorCode::Conflict, why)
                    })?;
                    GroupCeremony::Keygen { scheme, threshold }
                }
                Some("sign") => {
                    let wanted = serde_json::from_value(session["value"].clone());
                    let Wanted { key_id, request } = wanted.map_err(|_| {
                        let why = "this session is not for a signature as our devices make it";
                        Error::new(ErrorCode::Conflict, why)
                    })?;
                    fits(threshold, self.key(key_id).await?.threshold)?;
                    GroupCeremony::Sign(key_id, request)
                }
                _ => return Err(strange()),
            };
            self.seat(connection, invitation, task, false).await
        })
        .await
    }

    /// The public side of a key that this device holds a share of.
    ///
    /// # Errors
    /// `not_found` when it holds none.
    pub async fn key(&self, key: KeyId) -> Result<KeyRecord> {
        self.peer.key(key).await
    }

    async fn connection(&self) -> Result<RelayConnection> {
        RelayConnection::open(&self.peer.url, &self.resume_tokens).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.peer.limit, work).await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("{} did not answer in time", self.peer.url)))
        })
    }

    /// Joins a group and reads what it takes to sign in it.
    async fn join_group(
        &self,
        connection: &mut RelayConnection,
        group: GroupId,
    ) -> Result<Threshold> {
        let group = join_group(connection, group).await?;
        let params = &group["params"];
        let (parties, threshold) = (params["parties"].as_i64(), params["threshold"].as_i64());
        let (parties, threshold) = parties.zip(threshold).ok_or_else(strange)?;
        // The relay's threshold is one less than the signers.
        Threshold::new(threshold.saturating_add(1), parties)
    }

    async fn seat(
        &self,
        connection: RelayConnection,
        invitation: Invitation,
        task: GroupCeremony,
        starts: bool,
    ) -> Result<Participation<'_>> {
        let (kind, needed, key_index) = match &task {
            GroupCeremony::Keygen { threshold, .. } => (GroupKind::Keygen, threshold.parties(), 0),
            GroupCeremony::Refresh(key) => {
                (GroupKind::Keygen, self.key(*key).await?.threshold.parties(), 0)
            }
            GroupCeremony::Sign(key, _) => {
                let record = self.key(*key).await?;
                let own = self.peer.worker.id();
                let at = record.holders.iter().position(|holder| holder == own);
                let at = at.and_then(|at| u16::try_from(at + 1).ok());
                let at = at.ok_or_else(|| Error::not_found("key", key))?;
                (GroupKind::Sign, record.threshold.signers(), at)
            }
        };
        let context = SessionContext::new(invitation, kind);
        let signer = Arc::clone(&self.peer.signer);
        let membership = Membership::new(connection, context, signer, key_index, needed.into());
        Ok(Participation { session: self, invitation, task, starts, membership })
    }
}

/// A device's place in a session that has not begun.
pub struct Participation<'a> {
    session: &'a GroupSession,
    invitation: Invitation,
    task: GroupCeremony,
    /// It has created the session.
    starts: bool,
    membership: Membership,
}

impl Participation<'_> {
    /// For the other devices.
    pub fn invitation(&self) -> Invitation {
        self.invitation
    }

    /// What the session is for.
    pub fn ceremony(&self) -> &GroupCeremony {
        &self.task
    }

    /// Takes part, to the end or to the time limit. A key's id follows from the invitation.
    ///
    /// # Errors
    /// `session_expired` at the time limit, naming the missing devices; `forbidden` when the observer
    /// does not approve; `conflict` when a device gave up or broke the protocol, or the relay refuses.
    pub async fn run(self, observer: &mut Observer<'_>) -> Result<GroupOutcome> {
        let Self { session, task, starts, mut membership, invitation } = self;
        let peer = &session.peer;
        let deadline = Instant::now() + peer.limit;
        let mut tell = |missing| (observer.progress)(Progress::WaitingFor(missing));
        match timeout_at(deadline, membership.wait_for_members(&mut tell)).await {
            Ok(met) => met?,
            Err(_) => return Err(membership.late()),
        }
        let late = |_| Err(Error::new(ErrorCode::SessionExpired, "timed out"));
        let roster = timeout_at(deadline, membership.roster()).await;
        let (mut roster, connection) = roster.unwrap_or_else(late)?;
        if let GroupCeremony::Refresh(key) = &task {
            roster.put_in_order(&peer.key(*key).await?.holders)?;
        }
        let ceremony = match task {
            GroupCeremony::Keygen { scheme, threshold } => {
                ProposedCeremony::Keygen { scheme, threshold }
            }
            GroupCeremony::Sign(key_id, request) => {
                ProposedCeremony::Sign { key_id, request: starts.then_some(request) }
            }
            GroupCeremony::Refresh(key_id) => ProposedCeremony::Refresh { key_id },
        };
        let instance = SessionContext::new(invitation, roster.context.kind).instance;
        let parameters = RunParameters {
            instance,
            ceremony: ceremony.clone(),
            key: peer.signer.verifying_key(),
            me: roster.me,
            members: roster.members.iter().map(|(_, key)| key.party_id()).collect(),
        };
        let channel = roster.start(connection, Arc::clone(&peer.signer));
        let outcome = run(&peer.worker, parameters, deadline, channel, observer).await?;
        match ceremony {
            ProposedCeremony::Keygen { .. } => {
                peer.key(instance.session().into()).await.map(GroupOutcome::Key)
            }
            ProposedCeremony::Refresh { key_id } => peer.key(key_id).await.map(GroupOutcome::Key),
            ProposedCeremony::Sign { .. } => peer::signature(outcome).map(GroupOutcome::Signature),
        }
    }
}

fn fits(group: Threshold, key: Threshold) -> Result<()> {
    if group.signers() == key.signers() {
        return Ok(());
    }
    let (group, key) = (group.signers(), key.signers());
    let why = format!("in this group {group} devices sign, the key takes {key}");
    Err(Error::new(ErrorCode::Conflict, why))
}

async fn create_group(
    connection: &mut RelayConnection,
    label: &str,
    threshold: Threshold,
) -> Result<GroupId> {
    // The relay's threshold is one less than the signers.
    let params = json!({"parties": threshold.parties(), "threshold": threshold.signers() - 1});
    let answer = connection.call("Group.create", json!([label, params])).await?;
    serde_json::from_value(answer).map_err(|_| strange())
}

async fn create_session(
    connection: &mut RelayConnection,
    group: GroupId,
    kind: GroupKind,
    value: Value,
) -> Result<Invitation> {
    let answer = connection.call("Session.create", json!([group, kind, value])).await?;
    let session = serde_json::from_value(answer["uuid"].clone()).map_err(|_| strange())?;
    Ok(Invitation { group, session })
}

/// Joins a session, of which the relay wants to hear the kind first.
async fn join_session(connection: &mut RelayConnection, invitation: Invitation) -> Result<Value> {
    let mut refused: Option<RelayError> = None;
    for kind in [GroupKind::Keygen, GroupKind::Sign] {
        let params = SessionContext::new(invitation, kind).params();
        match connection.try_call("Session.join", params).await? {
            Ok(session) => return Ok(session),
            Err(refusal) => refused = Some(refusal),
        }
    }
    Err(refused.map_or_else(strange, |refusal| refusal.error("to let this device join")))
}
