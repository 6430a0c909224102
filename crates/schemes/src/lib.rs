//! What a public key and a signature are in each scheme: parse, verify, recover, address.
//!
//! Pure, and without secrets but for the key that opens a package. The functions dispatch on
//! [`Scheme`]; each scheme has its module.

mod attestation;
mod delegate;
mod ed25519;
mod hash;
mod identity;
mod package;
mod secp256k1;

pub use attestation::{Statement, check_attestation};
pub use delegate::{DELEGATE_KEY, delegate_key_message, verify_delegate_key};
pub use hash::{HashKind, hash_message};
pub use identity::{IdentityVerifier, in_domain, verify_identity};
pub use package::{PackageSecret, Purpose, Seat, check_package_key, seal_package};
use quorate_types::{
    Digest, Error, PublicKey, ReportedSignature, Result, Scheme, SignInput, Signature,
};

/// Reads a public key in any encoding its scheme knows and gives the canonical one.
///
/// secp256k1: 33 or 65 bytes of SEC1 in, 65 bytes uncompressed out. Ed25519: 32 bytes of RFC 8032,
/// canonical and not of small order.
pub fn normalize_public_key(scheme: Scheme, bytes: &[u8]) -> Result<PublicKey> {
    match scheme {
        Scheme::EcdsaSecp256k1 => secp256k1::normalize(bytes),
        Scheme::Ed25519 => ed25519::normalize(bytes),
        _ => Err(unknown(scheme)),
    }
}

/// The scheme and the canonical form of a public key: the schemes' encodings differ in length.
///
/// # Errors
/// `invalid_request` with what each scheme takes, when it is a key of none.
pub fn identify_public_key(bytes: &[u8]) -> Result<(Scheme, PublicKey)> {
    let mut problems = Vec::new();
    for scheme in Scheme::ALL {
        match normalize_public_key(*scheme, bytes) {
            Ok(key) => return Ok((*scheme, key)),
            Err(error) => problems.push(error.message),
        }
    }
    Err(Error::invalid_field("public_key", problems.join("; ")))
}

/// The shortest encoding of a public key (secp256k1: 33 bytes, Ed25519: 32 bytes).
pub fn compressed_public_key(scheme: Scheme, key: &PublicKey) -> Result<Vec<u8>> {
    match scheme {
        Scheme::EcdsaSecp256k1 => secp256k1::compress(key),
        Scheme::Ed25519 => ed25519::normalize(&key.0).map(|key| key.0),
        _ => Err(unknown(scheme)),
    }
}

/// Reads a signature: 64 bytes, or 65 with the recovery id last, for ECDSA; 64 bytes for Ed25519.
///
/// Only the form is checked; see [`complete_signature`].
pub fn parse_signature(
    scheme: Scheme,
    bytes: &[u8],
    recovery_id: Option<u8>,
) -> Result<ReportedSignature> {
    match scheme {
        Scheme::EcdsaSecp256k1 => secp256k1::parse(bytes, recovery_id),
        Scheme::Ed25519 => ed25519::parse(bytes, recovery_id),
        _ => Err(unknown(scheme)),
    }
}

/// Reads a signature as other programs write it. ECDSA: DER, and a recovery id of 27 or 28, too.
///
/// # Errors
/// `invalid_request` naming the field `signature`.
pub fn parse_foreign_signature(scheme: Scheme, bytes: &[u8]) -> Result<ReportedSignature> {
    match scheme {
        Scheme::EcdsaSecp256k1 => secp256k1::parse(&secp256k1::foreign(bytes), None),
        _ => parse_signature(scheme, bytes, None),
    }
}

/// Verifies a signature, refuses a malleable one, and checks or finds its recovery id where the
/// scheme has one.
///
/// The error names the field `signature` and says "does not verify" where that is the reason.
pub fn complete_signature(
    scheme: Scheme,
    key: &PublicKey,
    input: &SignInput,
    signature: ReportedSignature,
) -> Result<Signature> {
    match scheme {
        Scheme::EcdsaSecp256k1 => secp256k1::complete(key, &digest_of(scheme, input)?, signature),
        Scheme::Ed25519 => ed25519::complete(key, message_of(scheme, input)?, signature),
        _ => Err(unknown(scheme)),
    }
}

/// Verifies a signature as [`complete_signature`] does.
pub fn verify(
    scheme: Scheme,
    key: &PublicKey,
    input: &SignInput,
    signature: &Signature,
) -> Result<()> {
    complete_signature(scheme, key, input, signature.into()).map(drop)
}

/// Whether keys of this scheme sign what is given: a digest or a message.
///
/// # Errors
/// `invalid_request` naming the field that the scheme takes instead.
pub fn check_input(scheme: Scheme, input: &SignInput) -> Result<()> {
    match scheme {
        Scheme::EcdsaSecp256k1 => digest_of(scheme, input).map(drop),
        Scheme::Ed25519 => message_of(scheme, input).map(drop),
        _ => Err(unknown(scheme)),
    }
}

/// Whether keys of this scheme sign messages, and not hashes of them.
pub fn signs_messages(scheme: Scheme) -> bool {
    check_input(scheme, &SignInput::Message(Default::default())).is_ok()
}

fn digest_of(scheme: Scheme, input: &SignInput) -> Result<Digest> {
    input.digest().ok_or_else(|| {
        let problem = format!("a key for {scheme} signs a hash: give message_hash, not message");
        Error::invalid_field("message_hash", problem)
    })
}

fn message_of(scheme: Scheme, input: &SignInput) -> Result<&[u8]> {
    let message = input.message().map(|message| message.as_ref());
    message.ok_or_else(|| {
        let problem = format!("a key for {scheme} signs a message: give message, not message_hash");
        Error::invalid_field("message", problem)
    })
}

/// The Ethereum address of a key, with the EIP-55 checksum; only secp256k1 has one.
pub fn ethereum_address(scheme: Scheme, key: &PublicKey) -> Option<String> {
    (scheme == Scheme::EcdsaSecp256k1).then(|| secp256k1::ethereum_address(key))?
}

fn unknown(scheme: Scheme) -> Error {
    Error::invalid_field("scheme", format!("{scheme} is not offered by this version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_scheme_is_read_and_of_none_is_told_what_each_takes() {
        let ed25519 = [&[0x58][..], &[0x66; 31]].concat();
        let secp256k1 = [&[2][..], &[1; 32]].concat();
        let (scheme, key) = identify_public_key(&ed25519).unwrap();
        assert_eq!((scheme, key.0), (Scheme::Ed25519, ed25519));
        let (scheme, key) = identify_public_key(&secp256k1).unwrap();
        assert_eq!((scheme, key.0.len()), (Scheme::EcdsaSecp256k1, 65));
        let error = identify_public_key(&secp256k1[..31]).unwrap_err();
        let text = &error.details.fields["public_key"];
        assert!(text.contains("secp256k1") && text.contains("Ed25519"), "{text}");
    }

    #[test]
    fn each_scheme_says_which_input_it_takes() {
        let digest = SignInput::Digest(Digest([7; 32]));
        let message = SignInput::Message(vec![7; 32].into());
        for (scheme, taken, refused, field) in [
            (Scheme::EcdsaSecp256k1, &digest, &message, "message_hash"),
            (Scheme::Ed25519, &message, &digest, "message"),
        ] {
            assert!(check_input(scheme, taken).is_ok());
            let error = check_input(scheme, refused).unwrap_err();
            assert!(error.details.fields.contains_key(field), "{error:?}");
        }
    }
}
