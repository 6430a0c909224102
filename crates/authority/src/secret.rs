//! The secret half: what an initiator or approver signs with.

use ed25519_dalek::Signer as _;
use p256::pkcs8::der::Decode as _;
use p256::pkcs8::{
    DecodePrivateKey as _, EncodePrivateKey as _, LineEnding, PrivateKeyInfoRef, SecretDocument,
};
use quorate_types::{
    Approval, AuthorityAlgorithm, AuthorityKey, AuthoritySignature, Authorization, Error, Result,
    Secret,
};
use zeroize::Zeroizing;

use crate::key::{ED25519, Jwk, ed25519_key, from_base64url, p256_key, unreadable};
use crate::request::{Request, approval_message};

/// A key that signs requests or approvals. It cannot be printed or serialized, and is wiped when
/// dropped.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_authority::AuthoritySecret>();
/// ```
pub struct AuthoritySecret {
    secret: Inner,
    public: AuthorityKey,
}

enum Inner {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    P256(Box<p256::ecdsa::SigningKey>),
}

impl AuthoritySecret {
    /// An Ed25519 key from its 32 secret bytes.
    pub fn from_seed(seed: &Secret<[u8; 32]>) -> Self {
        Self::ed25519(ed25519_dalek::SigningKey::from_bytes(seed.expose()))
    }

    fn ed25519(key: ed25519_dalek::SigningKey) -> Self {
        let public = ed25519_key(key.verifying_key().as_bytes()).expect("32 bytes");
        Self { secret: Inner::Ed25519(Box::new(key)), public }
    }

    fn p256(key: p256::ecdsa::SigningKey) -> Self {
        let public = p256_key(key.verifying_key()).expect("33 bytes");
        Self { secret: Inner::P256(Box::new(key)), public }
    }

    /// Reads a private key from a PEM (PKCS#8) or a JWK.
    ///
    /// # Errors
    /// `invalid_request` saying which forms there are.
    pub fn read(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with('{') {
            return Self::from_jwk(&serde_json::from_str(text).map_err(|_| unreadable())?);
        }
        if let Ok(key) = p256::SecretKey::from_pkcs8_pem(text) {
            return Ok(Self::p256(key.into()));
        }
        let (label, document) = SecretDocument::from_pem(text).map_err(|_| unreadable())?;
        let info = PrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|_| unreadable())?;
        if label != "PRIVATE KEY" || info.algorithm.oid != ED25519 {
            return Err(unreadable());
        }
        // The key is an OCTET STRING of its own inside (RFC 8410, section 7).
        match info.private_key.as_bytes() {
            [4, 32, seed @ ..] => Self::from_slice(seed),
            _ => Err(unreadable()),
        }
    }

    fn from_slice(seed: &[u8]) -> Result<Self> {
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.try_into().map_err(|_| unreadable())?);
        Ok(Self::ed25519(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    fn from_jwk(jwk: &Jwk) -> Result<Self> {
        let public = jwk.public()?;
        let secret = jwk.d.as_deref().ok_or_else(|| {
            Error::invalid("this key is the public half: the private one is needed to sign")
        })?;
        let secret = Zeroizing::new(from_base64url(secret)?);
        let read = match public.algorithm() {
            AuthorityAlgorithm::Ed25519 => Self::from_slice(&secret)?,
            AuthorityAlgorithm::P256 => {
                let key = p256::ecdsa::SigningKey::from_slice(&secret);
                Self::p256(key.map_err(|_| unreadable())?)
            }
        };
        if read.public != public {
            return Err(Error::invalid("the two halves of this key do not belong together"));
        }
        Ok(read)
    }

    /// The key as PEM (PKCS#8).
    ///
    /// # Errors
    /// `internal_error` when it cannot be encoded.
    pub fn to_pem(&self) -> Result<Secret<String>> {
        let pem = match &self.secret {
            Inner::P256(key) => {
                let key = p256::SecretKey::from(&**key);
                let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| Error::internal())?;
                pem.as_str().to_owned()
            }
            Inner::Ed25519(key) => {
                let seed = Zeroizing::new([&[4, 32][..], key.as_bytes()].concat());
                let document = SecretDocument::try_from(Zeroizing::new(pkcs8(&seed)).as_slice())
                    .map_err(|_| Error::internal())?;
                let pem = document.to_pem("PRIVATE KEY", LineEnding::LF);
                pem.map_err(|_| Error::internal())?.as_str().to_owned()
            }
        };
        Ok(Secret::new(pem))
    }

    /// The public half.
    pub fn public(&self) -> &AuthorityKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> AuthoritySignature {
        AuthoritySignature(match &self.secret {
            Inner::Ed25519(key) => key.sign(message).to_bytes(),
            Inner::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().into()
            }
        })
    }

    /// Signs a request.
    pub fn authorize(&self, request: &Request) -> Authorization {
        let request = request.encode();
        let signature = self.sign(&request);
        let initiator = self.public.clone();
        Authorization { request: request.into(), initiator, signature, approvals: Vec::new() }
    }

    /// Approves a request in its encoding.
    pub fn approve(&self, request: &[u8]) -> Approval {
        let signature = self.sign(&approval_message(request));
        Approval { approver: self.public.clone(), signature }
    }
}

