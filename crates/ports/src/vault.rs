//! What a party keeps on its own machine: sealed shares, bans and pinned identities.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_types::*;

/// How far a share has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareState {
    /// Made, and not confirmed by all holders: it signs no inputs.
    Pending,
    /// Signs.
    Active,
    /// Replaced by a later epoch; its sealed bytes are gone.
    Retired,
}

impl ShareState {
    /// Its name for people and wires.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

/// A sealed share. Only the party can open it; the vault sees bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedShare {
    /// The key this is a share of.
    pub key_id: KeyId,
    /// Changes with every refresh or reshare, from 0.
    pub epoch: u32,
    /// Whether it signs.
    pub state: ShareState,
    /// The key's public side.
    pub record: KeyRecord,
    /// Identity keys of the holders, in their order: pinned when the key was made.
    pub identities: Vec<[u8; 32]>,
    /// The execution id of the run that made it; zeros where it was made before this was kept.
    pub execution: [u8; 32],
    /// The holders' confirmations, 64 bytes each in their order. Empty while there are not all.
    pub confirmations: Vec<u8>,
    /// Which holder this party is.
    pub share_index: ShareIndex,
    /// The share, sealed with party, key and epoch as associated data.
    pub sealed: Vec<u8>,
}

impl SealedShare {
    /// What all holders have signed of this epoch, once they have.
    pub fn attestation(&self) -> Option<Attestation> {
        (!self.confirmations.is_empty()).then(|| Attestation {
            execution: self.execution,
            identities: self.identities.clone(),
            confirmations: self.confirmations.clone(),
        })
    }
}

/// A holder this party must not sign with under this key until a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The key.
    pub key_id: KeyId,
    /// The epoch the ban belongs to.
    pub epoch: u32,
    /// Whom.
    pub peer: PartyId,
    /// What it did.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The messages it signed, by which the fault was found. None for a ban that was taken in with
    /// an exported share.
    pub evidence: Vec<Bytes>,
}

/// An identity that a name must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Whose sessions it counts in; `None` for a name that the operator has bound for all.
    pub tenant: Option<Tenant>,
    /// The name.
    pub peer: PartyId,
    /// Its Ed25519 public key.
    pub identity: [u8; 32],
}

/// What can be known of a vault before it is unlocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Shares of whatever state.
    pub shares: u64,
}

/// Authenticates a vault's rows. Without it nobody can add, change or remove one unnoticed.
pub trait RowKey: Send + Sync {
    /// A 32-byte tag over `row` for one purpose.
    fn tag(&self, purpose: &str, row: &[u8]) -> [u8; 32];

    /// Whether this party's seal key opens the share.
    fn opens(&self, share: &SealedShare) -> bool;
}

/// How a vault is unlocked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlock {
    /// The rows were authenticated before: a vault without that is not the one that was here.
    pub known: bool,
    /// Take the rows as they are, whatever was changed or is older, and start a new generation.
    pub accept_rollback: bool,
}

/// Durable state of one party. Every method returns after the change is on disk.
///
/// All methods but [`Vault::contents`] want an unlocked vault.
#[async_trait]
pub trait Vault: Send + Sync + 'static {
    /// What is there.
    async fn contents(&self) -> Result<Contents>;

    /// Checks that all rows are those that were written last under `key`. Rows of an older format
    /// are authenticated when one of their shares opens.
    ///
    /// # Errors
    /// `invalid_request` when the key is another or a row was changed, added or removed.
    async fn unlock(&self, key: Arc<dyn RowKey>, how: Unlock) -> Result<()>;

    /// Counts the changes of shares and bans; only ever grows, unless an older vault was put back.
    async fn generation(&self) -> Result<u64>;

    /// Adds a share that is pending or active: of a key that is not here, or of the epoch after the
    /// active one. Nothing here replaces a share.
    ///
    /// # Errors
    /// `conflict` when a share of that or a later epoch is there, or the epoch before is not.
    async fn insert(&self, share: SealedShare) -> Result<()>;

    /// Makes a pending share the active one and retires the epoch before. Again: no change.
    ///
    /// # Errors
    /// `conflict` when that epoch is not here or is retired.
    async fn activate(&self, key: KeyId, epoch: u32, confirmations: Vec<u8>) -> Result<()>;

    /// Removes a share for good, on its owner's word only. `false` when it is not there.
    async fn discard(&self, key: KeyId, epoch: u32) -> Result<bool>;

    /// The active share of a key, else the pending one.
    ///
    /// # Errors
    /// `internal_error` naming the key when the row is damaged.
    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>>;

    /// All shares that are not retired, newest first, without their sealed bytes.
    async fn shares(&self) -> Result<Vec<SealedShare>>;

    /// How many pending shares a tenant's keys have here.
    async fn pending(&self, tenant: &Tenant) -> Result<u64>;

    /// Adds a ban. Of two bans of one peer under one epoch the first stays.
    async fn ban(&self, ban: Ban) -> Result<()>;

    /// Bans under a key.
    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>>;

    /// The identity that a name must show in a tenant's sessions, if one is pinned: the operator's
    /// pin comes before the tenant's.
    async fn pinned(&self, tenant: &Tenant, peer: &PartyId) -> Result<Option<[u8; 32]>>;

    /// Pins an identity unless the name has a pin in that place; answers with the one pinned.
    async fn pin(&self, pin: Pin) -> Result<[u8; 32]>;

    /// All pins, by tenant and name.
    async fn pins(&self) -> Result<Vec<Pin>>;

    /// Drops a name's pin. `false` when there is none.
    async fn unpin(&self, tenant: Option<&Tenant>, peer: &PartyId) -> Result<bool>;

    /// The latest handshake of a peer that this party has seen, with its generation.
    async fn witnessed(&self, identity: &[u8; 32]) -> Result<Option<(u64, Bytes)>>;

    /// Keeps a peer's handshake unless a later generation is known.
    async fn witness(&self, identity: [u8; 32], generation: u64, handshake: Bytes) -> Result<()>;
}
