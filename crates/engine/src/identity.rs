//! A party's long-lived Ed25519 identity.

use ed25519_dalek::{Signer as _, SigningKey};
use quorate_schemes::{Statement, in_domain};
use quorate_types::{CONFIRMATION, Secret};

/// An identity's secret half. It cannot be printed or serialized, and is wiped when dropped.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_engine::Identity>();
/// ```
pub struct Identity(SigningKey);

impl Identity {
    /// A new identity.
    pub fn generate() -> Self {
        Self::from_secret(&Secret::new(crate::handshake::random()))
    }

    /// An identity from its 32 secret bytes.
    pub fn from_secret(secret: &Secret<[u8; 32]>) -> Self {
        Self(SigningKey::from_bytes(secret.expose()))
    }

    /// The 32 secret bytes.
    pub fn secret(&self) -> Secret<[u8; 32]> {
        Secret::new(self.0.to_bytes())
    }

    /// The public key, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The confirmation of the holder with this identity. Only who keeps its share says so.
    pub fn confirm(&self, statement: &Statement) -> [u8; CONFIRMATION] {
        let (domain, bytes) = statement.signed();
        self.sign(domain, bytes)
    }

    /// Signs a message in a domain, so that a signature made for one purpose serves no other.
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&in_domain(domain, message)).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use quorate_schemes::verify_identity;

    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_domain_and_message_only() {
        let identity = Identity::generate();
        let signature = identity.sign("a", b"message");
        let public = identity.public();
        assert!(verify_identity(&public, "a", b"message", &signature));
        assert!(!verify_identity(&public, "b", b"message", &signature));
        assert!(!verify_identity(&public, "a", b"massage", &signature));
        assert!(!verify_identity(&Identity::generate().public(), "a", b"message", &signature));
        let again = Identity::from_secret(&identity.secret());
        assert_eq!(again.public(), public);
    }
}