/// PKCS#8 of an Ed25519 key, version 1: a sequence of version, algorithm and the key as an octet
/// string.
fn pkcs8(key: &[u8]) -> Vec<u8> {
    let front = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22];
    [&front[..], key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::verify;
    use crate::request::tests::sign;

    const P256: &str = r#"{"kty":"EC","crv":"P-256",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}"#;

    fn keys() -> [AuthoritySecret; 2] {
        [AuthoritySecret::from_seed(&Secret::new([3; 32])), AuthoritySecret::read(P256).unwrap()]
    }

    #[test]
    fn what_either_kind_of_key_signs_is_verified_and_nothing_else() {
        for key in keys() {
            let authorization = key.authorize(&sign());
            let verified = |message: &[u8], signature| verify(key.public(), message, signature);
            assert!(verified(&authorization.request, &authorization.signature));
            assert!(!verified(&authorization.request[1..], &authorization.signature));
            let approval = key.approve(&authorization.request);
            assert!(verified(&approval_message(&authorization.request), &approval.signature));
            assert!(!verified(&authorization.request, &approval.signature));
        }
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        for key in keys() {
            let pem = key.to_pem().unwrap();
            let again = AuthoritySecret::read(pem.expose()).unwrap();
            assert_eq!(again.public(), key.public());
            assert_eq!(&crate::read_public_key(pem.expose()).unwrap(), key.public());
        }
    }

    #[test]
    fn keys_of_openssl_are_read() {
        let ed25519 = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKraROaTMMzaNJsWF2gBRY18znBjZZwLRSXlg5BeRFVq
-----END PRIVATE KEY-----";
        let key = AuthoritySecret::read(ed25519).unwrap();
        assert_eq!(
            key.public().to_string(),
            "ed25519:d24fc4199023609f1ef55b8b087d4ff77ae75cdaec58de9217cd19f0fdd64491"
        );
        let p256 = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgq1beGBI8rLt//db+
hNwwOp00CL3e8awwNAsnAuVKNqGhRANCAASDPPaSteJOm4vjOsWojxWcWkesSfVA
HNfqo2AmUYrPFTVHLudGZ1BeplAUcdFbrFHfs05oZhFA5sD3ZdDMskvB
-----END PRIVATE KEY-----";
        assert_eq!(
            AuthoritySecret::read(p256).unwrap().public().to_string(),
            "p256:03833cf692b5e24e9b8be33ac5a88f159c5a47ac49f5401cd7eaa36026518acf15"
        );
    }

    #[test]
    fn halves_that_do_not_belong_together_are_refused() {
        let other = P256.replace("870MB6", "870MB7");
        assert!(AuthoritySecret::read(&other).is_err());
        let public = P256.replace(r#""d""#, r#""e""#);
        let refused = AuthoritySecret::read(&public).err().unwrap();
        assert!(refused.message.contains("public half"), "{refused}");
    }
}
