//! What a delegate's identity signs.

use quorate_types::{DelegateKey, KeySignature, PackageKey, PartyId};

use crate::identity::verify_identity;

/// The domain of a delegate's signature over its key.
pub const DELEGATE_KEY: &str = "quorate/delegate-key/v1";

/// What a delegate signs to publish its key.
///
/// ```text
/// length of the name (8) | name | length of the kind (8) | kind | length of the key (8) | key
/// ```
pub fn delegate_key_message(delegate: &PartyId, key: &PackageKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [delegate.as_str().as_bytes(), key.kem().name().as_bytes(), key.bytes()] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Whether the delegate of this name and identity has published this key.
pub fn verify_delegate_key(
    identity: &[u8; 32],
    delegate: &PartyId,
    published: &DelegateKey,
) -> bool {
    let DelegateKey { key, signature: KeySignature(signature) } = published;
    verify_identity(identity, DELEGATE_KEY, &delegate_key_message(delegate, key), signature)
}
