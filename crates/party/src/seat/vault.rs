//! Where a delegate keeps what belongs to a user's seat: shares in memory, bans on its disk.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, Contents, Pin, SealedShare, Unlock, VaultKey};
use quorate_types::*;

use crate::memory::MemoryVault;
use crate::session::Worker;

/// The vault of a seat. Who its peers are is known from the delegate's own vault, and its bans are
/// kept there, so that they outlive the seat.
pub(super) struct SeatVault {
    seat: MemoryVault,
    delegate: Arc<dyn Vault>,
}

impl SeatVault {
    pub(super) fn new(delegate: &Worker) -> Self {
        let delegate = Arc::clone(delegate.keyring.vault());
        Self { seat: MemoryVault::default(), delegate }
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

    async fn generation(&self) -> Result<u64> {
        self.seat.generation().await
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

    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        self.delegate.bans(key).await
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
