//! Where a delegate keeps what belongs to a user's seat: shares in memory, bans on its disk.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_engine::{Holding, Package};
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, Contents, Pin, SealedShare, Unlock, VaultKey};
use quorate_types::*;

use crate::memory::MemoryVault;
use crate::session::Worker;

/// The vault of a seat. Who its peers are is known from the delegate's own vault, and its bans are
/// kept there, so that they outlive the seat.
pub(super) struct SeatVault {
    holder: PartyId,
    seat: MemoryVault,
    delegate: Arc<dyn Vault>,
    lent: Option<Lent>,
}

/// What the holder has shown of its own vault.
struct Lent {
    key: (KeyId, u32),
    generation: u64,
    bans: usize,
}

impl SeatVault {
    /// The vault of a seat in which a share is made.
    pub(super) fn new(holder: PartyId, delegate: &Worker) -> Self {
        let delegate = Arc::clone(delegate.keyring.vault());
        Self { holder, seat: MemoryVault::default(), delegate, lent: None }
    }

    /// The vault of a seat for the share in a package.
    pub(super) fn lent(package: &Package, delegate: &Worker) -> Self {
        let Holding { holder, key, bans, .. } = &package.holding;
        let key = (key.key_id, key.epoch);
        let lent = Lent { key, generation: package.generation, bans: bans.len() };
        Self { lent: Some(lent), ..Self::new(holder.clone(), delegate) }
    }
}

#[async_trait]
impl Vault for SeatVault {
    async fn contents(&self) -> Result<Contents> {
        self.seat.contents().await
    }

    async fn unlock(&self, key: Arc<dyn VaultKey>, how: Unlock) -> Result<()> {
        self.seat.unlock(key, how).await
    }

    /// Of a lent share what its holder's own vault shows once it knows the bans that are known here:
    /// each counts as one change there.
    async fn generation(&self) -> Result<u64> {
        let Some(Lent { key: (key, epoch), generation, bans }) = &self.lent else {
            return self.seat.generation().await;
        };
        let known = self.bans(*key).await?;
        let known = known.iter().filter(|ban| ban.epoch == *epoch).count();
        Ok(generation + known.saturating_sub(*bans) as u64)
    }

    async fn insert(&self, share: SealedShare) -> Result<()> {
        self.seat.insert(share).await
    }

    async fn activate(&self, key: KeyId, epoch: u32, confirmations: Vec<u8>) -> Result<()> {
        self.seat.activate(key, epoch, confirmations).await
    }

    async fn discard(&self, key: KeyId, epoch: u32) -> Result<bool> {
        self.seat.discard(key, epoch).await
    }

    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>> {
        self.seat.share(key).await
    }

    async fn later_shares(&self, key: KeyId) -> Result<Vec<SealedShare>> {
        self.seat.later_shares(key).await
    }

    async fn shares(&self) -> Result<Vec<SealedShare>> {
        self.seat.shares().await
    }

    async fn pending(&self, tenant: &Tenant) -> Result<u64> {
        self.seat.pending(tenant).await
    }

    async fn ban(&self, ban: Ban) -> Result<()> {
        self.delegate.ban(ban).await
    }

    /// Those of all holders whose seats the delegate has taken: who has cheated one of them is not
    /// tried by another.
    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        let mut bans = self.delegate.bans(key).await?;
        bans.retain(|ban| ban.peer != self.holder);
        Ok(bans)
    }

    async fn pinned(&self, tenant: &Tenant, peer: &PartyId) -> Result<Option<[u8; 32]>> {
        self.delegate.pinned(tenant, peer).await
    }

    async fn pin(&self, pin: Pin) -> Result<[u8; 32]> {
        self.seat.pin(pin).await
    }

    async fn pins(&self) -> Result<Vec<Pin>> {
        self.seat.pins().await
    }

    async fn unpin(&self, tenant: Option<&Tenant>, peer: &PartyId) -> Result<bool> {
        self.seat.unpin(tenant, peer).await
    }

    async fn witnessed(&self, identity: &[u8; 32]) -> Result<Option<(u64, Bytes)>> {
        self.seat.witnessed(identity).await
    }

    async fn witness(&self, identity: [u8; 32], generation: u64, handshake: Bytes) -> Result<()> {
        self.seat.witness(identity, generation, handshake).await
    }
}
