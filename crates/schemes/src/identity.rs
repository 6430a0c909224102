//! The public half of a party's long-lived Ed25519 identity: what it signs holds in one domain.

use ed25519_dalek::{Signature, VerifyingKey};

/// Whether `public` signed the message in this domain. Weak keys and malleable signatures fail.
pub fn verify_identity(
    public: &[u8; 32],
    domain: &str,
    message: &[u8],
    signature: &[u8; 64],
) -> bool {
    IdentityVerifier::new(public).is_some_and(|key| key.verify(domain, message, signature))
}

/// An identity's public key, decoded once for many messages.
pub struct IdentityVerifier(VerifyingKey);

impl IdentityVerifier {
    /// `None` where the bytes are no point of the curve, or one of small order.
    pub fn new(public: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(public).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// Whether this identity signed the message in this domain.
    pub fn verify(&self, domain: &str, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.0.verify_strict(&in_domain(domain, message), &signature).is_ok()
    }
}

/// The bytes that an identity signs for a message in a domain: the domain's length (1 byte), the
/// domain, the message. A signature made for one purpose serves no other.
pub fn in_domain(domain: &str, message: &[u8]) -> Vec<u8> {
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
    fn a_key_of_small_order_verifies_nothing() {
        // The neutral element: with it, R = s·B satisfies the equation for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(IdentityVerifier::new(&neutral).is_none());
        assert!(!verify_identity(&neutral, "a", b"message", &[0; 64]));
    }
}
