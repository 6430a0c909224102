//! The envelope of every protocol message: signed by its sender, sealed to its recipient.
//!
//! ```text
//! offset size
//! 0      1    version, 1
//! 1      1    kind: 0 broadcast, 1 to one party
//! 2      32   execution id
//! 34     1    sender's place in the session, from 0
//! 35     1    recipient's place; 255 for a broadcast
//! 36     2    round, big endian
//! 38     n    body, as sent; to one party it is sealed, see the module `channel`
//! 38+n   64   Ed25519 signature over the header and SHA-256 of the body
//! ```
//!
//! A party sends at most one message of each kind per round and recipient, so the header names a
//! message without a sequence number: two different bodies under one header convict the sender.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use quorate_schemes::IdentityVerifier;

use crate::channel::{self, Channel};
use crate::fault::{Fault, FaultCode};
use crate::identity::Identity;

const VERSION: u8 = 1;
pub(crate) const HEADER: usize = 38;
pub(crate) const SIGNATURE: usize = 64;
const TO_ALL: u8 = 255;
const DOMAIN: &str = "quorate/envelope/v1";
/// Largest envelope read. Keygen's largest body is about 150 kB.
pub(crate) const MAX_ENVELOPE: usize = 1 << 20;

/// Where a message belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) execution: [u8; 32],
    pub(crate) from: u8,
    /// `None`: to all others.
    pub(crate) to: Option<u8>,
    pub(crate) round: u16,
}

impl Address {
    /// The address as it stands at the front of the envelope.
    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = VERSION;
        header[1] = u8::from(self.to.is_some());
        header[2..34].copy_from_slice(&self.execution);
        header[34] = self.from;
        header[35] = self.to.unwrap_or(TO_ALL);
        header[36..38].copy_from_slice(&self.round.to_be_bytes());
        header
    }

    fn read(header: &[u8; HEADER]) -> Option<Self> {
        let to = match (header[1], header[35]) {
            (0, TO_ALL) => None,
            (1, to) if to != TO_ALL => Some(to),
            _ => return None,
        };
        Some(Self {
            execution: header[2..34].try_into().ok()?,
            from: header[34],
            to,
            round: u16::from_be_bytes([header[36], header[37]]),
        })
    }
}

/// Makes an envelope; with a channel, for the party at its other end only.
///
/// `None` when the recipient's encryption key cannot be used.
pub(crate) fn wrap(
    identity: &Identity,
    address: &Address,
    body: &[u8],
    channel: Option<&mut Channel>,
) -> Option<Bytes> {
    let header = address.header();
    let length = HEADER + channel::OVERHEAD + body.len() + SIGNATURE;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&header);
    match channel {
        None => bytes.extend_from_slice(body),
        Some(channel) => channel.seal(&header, body, &mut bytes)?,
    }
    let hash = Sha256::digest(&bytes[HEADER..]).into();
    let signature = identity.sign(DOMAIN, &signed(&header, &hash));
    bytes.extend_from_slice(&signature);
    Some(bytes.into())
}

fn signed(header: &[u8; HEADER], body_hash: &[u8; 32]) -> [u8; HEADER + 32] {
    let mut bytes = [0; HEADER + 32];
    bytes[..HEADER].copy_from_slice(header);
    bytes[HEADER..].copy_from_slice(body_hash);
    bytes
}

/// Tells two envelopes for one place apart: the hash of the body, and the signature.
pub(crate) type Fingerprint = ([u8; 32], [u8; SIGNATURE]);

/// The body of an envelope that was read before.
pub(crate) fn body(envelope: &[u8]) -> &[u8] {
    &envelope[HEADER..envelope.len() - SIGNATURE]
}

/// The signature of an envelope that was read before.
pub(crate) fn signature(envelope: &[u8]) -> &[u8] {
    &envelope[envelope.len() - SIGNATURE..]
}

/// Whether this party signed a body with this hash under this header.
pub(crate) fn signed_by(
    sender: &IdentityVerifier,
    header: &[u8; HEADER],
    body_hash: &[u8; 32],
    signature: &[u8; SIGNATURE],
) -> bool {
    sender.verify(DOMAIN, &signed(header, body_hash), signature)
}

