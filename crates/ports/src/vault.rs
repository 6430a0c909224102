//! Where a party keeps its sealed shares, bans and pinned identities.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
pub use quorate_types::vault::{Ban, Pin, SealedShare, ShareState};
use quorate_types::*;

/// What can be known of a vault before it is unlocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Shares of whatever state.
    pub shares: u64,
}

/// Authenticates rows. Without it nobody can add, change or remove one unnoticed.
pub trait RowKey: Send + Sync {
    /// A 32-byte tag over `row` for one purpose.
    fn tag(&self, purpose: &str, row: &[u8]) -> [u8; 32];
}

/// Authenticates a vault's rows.
pub trait VaultKey: RowKey {
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
    async fn unlock(&self, key: Arc<dyn VaultKey>, how: Unlock) -> Result<()>;

    /// Counts the changes of shares, bans and what is noted of the ledger; only ever grows, unless an older vault was put back.
    async fn generation(&self) -> Result<u64>;

    /// Adds a share that is pending or active: of a key that is not here, or of a later epoch than
    /// all that are here, one of which is active. Nothing here replaces a share.
    ///
    /// # Errors
    /// `conflict` when a share of that or a later epoch is there, or none is active.
    async fn insert(&self, share: SealedShare) -> Result<()>;

    /// Makes a pending share the active one and retires all epochs before. Again: no change.
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

    /// The pending shares of epochs after a key's active one, oldest first.
    ///
    /// # Errors
    /// As [`Vault::share`].
    async fn later_shares(&self, key: KeyId) -> Result<Vec<SealedShare>>;

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
