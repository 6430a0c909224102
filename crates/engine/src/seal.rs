//! How shares are sealed at rest.
//!
//! ```text
//! version 2 (1) | tag of the scheme (1) | the share, in its scheme's form
//! ```
//!
//! Version 1 had no tag: its shares are ECDSA over secp256k1.

use argon2::Argon2;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hmac::{Hmac, KeyInit as _, Mac as _};
use quorate_types::{Error, KeyId, PartyId, Result, Secret};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::handshake::random;
use crate::registry;
use crate::share::Share;

const VERSION: u8 = 2;
const FIRST_VERSION: u8 = 1;
/// The scheme of every share of the first version.
const FIRST_VERSION_TAG: u8 = 1;
const NONCE: usize = 12;
const DOMAIN: &[u8] = b"quorate/share/v1";
/// Argon2id: 64 MiB, 3 passes, 1 lane (RFC 9106, second recommended option, with one lane so that
/// the time is the same on every machine).
const ARGON2: (u32, u32, u32) = (64 * 1024, 3, 1);

impl Share {
    /// Seals the share for storage: nonce ‖ ChaCha20-Poly1305, bound to party, key and epoch.
    pub fn seal(&self, key: &SealKey, context: &SealContext<'_>) -> Result<Vec<u8>> {
        key.seal(&self.plain()?, &context.bytes())
    }

    /// Opens a sealed share.
    pub fn open(sealed: &[u8], key: &SealKey, context: &SealContext<'_>) -> Result<Self> {
        let refused = || {
            Error::invalid(format!(
                "the share of key {} cannot be opened: wrong passphrase or key file, or it belongs \
                 to another party or epoch, or it is damaged",
                context.key_id
            ))
        };
        let plain = key.open(sealed, &context.bytes()).ok_or_else(refused)?;
        Self::read(&plain)?.unwrap_or_else(|| Err(refused()))
    }

    /// What is sealed of it.
    pub(crate) fn plain(&self) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.encode(&[VERSION, registry::row(self.scheme())?.share_tag]))
    }

    /// Reads what was sealed of a share; `None` where the bytes are none.
    ///
    /// # Errors
    /// `invalid_request` when a newer version has sealed it.
    pub(crate) fn read(plain: &[u8]) -> Result<Option<Result<Self>>> {
        let newer = || Error::invalid("the share was sealed by a newer version");
        let (tag, body) = match plain {
            [FIRST_VERSION, body @ ..] => (FIRST_VERSION_TAG, body),
            [VERSION, tag, body @ ..] => (*tag, body),
            _ => return Err(newer()),
        };
        let row = registry::row_of_share(tag).ok_or_else(newer)?;
        Ok((row.read_share)(body))
    }
}

/// The key that seals shares at rest.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_engine::SealKey>();
/// ```
pub struct SealKey(Secret<[u8; 32]>);

impl SealKey {
    /// From a key file's 32 bytes.
    pub fn from_bytes(bytes: Secret<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// From a passphrase and a stored salt, by Argon2id: about 0.1 s and 64 MiB.
    pub fn from_passphrase(passphrase: &[u8], salt: &[u8]) -> Result<Self> {
        let (memory, passes, lanes) = ARGON2;
        let parameters =
            argon2::Params::new(memory, passes, lanes, Some(32)).map_err(|_| Error::internal())?;
        let argon = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
        let mut key = Zeroizing::new([0; 32]);
        // Memory of our own, wiped: the library's would be freed with what the key is made of.
        let mut blocks = Zeroizing::new(vec![argon2::Block::default(); memory as usize]);
        argon.hash_password_into_with_memory(passphrase, salt, &mut *key, &mut **blocks).map_err(
            |_| {
                Error::invalid(
                    "the passphrase or its salt cannot be used: the salt is 8 bytes or more",
                )
            },
        )?;
        Ok(Self(Secret::new(*key)))
    }

    /// Seals bytes: nonce ‖ ChaCha20-Poly1305, bound to `context`.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE] = random();
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: context })
            .map_err(|_| Error::internal())?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens sealed bytes; `None` when the key or the context is another, or they are damaged.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE>()?;
        let payload = Payload { msg: body, aad: context };
        self.cipher().decrypt(&Nonce::from(*nonce), payload).map(Zeroizing::new).ok()
    }

    /// The key that authenticates what is stored beside the shares.
    pub fn row_key(&self) -> RowKey {
        self.derived(b"quorate/vault-rows/v1", b"")
    }

    /// The key that authenticates what a party remembers of requests.
    pub fn ledger_key(&self, party: &PartyId) -> RowKey {
        self.derived(b"quorate/ledger-rows/v1\n", party.as_str().as_bytes())
    }

    fn derived(&self, label: &[u8], context: &[u8]) -> RowKey {
        let mut mac = keyed(self.0.expose());
        mac.update(label);
        mac.update(context);
        RowKey(Secret::new(mac.finalize().into_bytes().into()))
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(self.0.expose().into())
    }
}

/// Authenticates rows that are stored in the clear, by HMAC-SHA-256.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_engine::RowKey>();
/// ```
pub struct RowKey(Secret<[u8; 32]>);

impl RowKey {
    /// A tag over `row` that serves one purpose.
    pub fn tag(&self, purpose: &str, row: &[u8]) -> [u8; 32] {
        let mut mac = keyed(self.0.expose());
        mac.update(&(purpose.len() as u64).to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.update(row);
        mac.finalize().into_bytes().into()
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// What a sealed share is bound to.
pub struct SealContext<'a> {
    /// The party to which the sealed share belongs.
    pub party_id: &'a PartyId,
    /// Of which key.
    pub key_id: KeyId,
    /// In which epoch.
    pub epoch: u32,
}

impl SealContext<'_> {
    fn bytes(&self) -> Vec<u8> {
        let name = self.party_id.as_str().as_bytes();
        let mut bytes = DOMAIN.to_vec();
        bytes.extend_from_slice(&(name.len() as u64).to_be_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(self.key_id.0.as_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes
    }
}
