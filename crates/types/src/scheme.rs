//! Signature schemes and their public values as bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

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
    /// Ed25519 (RFC 8032) of the message itself, without a prehash.
    Ed25519,
}

impl Scheme {
    /// Every scheme, for listings and tests.
    pub const ALL: &'static [Self] = &[Self::EcdsaSecp256k1, Self::Ed25519];

    /// The stable name on every wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaSecp256k1 => "ecdsa-secp256k1",
            Self::Ed25519 => "ed25519",
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

/// The 32 bytes that are signed: a hash, never a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "crate::text")] pub [u8; 32]);

/// A public key in its scheme's canonical form (secp256k1: 65 bytes, uncompressed SEC1; Ed25519:
/// 32 bytes).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(#[serde(with = "crate::text")] pub Vec<u8>);

/// A signature in its scheme's canonical form.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// Signature bytes (ECDSA: r ‖ s, 32 bytes each, big endian; Ed25519: R ‖ S, 32 bytes each).
    #[serde(with = "crate::text")]
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
