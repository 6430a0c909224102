//! Packages on their way from delegates to users: handed in, fetched, confirmed.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::policy;
use quorate_core::session::{Command, Effects, Session, Submission};
use quorate_ports::store::DelegateShareRow;
use quorate_ports::{Urgency, Write};
use quorate_types::*;
use sha2::{Digest as _, Sha256};

use super::CoordinatorApp;
use crate::lock;
use crate::tokens::JoinTokens;

/// Packages of one tenant that wait for their users, those that open sessions will make included:
/// 50 to 500 kB each.
const MAX_PACKAGES: u64 = 1_000;
/// Seconds after which one that has too many may try again.
const RETRY_SECONDS: u32 = 60;

/// What is written of packages beside a session: the one that a command has brought, and where the
/// session ends without a key, that there are none.
pub(super) fn writes(
    session: &Session,
    effects: &Effects,
    package: Option<(&PartyId, &Bytes)>,
) -> Option<Write> {
    session.delegated().next()?;
    let failed = matches!(session.status(), SessionStatus::Failed | SessionStatus::Expired);
    match package {
        _ if effects.ended && failed => Some(Write::ForgetDelegateShares(session.id())),
        Some((party, package)) if effects.package => Some(Write::DelegateShare(DelegateShareRow {
            session_id: session.id(),
            party_id: party.clone(),
            tenant: session.tenant().clone(),
            package: package.clone(),
        })),
        _ => None,
    }
}

/// A delegate takes part on behalf of a user and not otherwise, and a server party for itself. Who
/// registered as neither may be what it likes.
///
/// # Errors
/// `invalid_request` naming `participants`.
pub(super) fn check_roles(participants: &[NewParticipant], known: &[PartyView]) -> Result<()> {
    for participant in participants {
        let party = &participant.party_id;
        let registered = known.iter().map(|view| &view.registration);
        let role = registered.filter(|one| one.party_id == *party).map(|one| one.role).next();
        let problem = match (role, &participant.on_behalf_of) {
            (Some(PartyRole::Delegate), None) => {
                format!("{party} is a delegate: say with on_behalf_of for whom it takes the seat")
            }
            (Some(PartyRole::Persistent), Some(_)) => {
                format!("{party} is a server party: only a delegate takes another's seat")
            }
            _ => continue,
        };
        return Err(Error::invalid_field("participants", problem));
    }
    Ok(())
}

impl CoordinatorApp {
    /// Refuses a keygen that would leave a tenant's users more packages than may wait for them.
    pub(super) async fn check_packages(
        &self,
        tenant: &Tenant,
        participants: &[NewParticipant],
    ) -> Result<()> {
        let more = participants.iter().filter(|one| one.on_behalf_of.is_some()).count() as u64;
        if more == 0 {
            return Ok(());
        }
        let waiting = self.0.parts.store.delegate_shares(tenant).await?;
        let open = lock(&self.0.state).delegated(tenant);
        if waiting + open + more <= MAX_PACKAGES {
            return Ok(());
        }
        let problem = "too many packages of this tenant wait for their users; let them fetch and \
                       confirm some";
        Err(Error::rate_limited(problem, RETRY_SECONDS))
    }

    /// By delegate, the token with which its user fetches its package.
    pub(super) fn fetch_tokens(&self, session: &SessionView) -> BTreeMap<PartyId, FetchToken> {
        let delegated = session.participants.iter().filter(|seat| seat.on_behalf_of.is_some());
        let keygen = delegated.filter(|_| session.ceremony.kind() == SessionKind::Keygen);
        let tokens = &self.0.parts.join_tokens;
        let token = |seat: &ParticipantView| {
            let party = &seat.party_id;
            (party.clone(), tokens.fetch_token(session.session_id, party))
        };
        keygen.map(token).collect()
    }

    pub(super) async fn submit_package(
        &self,
        caller: &Caller,
        submitted: SubmitShare,
    ) -> Result<()> {
        self.act_as(caller, &submitted.party_id)?;
        let session = self.find(submitted.session_id).await?;
        Self::visible(&session, caller)?;
        let SubmitShare { party_id: party, party_index, public_key, package, .. } = submitted;
        if package.is_empty() {
            return Err(Error::invalid_field("encrypted_share", "encrypted_share is missing"));
        }
        if package.len() > MAX_PACKAGE {
            let problem = format!("encrypted_share is at most {MAX_PACKAGE} bytes");
            return Err(Error::new(ErrorCode::MessageTooLarge, problem));
        }
        let package_hash = Sha256::digest(&package).into();
        let submission = Submission { party, party_index, public_key, package, package_hash };
        self.execute(session.id(), Command::Submit(submission)).await.map(drop)
    }

    /// The delegated seat that is meant, for whoever shows its token: nobody else learns more of a
    /// session than that it is there.
    async fn fetched(&self, caller: &Caller, asked: &FetchShare) -> Result<DelegatedShare> {
        policy::start(caller)?;
        let session = self.find(asked.session_id).await?;
        Self::visible(&session, caller)?;
        let named = |(party, _, user): &(&PartyId, PartyIndex, &PartyId)| {
            **party == asked.party_id || **user == asked.party_id
        };
        let (party, party_index, user) = session.delegated().find(named).ok_or_else(|| {
            let why = format!("no delegate takes the seat of {} in this session", asked.party_id);
            Error::new(ErrorCode::NotFound, why).with_field("party_id")
        })?;
        let token = self.0.parts.join_tokens.fetch_token(session.id(), party);
        if JoinTokens::hash(&token) != JoinTokens::hash(&asked.token) {
            let why = "this fetch token is not the one made for this seat";
            return Err(Error::new(ErrorCode::Unauthorized, why));
        }
        if session.status() != SessionStatus::Completed {
            let status = session.status().name();
            let why =
                format!("the keygen is {status}: its packages are there once it has completed");
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        Ok(DelegatedShare {
            session_id: session.id(),
            party_id: party.clone(),
            user_id: user.clone(),
            party_index,
            package: Bytes::new(),
        })
    }

    pub(super) async fn fetch_package(
        &self,
        caller: &Caller,
        asked: &FetchShare,
    ) -> Result<DelegatedShare> {
        let share = self.fetched(caller, asked).await?;
        let row = self.0.parts.store.delegate_share(share.session_id, &share.party_id).await?;
        let row = row.ok_or_else(|| {
            let why = "this package was confirmed by its user, and is gone";
            Error::new(ErrorCode::NotFound, why)
        })?;
        Ok(DelegatedShare { package: row.package, ..share })
    }

    pub(super) async fn confirm_package(&self, caller: &Caller, asked: &FetchShare) -> Result<()> {
        let share = self.fetched(caller, asked).await?;
        let forget = Write::ForgetDelegateShare(share.session_id, share.party_id);
        self.0.parts.store.submit(vec![forget], Urgency::Now).await
    }
}
