//! Messages with their sender's signature.

use bytes::{Bytes, BytesMut};
use quorate_participant::devices::{SIGNATURE, signed};
use quorate_types::Result;

use super::signer::MessageSigner;

/// A payload with its sender's signature over it and its place in the run.
pub(crate) async fn seal(
    signer: &dyn MessageSigner,
    place: &[u8],
    payload: &[u8],
) -> Result<Bytes> {
    let signature = signer.sign(&signed(place, payload)).await?;
    let mut message = BytesMut::with_capacity(SIGNATURE + payload.len());
    message.extend_from_slice(&signature);
    message.extend_from_slice(payload);
    Ok(message.freeze())
}

#[cfg(test)]
mod tests {
    use quorate_participant::devices::{KeyType, open};
    use quorate_types::Secret;

    use super::*;
    use crate::peers::signer::SoftwareSigner;

    #[tokio::test]
    async fn a_message_opens_with_its_key_at_its_place_only() {
        let signer = SoftwareSigner::new(KeyType::Ed25519, &Secret::new([1; 32])).unwrap();
        let other = SoftwareSigner::new(KeyType::Ed25519, &Secret::new([2; 32])).unwrap();
        let message = seal(&signer, b"place", b"payload").await.unwrap();
        let key = signer.verifying_key();
        assert_eq!(open(&key, b"place", &message).as_deref(), Some(&b"payload"[..]));
        assert!(open(&other.verifying_key(), b"place", &message).is_none());
        assert!(open(&key, b"placf", &message).is_none());
        for at in 0..message.len() {
            let mut bad = message.to_vec();
            bad[at] ^= 1;
            assert!(open(&key, b"place", &bad.into()).is_none(), "byte {at}");
            assert!(open(&key, b"place", &message.slice(..at)).is_none(), "{at} bytes");
        }
    }
}