/// An envelope that has the right form, and for which nobody has vouched yet.
pub(crate) struct Envelope<'a> {
    pub(crate) address: Address,
    signature: &'a [u8; SIGNATURE],
    header: &'a [u8; HEADER],
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads an envelope without checking its signature.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let read = || {
            let fits = bytes.len() <= MAX_ENVELOPE && bytes.first() == Some(&VERSION);
            let (front, signature) = bytes.split_last_chunk().filter(|_| fits)?;
            let (header, body) = front.split_first_chunk()?;
            Some(Self { address: Address::read(header)?, signature, header, body })
        };
        read().ok_or_else(|| {
            let message = "the payload is not an envelope of this version";
            Fault::benign(FaultCode::EnvelopeInvalid, message)
        })
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        (Sha256::digest(self.body).into(), *self.signature)
    }

    /// The fingerprint, once the sender's signature over all of it holds.
    pub(crate) fn verified(&self, sender: &IdentityVerifier) -> Result<Fingerprint, Fault> {
        let fingerprint = self.fingerprint();
        if signed_by(sender, self.header, &fingerprint.0, self.signature) {
            return Ok(fingerprint);
        }
        Err(Fault::benign(
            FaultCode::SignatureInvalid,
            "the envelope is not signed by its sender's identity key",
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: Address = Address { execution: [7; 32], from: 2, to: Some(3), round: 0x0104 };

    fn identity() -> Identity {
        Identity::from_secret(&quorate_types::Secret::new([5; 32]))
    }

    fn verifier() -> IdentityVerifier {
        IdentityVerifier::new(&identity().public()).unwrap()
    }

    #[test]
    fn the_header_has_golden_bytes() {
        let mut expected = vec![1, 1];
        expected.extend([7; 32]);
        expected.extend([2, 3, 1, 4]);
        assert_eq!(ADDRESS.header().to_vec(), expected);
    }

    #[test]
    fn a_broadcast_has_golden_bytes() {
        let address = Address { to: None, ..ADDRESS };
        let envelope = wrap(&identity(), &address, b"body", None).unwrap();
        let mut front = vec![1, 0];
        front.extend([7; 32]);
        front.extend([2, 255, 1, 4]);
        front.extend(b"body");
        assert_eq!(envelope[..42], front);
        // Ed25519 is deterministic: the signature is golden too.
        let mut message = vec![u8::try_from(DOMAIN.len()).unwrap()];
        message.extend(DOMAIN.as_bytes());
        message.extend(&front[..38]);
        message.extend(Sha256::digest(b"body"));
        let key = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let signature = ed25519_dalek::Signer::sign(&key, &message).to_bytes();
        assert_eq!(envelope[42..], signature);
    }

    #[test]
    fn a_kind_that_contradicts_the_recipient_is_refused() {
        let envelope = wrap(&identity(), &Address { to: None, ..ADDRESS }, b"", None).unwrap();
        for (at, value) in [(1, 1), (1, 2), (35, 3), (0, 0), (0, 2)] {
            let mut bytes = envelope.to_vec();
            bytes[at] = value;
            let fault = Envelope::read(&bytes).err().unwrap();
            assert_eq!(fault.code, FaultCode::EnvelopeInvalid);
        }
    }

    #[test]
    fn an_envelope_over_the_bound_is_refused() {
        let address = Address { to: None, ..ADDRESS };
        let largest = vec![0; MAX_ENVELOPE - HEADER - SIGNATURE];
        let fits = wrap(&identity(), &address, &largest, None).unwrap();
        assert!(Envelope::read(&fits).is_ok());
        let over = wrap(&identity(), &address, &[&largest[..], &[0]].concat(), None).unwrap();
        assert!(Envelope::read(&over).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_wrapped_reads_back_the_same(body: Vec<u8>, from in 0_u8..16, round: u16) {
            let address = Address { execution: [9; 32], from, to: None, round };
            let bytes = wrap(&identity(), &address, &body, None).unwrap();
            let envelope = Envelope::read(&bytes).unwrap();
            prop_assert_eq!(envelope.address, address);
            prop_assert!(envelope.verified(&verifier()).is_ok());
            prop_assert_eq!(super::body(&bytes), body);
        }

        #[test]
        fn a_flipped_bit_is_refused(bit in 0_usize..8 * (HEADER + 5 + SIGNATURE)) {
            let address = Address { to: None, ..ADDRESS };
            let mut bytes = wrap(&identity(), &address, b"hello", None).unwrap().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = Envelope::read(&bytes).and_then(|it| it.verified(&verifier()).map(drop));
            prop_assert!(opened.is_err());
        }

        #[test]
        fn junk_never_panics(junk: Vec<u8>) {
            let opened = Envelope::read(&junk).and_then(|it| it.verified(&verifier()).map(drop));
            prop_assert!(opened.is_err());
        }
    }
}
