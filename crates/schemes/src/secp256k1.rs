//! ECDSA over secp256k1: SEC1 points, low-s signatures with a recovery id, Ethereum addresses.

use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
use k256::ecdsa::{RecoveryId, Signature as Ecdsa, VerifyingKey};
use quorate_types::{Digest, Error, PublicKey, ReportedSignature, Result, Signature};
use sha2::Digest as _;

fn invalid(problem: &str) -> Error {
    Error::invalid_field("signature", problem)
}

fn parse_key(bytes: &[u8]) -> Result<VerifyingKey> {
    VerifyingKey::from_sec1_bytes(bytes).map_err(|_| {
        Error::invalid_field(
            "public_key",
            "a secp256k1 public key is 33 bytes (02… or 03…) or 65 bytes (04…) on the curve",
        )
    })
}

pub(crate) fn normalize(bytes: &[u8]) -> Result<PublicKey> {
    Ok(PublicKey(parse_key(bytes)?.to_sec1_point(false).as_bytes().to_vec()))
}

pub(crate) fn compress(key: &PublicKey) -> Result<Vec<u8>> {
    Ok(parse_key(&key.0)?.to_sec1_point(true).as_bytes().to_vec())
}

/// The 64 or 65 bytes of a signature that another program has written: with a recovery id of 27 or
/// 28, as Ethereum's tools do, or in DER.
pub(crate) fn foreign(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [compact @ .., id @ (27 | 28)] if compact.len() == 64 => [compact, &[id - 27]].concat(),
        _ if matches!(bytes.len(), 64 | 65) => bytes.to_vec(),
        _ => match Ecdsa::from_der(bytes) {
            Ok(signature) => signature.to_bytes().to_vec(),
            Err(_) => bytes.to_vec(),
        },
    }
}

pub(crate) fn parse(bytes: &[u8], recovery_id: Option<u8>) -> Result<ReportedSignature> {
    let (bytes, last) = match bytes {
        [compact @ .., last] if compact.len() == 64 => (compact, Some(*last)),
        _ => (bytes, None),
    };
    let bytes = bytes.try_into().map_err(|_| {
        invalid("an ECDSA signature is 64 bytes (r ‖ s), or 65 with the recovery id")
    })?;
    if let (Some(last), Some(given)) = (last, recovery_id)
        && last != given
    {
        return Err(invalid("the recovery id behind the signature differs from recovery_id"));
    }
    let recovery_id = recovery_id.or(last);
    if recovery_id.is_some_and(|id| RecoveryId::from_byte(id).is_none()) {
        return Err(Error::invalid_field("recovery_id", "a recovery id is 0, 1, 2 or 3"));
    }
    Ok(ReportedSignature { bytes, recovery_id })
}

pub(crate) fn complete(
    key: &PublicKey,
    digest: &Digest,
    signature: ReportedSignature,
) -> Result<Signature> {
    let verifier = parse_key(&key.0)?;
    let wrong = || invalid("the signature does not verify under this key and digest");
    let ecdsa = Ecdsa::from_slice(&signature.bytes).map_err(|_| wrong())?;
    if ecdsa.normalize_s() != ecdsa {
        return Err(invalid("the signature does not verify: its s is not the low one"));
    }
    let fits = |id: RecoveryId| {
        VerifyingKey::recover_from_prehash(&digest.0, &ecdsa, id).is_ok_and(|key| key == verifier)
    };
    // That the recovery leads to this key says that the signature verifies under it.
    let given = signature.recovery_id.and_then(RecoveryId::from_byte);
    if let Some(id) = given.filter(|id| fits(*id)) {
        return Ok(Signature::Ecdsa { rs: signature.bytes, recovery_id: id.to_byte() });
    }
    verifier.verify_prehash(&digest.0, &ecdsa).map_err(|_| wrong())?;
    let id = match signature.recovery_id {
        Some(_) => None,
        None => (0..4).filter_map(RecoveryId::from_byte).find(|id| fits(*id)),
    };
    let id =
        id.ok_or_else(|| invalid("the recovery id does not verify: it recovers another key"))?;
    Ok(Signature::Ecdsa { rs: signature.bytes, recovery_id: id.to_byte() })
}

