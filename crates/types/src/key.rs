//! Keys: what everybody may know of them.

use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{KeyId, PartyId, SessionId, Tenant};
use crate::scheme::{PublicKey, Scheme};
use crate::threshold::Threshold;
use crate::time::Timestamp;

/// One epoch of a key: what its holders need to know to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEpoch {
    /// The key.
    pub key_id: KeyId,
    /// Counts the refreshes of the key, from 0.
    #[serde(default)]
    pub epoch: u32,
    /// Its scheme.
    pub scheme: Scheme,
    /// Signers needed and holders.
    pub threshold: Threshold,
    /// The verifying key.
    pub public_key: PublicKey,
    /// The holders; position + 1 is the share index.
    pub holders: Vec<PartyId>,
}

/// Length of one holder's confirmation in bytes.
pub const CONFIRMATION: usize = 64;

/// What all holders of a key have signed of one of its epochs: the proof that each of them has its
/// share of this key and of no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The execution that made the epoch.
    pub execution: [u8; 32],
    /// The holders' Ed25519 identities, in their order.
    pub identities: Vec<[u8; 32]>,
    /// Their signatures, [`CONFIRMATION`] bytes each, in their order.
    pub confirmations: Vec<u8>,
}

/// The public side of a key: everything but the shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its current epoch.
    #[serde(flatten)]
    pub key: Arc<KeyEpoch>,
    /// Who owns it.
    pub tenant: Tenant,
    /// When the last holder confirmed its share.
    pub created_at: Timestamp,
}

impl Deref for KeyRecord {
    type Target = KeyEpoch;

    fn deref(&self) -> &KeyEpoch {
        &self.key
    }
}

/// How a key came to one of its epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Which: 0 is the keygen's, each refresh makes the next.
    pub epoch: u32,
    /// The session that made it.
    pub session_id: SessionId,
    /// When its last holder reported it.
    pub made_at: Timestamp,
    /// What its holders signed of it. Absent where one of them took part without an identity, and
    /// for keys of earlier versions.
    pub attestation: Option<Attestation>,
}

/// Whether a key signs, as far as its coordinator can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Enough holders sign with each other.
    Active,
    /// Bans leave no set of holders that is large enough: the key needs a refresh.
    Locked,
}

impl KeyState {
    /// Its name for people and wires.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Locked => "locked",
        }
    }
}

impl FromStr for KeyState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = [Self::Active, Self::Locked].into_iter().find(|state| state.name() == text);
        named.ok_or_else(|| Error::invalid_field("state", "a key is active or locked"))
    }
}

/// A holder's word that it signs no more with another one under an epoch of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedBan {
    /// The key.
    pub key_id: KeyId,
    /// The epoch it holds for: a refresh ends it.
    pub epoch: u32,
    /// Who says so.
    pub reporter: PartyId,
    /// Whom it found at fault.
    pub peer: PartyId,
    /// What the other did, in the reporter's words.
    pub reason: String,
    /// The session in which it happened.
    pub session_id: SessionId,
    /// When it was reported.
    pub at: Timestamp,
}

/// A key with its epochs and what its holders have reported of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// The key in its active epoch.
    pub record: KeyRecord,
    /// Whether it signs.
    pub state: KeyState,
    /// Oldest first; the last one is active, those before it are retired.
    pub epochs: Vec<EpochRecord>,
    /// Oldest first.
    pub bans: Vec<ReportedBan>,
}
