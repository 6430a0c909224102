//! The keys by which devices know each other's messages.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier as _;
use quorate_types::{Error, PartyId, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The kinds of message signing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// Ed25519 (RFC 8032); the key is 32 bytes.
    Ed25519,
    /// ECDSA on P-256 over SHA-256; the key is a compressed SEC1 point, 33 bytes.
    EcdsaP256Sec1,
}

impl KeyType {
    /// Its name on links and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ED25519",
            Self::EcdsaP256Sec1 => "ECDSA_P256_SEC1",
        }
    }
}

impl FromStr for KeyType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ED25519" => Ok(Self::Ed25519),
            "ECDSA_P256_SEC1" => Ok(Self::EcdsaP256Sec1),
            _ => Err(Error::invalid_field("key_type", "a key is ED25519 or ECDSA_P256_SEC1")),
        }
    }
}

/// The public half of a message signer: `ED25519.<base64url>` or `ECDSA_P256_SEC1.<base64url>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerifyingKey {
    key_type: KeyType,
    bytes: Vec<u8>,
}

impl VerifyingKey {
    /// Checks a key. A P-256 point may be compressed or not; it is kept compressed.
    ///
    /// # Errors
    /// `invalid_request` when the bytes are no key of this type.
    pub fn new(key_type: KeyType, bytes: &[u8]) -> Result<Self> {
        let wrong = || Error::invalid_field("verifying_key", format!("no {} key", key_type.name()));
        let bytes = match key_type {
            KeyType::Ed25519 => {
                let array: [u8; 32] = bytes.try_into().map_err(|_| wrong())?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(&array).map_err(|_| wrong())?;
                if key.is_weak() {
                    return Err(wrong());
                }
                array.to_vec()
            }
            KeyType::EcdsaP256Sec1 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| wrong())?;
                key.to_sec1_point(true).as_bytes().to_vec()
            }
        };
        Ok(Self { key_type, bytes })
    }

    /// The kind of key.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The key as it enters message ids: 32 bytes, or 33 of a compressed point.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether this key signed the message.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        match self.key_type {
            KeyType::Ed25519 => {
                let key =
                    self.bytes.as_slice().try_into().map(ed25519_dalek::VerifyingKey::from_bytes);
                let signature = ed25519_dalek::Signature::from_bytes(signature);
                key.is_ok_and(|key| {
                    key.is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
                })
            }
            KeyType::EcdsaP256Sec1 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&self.bytes);
                let signature = p256::ecdsa::Signature::from_slice(signature);
                matches!((key, signature), (Ok(key), Ok(signature))
                    if key.verify(message, &signature).is_ok())
            }
        }
    }

    /// The name of the device with this key: half a SHA-256 of it.
    pub fn party_id(&self) -> PartyId {
        let mut hash = Sha256::new();
        hash.update(self.key_type.name());
        hash.update(&self.bytes);
        let name = format!("device-{}", hex::encode(&hash.finalize()[..16]));
        name.parse().expect("letters and digits")
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.key_type.name(), URL_SAFE_NO_PAD.encode(&self.bytes))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifyingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid_field("verifying_key", "a verifying key is written TYPE.BASE64URL");
        let (key_type, bytes) = text.split_once('.').ok_or_else(wrong)?;
        let bytes = URL_SAFE_NO_PAD.decode(bytes).map_err(|_| wrong())?;
        Self::new(key_type.parse()?, &bytes)
    }
}

impl TryFrom<String> for VerifyingKey {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<VerifyingKey> for String {
    fn from(key: VerifyingKey) -> Self {
        key.to_string()
    }
}

impl From<ed25519_dalek::VerifyingKey> for VerifyingKey {
    fn from(key: ed25519_dalek::VerifyingKey) -> Self {
        Self { key_type: KeyType::Ed25519, bytes: key.to_bytes().to_vec() }
    }
}

impl From<&p256::ecdsa::VerifyingKey> for VerifyingKey {
    fn from(key: &p256::ecdsa::VerifyingKey) -> Self {
        let bytes = key.to_sec1_point(true).as_bytes().to_vec();
        Self { key_type: KeyType::EcdsaP256Sec1, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "ED25519", "ED25519.AA", "RSA.AAAA", "ECDSA_P256_SEC1.AAAA", "ED25519.*"] {
            assert!(text.parse::<VerifyingKey>().is_err(), "{text}");
        }
        assert!(VerifyingKey::new(KeyType::Ed25519, &[0; 32]).is_err(), "of small order");
    }
}
