//! Packages sealed to somebody's key, whatever is in them: HPKE (RFC 9180) in base mode, in one shot.
//!
//! ```text
//! version 1 (1) | kind of the key (1): 1 X25519, 2 P-256 | encapsulated key (32, 65) | ciphertext, tag (16)
//! ```
//!
//! X25519 goes with ChaCha20-Poly1305, P-256 with AES-256-GCM, HKDF-SHA256 with both. The purpose
//! is HPKE's `info`, so that what is sealed for one opens for no other.

use hpke::aead::{Aead, AeadTag, AesGcm256, ChaCha20Poly1305};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, X25519HkdfSha256};
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use quorate_types::{Error, Kem, KeyId, PackageKey, PartyId, PartyIndex, Result, Scheme, Secret};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const TAG: usize = 16;

/// What a package is sealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A delegate hands a user its share.
    ToUser,
    /// A user lends a delegate its share for one request.
    ToDelegate,
}

impl Purpose {
    fn info(self) -> &'static [u8] {
        match self {
            Self::ToUser => b"quorate/delegate-share/v1",
            Self::ToDelegate => b"quorate/delegate-request/v1",
        }
    }
}

fn tag(kem: Kem) -> u8 {
    match kem {
        Kem::X25519 => 1,
        Kem::P256 => 2,
    }
}

fn unusable() -> Error {
    Error::invalid_field("seal_key", "the seal_key is not a point to which anything can be sealed")
}

/// Which seat of which key a user's package is of.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    /// The key. Its id is that of the keygen's session.
    pub key_id: KeyId,
    /// The epoch of the share.
    pub epoch: u32,
    /// The party that holds the share.
    pub holder: &'a PartyId,
    /// The holder's place, from 0.
    pub index: PartyIndex,
    /// The key's scheme.
    pub scheme: Scheme,
}

impl Seat<'_> {
    /// The associated data of the user's package, sealed in the session with this id.
    ///
    /// ```text
    /// session (16) | key (16) | epoch (4) | index (2) | holder | scheme
    ///                              with the length (8) before the last two; numbers big endian
    /// ```
    pub fn associated_data(&self, session: quorate_types::SessionId) -> Vec<u8> {
        let mut bytes = [&session.0.as_bytes()[..], self.key_id.0.as_bytes()].concat();
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.index.0.to_be_bytes());
        for text in [self.holder.as_str(), self.scheme.name()] {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }
}

/// Refuses a key to which nothing can be sealed.
///
/// # Errors
/// `invalid_request` naming `seal_key`.
pub fn check_package_key(key: &PackageKey) -> Result<()> {
    // A point of small order shows only when it is used.
    seal_package(key, Purpose::ToUser, &[], Zeroizing::default()).map(drop)
}

