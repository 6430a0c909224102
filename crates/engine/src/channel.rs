//! The sealed channel between two parties of one run.
//!
//! HPKE (RFC 9180) in base mode with X25519-HKDF-SHA256, HKDF-SHA256 and ChaCha20-Poly1305, one
//! context per direction. The first body of a direction begins with the encapsulated key (32
//! bytes); each is ciphertext and tag (16 bytes), with the envelope's header as associated data.
//! A party sends another at most one sealed message per round, and they are opened in the order of
//! the rounds, which is the order HPKE counts in. Who sent it is the envelope's affair.

use hpke::aead::{AeadCtxR, AeadCtxS, AeadTag, ChaCha20Poly1305};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use zeroize::Zeroizing;

use crate::handshake::{HandshakeSecret, SealKem};

const ENCAPSULATED: usize = 32;
const TAG: usize = 16;
const INFO: &[u8] = b"quorate/seal/v1";
/// The most by which sealing lengthens a body.
pub(crate) const OVERHEAD: usize = ENCAPSULATED + TAG;

type Aead = ChaCha20Poly1305;
type Sealing = AeadCtxS<Aead, HkdfSha256, SealKem>;
type Opening = AeadCtxR<Aead, HkdfSha256, SealKem>;

/// Our end of the channel to one party; its contexts are made when they are first used.
pub(crate) struct Channel {
    peer: [u8; 32],
    sealing: Option<Sealing>,
    opening: Option<Opening>,
}

impl Channel {
    /// A channel to the holder of this encryption key.
    pub(crate) fn new(peer: [u8; 32]) -> Self {
        Self { peer, sealing: None, opening: None }
    }

    /// Appends the sealed body to `out`; `None` when the peer's key cannot be used.
    pub(crate) fn seal(&mut self, header: &[u8], body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let sealing = match &mut self.sealing {
            Some(sealing) => sealing,
            none => {
                let key = <SealKem as Kem>::PublicKey::from_bytes(&self.peer).ok()?;
                let (encapsulated, sealing) =
                    hpke::setup_sender::<Aead, HkdfSha256, SealKem>(&OpModeS::Base, &key, INFO)
                        .ok()?;
                out.extend_from_slice(&encapsulated.to_bytes());
                none.insert(sealing)
            }
        };
        let start = out.len();
        out.extend_from_slice(body);
        let tag = sealing.seal_inout_detached(InOutBuf::from(&mut out[start..]), header).ok()?;
        out.extend_from_slice(&tag.to_bytes());
        Some(())
    }

    /// Opens the next sealed body; `None` when it was not sealed to us in this place.
    pub(crate) fn open(
        &mut self,
        secret: &HandshakeSecret,
        header: &[u8],
        mut body: Vec<u8>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (opening, start) = match &mut self.opening {
            Some(opening) => (opening, 0),
            none => {
                let encapsulated = body.get(..ENCAPSULATED)?;
                let encapsulated = <SealKem as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
                let opening = hpke::setup_receiver::<Aead, HkdfSha256, SealKem>(
                    &OpModeR::Base,
                    &secret.decryption_key,
                    &encapsulated,
                    INFO,
                );
                (none.insert(opening.ok()?), ENCAPSULATED)
            }
        };
        let end = body.len().checked_sub(TAG).filter(|end| *end >= start)?;
        let tag = AeadTag::<Aead>::from_bytes(&body[end..]).ok()?;
        body.truncate(end);
        let sealed = InOutBuf::from(&mut body[start..]);
        opening.open_inout_detached(sealed, header, &tag).ok()?;
        body.drain(..start);
        Some(Zeroizing::new(body))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::{Shown, make_handshake, read_handshake};
    use crate::identity::Identity;

    fn party() -> (HandshakeSecret, [u8; 32]) {
        let session = "00000000000000000000000000000001".parse().unwrap();
        let party = "p".parse().unwrap();
        let (handshake, secret) =
            make_handshake(&Identity::generate(), session, &party, &Shown::default());
        (secret, read_handshake(&handshake, session, &party).unwrap().encryption_key)
    }

    fn seal(channel: &mut Channel, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        channel.seal(header, body, &mut out).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_sealed_opens_to_the_same_in_order(bodies: Vec<Vec<u8>>) {
            let (secret, key) = party();
            let (mut theirs, mut ours) = (Channel::new(key), Channel::new([0; 32]));
            for (at, body) in bodies.iter().enumerate() {
                let sealed = seal(&mut theirs, b"header", body);
                prop_assert_eq!(sealed.len(), body.len() + TAG + if at == 0 { ENCAPSULATED } else { 0 });
                let opened = ours.open(&secret, b"header", sealed).unwrap();
                prop_assert_eq!(&*opened, body);
            }
        }

        #[test]
        fn a_flipped_bit_does_not_open(bit in 0_usize..8 * (OVERHEAD + 5)) {
            let (secret, key) = party();
            let mut sealed = seal(&mut Channel::new(key), b"header", b"hello");
            // The highest bit of an X25519 key is ignored by its definition; HPKE binds it too.
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Channel::new([0; 32]).open(&secret, b"header", sealed).is_none());
        }

        #[test]
        fn junk_never_panics(junk: Vec<u8>) {
            let (secret, _) = party();
            prop_assert!(Channel::new([0; 32]).open(&secret, b"header", junk).is_none());
        }
    }

    #[test]
    fn a_body_for_another_party_place_or_turn_does_not_open() {
        let ((secret, key), (other, _)) = (party(), party());
        let mut theirs = Channel::new(key);
        let first = seal(&mut theirs, b"header", b"secret");
        let second = seal(&mut theirs, b"header", b"second");
        assert!(!first.windows(6).any(|window| window == b"secret"));
        let fresh = || Channel::new([0; 32]);
        assert!(fresh().open(&other, b"header", first.clone()).is_none());
        assert!(fresh().open(&secret, b"elsewhere", first.clone()).is_none());
        assert!(fresh().open(&secret, b"header", second.clone()).is_none());
        let mut ours = fresh();
        assert!(ours.open(&secret, b"header", first.clone()).is_some());
        assert!(ours.open(&secret, b"header", first).is_none());
        assert_eq!(&**ours.open(&secret, b"header", second).unwrap(), b"second");
    }

    #[test]
    fn a_key_of_small_order_is_not_sealed_to() {
        assert!(Channel::new([0; 32]).seal(b"header", b"body", &mut Vec::new()).is_none());
    }
}
