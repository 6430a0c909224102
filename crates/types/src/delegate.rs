//! Delegates: for whom one takes a seat, the key to which it seals what it makes there, and what a
//! user lends it to sign with.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{PartyId, SessionId};
use crate::secret::Secret;
use crate::threshold::PartyIndex;
use crate::words::words;

/// Longest sealed package of a share, in bytes: a share takes 50 to 500 kB.
pub const MAX_PACKAGE: usize = 1 << 20;

words! {
    /// How a key agrees on what seals a package: HPKE with HKDF-SHA256 in both.
    Kem("kem") {
        /// DHKEM(X25519, HKDF-SHA256) with ChaCha20-Poly1305.
        X25519 = "x25519",
        /// DHKEM(P-256, HKDF-SHA256) with AES-256-GCM.
        P256 = "p256",
    }
}

impl Kem {
    /// Length of its public keys in bytes: raw for X25519, an uncompressed SEC1 point for P-256.
    pub const fn key_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P256 => 65,
        }
    }
}

/// A public key to which packages are sealed: the wires' `seal_key`. Of the right length; whether
/// it is a point is asked where something is sealed to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct PackageKey {
    kem: Kem,
    key: Bytes,
}

impl PackageKey {
    /// A key of this kind from its bytes.
    ///
    /// # Errors
    /// `invalid_request` naming `seal_key` when the length is another.
    pub fn new(kem: Kem, key: impl Into<Bytes>) -> Result<Self> {
        let key = key.into();
        if key.len() == kem.key_len() {
            return Ok(Self { kem, key });
        }
        let problem = match kem {
            Kem::X25519 => "an x25519 seal_key is 32 bytes",
            Kem::P256 => "a p256 seal_key is an uncompressed point of 65 bytes",
        };
        Err(Error::invalid_field("seal_key", problem))
    }

    /// The key encapsulation mechanism of the key.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The public key, in the encoding of its mechanism.
    pub fn bytes(&self) -> &Bytes {
        &self.key
    }
}

/// A package key as documents spell it: the key in hex.
#[derive(Serialize, Deserialize)]
struct Parts {
    kem: Kem,
    key: String,
}

impl From<PackageKey> for Parts {
    fn from(PackageKey { kem, key }: PackageKey) -> Self {
        Self { kem, key: hex::encode(key) }
    }
}

impl TryFrom<Parts> for PackageKey {
    type Error = Error;

    fn try_from(Parts { kem, key }: Parts) -> Result<Self> {
        let key = hex::decode(key);
        let key = key.map_err(|_| Error::invalid_field("seal_key", "a seal_key is hex"))?;
        Self::new(kem, key)
    }
}

/// For whom a delegate takes a seat. The user, not the delegate, is the holder of its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnBehalfOf {
    /// The name of the user among the holders of the key.
    pub user_id: PartyId,
    /// Keygen: the key to which the delegate seals the user's package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_key: Option<PackageKey>,
}

/// A token with which a user fetches its package: url-safe base64 of the session id and 256 secret
/// bits. The creator of the session gets it.
pub type FetchToken = Secret<String>;

/// What a delegate hands in for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitShare {
    /// The id of the keygen session.
    pub session_id: SessionId,
    /// The id of the delegate that submits the package.
    pub party_id: PartyId,
    /// Its place, from 0.
    pub party_index: PartyIndex,
    /// The key that was made, in any encoding its scheme knows.
    pub public_key: Vec<u8>,
    /// The user's package, sealed to its key.
    pub package: Bytes,
}

/// Which package a user means, and its right to it.
#[derive(Clone)]
pub struct FetchShare {
    /// The id of the keygen session.
    pub session_id: SessionId,
    /// The delegate that has made it, or the user.
    pub party_id: PartyId,
    /// The fetch token of that seat.
    pub token: FetchToken,
}

/// A package as its user fetches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegatedShare {
    /// The id of the keygen session.
    pub session_id: SessionId,
    /// The delegate that has made it.
    pub party_id: PartyId,
    /// The user that holds the share.
    pub user_id: PartyId,
    /// The holder's place, from 0.
    pub party_index: PartyIndex,
    /// The package, sealed to the user's key.
    pub package: Bytes,
}

/// The key to which users seal what they lend a delegate, as the delegate registers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegateKey {
    /// The key.
    pub key: PackageKey,
    /// The signature of the delegate's identity over its name and the key.
    pub signature: KeySignature,
}

/// An Ed25519 signature under a delegate's key: hex in documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeySignature(pub [u8; 64]);

impl KeySignature {
    /// A signature from the bytes of a wire.
    ///
    /// # Errors
    /// `invalid_request` naming `delegate_key` when they are not 64.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let wrong = |_| Error::invalid_field("delegate_key", "a signature is 64 bytes");
        bytes.try_into().map(Self).map_err(wrong)
    }
}

impl From<KeySignature> for String {
    fn from(signature: KeySignature) -> Self {
        hex::encode(signature.0)
    }
}

impl TryFrom<String> for KeySignature {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::read(&hex::decode(text).unwrap_or_default())
    }
}

/// A share that a user lends a delegate for one signed request: the wires' `delegate_user_share`.
#[derive(Clone, PartialEq, Eq)]
pub struct LentShare {
    /// The delegate, to whose key it is sealed.
    pub delegate: PartyId,
    /// The user's place among the holders of the key, from 0.
    pub holder_index: PartyIndex,
    /// The package of the user's share, bound to the request.
    pub package: Bytes,
}

impl fmt::Debug for LentShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (delegate, index) = (&self.delegate, self.holder_index.0);
        write!(f, "LentShare({delegate}, {index}, {} bytes)", self.package.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_key_has_the_length_of_its_kind_and_survives_its_document() {
        for &kem in Kem::ALL {
            assert_eq!(kem.name().parse::<Kem>().unwrap(), kem);
            let key = PackageKey::new(kem, vec![4; kem.key_len()]).unwrap();
            let text = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<PackageKey>(&text).unwrap(), key);
            for length in [0, kem.key_len() - 1, kem.key_len() + 1] {
                let refused = PackageKey::new(kem, vec![4; length]).unwrap_err();
                assert!(refused.details.fields.contains_key("seal_key"), "{kem} {length}");
            }
        }
        let refused = "rsa".parse::<Kem>().unwrap_err();
        assert!(refused.details.fields.contains_key("kem"));
    }
}
