//! Where a delegate keeps what belongs to a user's seat: shares in memory, bans on its disk.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_engine::{Holding, Package};
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, Contents, Pin, SealedShare, Unlock, VaultKey};
use quorate_types::*;

use super::KeepBan;
use crate::keyring::carried_bans;
use crate::memory::MemoryVault;
use crate::session::Worker;

/// The vault of a seat. Who its peers are is known from the delegate's own vault, and its bans are
/// kept there, so that they outlive the seat.
pub(super) struct SeatVault {
    holder: PartyId,
    seat: MemoryVault,
    delegate: Arc<dyn Vault>,
    keeper: Option<Arc<dyn KeepBan>>,
    lent: Option<Lent>,
}

/// What the holder has shown of its own vault.
struct Lent {
    key: (KeyId, u32),
    generation: u64,
    /// Those that its package carries.
    bans: Vec<Ban>,
}

fn same(one: &Ban, other: &Ban) -> bool {
    (one.key_id, one.epoch, &one.peer) == (other.key_id, other.epoch, &other.peer)
}

impl SeatVault {
    /// The vault of a seat in which a share is made.
    pub(super) fn new(holder: PartyId, delegate: &Worker, bans: Option<Arc<dyn KeepBan>>) -> Self {
        let delegate = Arc::clone(delegate.keyring.vault());
        Self { holder, seat: MemoryVault::default(), delegate, keeper: bans, lent: None }
    }

    /// The vault of a seat for the share in a package.
    pub(super) fn lent(
        package: &Package,
        delegate: &Worker,
        keeper: Option<Arc<dyn KeepBan>>,
    ) -> Self {
        let Holding { holder, key, .. } = &package.holding;
        let (key, bans) = ((key.key_id, key.epoch), carried_bans(&package.holding));
        let lent = Lent { key, generation: package.generation, bans };
        Self { lent: Some(lent), ..Self::new(holder.clone(), delegate, keeper) }
    }

    fn carried(&self) -> &[Ban] {
        self.lent.as_ref().map_or(&[], |lent| &lent.bans)
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
        Ok(generation + known.saturating_sub(bans.len()) as u64)
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

    /// What the package carries comes again with the next one: others are kept here.
    async fn ban(&self, ban: Ban) -> Result<()> {
        if self.carried().iter().any(|carried| same(carried, &ban)) {
            return Ok(());
        }
        if let Some(keeper) = &self.keeper {
            keeper.keep(ban.clone()).await?;
        }
        self.delegate.ban(ban).await
    }

    /// Those of all holders whose seats the delegate has taken: who has cheated one of them is not
    /// tried by another.
    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        let mut bans = self.delegate.bans(key).await?;
        let known = |carried: &&Ban| !bans.iter().any(|ban| same(ban, carried));
        let carried: Vec<_> = self.carried().iter().filter(known).cloned().collect();
        bans.extend(carried);
        bans.retain(|ban| ban.key_id == key && ban.peer != self.holder);
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
