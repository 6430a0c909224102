//! What a party keeps on its own machine: sealed shares and bans.

use async_trait::async_trait;
use quorate_types::*;

/// A sealed share. Only the party can open it; the vault sees bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedShare {
    /// The key this is a share of.
    pub key_id: KeyId,
    /// Changes with every refresh or reshare, from 0.
    pub epoch: u32,
    /// The key's public side.
    pub record: KeyRecord,
    /// Identity keys of the holders, in their order: pinned when the key was made.
    pub identities: Vec<[u8; 32]>,
    /// Which holder this party is.
    pub share_index: ShareIndex,
    /// The share, sealed with party, key and epoch as associated data.
    pub sealed: Vec<u8>,
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
}

/// Durable state of one party. Every method returns after the change is on disk.
#[async_trait]
pub trait Vault: Send + Sync + 'static {
    /// Adds a share, or replaces the one of the epoch before: nothing else removes a share.
    ///
    /// # Errors
    /// `conflict` when a share of the same, a later or a much older epoch is there.
    async fn put_share(&self, share: SealedShare) -> Result<()>;

    /// One share.
    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>>;

    /// All shares, newest first, without their sealed bytes.
    async fn shares(&self) -> Result<Vec<SealedShare>>;

    /// Adds a ban.
    async fn ban(&self, ban: Ban) -> Result<()>;

    /// Bans under a key.
    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>>;

    /// Pins a peer's identity key at first sight; answers with the pinned one.
    async fn pin(&self, peer: &PartyId, identity: [u8; 32]) -> Result<[u8; 32]>;
}
