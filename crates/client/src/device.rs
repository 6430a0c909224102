//! A party that comes for one session at a time.

use std::sync::Arc;

use quorate_party::{Compute, Keyring, Party, Worker, follow, take_part};
use quorate_types::*;
use tracing::Instrument as _;

use crate::link::Link;

/// A device that holds shares and takes part in sessions.
pub struct Device {
    party: Party,
}

impl Device {
    /// A device with its keys and its link. Nothing is connected before the first session.
    pub fn new(keyring: Arc<Keyring>, link: Link, device: DeviceInfo) -> Self {
        let (router, coordinator) = link.into_parts();
        let compute = Compute::default();
        Self {
            party: Party {
                worker: Worker { keyring, compute },
                router,
                coordinator,
                device,
                authority: None,
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
        let Party { router, coordinator, .. } = &self.party;
        let span = tracing::info_span!("session", %session, party = %self.id());
        let (feed, _following) = follow(router, coordinator, self.id(), session);
        take_part(&self.party, session, token, feed).instrument(span).await
    }
}
