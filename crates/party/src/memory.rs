//! A vault that forgets everything with the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use quorate_ports::vault::{Ban, SealedShare, Vault};
use quorate_types::*;

/// Shares, bans and pins in memory: for tests and for devices that are thrown away.
///
/// A key whose shares live here dies with the processes that hold them, and so does a ban.
#[derive(Default)]
pub struct MemoryVault {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    shares: HashMap<KeyId, SealedShare>,
    bans: Vec<Ban>,
    pins: HashMap<PartyId, [u8; 32]>,
}

impl MemoryVault {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Vault for MemoryVault {
    async fn put_share(&self, share: SealedShare) -> Result<()> {
        let mut held = self.held();
        if held.shares.get(&share.key_id).is_some_and(|old| share.epoch != old.epoch + 1) {
            return Err(Error::new(
                ErrorCode::Conflict,
                "the vault holds a share of this key, and only one of the next epoch replaces it",
            ));
        }
        held.shares.insert(share.key_id, share);
        Ok(())
    }

    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>> {
        Ok(self.held().shares.get(&key).cloned())
    }

    async fn shares(&self) -> Result<Vec<SealedShare>> {
        let mut shares: Vec<_> = self.held().shares.values().cloned().collect();
        for share in &mut shares {
            share.sealed.clear();
        }
        shares.sort_by_key(|share| std::cmp::Reverse((share.record.created_at, share.key_id)));
        Ok(shares)
    }

    async fn ban(&self, ban: Ban) -> Result<()> {
        self.held().bans.push(ban);
        Ok(())
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        Ok(self.held().bans.iter().filter(|ban| ban.key_id == key).cloned().collect())
    }

    async fn pin(&self, peer: &PartyId, identity: [u8; 32]) -> Result<[u8; 32]> {
        Ok(*self.held().pins.entry(peer.clone()).or_insert(identity))
    }
}
