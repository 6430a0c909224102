//! Shares in packages: one that came in, whose user is its holder from now on, and one to be lent.

use std::sync::Arc;

use quorate_engine::{Holding, Package};
use quorate_ports::vault::{Ban, SealedShare, ShareState};
use quorate_types::*;

use super::Keyring;
use crate::compute::Compute;

/// The bans of a package.
pub(crate) fn carried_bans(holding: &Holding) -> Vec<Ban> {
    let (key_id, epoch) = (holding.key.key_id, holding.key.epoch);
    let ban = |(peer, reason, at): &(PartyId, String, Timestamp)| {
        let (peer, reason, evidence) = (peer.clone(), reason.clone(), Vec::new());
        Ban { key_id, epoch, peer, reason, at: *at, evidence }
    };
    holding.bans.iter().map(ban).collect()
}

impl Keyring {
    /// Takes in what a delegate has made for this keyring's party, with the bans of its share.
    ///
    /// # Errors
    /// `invalid_request` when the package is of another holder or identity; `conflict` when a share
    /// of that key is here already.
    pub async fn receive(&self, package: Package, compute: &Compute) -> Result<KeyRecord> {
        let Package { holding, identity, generation: _, share } = package;
        if holding.holder != self.party || identity.public() != self.identity.public() {
            let why = format!("this share belongs to {}, not to {}", holding.holder, self.party);
            return Err(Error::invalid_field("share", why));
        }
        let record = holding.record();
        let bans = carried_bans(&holding);
        let Holding { key, identities, execution, confirmations, .. } = holding;
        let (key_id, epoch) = (key.key_id, key.epoch);
        if self.vault.share(key_id).await?.is_some() {
            let why = format!("{} already holds a share of key {key_id}", self.party);
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        // Bans first: a share that is here without them could be used.
        for ban in &bans {
            self.vault.ban(ban.clone()).await?;
        }
        // A delegate's vault knows of those that other seats under the key have found, too.
        let bans = self.vault.bans(key_id).await?;
        let stored = SealedShare {
            key_id,
            epoch,
            state: ShareState::Active,
            share_index: share.share_index(),
            record: record.clone(),
            identities,
            execution,
            confirmations,
            sealed: Vec::new(),
        };
        self.insert(share, stored, bans, compute).await?;
        Ok(record)
    }

    /// The share of a key as a package, with the bans of its epoch: for a delegate that is to sign
    /// with it.
    ///
    /// # Errors
    /// `not_found` where no share of the key is held that signs; those of [`Keyring::key`].
    pub async fn package(&self, key: KeyId, compute: &Compute) -> Result<Package> {
        let open = self.key(key, compute).await?.filter(|open| open.active());
        let open = open.ok_or_else(|| Error::not_found("share of key", key))?;
        let stored = &open.stored;
        let bans = self.held(key).await?.map(|(_, bans)| bans).unwrap_or_default();
        let of_epoch = bans.into_iter().filter(|ban| ban.epoch == stored.epoch);
        let KeyRecord { key, tenant, created_at, label, frozen: _ } = stored.record.clone();
        let holding = Holding {
            holder: self.party.clone(),
            key: (*key).clone(),
            tenant,
            created_at,
            label,
            identities: stored.identities.clone(),
            execution: stored.execution,
            confirmations: stored.confirmations.clone(),
            bans: of_epoch.map(|ban| (ban.peer, ban.reason, ban.at)).collect(),
        };
        let (identity, share) = (Arc::clone(&self.identity), Arc::clone(&open.share));
        Ok(Package { holding, identity, generation: self.vault.generation().await?, share })
    }
}
