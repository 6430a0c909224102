//! What a party knows for good: its identity, its shares, its pinned peers, its bans.

mod bans;
mod cache;
mod export;
mod files;
mod open;

pub use files::{make as make_secret_file, secret as secret_file};
pub use open::SealSource;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use quorate_engine::{Identity, SealContext, SealKey, Share, Shown, standing};
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, Pin, SealedShare, ShareState};
use quorate_schemes::Statement;
use quorate_types::*;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::compute::Compute;
use bans::NewBan;
use cache::ShareCache;

/// The epoch of a key that a keygen has just made.
pub(crate) const FIRST_EPOCH: u32 = 0;

/// Opened shares kept in memory.
const OPEN_SHARES: usize = 64;

/// Shortest passphrase of a new party or an exported share, in bytes.
const MIN_PASSPHRASE: usize = 10;

/// Shares of one tenant that may wait for confirmations. A keygen that breaks off in its last round
/// leaves one, of 50 to 500 kB, until its owner discards it.
const MAX_PENDING: u64 = 256;

/// Pinned identities kept in memory, in front of the vault: a few thousand peers cost 400 kB.
const PINS_LEN: usize = 4096;

/// A share ready to sign with, and what was stored beside it.
pub struct OpenKey {
    /// The share.
    pub share: Arc<Share>,
    /// Its key's public side, epoch and pinned holders, without the sealed bytes.
    pub stored: SealedShare,
    /// The bans that were in the vault when the share was opened.
    bans: Vec<Ban>,
}

impl OpenKey {
    /// The identity key that this holder had when the key was made.
    pub fn pinned(&self, holder: &PartyId) -> Option<[u8; 32]> {
        let position = self.stored.record.holders.iter().position(|p| p == holder)?;
        self.stored.identities.get(position).copied()
    }

    /// Whether all holders have confirmed that they keep their share.
    pub fn active(&self) -> bool {
        self.stored.state == ShareState::Active
    }

    /// What the holders confirm of this key.
    pub fn statement(&self) -> Statement {
        let SealedShare { record, execution, identities, .. } = &self.stored;
        Statement::new(&record.key, execution, identities)
    }
}

/// A share that a run has just made.
pub struct NewShare {
    /// The share.
    pub share: Share,
    /// Its key's public side.
    pub record: KeyRecord,
    /// The holders' identities, in their order.
    pub identities: Vec<[u8; 32]>,
    /// The id of the execution that made it.
    pub execution: [u8; 32],
}

/// A party's identity and everything sealed under its key.
///
/// Up to 64 opened shares stay in memory, the least recently used leaving first. Opening one costs
/// about a millisecond of AEAD and decoding; a share in memory is within reach of whoever reads
/// this process's memory, but so is the seal key, so the cache widens nothing and the bound is for
/// memory: a share takes 50 to 500 kB.
pub struct Keyring {
    party: PartyId,
    identity: Arc<Identity>,
    seal: Arc<SealKey>,
    vault: Arc<dyn Vault>,
    memory: Mutex<Memory>,
    /// Shared while something begins to leave, exclusive while a ban is set.
    order: RwLock<()>,
    changes: watch::Sender<u64>,
    /// Names this process in handshakes.
    process: [u8; 16],
    /// Runs that may still find a fault, and bans on their way to the vault.
    writes: TaskTracker,
}

struct Memory {
    open: ShareCache,
    pins: HashMap<(Tenant, PartyId), [u8; 32]>,
    /// The newest generation that each peer has shown, and in which process, in front of the vault.
    generations: HashMap<[u8; 32], (u64, [u8; 16])>,
    /// Bans made by this process: they hold even when the vault could not take them.
    bans: Vec<NewBan>,
}

impl Memory {
    fn pin(&mut self, name: (Tenant, PartyId), identity: [u8; 32]) {
        if self.pins.len() >= PINS_LEN {
            self.pins.clear();
        }
        self.pins.insert(name, identity);
    }
}

impl Keyring {
    /// A keyring from its parts, over a vault that is unlocked.
    pub fn new(party: PartyId, identity: Identity, seal: SealKey, vault: Arc<dyn Vault>) -> Self {
        Self::with(party, identity, Arc::new(seal), vault)
    }

    fn with(party: PartyId, identity: Identity, seal: Arc<SealKey>, vault: Arc<dyn Vault>) -> Self {
        let mut process = [0; 16];
        getrandom::fill(&mut process).expect("the system gives randomness");
        let memory = Memory {
            open: ShareCache::new(OPEN_SHARES),
            pins: HashMap::new(),
            generations: HashMap::new(),
            bans: Vec::new(),
        };
        Self {
            party,
            identity: Arc::new(identity),
            seal,
            vault,
            memory: Mutex::new(memory),
            order: RwLock::new(()),
            changes: watch::Sender::new(0),
            process,
            writes: TaskTracker::new(),
        }
    }