/// Seals `plain` to a key, bound to a purpose and to associated data.
///
/// # Errors
/// As [`check_package_key`].
pub fn seal_package(
    to: &PackageKey,
    purpose: Purpose,
    associated: &[u8],
    plain: Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>> {
    let sealed = match to.kem() {
        Kem::X25519 => seal::<ChaCha20Poly1305, X25519HkdfSha256>(to, purpose, associated, plain),
        Kem::P256 => seal::<AesGcm256, DhP256HkdfSha256>(to, purpose, associated, plain),
    };
    sealed.ok_or_else(unusable)
}

fn seal<A: Aead, K: hpke::Kem>(
    to: &PackageKey,
    purpose: Purpose,
    associated: &[u8],
    mut plain: Zeroizing<Vec<u8>>,
) -> Option<Vec<u8>> {
    let key = K::PublicKey::from_bytes(to.bytes()).ok()?;
    // In place: what was readable is no more, and nothing of it is copied.
    let (encapsulated, tail) = hpke::single_shot_seal_inout_detached::<A, HkdfSha256, K>(
        &OpModeS::Base,
        &key,
        purpose.info(),
        InOutBuf::from(&mut plain[..]),
        associated,
    )
    .ok()?;
    let front = [VERSION, tag(to.kem())];
    Some([&front[..], &encapsulated.to_bytes(), &plain, &tail.to_bytes()].concat())
}

/// The private half of a [`PackageKey`]. It cannot be printed or serialized.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_schemes::PackageSecret>();
/// ```
pub struct PackageSecret {
    kem: Kem,
    bytes: Secret<[u8; 32]>,
}

impl PackageSecret {
    /// A new one.
    pub fn generate(kem: Kem) -> Self {
        fn new<K: hpke::Kem>() -> Secret<[u8; 32]> {
            let (private, _) = K::gen_keypair();
            let bytes = Zeroizing::new(private.to_bytes().to_vec());
            Secret::new(bytes[..].try_into().expect("private keys of both kinds have 32 bytes"))
        }
        let bytes = match kem {
            Kem::X25519 => new::<X25519HkdfSha256>(),
            Kem::P256 => new::<DhP256HkdfSha256>(),
        };
        Self { kem, bytes }
    }

    /// From its bytes: raw for X25519, the big-endian scalar for P-256.
    ///
    /// # Errors
    /// `invalid_request` when they are no private key.
    pub fn from_bytes(kem: Kem, bytes: Secret<[u8; 32]>) -> Result<Self> {
        let secret = Self { kem, bytes };
        secret.public()?;
        Ok(secret)
    }

    /// The key encapsulation mechanism of the key.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The private key, in the encoding of its mechanism.
    pub fn bytes(&self) -> &Secret<[u8; 32]> {
        &self.bytes
    }

    /// The public half.
    ///
    /// # Errors
    /// `invalid_request` when this is no private key.
    pub fn public(&self) -> Result<PackageKey> {
        fn public<K: hpke::Kem>(bytes: &[u8; 32]) -> Option<Vec<u8>> {
            let private = K::PrivateKey::from_bytes(bytes).ok()?;
            Some(K::sk_to_pk(&private).to_bytes().to_vec())
        }
        let bytes = self.bytes.expose();
        let public = match self.kem {
            Kem::X25519 => public::<X25519HkdfSha256>(bytes),
            Kem::P256 => public::<DhP256HkdfSha256>(bytes),
        };
        let public = public.ok_or_else(|| Error::invalid("these bytes are not a private key"))?;
        PackageKey::new(self.kem, public)
    }

    /// Opens a package; `None` where it was sealed to another key, for something else, or by a
    /// version that is not known here.
    pub fn open(
        &self,
        purpose: Purpose,
        associated: &[u8],
        sealed: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        match self.kem {
            Kem::X25519 => {
                self.open_as::<ChaCha20Poly1305, X25519HkdfSha256>(purpose, associated, sealed)
            }
            Kem::P256 => self.open_as::<AesGcm256, DhP256HkdfSha256>(purpose, associated, sealed),
        }
    }

    fn open_as<A: Aead, K: hpke::Kem>(
        &self,
        purpose: Purpose,
        associated: &[u8],
        sealed: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let body = sealed.strip_prefix(&[VERSION, tag(self.kem)])?;
        let (encapsulated, body) = body.split_at_checked(self.kem.key_len())?;
        let (body, tail) = body.split_at_checked(body.len().checked_sub(TAG)?)?;
        let private = K::PrivateKey::from_bytes(self.bytes.expose()).ok()?;
        let encapsulated = K::EncappedKey::from_bytes(encapsulated).ok()?;
        let tail = AeadTag::<A>::from_bytes(tail).ok()?;
        let mut plain = Zeroizing::new(body.to_vec());
        hpke::single_shot_open_inout_detached::<A, HkdfSha256, K>(
            &OpModeR::Base,
            &private,
            &encapsulated,
            purpose.info(),
            InOutBuf::from(&mut plain[..]),
            associated,
            &tail,
        )
        .ok()?;
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const VECTORS: &str = include_str!("../vectors/package.json");

    fn seat(holder: &PartyId) -> Seat<'_> {
        Seat {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch: 1,
            holder,
            index: PartyIndex(2),
            scheme: Scheme::EcdsaSecp256k1,
        }
    }

    fn session() -> quorate_types::SessionId {
        "550e8400-e29b-41d4-a716-446655440000".parse().unwrap()
    }

    fn bytes(vector: &Value, name: &str) -> Vec<u8> {
        hex::decode(vector[name].as_str().unwrap()).unwrap()
    }

    #[test]
    fn the_committed_vectors_open() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let vectors = vectors.as_array().unwrap();
        assert_eq!(vectors.len(), 2 * Kem::ALL.len());
        let holder = "alice".parse().unwrap();
        for vector in vectors {
            let kem = vector["kem"].as_str().unwrap().parse().unwrap();
            let private: [u8; 32] = bytes(vector, "private_key").try_into().unwrap();
            let secret = PackageSecret::from_bytes(kem, Secret::new(private)).unwrap();
            assert_eq!(&secret.public().unwrap().bytes()[..], bytes(vector, "public_key"));
            let associated = bytes(vector, "aad");
            let purpose = match vector["info"].as_str().unwrap() {
                "quorate/delegate-share/v1" => {
                    assert_eq!(associated, seat(&holder).associated_data(session()));
                    Purpose::ToUser
                }
                _ => Purpose::ToDelegate,
            };
            let plain = secret.open(purpose, &associated, &bytes(vector, "sealed")).unwrap();
            assert_eq!(*plain, bytes(vector, "plain"));
        }
    }

    /// Run with `--ignored` to make the vectors anew, after a change of the version.
    #[test]
    #[ignore = "writes the vectors"]
    fn write_vectors() {
        let holder = "alice".parse().unwrap();
        let mut vectors = Vec::new();
        for &kem in Kem::ALL {
            for purpose in [Purpose::ToUser, Purpose::ToDelegate] {
                let secret = PackageSecret::generate(kem);
                let public = secret.public().unwrap();
                let associated = match purpose {
                    Purpose::ToUser => seat(&holder).associated_data(session()),
                    Purpose::ToDelegate => b"a signed request".to_vec(),
                };
                let plain = b"what only the holder reads".to_vec();
                let sealed =
                    seal_package(&public, purpose, &associated, Zeroizing::new(plain.clone()));
                vectors.push(json!({
                    "kem": kem.name(),
                    "private_key": hex::encode(secret.bytes().expose()),
                    "public_key": hex::encode(public.bytes()),
                    "info": std::str::from_utf8(purpose.info()).unwrap(),
                    "aad": hex::encode(associated),
                    "plain": hex::encode(plain),
                    "sealed": hex::encode(sealed.unwrap()),
                }));
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/package.json");
        let text = serde_json::to_string_pretty(&vectors).unwrap();
        std::fs::write(path, text + "\n").unwrap();
    }

    #[test]
    fn a_package_opens_for_its_key_purpose_and_seat_only() {
        let holder = "alice".parse().unwrap();
        let associated = seat(&holder).associated_data(session());
        for &kem in Kem::ALL {
            let (secret, other) = (PackageSecret::generate(kem), PackageSecret::generate(kem));
            let plain = || Zeroizing::new(b"secret".to_vec());
            let public = secret.public().unwrap();
            let sealed = seal_package(&public, Purpose::ToUser, &associated, plain()).unwrap();
            assert!(!sealed.windows(6).any(|window| window == b"secret"));
            let opens = |secret: &PackageSecret, purpose, associated: &[u8]| {
                secret.open(purpose, associated, &sealed).is_some_and(|opened| opened == plain())
            };
            assert!(opens(&secret, Purpose::ToUser, &associated));
            assert!(!opens(&other, Purpose::ToUser, &associated));
            assert!(!opens(&secret, Purpose::ToDelegate, &associated));
            let bob = "bob".parse().unwrap();
            let key_id = "550e8400-e29b-41d4-a716-446655440001".parse().unwrap();
            for wrong in [
                Seat { holder: &bob, ..seat(&holder) },
                Seat { key_id, ..seat(&holder) },
                Seat { epoch: 0, ..seat(&holder) },
                Seat { index: PartyIndex(1), ..seat(&holder) },
                Seat { scheme: Scheme::Ed25519, ..seat(&holder) },
            ] {
                assert!(!opens(&secret, Purpose::ToUser, &wrong.associated_data(session())));
            }
            for at in 0..sealed.len() {
                let mut bad = sealed.clone();
                bad[at] ^= 1;
                assert!(secret.open(Purpose::ToUser, &associated, &bad).is_none(), "byte {at}");
            }
        }
    }

    #[test]
    fn nothing_is_sealed_to_what_is_no_point() {
        let key = |kem, byte| PackageKey::new(kem, vec![byte; Kem::key_len(kem)]).unwrap();
        for key in [key(Kem::X25519, 0), key(Kem::P256, 0), key(Kem::P256, 4)] {
            let refused = check_package_key(&key).unwrap_err();
            assert!(refused.details.fields.contains_key("seal_key"), "{key:?}");
        }
        for &kem in Kem::ALL {
            check_package_key(&PackageSecret::generate(kem).public().unwrap()).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_sealed_opens_to_the_same_and_junk_does_not(plain: Vec<u8>, junk: Vec<u8>, p256: bool) {
            let secret = PackageSecret::generate(if p256 { Kem::P256 } else { Kem::X25519 });
            let public = secret.public().unwrap();
            let sealed =
                seal_package(&public, Purpose::ToUser, b"aad", Zeroizing::new(plain.clone())).unwrap();
            prop_assert_eq!(sealed.len(), 2 + secret.kem().key_len() + plain.len() + TAG);
            let opened = secret.open(Purpose::ToUser, b"aad", &sealed);
            prop_assert_eq!(opened.map(|opened| opened.to_vec()), Some(plain));
            prop_assert!(secret.open(Purpose::ToUser, b"aad", &junk).is_none());
            let framed = [&[VERSION, tag(secret.kem())][..], &junk].concat();
            prop_assert!(secret.open(Purpose::ToUser, b"aad", &framed).is_none());
        }
    }
}
