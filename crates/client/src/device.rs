//! A party that comes for one session at a time.

use std::sync::Arc;
use std::time::Duration;

use quorate_party::{Compute, Keyring, Party, Worker, follow, take_part};
use quorate_types::*;
use tracing::Instrument as _;

use crate::connection::Connection;

/// How long one question for a session's end may wait for its answer.
const END_WAIT: Duration = Duration::from_secs(20);

/// A device that holds shares and takes part in sessions.
pub struct Device {
    party: Party,
}

impl Device {
    /// A device with its keys and its connection. Nothing is connected before the first session.
    pub fn new(keyring: Arc<Keyring>, connection: Connection, device: DeviceInfo) -> Self {
        let (router, coordinator) = connection.into_parts();
        let compute = Compute::default();
        Self {
            party: Party {
                worker: Worker { keyring, compute },
                router,
                coordinator,
                device,
                authority: None,
                delegate: None,
                allowed: None,
            },
        }
    }

    /// The device's name.
    pub fn id(&self) -> &PartyId {
        self.party.id()
    }

    /// The device's keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.party.worker.keyring
    }

    /// Takes part in one session to its end, keygen or sign, and answers with the session as it
    /// ended. A session that failed is no error here: its view says why.
    ///
    /// A key's share is in the vault before the device reports it. Broken connections are made
    /// again and nothing is lost by them; the session's deadline bounds all.
    ///
    /// # Errors
    /// When the device could not join, or could not learn how the session ended.
    pub async fn take_part(&self, session: SessionId, token: JoinToken) -> Result<SessionView> {
        let span = tracing::info_span!("session", %session, party = %self.id());
        self.attempts(session, token).instrument(span).await
    }

    async fn attempts(&self, session: SessionId, token: JoinToken) -> Result<SessionView> {
        let Party { router, coordinator, .. } = &self.party;
        let (me, caller) = (self.id(), Caller::Party(self.id().clone()));
        let mut attempt = 0;
        loop {
            let (feed, _following) = follow(router, coordinator, me, session, attempt);
            let ended = take_part(&self.party, session, token.clone(), feed).await;
            if ended.as_ref().is_ok_and(|view| view.status.is_final()) {
                return ended;
            }
            let now = coordinator.status(&caller, session, None).await?;
            let takes_part = now.seat(me).is_some();
            if now.status.is_final() {
                return Ok(now);
            } else if takes_part && now.attempt > attempt {
                attempt = now.attempt;
            } else if takes_part {
                return ended;
            } else {
                return self.outcome(session).await;
            }
        }
    }

    /// How a session ends in which another has taken this device's place.
    async fn outcome(&self, session: SessionId) -> Result<SessionView> {
        let caller = Caller::Party(self.id().clone());
        loop {
            let end = Some((WaitFor::End, END_WAIT));
            let view = self.party.coordinator.status(&caller, session, end).await?;
            if view.status.is_final() {
                return Ok(view);
            }
        }
    }
}
