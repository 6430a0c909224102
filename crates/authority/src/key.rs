//! Public keys of initiators and approvers: how they are read, and how a signature is verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey as Ed25519;
use p256::ecdsa::VerifyingKey as P256;
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::der::{Decode as _, Document};
use p256::pkcs8::spki::SubjectPublicKeyInfoRef;
use p256::pkcs8::{DecodePublicKey as _, ObjectIdentifier};
use quorate_types::{AuthorityAlgorithm, AuthorityKey, AuthoritySignature, Error, Result};
use serde::Deserialize;

/// Ed25519 in PKCS#8 and SubjectPublicKeyInfo (RFC 8410).
pub(crate) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A public key as its curve has it.
pub(crate) enum Verifier {
    Ed25519(Ed25519),
    P256(Box<P256>),
}

impl Verifier {
    /// `None` where the bytes are no point of the curve, or one of small order.
    pub(crate) fn new(key: &AuthorityKey) -> Option<Self> {
        match key.algorithm() {
            AuthorityAlgorithm::Ed25519 => {
                let key = Ed25519::from_bytes(key.bytes().try_into().ok()?).ok()?;
                (!key.is_weak()).then_some(Self::Ed25519(key))
            }
            AuthorityAlgorithm::P256 => {
                P256::from_sec1_bytes(key.bytes()).ok().map(Box::new).map(Self::P256)
            }
        }
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &AuthoritySignature) -> bool {
        match self {
            Self::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
                key.verify_strict(message, &signature).is_ok()
            }
            Self::P256(key) => p256::ecdsa::Signature::from_slice(&signature.0)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// Whether `key` has signed `message`.
pub fn verify(key: &AuthorityKey, message: &[u8], signature: &AuthoritySignature) -> bool {
    Verifier::new(key).is_some_and(|key| key.verify(message, signature))
}

pub(crate) fn ed25519_key(bytes: &[u8]) -> Result<AuthorityKey> {
    AuthorityKey::new(AuthorityAlgorithm::Ed25519, bytes.to_vec())
}

pub(crate) fn p256_key(key: &P256) -> Result<AuthorityKey> {
    let point = key.to_sec1_point(true);
    AuthorityKey::new(AuthorityAlgorithm::P256, point.as_bytes().to_vec())
}

pub(crate) fn unreadable() -> Error {
    Error::invalid(
        "not a key of an initiator or approver: give ed25519:HEX, p256:HEX, a PEM (PKCS#8 or SPKI, as \
         openssl writes it) or a JWK of kty OKP with crv Ed25519, or EC with P-256",
    )
}

/// A JSON Web Key of one of the two kinds.
#[derive(Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: Option<String>,
    pub(crate) d: Option<String>,
}

pub(crate) fn from_base64url(text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable())
}

impl Jwk {
    pub(crate) fn public(&self) -> Result<AuthorityKey> {
        let x = from_base64url(&self.x)?;
        match (self.kty.as_str(), self.crv.as_str(), &self.y) {
            ("OKP", "Ed25519", None) => ed25519_key(&x),
            ("EC", "P-256", Some(y)) => {
                let point = [&[4][..], &x, &from_base64url(y)?].concat();
                p256_key(&P256::from_sec1_bytes(&point).map_err(|_| unreadable())?)
            }
            _ => Err(unreadable()),
        }
    }
}

/// Reads a public key from its text, a PEM or a JWK. Of a private key it takes the public half.
///
/// # Errors
/// `invalid_request` saying which forms there are.
pub fn read_public_key(text: &str) -> Result<AuthorityKey> {
    let text = text.trim();
    let key = if text.starts_with('{') {
        serde_json::from_str::<Jwk>(text).map_err(|_| unreadable())?.public()?
    } else if text.contains("PRIVATE KEY") {
        crate::AuthoritySecret::read(text)?.public().clone()
    } else if text.starts_with("-----BEGIN") {
        from_pem(text)?
    } else {
        text.parse().map_err(|_| unreadable())?
    };
    match Verifier::new(&key) {
        Some(_) => Ok(key),
        None => Err(Error::invalid(format!("{key} is not a point on its curve"))),
    }
}

fn from_pem(text: &str) -> Result<AuthorityKey> {
    if let Ok(key) = p256::PublicKey::from_public_key_pem(text) {
        return p256_key(&P256::from(key));
    }
    let (label, document) = Document::from_pem(text).map_err(|_| unreadable())?;
    let info = SubjectPublicKeyInfoRef::from_der(document.as_bytes()).map_err(|_| unreadable())?;
    if label != "PUBLIC KEY" || info.algorithm.oid != ED25519 {
        return Err(unreadable());
    }
    ed25519_key(info.subject_public_key.as_bytes().ok_or_else(unreadable)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Keys and signatures that openssl 3 has made.
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA0k/EGZAjYJ8e9VuLCH1P93rnXNrsWN6SF80Z8P3WRJE=
-----END PUBLIC KEY-----";
    const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgzz2krXiTpuL4zrFqI8VnFpHrEn1
QBzX6qNgJlGKzxU1Ry7nRmdQXqZQFHHRW6xR37NOaGYRQObA92XQzLJLwQ==
-----END PUBLIC KEY-----";

    #[test]
    fn keys_of_openssl_are_read() {
        let key = read_public_key(ED25519_PUBLIC).unwrap();
        assert_eq!(
            key.to_string(),
            "ed25519:d24fc4199023609f1ef55b8b087d4ff77ae75cdaec58de9217cd19f0fdd64491"
        );
        let key = read_public_key(P256_PUBLIC).unwrap();
        assert_eq!(
            key.to_string(),
            "p256:03833cf692b5e24e9b8be33ac5a88f159c5a47ac49f5401cd7eaa36026518acf15"
        );
        assert_eq!(read_public_key(&key.to_string()).unwrap(), key);
    }

    #[test]
    fn a_signature_of_openssl_is_verified() {
        let key = read_public_key(ED25519_PUBLIC).unwrap();
        let mut signature = hex::decode("587fb9e6586941a7b552b614983ee74cd945057059dc93ee932be697ed3e7aeb60582e8d6e00a5a0cf3075b05ee9d65b13b550aad952e34c6a2d7b083296c303").unwrap();
        let read = |bytes: &[u8]| AuthoritySignature::read(bytes).unwrap();
        assert!(verify(&key, b"quorate", &read(&signature)));
        assert!(!verify(&key, b"quorats", &read(&signature)));
        signature[3] ^= 1;
        assert!(!verify(&key, b"quorate", &read(&signature)));
    }

    #[test]
    fn json_web_keys_are_read() {
        // RFC 8037, appendix A.1, and RFC 7517, appendix A.1.
        let key = r#"{"kty":"OKP","crv":"Ed25519",
            "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let public = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(read_public_key(key).unwrap().to_string(), public);
        let key = r#"{"kty":"EC","crv":"P-256","kid":"1","use":"enc",
            "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;
        let public = "p256:0330a0424cd21c2944838a2d75c92b37e76ea20d9f00893a3b4eee8a3c0aafec3e";
        assert_eq!(read_public_key(key).unwrap().to_string(), public);
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_forms_there_are() {
        let neutral = format!("ed25519:01{}", "00".repeat(31));
        let off_curve = format!("p256:02{}", "ff".repeat(32));
        let wrong = ["", "{}", "key", "-----BEGIN PUBLIC KEY-----", &neutral, &off_curve];
        for text in wrong {
            assert!(read_public_key(text).is_err(), "{text}");
        }
        assert!(read_public_key("{}").unwrap_err().message.contains("PEM"));
    }
}
