//! Seats in processes of their own: whatever a protocol's library leaves in memory ends with them.

use async_trait::async_trait;
use quorate_participant::{Permission, could_not};
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, Pin};
use quorate_types::*;
use tokio::sync::Notify;

use super::taken;
use crate::authority::Stored;
use crate::session::{Feed, Joining, Party, permission::Asking};

/// A seat that another process of this machine is to take.
pub struct Errand {
    /// The session in which the seat is taken.
    pub session: SessionId,
    /// The attempt at it.
    pub attempt: u32,
    /// The delegate's token.
    pub token: JoinToken,
    /// What the delegate's authority has allowed; `None` where it has none.
    pub authorization: Option<Authorization>,
    /// The share that the user lends.
    pub lent: Option<LentShare>,
    /// The identities that the operator says others have.
    pub pins: Vec<Pin>,
    /// With whom the delegate's seats do not sign under the key that is used.
    pub bans: Vec<Ban>,
}

/// Takes seats in other processes.
#[async_trait]
pub trait SeatHost: Send + Sync + 'static {
    /// Takes a seat, and returns when that process has ended. A ban that is found there is written to
    /// `vault` before that process goes on to tell of it.
    ///
    /// # Errors
    /// When it could not be started, or did not come to an end of the session.
    async fn take(&self, errand: Errand, vault: &dyn Vault) -> Result<()>;
}

/// Takes a user's seat by way of a host, once the delegate's authority has allowed it.
///
/// # Errors
/// When how the session ended is not known.
pub(crate) async fn take_elsewhere(
    party: &Party,
    host: &dyn SeatHost,
    session: SessionId,
    token: JoinToken,
    feed: Feed,
) -> Result<SessionView> {
    let Feed { attempt, mut views, lent, .. } = feed;
    let view = views.borrow_and_update().clone().ok_or_else(Error::internal)?;
    let give_up =
        async |failure| party.report((session, attempt), PartyOutcome::Failure(failure)).await;
    if let Err(refusal) = taken(party, Some(&view), lent.as_ref()) {
        return give_up(could_not(party.id(), refusal)).await;
    }
    let mut stored: Option<Stored> = None;
    if let Some(authority) = &party.authority {
        let join = Joining { party, session, attempt, token: token.clone() };
        let forgotten = Notify::new();
        let mut asking =
            Asking { join: &join, authority, views: &mut views, forgotten: &forgotten };
        match asking.ask(view.clone().by_holder(), None).await? {
            (Permission::Given(_), written) => stored = written,
            (Permission::Refused(failure), _) => return give_up(failure).await,
            (Permission::Ended(view), _) => return Ok(*view),
        }
    }
    // Before the other process begins, and so before anything of a result leaves it.
    if let Some(stored) = stored {
        stored.await?;
    }
    let authorization = match party.authority.is_some() {
        true => view.authorization.as_deref().cloned(),
        false => None,
    };
    let vault = party.worker.keyring.vault();
    let bans = match view.ceremony.key() {
        Some(key) => vault.bans(key.key_id).await?,
        None => Vec::new(),
    };
    // What proves a ban stays with the delegate.
    let unproven = |ban: Ban| Ban { evidence: Vec::new(), ..ban };
    let bans = bans.into_iter().map(unproven).collect();
    let pins = vault.pins().await?;
    let pins = pins.into_iter().filter(|pin| pin.tenant.is_none()).collect();
    let errand = Errand { session, attempt, token, authorization, lent, pins, bans };
    if let Err(error) = host.take(errand, &**vault).await {
        tracing::error!(%error, "a seat was not taken to its end");
        let why = format!("{} could not take the seat of its user", party.id());
        return give_up(could_not(party.id(), why)).await;
    }
    party.status(session, None).await
}
