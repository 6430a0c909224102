//! Ed25519 (RFC 8032): canonical keys of large order, signatures verified strictly.

use ed25519_dalek::{Signature as Ed25519, VerifyingKey};
use quorate_types::{Error, PublicKey, ReportedSignature, Result, Signature};

fn invalid(problem: &str) -> Error {
    Error::invalid_field("signature", problem)
}

fn parse_key(bytes: &[u8]) -> Result<VerifyingKey> {
    let refuse = |problem| Error::invalid_field("public_key", problem);
    let off = "an Ed25519 public key is 32 bytes: a point of the curve as RFC 8032 encodes it";
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| refuse(off))?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| refuse(off))?;
    if key.to_edwards().compress().as_bytes() != bytes {
        return Err(refuse("the Ed25519 public key is not in its canonical encoding"));
    }
    if key.is_weak() {
        return Err(refuse("the Ed25519 public key is a point of small order: it is nobody's key"));
    }
    Ok(key)
}

pub(crate) fn normalize(bytes: &[u8]) -> Result<PublicKey> {
    parse_key(bytes).map(|key| PublicKey(key.to_bytes().to_vec()))
}

pub(crate) fn parse(bytes: &[u8], recovery_id: Option<u8>) -> Result<ReportedSignature> {
    if recovery_id.is_some() {
        let problem = "an Ed25519 signature has no recovery id: leave recovery_id out";
        return Err(Error::invalid_field("recovery_id", problem));
    }
    let bytes =
        bytes.try_into().map_err(|_| invalid("an Ed25519 signature is 64 bytes (R ‖ S)"))?;
    Ok(ReportedSignature { bytes, recovery_id: None })
}

pub(crate) fn complete(
    key: &PublicKey,
    message: &[u8],
    signature: ReportedSignature,
) -> Result<Signature> {
    let key = parse_key(&key.0)?;
    let signature = parse(&signature.bytes, signature.recovery_id)?;
    let wrong = || invalid("the signature does not verify under this key and message");
    let read = Ed25519::from_bytes(&signature.bytes);
    key.verify_strict(message, &read).map_err(|_| wrong())?;
    Ok(Signature::Eddsa(signature.bytes))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;

    /// RFC 8032, section 7.1: public key, message, signature.
    const VECTORS: [[&str; 3]; 4] = [
        [
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970\
             1cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
        [
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613\
             d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760\
             984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
        [
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23\
             a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c6\
             6431e0303dca179c138ac17ad9bef1177331a704",
        ],
    ];

    fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> Result<Signature> {
        complete(&normalize(key)?, message, parse(signature, None)?)
    }

    #[test]
    fn the_vectors_of_rfc_8032_verify_and_nothing_near_them() {
        for vector in VECTORS {
            let [key, message, signature] = vector.map(|hex| hex::decode(hex).unwrap());
            let done = verifies(&key, &message, &signature).unwrap();
            assert_eq!((&done.bytes()[..], done.recovery_id()), (&signature[..], None));
            assert_eq!(normalize(&key).unwrap().0, key);
            let longer = [&message[..], &[0]].concat();
            assert!(verifies(&key, &longer, &signature).is_err());
            let other = hex::decode(VECTORS[0][0]).unwrap();
            assert!(other == key || verifies(&other, &message, &signature).is_err());
        }
    }

    /// The eight points of small order, each in its canonical encoding, and those that encode one in
    /// another way (as listed in "Taming the many EdDSAs", 2020/1244).
    const SMALL_ORDER: [&str; 14] = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    #[test]
    fn keys_of_small_order_or_in_another_encoding_are_refused() {
        for hex in SMALL_ORDER {
            let error = normalize(&hex::decode(hex).unwrap()).unwrap_err();
            assert!(error.details.fields.contains_key("public_key"), "{hex}");
        }
        // y = p + 3 is the large-order point with y = 3 in another encoding.
        let mut three = [0; 32];
        three[0] = 3;
        assert!(normalize(&three).is_ok());
        let mut again = [0xff; 32];
        (again[0], again[31]) = (0xf0, 0x7f);
        assert!(VerifyingKey::from_bytes(&again).is_ok(), "the curve's library takes it");
        let error = normalize(&again).unwrap_err();
        assert!(error.details.fields["public_key"].contains("canonical"), "{error:?}");
        for bytes in [&[][..], &[3; 31], &[3; 33], &[2; 32]] {
            assert!(normalize(bytes).is_err());
        }
    }

    #[test]
    fn a_malleable_signature_is_refused() {
        let [key, message, signature] = VECTORS[1].map(|hex| hex::decode(hex).unwrap());
        // S + L solves the same equation.
        let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut more = signature.clone();
        let mut carry = 0_u16;
        for (byte, add) in more[32..].iter_mut().zip(order.unwrap()) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = u8::try_from(carry & 0xff).unwrap();
            carry >>= 8;
        }
        assert!(verifies(&key, &message, &more).is_err());
        // R of small order with S = 0 fits keys of small order only, which are none.
        let neutral = hex::decode(SMALL_ORDER[0]).unwrap();
        assert!(verifies(&key, &message, &[&neutral[..], &[0; 32]].concat()).is_err());
    }

    #[test]
    fn a_signature_of_another_form_is_refused() {
        for length in [0, 63, 65, 96] {
            let error = parse(&vec![1; length], None).unwrap_err();
            assert!(error.details.fields.contains_key("signature"));
        }
        let error = parse(&[1; 64], Some(0)).unwrap_err();
        assert!(error.details.fields.contains_key("recovery_id"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_flipped_bit_does_not_verify(seed: [u8; 32], message: Vec<u8>, bit in 0_usize..512) {
            let secret = SigningKey::from_bytes(&seed);
            let key = secret.verifying_key().to_bytes();
            let mut signature = secret.sign(&message).to_bytes();
            prop_assert!(verifies(&key, &message, &signature).is_ok());
            signature[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verifies(&key, &message, &signature).is_err());
        }

        #[test]
        fn junk_is_a_canonical_key_or_refused(junk: [u8; 32]) {
            if let Ok(key) = normalize(&junk) {
                prop_assert_eq!(key.0, junk.to_vec());
            }
        }
    }
}
