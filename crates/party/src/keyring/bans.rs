//! Bans: set in memory at once, written to the vault until it takes them.

use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use quorate_ports::vault::{Ban, SealedShare};
use quorate_types::*;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Keyring, OpenKey};
use crate::backoff::Backoff;
use crate::clock;

/// How long a stopping process waits for bans that are on their way to the disk.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// How far a ban has come on its way to the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// Nothing is known of it yet.
    Underway,
    /// The vault could not take it, and is asked again.
    Failed,
    Written,
}

/// A ban that this process has made.
pub(super) struct NewBan {
    ban: Ban,
    disk: Disk,
}

impl NewBan {
    fn concerns(&self, key: &SealedShare) -> bool {
        (self.ban.key_id, self.ban.epoch) == (key.key_id, key.epoch)
    }
}

fn same(a: &Ban, b: &Ban) -> bool {
    (a.key_id, a.epoch, &a.peer) == (b.key_id, b.epoch, &b.peer)
}

impl Keyring {
    /// Refuses if one of `peers` is banned under this key, or if any ban under it could not be
    /// stored and would be forgotten by a restart. Only one process may use a vault at a time: bans
    /// are read with the share and added to here.
    ///
    /// # Errors
    /// `key_locked`, naming the pair and the way out.
    pub fn check_bans(&self, key: &OpenKey, peers: &[PartyId]) -> Result<()> {
        let SealedShare { key_id, epoch, .. } = key.stored;
        let memory = self.memory();
        let concerns =
            |ban: &&Ban| ban.key_id == key_id && ban.epoch == epoch && peers.contains(&ban.peer);
        let new = memory.bans.iter().map(|new| &new.ban);
        if let Some(ban) = key.bans.iter().chain(new).find(concerns) {
            let message = format!(
                "key_locked: {} must not sign with {} under key {key_id}: {}; the key needs a \
                 refresh before they sign together again",
                self.party, ban.peer, ban.reason
            );
            let blame = Blame { party_id: ban.peer.clone(), reason: ban.reason.clone() };
            return Err(Error::new(ErrorCode::KeyLocked, message).blaming(blame));
        }
        if memory.bans.iter().any(|new| new.disk == Disk::Failed && new.concerns(&key.stored)) {
            let message = format!(
                "key_locked: a ban under key {key_id} is not on the disk yet; free or repair the \
                 disk of {}",
                self.party
            );
            return Err(Error::new(ErrorCode::KeyLocked, message));
        }
        Ok(())
    }

    /// Calls `begin` unless [`Keyring::check_bans`] refuses; no ban is set in between. It must not
    /// block.
    pub(crate) fn while_unbanned<T>(
        &self,
        key: &OpenKey,
        peers: &[PartyId],
        begin: impl FnOnce() -> T,
    ) -> Result<T> {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        self.check_bans(key, peers)?;
        Ok(begin())
    }

    /// Bans a peer under a key, which holds in this process when this returns. `first` is called
    /// before anybody can see the ban, unless one of the key's epoch was there already: then this
    /// answers with nothing to write.
    pub(crate) fn ban_now(
        &self,
        key: &OpenKey,
        peer: PartyId,
        reason: String,
        evidence: Vec<Bytes>,
        first: impl FnOnce(),
    ) -> Option<Ban> {
        let SealedShare { key_id, epoch, .. } = key.stored;
        let ban = Ban { key_id, epoch, peer, reason, at: clock::now(), evidence };
        let order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut memory = self.memory();
        let new = memory.bans.iter().map(|new| &new.ban);
        if key.bans.iter().chain(new).any(|known| same(known, &ban)) {
            return None;
        }
        first();
        memory.bans.push(NewBan { ban: ban.clone(), disk: Disk::Underway });
        drop((memory, order));
        self.changes.send_modify(|count| *count += 1);
        Some(ban)
    }

    /// Writes a ban that holds already, trying again for as long as the vault fails. While it
    /// cannot be written, its key is locked for all holders.
    pub(crate) async fn write_ban(&self, ban: Ban) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.store_ban(ban.clone()).await {
            tracing::error!(%error, "a ban could not be stored: its key is locked until it is");
            backoff.pause().await;
        }
    }

    /// Writes a ban that holds already; returns once it is on disk. The first ban of a peer tells
    /// what happened, so writing it again changes nothing.
    async fn store_ban(&self, ban: Ban) -> Result<()> {
        let written = self.vault.ban(ban.clone()).await;
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut memory = self.memory();
        if let Some(new) = memory.bans.iter_mut().find(|new| same(&new.ban, &ban)) {
            // Two may write it side by side: the one that failed does not undo the other.
            new.disk = match written {
                Ok(()) => Disk::Written,
                Err(_) if new.disk == Disk::Written => return Ok(()),
                Err(_) => Disk::Failed,
            };
        }
        written
    }

    /// Writes all bans of a key that this process has made and that are not on disk.
    pub(crate) async fn store_bans(&self, key: &OpenKey) -> Result<()> {
        for ban in self.unwritten(&key.stored) {
            self.store_ban(ban).await?;
        }
        Ok(())
    }

    /// Bans under a key that are not on the disk yet.
    pub(super) fn unwritten(&self, key: &SealedShare) -> Vec<Ban> {
        let memory = self.memory();
        let unwritten = |new: &&NewBan| new.disk != Disk::Written && new.concerns(key);
        memory.bans.iter().filter(unwritten).map(|new| new.ban.clone()).collect()
    }

    pub(crate) fn writes(&self) -> &TaskTracker {
        &self.writes
    }

    /// Waits until no run can find a fault any more and every ban is on disk, for five seconds at
    /// the most: to be called before a process ends.
    pub async fn settled(&self) {
        self.writes.close();
        if tokio::time::timeout(SETTLE_LIMIT, self.writes.wait()).await.is_err() {
            tracing::warn!("stopping while a computation or the storing of a ban goes on");
        }
        self.writes.reopen();
    }

    /// Counts the bans made by this process.
    pub(crate) fn ban_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
