//! What a party knows for good: its identity, its shares, its pinned peers, its bans.

mod answer;
mod bans;
mod export;
mod files;
mod open;
mod package;

pub use files::{make as make_secret_file, random as secret_seed, secret as secret_file};
pub use open::SealSource;
pub(crate) use package::carried_bans;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use quorate_engine::{Identity, SealContext, SealKey, Share, Shown};
use quorate_participant::{Bans, Me, NewShare, OpenKey, Standing, shown};
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, SealedShare, ShareState};
use quorate_types::*;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::compute::Compute;

/// Opened shares kept in memory.
const OPEN_SHARES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Shortest passphrase of a new party or an exported share, in bytes.
const MIN_PASSPHRASE: usize = 10;

/// Pinned identities kept in memory, in front of the vault: a few thousand peers cost 400 kB.
const PINS_LEN: usize = 4096;

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
    bans: Arc<Bans>,
    /// Counts the bans made by this process.
    changes: watch::Sender<u64>,
    /// Names this process in handshakes.
    process: [u8; 16],
    /// Runs that may still find a fault, and bans on their way to the vault.
    writes: TaskTracker,
}

struct Memory {
    /// The least recently used leaves first.
    open: LruCache<KeyId, Arc<OpenKey>>,
    pins: HashMap<(Tenant, PartyId), [u8; 32]>,
    /// The newest generation that each peer has shown, and in which process, in front of the vault.
    generations: HashMap<[u8; 32], Standing>,
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
            open: LruCache::new(OPEN_SHARES),
            pins: HashMap::new(),
            generations: HashMap::new(),
        };
        Self {
            bans: Arc::new(Bans::new(party.clone())),
            party,
            identity: Arc::new(identity),
            seal,
            vault,
            memory: Mutex::new(memory),
            changes: watch::Sender::new(0),
            process,
            writes: TaskTracker::new(),
        }
    }

    /// Whose keyring this is.
    pub fn party(&self) -> &PartyId {
        &self.party
    }

    /// Where it keeps what it must not forget.
    pub(crate) fn vault(&self) -> &Arc<dyn Vault> {
        &self.vault
    }

    /// The party's identity.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The party as its sessions know it.
    pub fn me(&self) -> Me {
        let (party, identity) = (self.party.clone(), Arc::clone(&self.identity));
        Me { party, identity, bans: Arc::clone(&self.bans) }
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
        bans.extend(self.bans.unwritten(&share));
        Ok(Some((share, bans)))
    }

    /// Opens the share of a key; `None` when there is none.
    ///
    /// # Errors
    /// The vault's, or `internal_error` when the sealed share does not open.
    pub async fn key(&self, key: KeyId, compute: &Compute) -> Result<Option<Arc<OpenKey>>> {
        if let Some(open) = self.memory().open.get(&key).cloned() {
            return Ok(Some(open));
        }
        let Some(stored) = self.vault.share(key).await? else { return Ok(None) };
        let waiting = match stored.state {
            ShareState::Active => self.vault.later_shares(key).await?,
            _ => Vec::new(),
        };
        let bans = self.vault.bans(key).await?;
        let mut later = Vec::with_capacity(waiting.len());
        for share in waiting {
            later.push(self.opened(share, bans.clone(), compute).await?);
        }
        let open = self.opened(stored, bans, compute).await?;
        let open = if later.is_empty() { open } else { Arc::new(open.followed_by(later)) };
        self.memory().open.put(key, Arc::clone(&open));
        Ok(Some(open))
    }

    async fn opened(
        &self,
        mut stored: SealedShare,
        bans: Vec<Ban>,
        compute: &Compute,
    ) -> Result<Arc<OpenKey>> {
        let sealed = std::mem::take(&mut stored.sealed);
        let (seal, party) = (Arc::clone(&self.seal), self.party.clone());
        let (key_id, epoch) = (stored.key_id, stored.epoch);
        let share = compute
            .run(move || {
                let context = SealContext { party_id: &party, key_id, epoch };
                Share::open(&sealed, &seal, &context)
            })
            .await?;
        Ok(Arc::new(OpenKey::new(Arc::new(share), stored, bans)))
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
        self.insert(Arc::new(share), stored, Vec::new(), compute).await
    }

    fn index_among(&self, holders: &[PartyId]) -> Result<ShareIndex> {
        let own =
            |(holder, index): (&PartyId, u8)| (*holder == self.party).then_some(ShareIndex(index));
        holders.iter().zip(1_u8..).find_map(own).ok_or_else(Error::internal)
    }

    async fn insert(
        &self,
        share: Arc<Share>,
        mut stored: SealedShare,
        bans: Vec<Ban>,
        compute: &Compute,
    ) -> Result<Arc<OpenKey>> {
        let (seal, party) = (Arc::clone(&self.seal), self.party.clone());
        let (key_id, epoch) = (stored.key_id, stored.epoch);
        let sealing = Arc::clone(&share);
        let sealed = compute.run(move || {
            let context = SealContext { party_id: &party, key_id, epoch };
            sealing.seal(&seal, &context)
        });
        stored.sealed = sealed.await?;
        self.vault.insert(stored.clone()).await?;
        stored.sealed = Vec::new();
        Ok(self.remember(Arc::new(OpenKey::new(share, stored, bans))))
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
        let open = key.activated(confirmations);
        let mut memory = self.memory();
        let open = match memory.open.get(&key_id).cloned() {
            // Also with what was kept since the share was opened.
            Some(current) => {
                let waits = |share: &&Arc<OpenKey>| share.stored.epoch > epoch;
                let later = current.later().iter().filter(waits).cloned().collect();
                let open = Arc::new(open.followed_by(later));
                if current.stored.epoch <= epoch {
                    memory.open.put(key_id, Arc::clone(&open));
                }
                open
            }
            None => Arc::new(open),
        };
        drop(memory);
        Ok(open)
    }

    /// What this party shows of its vault when it joins.
    pub async fn shown(&self, key: Option<&Arc<OpenKey>>) -> Result<Shown> {
        Ok(shown(&self.identity, self.standing().await?, key))
    }

    async fn standing(&self) -> Result<Standing> {
        Ok((self.vault.generation().await?, self.process))
    }

    /// Keeps an open share in memory, beside the one that signs while it waits to follow it.
    fn remember(&self, open: Arc<OpenKey>) -> Arc<OpenKey> {
        let mut memory = self.memory();
        let SealedShare { key_id, epoch, .. } = open.stored;
        let current = memory.open.get(&key_id).filter(|current| current.stored.epoch < epoch);
        match current.cloned() {
            Some(current) => {
                let later = [current.later(), &[Arc::clone(&open)]].concat();
                memory.open.put(key_id, Arc::new(current.followed_by(later)));
            }
            // The one that signs may have left the memory: it is read again with this one.
            None if epoch > 0 && !open.active() => {}
            None => {
                memory.open.put(key_id, Arc::clone(&open));
            }
        }
        drop(memory);
        open
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
