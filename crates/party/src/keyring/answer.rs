//! Answers what sessions ask of the vault, through what is kept in memory in front of it.

use quorate_engine::standing;
use quorate_participant::{KnownPeer, Standing, VaultAction, VaultAnswer, Witness};
use quorate_ports::vault::Pin;
use quorate_types::*;

use super::{Keyring, PINS_LEN};
use crate::compute::Compute;

impl Keyring {
    /// Carries out one action; a write is on the disk when this returns.
    ///
    /// # Errors
    /// The vault's.
    pub(crate) async fn answer(
        &self,
        action: VaultAction,
        compute: &Compute,
    ) -> Result<VaultAnswer> {
        Ok(match action {
            VaultAction::CountShares { key, tenant } => VaultAnswer::Shares {
                held: self.vault.share(key).await?.is_some(),
                pending: self.vault.pending(&tenant).await?,
            },
            VaultAction::OpenKey(key) => VaultAnswer::Key(self.key(key, compute).await?),
            VaultAction::ReadStanding => VaultAnswer::Standing(self.standing().await?),
            VaultAction::FindPeers { tenant, peers } => {
                let mut known = Vec::with_capacity(peers.len());
                for (peer, identity) in peers {
                    let pin = self.pinned(&tenant, &peer).await?;
                    known.push(KnownPeer { pin, standing: self.witnessed(identity).await? });
                }
                VaultAnswer::Peers(known)
            }
            VaultAction::Witness(shown) => {
                for witness in shown {
                    self.witness(witness).await?;
                }
                VaultAnswer::Done
            }
            VaultAction::KeepShare(new) => {
                let kept = self.store(*new, compute).await.inspect_err(|error| {
                    tracing::error!(%error, "a new share could not be stored");
                });
                VaultAnswer::Key(Some(kept?))
            }
            VaultAction::Activate { key, confirmations } => {
                VaultAnswer::Key(Some(self.activate(&key, confirmations).await?))
            }
            VaultAction::Pin { tenant, peers } => {
                let mut pinned = Vec::with_capacity(peers.len());
                for (peer, identity) in peers {
                    pinned.push(self.pin(&tenant, peer, identity).await?);
                }
                VaultAnswer::Pinned(pinned)
            }
            VaultAction::StoreBans(key) => {
                self.store_bans(&key).await.inspect_err(|error| {
                    tracing::error!(%error, "a ban could not be stored: its key is locked until it is");
                })?;
                VaultAnswer::Done
            }
        })
    }

    /// The identity that a name must show in a tenant's sessions, if one is pinned.
    pub(super) async fn pinned(&self, tenant: &Tenant, peer: &PartyId) -> Result<Option<[u8; 32]>> {
        let name = (tenant.clone(), peer.clone());
        let known = self.memory().pins.get(&name).copied();
        if known.is_some() {
            return Ok(known);
        }
        let pinned = self.vault.pinned(tenant, peer).await?;
        if let Some(pinned) = pinned {
            self.memory().pin(name, pinned);
        }
        Ok(pinned)
    }

    /// Pins an identity in a tenant's sessions unless the name has a pin that counts there; answers
    /// with the one that is pinned.
    pub(super) async fn pin(
        &self,
        tenant: &Tenant,
        peer: PartyId,
        identity: [u8; 32],
    ) -> Result<[u8; 32]> {
        if let Some(pinned) = self.vault.pinned(tenant, &peer).await? {
            return Ok(pinned);
        }
        self.vault.pin(Pin { tenant: Some(tenant.clone()), peer, identity }).await
    }

    /// The newest standing that an identity has shown; zeros for none.
    pub(super) async fn witnessed(&self, identity: [u8; 32]) -> Result<Standing> {
        let known = self.memory().generations.get(&identity).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let kept = self.vault.witnessed(&identity).await?;
        Ok(kept.and_then(|(_, handshake)| standing(&handshake)).unwrap_or_default())
    }

    pub(super) async fn witness(&self, witness: Witness) -> Result<()> {
        let Witness { identity, standing, handshake } = witness;
        if let Some(handshake) = handshake {
            self.vault.witness(identity, standing.0, handshake).await?;
        }
        let mut memory = self.memory();
        if memory.generations.len() >= PINS_LEN {
            memory.generations.clear();
        }
        memory.generations.insert(identity, standing);
        Ok(())
    }
}
