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
//! 38     n    body; to one party: HPKE encapsulated key (32) and ciphertext with tag (16)
//! 38+n   64   Ed25519 signature over the header and SHA-256 of the body
//! ```
//!
//! HPKE (RFC 9180): base mode, X25519-HKDF-SHA256, HKDF-SHA256, ChaCha20-Poly1305, with the header
//! as associated data. Sender authentication is the signature's work.

use bytes::Bytes;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use sha2::{Digest as _, Sha256};

use crate::fault::{Fault, FaultCode};
use crate::hello::{HelloSecret, SealKem};
use crate::identity::{Identity, verify_identity};

const VERSION: u8 = 1;
const HEADER: usize = 38;
const SIGNATURE: usize = 64;
const ENCAPSULATED: usize = 32;
const TO_ALL: u8 = 255;
const DOMAIN: &str = "quorate/envelope/v1";
const SEAL_INFO: &[u8] = b"quorate/seal/v1";
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
    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = VERSION;
        header[1] = u8::from(self.to.is_some());
        header[2..34].copy_from_slice(&self.execution);
        header[34] = self.from;
        header[35] = self.to.unwrap_or(TO_ALL);
        header[36..38].copy_from_slice(&self.round.to_be_bytes());
        header
    }

    fn read(header: &[u8]) -> Option<Self> {
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

/// Makes an envelope. `seal_to` is the recipient's encryption key for a message to one party.
pub(crate) fn wrap(
    identity: &Identity,
    address: &Address,
    body: &[u8],
    seal_to: Option<&[u8; 32]>,
) -> Result<Bytes, Fault> {
    let unusable = || Fault::benign(FaultCode::BadInput, "an encryption key cannot be used");
    let header = address.header();
    let mut bytes = Vec::with_capacity(HEADER + ENCAPSULATED + body.len() + 16 + SIGNATURE);
    bytes.extend_from_slice(&header);
    match seal_to {
        None => bytes.extend_from_slice(body),
        Some(key) => {
            let key = <SealKem as hpke::Kem>::PublicKey::from_bytes(key).map_err(|_| unusable())?;
            let (encapsulated, sealed) =
                hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, SealKem>(
                    &OpModeS::Base,
                    &key,
                    SEAL_INFO,
                    body,
                    &header,
                )
                .map_err(|_| unusable())?;
            bytes.extend_from_slice(&encapsulated.to_bytes());
            bytes.extend_from_slice(&sealed);
        }
    }
    let signature = identity.sign(DOMAIN, &signed(&header, &bytes[HEADER..]));
    bytes.extend_from_slice(&signature);
    Ok(bytes.into())
}

fn signed(header: &[u8], body: &[u8]) -> Vec<u8> {
    [header, &Sha256::digest(body)[..]].concat()
}

/// Reads the address of an envelope, which nobody has vouched for yet.
pub(crate) fn peek(envelope: &[u8]) -> Result<Address, Fault> {
    let fits = (HEADER + SIGNATURE..=MAX_ENVELOPE).contains(&envelope.len());
    let address = if fits && envelope[0] == VERSION { Address::read(envelope) } else { None };
    address.ok_or_else(|| {
        Fault::benign(FaultCode::EnvelopeInvalid, "the payload is not an envelope of this version")
    })
}

/// Checks the sender's signature and opens the body.
pub(crate) fn open(
    envelope: &[u8],
    sender: &[u8; 32],
    recipient: &HelloSecret,
) -> Result<Vec<u8>, Fault> {
    let address = peek(envelope)?;
    let (front, signature) = envelope.split_at(envelope.len() - SIGNATURE);
    let (header, body) = front.split_at(HEADER);
    let signature: &[u8; SIGNATURE] = signature.try_into().expect("split at its length");
    if !verify_identity(sender, DOMAIN, &signed(header, body), signature) {
        return Err(Fault::benign(
            FaultCode::SignatureInvalid,
            "the envelope is not signed by its sender's identity key",
        ));
    }
    if address.to.is_none() {
        return Ok(body.to_vec());
    }
    let broken = || {
        Fault::recoverable(FaultCode::SealInvalid, "a message sealed by its sender cannot be opened")
    };
    if body.len() < ENCAPSULATED {
        return Err(broken());
    }
    let (encapsulated, sealed) = body.split_at(ENCAPSULATED);
    let encapsulated = <SealKem as hpke::Kem>::EncappedKey::from_bytes(encapsulated);
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, SealKem>(
        &OpModeR::Base,
        &recipient.decryption_key,
        &encapsulated.map_err(|_| broken())?,
        SEAL_INFO,
        sealed,
        header,
    )
    .map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hello::{introduce, read_hello};

    fn parties() -> (Identity, HelloSecret, [u8; 32]) {
        let session = "00000000000000000000000000000001".parse().unwrap();
        let party = "p".parse().unwrap();
        let identity = Identity::generate();
        let (hello, secret) = introduce(&identity, session, &party);
        let key = read_hello(&hello, session, &party).unwrap().encryption_key;
        (identity, secret, key)
    }

    #[test]
    fn the_header_has_golden_bytes() {
        let address = Address { execution: [7; 32], from: 2, to: Some(3), round: 0x0104 };
        let mut expected = vec![1, 1];
        expected.extend([7; 32]);
        expected.extend([2, 3, 1, 4]);
        assert_eq!(address.header().to_vec(), expected);
        let all = Address { to: None, ..address };
        assert_eq!(all.header()[1], 0);
        assert_eq!(all.header()[35], 255);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_wrapped_opens_to_the_same(body: Vec<u8>, to in prop::option::of(0_u8..16), from in 0_u8..16, round: u16) {
            let (identity, secret, key) = parties();
            let address = Address { execution: [9; 32], from, to, round };
            let envelope = wrap(&identity, &address, &body, to.map(|_| &key)).unwrap();
            prop_assert_eq!(peek(&envelope).unwrap(), address);
            prop_assert_eq!(open(&envelope, &identity.public(), &secret).unwrap(), body);
        }

        #[test]
        fn a_flipped_bit_is_refused(bit in 0_usize..8 * (38 + 32 + 5 + 16 + 64)) {
            let (identity, secret, key) = parties();
            let address = Address { execution: [9; 32], from: 0, to: Some(1), round: 1 };
            let mut envelope = wrap(&identity, &address, b"hello", Some(&key)).unwrap().to_vec();
            envelope[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&envelope, &identity.public(), &secret).is_err());
        }

        #[test]
        fn junk_never_panics(junk: Vec<u8>) {
            let (identity, secret, _) = parties();
            prop_assert!(open(&junk, &identity.public(), &secret).is_err());
        }
    }

    #[test]
    fn a_message_sealed_to_another_cannot_be_opened() {
        let (identity, _, key) = parties();
        let (_, other, _) = parties();
        let address = Address { execution: [9; 32], from: 0, to: Some(1), round: 1 };
        let envelope = wrap(&identity, &address, b"secret", Some(&key)).unwrap();
        let fault = open(&envelope, &identity.public(), &other).unwrap_err();
        assert_eq!(fault.code, FaultCode::SealInvalid);
        assert!(!envelope.windows(6).any(|window| window == b"secret"));
    }
}
