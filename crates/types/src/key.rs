//! Keys: what everybody may know of them.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{KeyId, PartyId, SessionId, Tenant, is_name};
use crate::scheme::{PublicKey, Scheme};
use crate::threshold::Threshold;
use crate::time::Timestamp;
use crate::words::words;

/// One epoch of a key: what its holders need to know to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEpoch {
    /// The key's id, which is the id of its keygen session.
    pub key_id: KeyId,
    /// Counts the refreshes of the key, from 0.
    #[serde(default)]
    pub epoch: u32,
    /// The key's signature scheme.
    pub scheme: Scheme,
    /// Signers needed and holders.
    pub threshold: Threshold,
    /// The verifying key.
    pub public_key: PublicKey,
    /// The holders; position + 1 is the share index.
    pub holders: Vec<PartyId>,
}

/// What a key is called: 1 to 64 of `A–Z a–z 0–9 - _ . : @ +`. The request to make it says so, each
/// party that checks requests keeps it with its share, and policies may be about it. Nothing changes
/// it, and several keys may have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyLabel(Arc<str>);

/// Longest label of a key, in bytes.
const MAX_LABEL: usize = 64;

impl KeyLabel {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyLabel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() <= MAX_LABEL && is_name(text) {
            return Ok(Self(text.into()));
        }
        let problem = format!("a label is 1 to {MAX_LABEL} letters, digits or -_.:@+");
        Err(Error::invalid_field("label", problem))
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for KeyLabel {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<KeyLabel> for String {
    fn from(label: KeyLabel) -> Self {
        label.0.as_ref().to_owned()
    }
}

/// Length of one holder's confirmation in bytes.
pub const CONFIRMATION: usize = 64;

/// What all holders of a key have signed of one of its epochs: the proof that each of them has its
/// share of this key and of no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The execution that made the epoch.
    #[serde(with = "crate::text")]
    pub execution: [u8; 32],
    /// The holders' Ed25519 identities, in their order.
    pub identities: Vec<[u8; 32]>,
    /// Their signatures, [`CONFIRMATION`] bytes each, in their order.
    #[serde(with = "crate::text")]
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
    /// What it is called, where it was given a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<KeyLabel>,
    /// Set while nothing is signed with it. Its coordinator keeps that beside the record; a
    /// holder's record never says so.
    #[serde(skip)]
    pub frozen: Option<Freeze>,
}

/// By whom a key was frozen, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// The caller, as far as the coordinator knows it.
    pub by: String,
    /// Wall time of the freeze.
    pub at: Timestamp,
    /// What the caller gave as the reason, at most [`MAX_FREEZE_REASON`] bytes; may be empty.
    pub reason: String,
}

/// Longest reason of a freeze, in bytes.
pub const MAX_FREEZE_REASON: usize = 256;

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

words! {
    /// Whether a key signs, as far as its coordinator can tell.
    KeyState("state") {
        /// Enough holders sign with each other.
        Active = "active",
        /// Bans leave no set of holders that is large enough: the key needs a refresh.
        Locked = "locked",
        /// Its owner lets nothing be signed or refreshed until it is unfrozen.
        Frozen = "frozen",
    }
}

/// A holder's word that it signs no more with another one under an epoch of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedBan {
    /// The id of the key to which the ban belongs.
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
    /// Bans between holders, oldest first.
    pub bans: Vec<ReportedBan>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let before = r#"{"key_id":"550e8400-e29b-41d4-a716-446655440000","epoch":0,"scheme":"ed25519","threshold":{"t":2,"n":2},"public_key":[0],"holders":["a","b"],"tenant":"default","created_at":5}"#;
        let read: KeyRecord = serde_json::from_str(before).unwrap();
        assert_eq!(read.label, None);
        assert_eq!(read.public_key, PublicKey(vec![0]));
        let named = KeyRecord { label: Some("treasury".parse().unwrap()), ..read };
        let text = serde_json::to_string(&named).unwrap();
        assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), named);
    }

    #[test]
    fn a_label_is_a_short_word() {
        for label in ["treasury", "a", "eu-west.hot_1", &"x".repeat(64)] {
            assert_eq!(label.parse::<KeyLabel>().unwrap().as_str(), label);
        }
        for wrong in ["", "two words", "\u{e9}", &"x".repeat(65)] {
            let refused = wrong.parse::<KeyLabel>().unwrap_err();
            assert!(refused.details.fields.contains_key("label"), "{wrong}");
        }
    }
}
