//! Keys and signatures among devices over the JSON-RPC group relay.

mod carrier;
mod gather;
mod link;
mod words;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use quorate_party::Keyring;
use quorate_types::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::letter::Purpose;
use super::peer::{self, Peer};
use super::run::{Hooks, Run, Stage, Terms};
use super::signer::MessageSigner;
use super::what::Proposal;
use gather::{Gathering, join_group, strange};
use link::{Link, Passes, Refusal};
use words::Room;

/// What a device needs to take part in a session; written `group/session`. It is no secret to the
/// relay, but whoever has it can take a place: hand it to the right devices only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invitation {
    /// The group.
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
pub enum Task {
    /// To make a key.
    Keygen(Threshold),
    /// To sign this with a key. To a device that was invited it is what the relay says; it is asked
    /// for its approval of what the inviting device has signed for.
    Sign(KeyId, Proposal),
}

/// What a session has made.
#[derive(Clone, Debug)]
pub enum Made {
    /// A key, of which this device has kept its share.
    Key(KeyRecord),
    /// A signature.
    Signature(Signature),
}

/// A device and the group relay over which it meets others.
///
/// Devices need not know each other before: each is known by the key with which it signed its first
/// letter. So an invitation must go to the right devices, and the holders of a new key are to be
/// compared.
pub struct GroupSession {
    peer: Peer,
    passes: Passes,
}

/// The value of a session in which something is signed.
#[derive(Serialize, Deserialize)]
struct Wanted {
    key_id: KeyId,
    proposal: Proposal,
}

impl GroupSession {
    /// A device with its keys, at `url`, such as `ws://127.0.0.1:3030/mpc`.
    ///
    /// # Errors
    /// `invalid_request` when the keyring belongs to another device than the signer, or the
    /// address is none of a WebSocket. With `wss` the system's authorities are trusted.
    pub fn new(url: &str, signer: Arc<dyn MessageSigner>, keyring: Arc<Keyring>) -> Result<Self> {
        Ok(Self { peer: Peer::new(url, signer, keyring)?, passes: Passes::default() })
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
    pub async fn keygen(&self, label: &str, threshold: Threshold) -> Result<Seat<'_>> {
        self.in_time(async {
            let mut link = self.link().await?;
            let group = create_group(&mut link, label, threshold).await?;
            let invitation =
                create_session(&mut link, group, SessionKind::Keygen, Value::Null).await?;
            self.seat(link, invitation, Task::Keygen(threshold), true).await
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
        proposal: Proposal,
    ) -> Result<Seat<'_>> {
        let threshold = self.key(key).await?.threshold;
        self.in_time(async {
            let mut link = self.link().await?;
            let group = match group {
                Some(group) => {
                    let its = self.join_group(&mut link, group).await?;
                    fits(its, threshold)?;
                    group
                }
                None => create_group(&mut link, "signature", threshold).await?,
            };
            let wanted = Wanted { key_id: key, proposal: proposal.clone() };
            let value = serde_json::to_value(wanted).expect("plain data");
            let invitation = create_session(&mut link, group, SessionKind::Sign, value).await?;
            self.seat(link, invitation, Task::Sign(key, proposal), true).await
        })
        .await
    }

    /// Joins the session of an invitation, whatever it is for.
    ///
    /// # Errors
    /// As [`GroupSession::sign`].
    pub async fn join(&self, invitation: Invitation) -> Result<Seat<'_>> {
        self.in_time(async {
            let mut link = self.link().await?;
            let threshold = self.join_group(&mut link, invitation.group).await?;
            let session = join_session(&mut link, invitation).await?;
            let task = match session["kind"].as_str() {
                Some("keygen") => Task::Keygen(threshold),
                Some("sign") => {
                    let wanted = serde_json::from_value(session["value"].clone());
                    let Wanted { key_id, proposal } = wanted.map_err(|_| {
                        let why = "this session says not what to sign as our devices do";
                        Error::new(ErrorCode::Conflict, why)
                    })?;
                    fits(threshold, self.key(key_id).await?.threshold)?;
                    Task::Sign(key_id, proposal)
                }
                _ => return Err(strange()),
            };
            self.seat(link, invitation, task, false).await
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

    async fn link(&self) -> Result<Link> {
        Link::open(&self.peer.url, &self.passes).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.peer.limit, work).await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("{} did not answer in time", self.peer.url)))
        })
    }

    /// Joins a group and reads what it takes to sign in it.
    async fn join_group(&self, link: &mut Link, group: GroupId) -> Result<Threshold> {
        let group = join_group(link, group).await?;
        let params = &group["params"];
        let (parties, threshold) = (params["parties"].as_i64(), params["threshold"].as_i64());
        let (parties, threshold) = parties.zip(threshold).ok_or_else(strange)?;
        // The relay's threshold is one less than the signers.
        Threshold::new(threshold.saturating_add(1), parties)
    }

    async fn seat(
        &self,
        link: Link,
        invitation: Invitation,
        task: Task,
        starts: bool,
    ) -> Result<Seat<'_>> {
        let (kind, needed, key_index) = match &task {
            Task::Keygen(threshold) => (SessionKind::Keygen, threshold.parties(), 0),
            Task::Sign(key, _) => {
                let record = self.key(*key).await?;
                let own = self.peer.worker.id();
                let at = record.holders.iter().position(|holder| holder == own);
                let at = at.and_then(|at| u16::try_from(at + 1).ok());
                let at = at.ok_or_else(|| Error::not_found("key", key))?;
                (SessionKind::Sign, record.threshold.signers(), at)
            }
        };
        let room = Room::new(invitation, kind);
        let signer = Arc::clone(&self.peer.signer);
        let gathering = Gathering::new(link, room, signer, key_index, needed.into());
        Ok(Seat { session: self, invitation, task, starts, gathering })
    }
}

