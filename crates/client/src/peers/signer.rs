//! Message signers: the key a device is known by to its peers, wherever that key lives.

use async_trait::async_trait;
use ed25519_dalek::Signer as _;
use quorate_participant::devices::{KeyType, VerifyingKey};
use quorate_types::{Error, Result, Secret};

/// Signs what a device sends. A secure enclave can implement it: the secret key is never asked for.
#[async_trait]
pub trait MessageSigner: Send + Sync + 'static {
    /// The public half.
    fn verifying_key(&self) -> VerifyingKey;

    /// Signs a message: 64 bytes, for ECDSA r ‖ s, where the message is hashed with SHA-256.
    async fn sign(&self, message: &[u8]) -> Result<[u8; 64]>;
}

/// A message signer in this process.
pub enum SoftwareSigner {
    /// With an Ed25519 key.
    Ed25519(Box<ed25519_dalek::SigningKey>),
    /// With a P-256 key.
    P256(Box<p256::ecdsa::SigningKey>),
}

impl SoftwareSigner {
    /// A signer from 32 secret bytes.
    ///
    /// # Errors
    /// `invalid_request` for the few bytes (2⁻³² of all) that are no P-256 key.
    pub fn new(key_type: KeyType, secret: &Secret<[u8; 32]>) -> Result<Self> {
        match key_type {
            KeyType::Ed25519 => {
                Ok(Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(secret.expose()))))
            }
            KeyType::EcdsaP256Sec1 => p256::ecdsa::SigningKey::from_slice(secret.expose())
                .map(|key| Self::P256(Box::new(key)))
                .map_err(|_| Error::invalid_field("secret", "these bytes are no P-256 key")),
        }
    }
}

#[async_trait]
impl MessageSigner for SoftwareSigner {
    fn verifying_key(&self) -> VerifyingKey {
        match self {
            Self::Ed25519(key) => key.verifying_key().into(),
            Self::P256(key) => key.verifying_key().into(),
        }
    }

    async fn sign(&self, message: &[u8]) -> Result<[u8; 64]> {
        Ok(match self {
            Self::Ed25519(key) => key.sign(message).to_bytes(),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_sign_and_are_known_by_their_text() {
        for key_type in [KeyType::Ed25519, KeyType::EcdsaP256Sec1] {
            let signer = SoftwareSigner::new(key_type, &Secret::new([7; 32])).unwrap();
            let key = signer.verifying_key();
            let mut signature = signer.sign(b"message").await.unwrap();
            assert!(key.verify(b"message", &signature));
            assert!(!key.verify(b"another", &signature));
            signature[40] ^= 1;
            assert!(!key.verify(b"message", &signature));
            let again: VerifyingKey = key.to_string().parse().unwrap();
            assert_eq!((again.party_id(), &again), (key.party_id(), &key));
        }
    }
}
