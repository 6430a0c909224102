//! A party's long-lived Ed25519 identity.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use quorate_types::Secret;

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

    /// Signs a message in a domain, so that a signature made for one purpose serves no other.
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&in_domain(domain, message)).to_bytes()
    }
}

/// Whether `public` signed the message in this domain. Weak keys and malleable signatures fail.
pub fn verify_identity(
    public: &[u8; 32],
    domain: &str,
    message: &[u8],
    signature: &[u8; 64],
) -> bool {
    Verifier::new(public).is_some_and(|key| key.verify(domain, message, signature))
}

/// An identity's public key, decoded once for many messages.
pub(crate) struct Verifier(VerifyingKey);

impl Verifier {
    /// `None` where the bytes are no point of the curve, or one of small order.
    pub(crate) fn new(public: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(public).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// Whether this identity signed the message in this domain.
    pub(crate) fn verify(&self, domain: &str, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.0.verify_strict(&in_domain(domain, message), &signature).is_ok()
    }
}

fn in_domain(domain: &str, message: &[u8]) -> Vec<u8> {
    let length = u8::try_from(domain.len()).expect("domains are short constants");
    let mut bytes = Vec::with_capacity(1 + domain.len() + message.len());
    bytes.push(length);
    bytes.extend_from_slice(domain.as_bytes());
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The neutral element: with it, R = s·B satisfies the equation for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(Verifier::new(&neutral).is_none());
        assert!(!verify_identity(&neutral, "a", b"message", &[0; 64]));
    }
}
