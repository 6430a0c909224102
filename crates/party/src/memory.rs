//! A vault that forgets everything with the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use quorate_ports::vault::{Ban, Contents, Pin, SealedShare, ShareState, Unlock, Vault, VaultKey};
use quorate_types::*;

/// Shares, bans and pins in memory: for tests and for devices that are thrown away.
///
/// A key whose shares live here dies with the processes that hold them, and so does a ban. Nobody
/// but the process writes here, so nothing is authenticated.
#[derive(Default)]
pub struct MemoryVault {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    shares: BTreeMap<(KeyId, u32), SealedShare>,
    bans: Vec<Ban>,
    pins: Vec<Pin>,
    witnessed: HashMap<[u8; 32], (u64, Bytes)>,
    generation: u64,
}

impl Held {
    fn of_key(&self, key: KeyId) -> impl DoubleEndedIterator<Item = &SealedShare> {
        self.shares.range((key, 0)..=(key, u32::MAX)).map(|(_, share)| share)
    }

    fn pin(&self, tenant: Option<&Tenant>, peer: &PartyId) -> Option<[u8; 32]> {
        let fits = |pin: &&Pin| pin.tenant.as_ref() == tenant && pin.peer == *peer;
        self.pins.iter().find(fits).map(|pin| pin.identity)
    }
}

impl MemoryVault {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conflict<T>(why: &str) -> Result<T> {
    Err(Error::new(ErrorCode::Conflict, why))
}

#[async_trait]
impl Vault for MemoryVault {
    async fn contents(&self) -> Result<Contents> {
        let shares = self.held().shares.len() as u64;
        Ok(Contents { shares })
    }

    async fn unlock(&self, key: Arc<dyn VaultKey>, _: Unlock) -> Result<()> {
        if self.held().shares.values().any(|share| !key.opens(share)) {
            return Err(Error::invalid("the seal key or passphrase does not open its shares"));
        }
        Ok(())
    }

    async fn generation(&self) -> Result<u64> {
        Ok(self.held().generation)
    }

    async fn insert(&self, share: SealedShare) -> Result<()> {
        let mut held = self.held();
        let active = held.of_key(share.key_id).any(|held| held.state == ShareState::Active);
        let newest = held.of_key(share.key_id).next_back();
        if newest.is_some_and(|newest| !active || share.epoch <= newest.epoch) {
            return conflict(
                "the vault holds a share of this key, and only one of a later epoch comes after the \
                 one that signs",
            );
        }
        held.shares.insert((share.key_id, share.epoch), share);
        held.generation += 1;
        Ok(())
    }

    async fn activate(&self, key: KeyId, epoch: u32, confirmations: Vec<u8>) -> Result<()> {
        let mut held = self.held();
        let Some(share) = held.shares.get_mut(&(key, epoch)) else {
            return conflict("there is no such share to activate");
        };
        if share.state == ShareState::Active {
            return Ok(());
        }
        (share.state, share.confirmations) = (ShareState::Active, confirmations);
        held.shares.retain(|(of, at), _| *of != key || *at >= epoch);
        held.generation += 1;
        Ok(())
    }

    async fn discard(&self, key: KeyId, epoch: u32) -> Result<bool> {
        let mut held = self.held();
        let found = held.shares.remove(&(key, epoch)).is_some();
        held.generation += u64::from(found);
        Ok(found)
    }

    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>> {
        let held = self.held();
        let active = held.of_key(key).find(|share| share.state == ShareState::Active);
        Ok(active.or_else(|| held.of_key(key).next()).cloned())
    }

    async fn later_shares(&self, key: KeyId) -> Result<Vec<SealedShare>> {
        let held = self.held();
        let later = |share: &&SealedShare| share.state == ShareState::Pending && share.epoch > 0;
        Ok(held.of_key(key).filter(later).cloned().collect())
    }

    async fn shares(&self) -> Result<Vec<SealedShare>> {
        let mut shares: Vec<_> = self.held().shares.values().cloned().collect();
        for share in &mut shares {
            share.sealed.clear();
        }
        shares.sort_by_key(|share| {
            std::cmp::Reverse((share.record.created_at, share.key_id, share.epoch))
        });
        Ok(shares)
    }

    async fn pending(&self, tenant: &Tenant) -> Result<u64> {
        let held = self.held();
        let pending = held
            .shares
            .values()
            .filter(|share| share.state == ShareState::Pending && share.record.tenant == *tenant);
        Ok(pending.count() as u64)
    }

    async fn ban(&self, ban: Ban) -> Result<()> {
        let mut held = self.held();
        let known = held.bans.iter().any(|known| {
            (known.key_id, known.epoch, &known.peer) == (ban.key_id, ban.epoch, &ban.peer)
        });
        if !known {
            held.bans.push(ban);
            held.generation += 1;
        }
        Ok(())
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        Ok(self.held().bans.iter().filter(|ban| ban.key_id == key).cloned().collect())
    }

    async fn pinned(&self, tenant: &Tenant, peer: &PartyId) -> Result<Option<[u8; 32]>> {
        let held = self.held();
        Ok(held.pin(None, peer).or_else(|| held.pin(Some(tenant), peer)))
    }

    async fn pin(&self, pin: Pin) -> Result<[u8; 32]> {
        let mut held = self.held();
        if let Some(known) = held.pin(pin.tenant.as_ref(), &pin.peer) {
            return Ok(known);
        }
        let identity = pin.identity;
        held.pins.push(pin);
        Ok(identity)
    }

    async fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = self.held().pins.clone();
        pins.sort_by(|a, b| (&a.tenant, &a.peer).cmp(&(&b.tenant, &b.peer)));
        Ok(pins)
    }

    async fn unpin(&self, tenant: Option<&Tenant>, peer: &PartyId) -> Result<bool> {
        let mut held = self.held();
        let before = held.pins.len();
        held.pins.retain(|pin| pin.tenant.as_ref() != tenant || pin.peer != *peer);
        Ok(held.pins.len() < before)
    }

    async fn witnessed(&self, identity: &[u8; 32]) -> Result<Option<(u64, Bytes)>> {
        Ok(self.held().witnessed.get(identity).cloned())
    }

    async fn witness(&self, identity: [u8; 32], generation: u64, handshake: Bytes) -> Result<()> {
        let mut held = self.held();
        let known = held.witnessed.entry(identity).or_insert((generation, handshake.clone()));
        if known.0 < generation {
            *known = (generation, handshake);
        }
        Ok(())
    }
}
