//! What a session asks of its party's vault, and what the vault answers.

use std::sync::Arc;

use quorate_types::{Handshake, KeyId, PartyId, Tenant};

use crate::key::{NewShare, OpenKey};

/// How far a peer's vault has come, as it was shown: its generation, and the process that had it
/// open.
pub type Standing = (u64, [u8; 16]);

/// A read or a write of the vault. A write is answered once it is on the disk.
pub enum VaultAction {
    /// Whether a share of a key is held, and how many unconfirmed shares a tenant has:
    /// [`VaultAnswer::Shares`].
    CountShares {
        /// The key of which a share may be held.
        key: KeyId,
        /// The tenant whose unconfirmed shares are counted.
        tenant: Tenant,
    },
    /// Opens the share of a key: [`VaultAnswer::Key`].
    OpenKey(KeyId),
    /// How often the vault has changed, and the process that has it open:
    /// [`VaultAnswer::Standing`].
    ReadStanding,
    /// What is known of these peers: [`VaultAnswer::Peers`], in the same order.
    FindPeers {
        /// In whose sessions their names are looked up.
        tenant: Tenant,
        /// Names, and the identity keys that they show.
        peers: Vec<(PartyId, [u8; 32])>,
    },
    /// Remembers how far peers' vaults have come: [`VaultAnswer::Done`].
    Witness(Vec<Witness>),
    /// Seals a new share and keeps it, pending: [`VaultAnswer::Key`].
    KeepShare(Box<NewShare>),
    /// Lets a share sign, with the confirmations of all holders: [`VaultAnswer::Key`].
    Activate {
        /// The pending share.
        key: Arc<OpenKey>,
        /// 64 bytes of each holder.
        confirmations: Vec<u8>,
    },
    /// Pins names that have no pin: [`VaultAnswer::Pinned`] with the identities that they have now.
    Pin {
        /// In whose sessions the pins count.
        tenant: Tenant,
        /// Names and identity keys.
        peers: Vec<(PartyId, [u8; 32])>,
    },
    /// Writes every ban under a key that is not on the disk: [`VaultAnswer::Done`].
    StoreBans(Arc<OpenKey>),
}

/// An answer of the vault.
pub enum VaultAnswer {
    /// The write is on the disk.
    Done,
    /// What is held already.
    Shares {
        /// A share of that key, of whatever epoch.
        held: bool,
        /// Unconfirmed shares of the tenant.
        pending: u64,
    },
    /// The open share; `None` when none is held.
    Key(Option<Arc<OpenKey>>),
    /// The vault's own standing.
    Standing(Standing),
    /// What is known of peers.
    Peers(Vec<KnownPeer>),
    /// The identity to which each name is pinned now.
    Pinned(Vec<[u8; 32]>),
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct KnownPeer {
    /// The identity that its name must show.
    pub pin: Option<[u8; 32]>,
    /// The newest standing that its identity has shown; zeros for none.
    pub standing: Standing,
}

/// A peer's vault as its signed handshake shows it.
pub struct Witness {
    /// The peer's identity key.
    pub identity: [u8; 32],
    /// What it shows.
    pub standing: Standing,
    /// The handshake, where it shows a later generation than was known: it is to be kept, as the
    /// proof of a rollback.
    pub handshake: Option<Handshake>,
}