/// A device's place in a session that has not begun.
pub struct Seat<'a> {
    session: &'a GroupSession,
    invitation: Invitation,
    task: Task,
    /// It has created the session.
    starts: bool,
    gathering: Gathering,
}

impl Seat<'_> {
    /// For the other devices.
    pub fn invitation(&self) -> Invitation {
        self.invitation
    }

    /// What the session is for.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Takes part, to the end or to the time limit. A key's id follows from the invitation.
    ///
    /// # Errors
    /// `session_expired` at the time limit, naming who did not come; `forbidden` when the hooks do
    /// not approve; `conflict` when a device gave up or broke the protocol, or the relay refuses.
    pub async fn run(self, hooks: &mut Hooks<'_>) -> Result<Made> {
        let Self { session, task, starts, mut gathering, invitation } = self;
        let peer = &session.peer;
        let deadline = Instant::now() + peer.limit;
        let mut tell = |missing| (hooks.progress)(Stage::Gathering(missing));
        match timeout_at(deadline, gathering.gather(&mut tell)).await {
            Ok(gathered) => gathered?,
            Err(_) => return Err(gathering.late()),
        }
        let late = |_| Err(Error::new(ErrorCode::SessionExpired, "the time is over"));
        let roster = timeout_at(deadline, gathering.roster()).await;
        let (roster, link) = roster.unwrap_or_else(late)?;
        let purpose = match task {
            Task::Keygen(threshold) => peer::keygen(threshold),
            Task::Sign(key_id, proposal) => {
                Purpose::Sign { key_id, proposal: starts.then_some(proposal) }
            }
        };
        let instance = Room::new(invitation, roster.room.kind).instance;
        let terms = Terms {
            instance,
            purpose: purpose.clone(),
            key: peer.signer.verifying_key(),
            me: roster.me,
            members: roster.members.len(),
            deadline,
        };
        let known = roster.members.iter().map(|(_, key)| key.party_id()).collect();
        let mail = roster.start(link, Arc::clone(&peer.signer));
        let outcome = Run::new(&peer.worker, terms, mail, hooks, known).finish().await?;
        match purpose {
            Purpose::Keygen { .. } => peer.key(instance.session().into()).await.map(Made::Key),
            Purpose::Sign { .. } => peer::signature(outcome).map(Made::Signature),
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

async fn create_group(link: &mut Link, label: &str, threshold: Threshold) -> Result<GroupId> {
    // The relay's threshold is one less than the signers.
    let params = json!({"parties": threshold.parties(), "threshold": threshold.signers() - 1});
    let answer = link.call("Group.create", json!([label, params])).await?;
    serde_json::from_value(answer).map_err(|_| strange())
}

async fn create_session(
    link: &mut Link,
    group: GroupId,
    kind: SessionKind,
    value: Value,
) -> Result<Invitation> {
    let answer = link.call("Session.create", json!([group, kind, value])).await?;
    let session = serde_json::from_value(answer["uuid"].clone()).map_err(|_| strange())?;
    Ok(Invitation { group, session })
}

/// Joins a session, of which the relay wants to hear the kind first.
async fn join_session(link: &mut Link, invitation: Invitation) -> Result<Value> {
    let mut refused: Option<Refusal> = None;
    for kind in [SessionKind::Keygen, SessionKind::Sign] {
        let params = Room::new(invitation, kind).params();
        match link.try_call("Session.join", params).await? {
            Ok(session) => return Ok(session),
            Err(refusal) => refused = Some(refusal),
        }
    }
    Err(refused.map_or_else(strange, |refusal| refusal.error("this device's joining")))
}
