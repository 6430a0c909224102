//! Signature schemes and their public values as bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::{KeyId, PartyId, SessionId, Tenant};
use crate::threshold::Threshold;
use crate::time::Timestamp;

/// A signature scheme a key can be made for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Scheme {
    /// ECDSA over secp256k1 with low s and a recovery id.
    #[default]
    EcdsaSecp256k1,
}

impl Scheme {
    /// Every scheme, for listings and tests.
    pub const ALL: &'static [Self] = &[Self::EcdsaSecp256k1];

    /// The stable name on every wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaSecp256k1 => "ecdsa-secp256k1",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|s| s.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|s| s.name()).collect();
            Error::invalid_field("scheme", format!("unknown scheme; known: {}", names.join(", ")))
        })
    }
}

/// What a session makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// A key that never exists in one place.
    Keygen,
    /// A signature under such a key.
    Sign,
}

impl SessionKind {
    /// The wire's `session_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keygen => "keygen",
            Self::Sign => "sign",
        }
    }
}

impl FromStr for SessionKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "keygen" => Ok(Self::Keygen),
            "sign" => Ok(Self::Sign),
            _ => {
                Err(Error::invalid_field("session_type", "session_type is \"keygen\" or \"sign\""))
            }
        }
    }
}

/// The 32 bytes that are signed: a hash, never a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub [u8; 32]);

/// A public key in its scheme's canonical form (secp256k1: 65 bytes, uncompressed SEC1).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub Vec<u8>);

/// A signature in its scheme's canonical form.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// Signature bytes (ECDSA: r ‖ s, 32 bytes each, big endian).
    pub bytes: Vec<u8>,
    /// Recovery id (ECDSA: 0 to 3) where the scheme has one.
    pub recovery_id: Option<u8>,
}

macro_rules! hex_debug {
    ($($name:ident: $bytes:tt),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                for byte in self.$bytes.iter() {
                    write!(f, "{byte:02x}")?;
                }
                f.write_str(")")
            }
        })*
    };
}
hex_debug!(Digest: 0, PublicKey: 0, Signature: bytes);

/// The public side of a key: everything but the shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key's id, that of the session that made it.
    pub key_id: KeyId,
    /// Who owns it.
    pub tenant: Tenant,
    /// Its scheme.
    pub scheme: Scheme,
    /// Signers needed and holders.
    pub threshold: Threshold,
    /// The verifying key.
    pub public_key: PublicKey,
    /// The holders; position + 1 is the share index.
    pub holders: Vec<PartyId>,
    /// When the last holder confirmed its share.
    pub created_at: Timestamp,
}

/// A holder's word that it signs no more with another one under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedBan {
    /// The key.
    pub key_id: KeyId,
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

/// A key with what its holders have reported of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// The key.
    pub record: KeyRecord,
    /// Oldest first.
    pub bans: Vec<ReportedBan>,
}
