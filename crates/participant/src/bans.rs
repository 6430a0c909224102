//! The bans that a process has made, ordered over all its runs.
//!
//! A ban belongs to (key, epoch, peer), not to a session: the multiplication's set-up lives as long
//! as the epoch, and each attempt at its check leaks one bit of it. So setting a ban and checking
//! for one before something leaves are ordered by one lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use quorate_types::vault::{Ban, SealedShare};
use quorate_types::*;

use crate::key::OpenKey;

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
struct NewBan {
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

/// Bans made by one process: they hold even when the vault could not take them. Those in the vault
/// are read with a share; only one process may use a vault at a time.
pub struct Bans {
    party: PartyId,
    /// Shared while something begins to leave, exclusive while a ban is set.
    order: RwLock<()>,
    made: Mutex<Vec<NewBan>>,
    /// Of keys that were refreshed here: the epoch that signs.
    active: Mutex<HashMap<KeyId, u32>>,
}

impl Bans {
    /// None yet, of this party.
    pub fn new(party: PartyId) -> Self {
        Self { party, order: RwLock::new(()), made: Mutex::default(), active: Mutex::default() }
    }

    /// A later epoch of a key is on the disk: nothing of an earlier one leaves from now on.
    pub fn advance(&self, key: KeyId, epoch: u32) {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let known = active.entry(key).or_insert(epoch);
        *known = epoch.max(*known);
    }

    fn check_epoch(&self, key_id: KeyId, epoch: u32) -> Result<()> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        match active.get(&key_id) {
            Some(active) if epoch < *active => Err(stale(&self.party, key_id, epoch, *active)),
            _ => Ok(()),
        }
    }

    fn made(&self) -> MutexGuard<'_, Vec<NewBan>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses if one of `peers` is banned under this key, if any ban under it could not be stored
    /// and would be forgotten by a restart, or if a later epoch signs.
    ///
    /// # Errors
    /// `key_locked`, naming the pair and the way out; `stale_epoch`.
    pub fn check(&self, key: &OpenKey, peers: &[PartyId]) -> Result<()> {
        let SealedShare { key_id, epoch, .. } = key.stored;
        self.check_epoch(key_id, epoch)?;
        let made = self.made();
        let concerns =
            |ban: &&Ban| ban.key_id == key_id && ban.epoch == epoch && peers.contains(&ban.peer);
        let new = made.iter().map(|new| &new.ban);
        if let Some(ban) = key.bans.iter().chain(new).find(concerns) {
            let message = format!(
                "key_locked: {} must not sign with {} under key {key_id}: {}; the key needs a \
                 refresh before they sign together again",
                self.party, ban.peer, ban.reason
            );
            let blame = Blame { party_id: ban.peer.clone(), reason: ban.reason.clone() };
            return Err(Error::new(ErrorCode::KeyLocked, message).blaming(blame));
        }
        if made.iter().any(|new| new.disk == Disk::Failed && new.concerns(&key.stored)) {
            let message = format!(
                "key_locked: a ban under key {key_id} is not on the disk yet; free or repair the \
                 disk of {}",
                self.party
            );
            return Err(Error::new(ErrorCode::KeyLocked, message));
        }
        Ok(())
    }

    /// Calls `begin` unless [`Bans::check`] refuses; no ban is set in between. It must not block.
    ///
    /// # Errors
    /// As [`Bans::check`].
    pub fn while_unbanned<T>(
        &self,
        key: &OpenKey,
        peers: &[PartyId],
        begin: impl FnOnce() -> T,
    ) -> Result<T> {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        self.check(key, peers)?;
        Ok(begin())
    }

    /// Sets a ban under a key, which holds in this process when this returns. `first` is called
    /// before anybody can see the ban, unless one of the key's epoch was there already: then this
    /// answers `false` and there is nothing to write.
    pub(crate) fn set(&self, key: &OpenKey, ban: &Ban, first: impl FnOnce()) -> bool {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut made = self.made();
        let new = made.iter().map(|new| &new.ban);
        if key.bans.iter().chain(new).any(|known| same(known, ban)) {
            return false;
        }
        first();
        made.push(NewBan { ban: ban.clone(), disk: Disk::Underway });
        true
    }

    /// Notes how writing a ban went, and answers the same. The first ban of a peer tells what
    /// happened, so it may be written again, and of two that write it side by side the one that
    /// failed does not undo the other.
    ///
    /// # Errors
    /// The vault's, unless the ban is on the disk by now.
    pub fn written(&self, ban: &Ban, outcome: Result<()>) -> Result<()> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = self.made().iter_mut().find(|new| same(&new.ban, ban)) {
            new.disk = match outcome {
                Ok(()) => Disk::Written,
                Err(_) if new.disk == Disk::Written => return Ok(()),
                Err(_) => Disk::Failed,
            };
        }
        outcome
    }

    /// Bans under a key that are not on the disk yet.
    pub fn unwritten(&self, key: &SealedShare) -> Vec<Ban> {
        let made = self.made();
        let unwritten = |new: &&NewBan| new.disk != Disk::Written && new.concerns(key);
        made.iter().filter(unwritten).map(|new| new.ban.clone()).collect()
    }
}

/// The refusal of a share whose epoch has ended.
pub(crate) fn stale(party: &PartyId, key: KeyId, epoch: u32, active: u32) -> Error {
    let message = format!(
        "stale_epoch: the share that {party} holds of key {key} is of epoch {epoch}, which has ended \
         with epoch {active}: it signs no more; put the party's newest folder back"
    );
    Error::new(ErrorCode::StaleEpoch, message)
}