pub(crate) fn ethereum_address(key: &PublicKey) -> Option<String> {
    let point = normalize(&key.0).ok()?;
    let hash = sha3::Keccak256::digest(point.0.get(1..)?);
    let plain = hex::encode(&hash[12..]);
    // EIP-55: a letter is upper case where the hash of the address has a high nibble.
    let checksum = sha3::Keccak256::digest(plain.as_bytes());
    let cased = plain.chars().enumerate().map(|(at, c)| {
        let nibble = checksum[at / 2] >> (4 * (1 - at % 2)) & 0x0f;
        if nibble >= 8 { c.to_ascii_uppercase() } else { c }
    });
    Some(format!("0x{}", cased.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::SigningKey;
    use k256::ecdsa::signature::hazmat::PrehashSigner as _;
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> (SigningKey, PublicKey) {
        let secret = SigningKey::from_slice(&[seed; 32]).unwrap();
        let public = normalize(secret.verifying_key().to_sec1_point(true).as_bytes()).unwrap();
        (secret, public)
    }

    fn sign(secret: &SigningKey, digest: &Digest) -> ReportedSignature {
        let signature: Ecdsa = secret.sign_prehash(&digest.0).unwrap();
        let signature = signature.normalize_s();
        ReportedSignature { bytes: signature.to_bytes().into(), recovery_id: None }
    }

    #[test]
    fn signatures_of_other_programs_are_read() {
        let (secret, key) = key(3);
        let digest = Digest([9; 32]);
        let signature = complete(&key, &digest, sign(&secret, &digest)).unwrap();
        let (bytes, id) = (signature.bytes(), signature.recovery_id().unwrap());
        let der = Ecdsa::from_slice(bytes).unwrap().to_der();
        for (written, given) in [
            (bytes.to_vec(), None),
            ([&bytes[..], &[id]].concat(), Some(id)),
            ([&bytes[..], &[27 + id]].concat(), Some(id)),
            (der.as_bytes().to_vec(), None),
        ] {
            let read = parse(&foreign(&written), None).unwrap();
            assert_eq!((&read.bytes, read.recovery_id), (bytes, given));
            complete(&key, &digest, read).unwrap();
        }
        for wrong in [vec![], vec![0x30; 70], [&bytes[..], &[29]].concat()] {
            assert!(parse(&foreign(&wrong), None).is_err());
        }
        // What parties report is not read so generously.
        assert!(parse(&[&bytes[..], &[27 + id]].concat(), None).is_err());
    }

    #[test]
    fn the_address_of_the_generator_is_the_known_one() {
        let bytes =
            hex::decode("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
        let key = normalize(&bytes.unwrap()).unwrap();
        let address = ethereum_address(&key).unwrap();
        assert_eq!(address, "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
        assert_eq!(compress(&key).unwrap().len(), 33);
        assert_eq!(key.0.len(), 65);
    }

    #[test]
    fn a_point_off_the_curve_or_of_another_length_is_refused() {
        for bytes in [&[][..], &[4; 65], &[2; 32], &[2; 34], &[0; 33]] {
            let error = normalize(bytes).unwrap_err();
            assert!(error.details.fields.contains_key("public_key"));
        }
    }

    #[test]
    fn a_high_s_is_refused() {
        let (secret, public) = key(7);
        let digest = Digest([9; 32]);
        let low = Ecdsa::from_slice(&sign(&secret, &digest).bytes).unwrap();
        let (r, s) = low.split_scalars();
        let high = Ecdsa::from_scalars(*r, *-s).unwrap();
        let high = ReportedSignature { bytes: high.to_bytes().into(), recovery_id: None };
        assert!(complete(&public, &digest, high).is_err());
    }

    proptest! {
        #[test]
        fn a_signature_is_completed_with_the_one_id_that_fits(seed in 1_u8..255, digest: [u8; 32]) {
            let (secret, public) = key(seed);
            let digest = Digest(digest);
            let signature = sign(&secret, &digest);
            let done = complete(&public, &digest, signature).unwrap();
            let id = done.recovery_id().unwrap();
            let with_id = [&signature.bytes[..], &[id]].concat();
            prop_assert_eq!(&complete(&public, &digest, parse(&with_id, None).unwrap()).unwrap(), &done);
            for other in (0..4).filter(|other| *other != id) {
                let wrong = parse(&signature.bytes, Some(other)).unwrap();
                prop_assert!(complete(&public, &digest, wrong).is_err());
            }
        }

        #[test]
        fn a_flipped_bit_does_not_verify(bit in 0_usize..512) {
            let (secret, public) = key(3);
            let digest = Digest([1; 32]);
            let mut signature = sign(&secret, &digest);
            signature.bytes[bit / 8] ^= 1 << (bit % 8);
            for recovery_id in [None, Some(0), Some(1)] {
                let signature = ReportedSignature { recovery_id, ..signature };
                prop_assert!(complete(&public, &digest, signature).is_err());
            }
        }
    }
}