    /// Whose keyring this is.
    pub fn party(&self) -> &PartyId {
        &self.party
    }

    /// The party's identity.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The public side of every key this party can sign with, newest first.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>> {
        let active = |share: &SealedShare| share.state == ShareState::Active;
        let shares = self.vault.shares().await?.into_iter().filter(active);
        Ok(shares.map(|share| share.record).collect())
    }

    /// A key's share that is not retired, without its sealed bytes, and the bans under it.
    pub async fn held(&self, key: KeyId) -> Result<Option<(SealedShare, Vec<Ban>)>> {
        let Some(mut share) = self.vault.share(key).await? else { return Ok(None) };
        share.sealed = Vec::new();
        let mut bans = self.vault.bans(key).await?;
        bans.extend(self.unwritten(&share));
        Ok(Some((share, bans)))
    }

    /// Opens the share of a key; `None` when there is none.
    ///
    /// # Errors
    /// The vault's, or `internal_error` when the sealed share does not open.
    pub async fn key(&self, key: KeyId, compute: &Compute) -> Result<Option<Arc<OpenKey>>> {
        if let Some(open) = self.memory().open.get(key) {
            return Ok(Some(open));
        }
        let Some(mut stored) = self.vault.share(key).await? else { return Ok(None) };
        let bans = self.vault.bans(key).await?;
        let sealed = std::mem::take(&mut stored.sealed);
        let (seal, party, epoch) = (Arc::clone(&self.seal), self.party.clone(), stored.epoch);
        let share = compute
            .run(move || {
                let context = SealContext { party_id: &party, key_id: key, epoch };
                Share::open(&sealed, &seal, &context)
            })
            .await?;
        Ok(Some(self.remember(Arc::new(share), stored, bans)))
    }

    /// Seals a new share and returns once it is on disk, pending.
    pub async fn store(&self, new: NewShare, compute: &Compute) -> Result<Arc<OpenKey>> {
        let NewShare { share, record, identities, execution } = new;
        let stored = SealedShare {
            key_id: record.key_id,
            epoch: record.epoch,
            state: ShareState::Pending,
            share_index: self.index_among(&record.holders)?,
            record,
            identities,
            execution,
            confirmations: Vec::new(),
            sealed: Vec::new(),
        };
        self.insert(share, stored, Vec::new(), compute).await
    }

    fn index_among(&self, holders: &[PartyId]) -> Result<ShareIndex> {
        let own =
            |(holder, index): (&PartyId, u8)| (*holder == self.party).then_some(ShareIndex(index));
        holders.iter().zip(1_u8..).find_map(own).ok_or_else(Error::internal)
    }

    async fn insert(
        &self,
        share: Share,
        mut stored: SealedShare,
        bans: Vec<Ban>,
        compute: &Compute,
    ) -> Result<Arc<OpenKey>> {
        let (seal, party) = (Arc::clone(&self.seal), self.party.clone());
        let (key_id, epoch) = (stored.key_id, stored.epoch);
        let (share, sealed) = compute
            .run(move || {
                let context = SealContext { party_id: &party, key_id, epoch };
                let sealed = share.seal(&seal, &context);
                (share, sealed)
            })
            .await;
        stored.sealed = sealed?;
        self.vault.insert(stored.clone()).await?;
        stored.sealed = Vec::new();
        Ok(self.remember(Arc::new(share), stored, bans))
    }

    /// Lets a share sign, once `confirmations` are those of all holders.
    ///
    /// # Errors
    /// `conflict` when they are not, and the vault's.
    pub async fn activate(&self, key: &OpenKey, confirmations: Vec<u8>) -> Result<Arc<OpenKey>> {
        let SealedShare { key_id, epoch, .. } = key.stored;
        if !key.statement().confirmed_by(&confirmations) {
            let why = format!("key {key_id} is not confirmed by all its holders");
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        self.vault.activate(key_id, epoch, confirmations.clone()).await?;
        let state = ShareState::Active;
        let stored = SealedShare { state, confirmations, ..key.stored.clone() };
        Ok(self.remember(Arc::clone(&key.share), stored, key.bans.clone()))
    }

    /// What this party shows of its vault when it joins.
    pub async fn shown(&self, key: Option<&OpenKey>) -> Result<Shown> {
        let generation = self.vault.generation().await?;
        let shown = Shown { generation, process: self.process, ..Shown::default() };
        let Some(OpenKey { stored, .. }) = key else { return Ok(shown) };
        let (epoch, execution) = (stored.epoch, stored.execution);
        Ok(Shown { epoch, execution, confirmations: stored.confirmations.clone(), ..shown })
    }

    /// Refuses a peer whose vault is older than one that it has shown before. Of one process of the
    /// peer sessions may be seen in another order than it joined them.
    ///
    /// # Errors
    /// `conflict`, naming the peer and the way out.
    pub async fn check_generation(
        &self,
        peer: &PartyId,
        identity: [u8; 32],
        shown: &Shown,
        handshake: &Handshake,
    ) -> Result<()> {
        let Shown { generation, process, .. } = *shown;
        let known = self.memory().generations.get(&identity).copied();
        let (known, by) = match known {
            Some(known) => known,
            None => {
                let kept = self.vault.witnessed(&identity).await?;
                kept.and_then(|(_, handshake)| standing(&handshake)).unwrap_or_default()
            }
        };
        if generation < known && process == by {
            return Ok(());
        }
        if generation < known {
            let reason = format!(
                "its vault is older than the one it had (change {generation}, it was at {known})"
            );
            let message = format!(
                "{peer} may have forgotten bans: {reason}; put its newest folder back, or start it \
                 once with --accept-rollback and refresh its keys"
            );
            let blame = Blame { party_id: peer.clone(), reason };
            return Err(Error::new(ErrorCode::Conflict, message).blaming(blame));
        }
        if generation > known {
            let handshake = Bytes::copy_from_slice(handshake);
            self.vault.witness(identity, generation, handshake).await?;
        }
        let mut memory = self.memory();
        if memory.generations.len() >= PINS_LEN {
            memory.generations.clear();
        }
        memory.generations.insert(identity, (generation, process));
        Ok(())
    }

    /// Whether a tenant has as many unconfirmed shares here as it may.
    pub async fn too_many_pending(&self, tenant: &Tenant) -> Result<bool> {
        Ok(self.vault.pending(tenant).await? >= MAX_PENDING)
    }

    /// Whether the vault holds a share of a key, of whatever epoch.
    pub async fn holds(&self, key: KeyId) -> Result<bool> {
        Ok(self.vault.share(key).await?.is_some())
    }

    /// Compares a peer's identity with the one pinned for its name in a tenant's sessions. A name
    /// without a pin may show any.
    ///
    /// # Errors
    /// `forbidden` when they differ.
    pub async fn check_pin(
        &self,
        tenant: &Tenant,
        peer: &PartyId,
        identity: [u8; 32],
    ) -> Result<()> {
        let name = (tenant.clone(), peer.clone());
        let known = self.memory().pins.get(&name).copied();
        let pinned = match known {
            Some(pinned) => Some(pinned),
            None => self.vault.pinned(tenant, peer).await?,
        };
        let Some(pinned) = pinned else { return Ok(()) };
        if known.is_none() {
            self.memory().pin(name, pinned);
        }
        if pinned == identity {
            return Ok(());
        }
        Err(foreign_identity(peer, "it first made a key with"))
    }

    /// Pins the identities with which a key has just been made, in its tenant's sessions.
    ///
    /// # Errors
    /// `forbidden` where a name was pinned with another identity meanwhile.
    pub async fn pin_holders(
        &self,
        tenant: &Tenant,
        holders: impl IntoIterator<Item = (&PartyId, &[u8; 32])>,
    ) -> Result<()> {
        for (peer, identity) in holders {
            if peer == self.party() {
                continue;
            }
            let pinned = match self.vault.pinned(tenant, peer).await? {
                Some(pinned) => pinned,
                None => {
                    let (tenant, peer) = (Some(tenant.clone()), peer.clone());
                    self.vault.pin(Pin { tenant, peer, identity: *identity }).await?
                }
            };
            if pinned != *identity {
                return Err(foreign_identity(peer, "it first made a key with"));
            }
        }
        Ok(())
    }

    fn remember(&self, share: Arc<Share>, stored: SealedShare, bans: Vec<Ban>) -> Arc<OpenKey> {
        let open = Arc::new(OpenKey { share, stored, bans });
        self.memory().open.insert(Arc::clone(&open));
        open
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The refusal of a peer whose identity is not the one expected.
pub(crate) fn foreign_identity(peer: &PartyId, expected: &str) -> Error {
    let reason = format!("its identity key is not the one {expected}");
    let message = format!(
        "{peer} is not who it was: {reason}; if it lost its identity on purpose, give it a new \
         party id"
    );
    let blame = Blame { party_id: peer.clone(), reason };
    Error::new(ErrorCode::Forbidden, message).blaming(blame)
}

#[cfg(test)]
mod tests;
