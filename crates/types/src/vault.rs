//! What a party keeps on its own machine: sealed shares, bans and pinned identities.

use bytes::Bytes;

use crate::*;

/// How far a share has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareState {
    /// Made, and not confirmed by all holders: it signs no inputs.
    Pending,
    /// Confirmed by all holders: it signs.
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
    /// The key under which the ban holds.
    pub key_id: KeyId,
    /// The epoch the ban belongs to.
    pub epoch: u32,
    /// The holder that this party signs no more with.
    pub peer: PartyId,
    /// What it did.
    pub reason: String,
    /// When its fault was found.
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
    /// The name that is bound to the identity.
    pub peer: PartyId,
    /// Its Ed25519 public key.
    pub identity: [u8; 32],
}
