//! Signature schemes and their public values as bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::words::words;

words! {
    /// A signature scheme a key can be made for.
    #[derive(Default)]
    #[non_exhaustive]
    Scheme("scheme") {
        /// ECDSA over secp256k1 with low s and a recovery id.
        #[default]
        EcdsaSecp256k1 = "ecdsa-secp256k1",
        /// Ed25519 (RFC 8032) of the message itself, without a prehash.
        Ed25519 = "ed25519",
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
#[serde(try_from = "Parts", into = "Parts")]
pub enum Signature {
    /// ECDSA with the low s.
    Ecdsa {
        /// r ‖ s, 32 bytes each, big endian.
        rs: [u8; 64],
        /// Leads from signature and digest to the public key: 0 to 3.
        recovery_id: u8,
    },
    /// Ed25519: R ‖ S, 32 bytes each, as RFC 8032 encodes them.
    Eddsa([u8; 64]),
}

impl Signature {
    /// A signature from what the wires carry of it: ECDSA with its recovery id, Ed25519 without.
    ///
    /// # Errors
    /// `invalid_request` when it is not 64 bytes, or the recovery id is not 0 to 3.
    pub fn from_parts(bytes: &[u8], recovery_id: Option<u8>) -> Result<Self> {
        let length = "a signature is 64 bytes, and 65 with its recovery id";
        let bytes = bytes.try_into().map_err(|_| Error::invalid_field("signature", length))?;
        match recovery_id {
            None => Ok(Self::Eddsa(bytes)),
            Some(recovery_id @ 0..=3) => Ok(Self::Ecdsa { rs: bytes, recovery_id }),
            Some(_) => Err(Error::invalid_field("recovery_id", "a recovery id is 0, 1, 2 or 3")),
        }
    }

    /// The two halves of the signature.
    pub fn bytes(&self) -> &[u8; 64] {
        match self {
            Self::Ecdsa { rs, .. } => rs,
            Self::Eddsa(bytes) => bytes,
        }
    }

    /// The recovery id of an ECDSA signature.
    pub fn recovery_id(&self) -> Option<u8> {
        match self {
            Self::Ecdsa { recovery_id, .. } => Some(*recovery_id),
            Self::Eddsa(_) => None,
        }
    }
}

/// A signature in stored documents.
#[derive(Serialize, Deserialize)]
struct Parts {
    #[serde(with = "crate::text")]
    bytes: Vec<u8>,
    recovery_id: Option<u8>,
}

impl From<Signature> for Parts {
    fn from(signature: Signature) -> Self {
        Self { bytes: signature.bytes().to_vec(), recovery_id: signature.recovery_id() }
    }
}

impl TryFrom<Parts> for Signature {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self> {
        Self::from_parts(&parts.bytes, parts.recovery_id)
    }
}

/// A signature as a party or another program gives it: in its scheme's form, not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedSignature {
    /// The two halves of the signature.
    pub bytes: [u8; 64],
    /// The recovery id, where it was given.
    pub recovery_id: Option<u8>,
}

impl ReportedSignature {
    /// Whether it says what a signature says that has been verified.
    pub fn repeats(&self, known: &Signature) -> bool {
        self.bytes == *known.bytes()
            && self.recovery_id.is_none_or(|id| Some(id) == known.recovery_id())
    }
}

impl From<&Signature> for ReportedSignature {
    fn from(signature: &Signature) -> Self {
        Self { bytes: *signature.bytes(), recovery_id: signature.recovery_id() }
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}, {:?})", hex::encode(self.bytes()), self.recovery_id())
    }
}

macro_rules! hex_debug {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                f.write_str(&hex::encode(&self.0))?;
                f.write_str(")")
            }
        })*
    };
}
hex_debug!(Digest, PublicKey);
