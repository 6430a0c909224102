//! Who has asked for a session, and who has approved of it: signatures that parties check.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::words::words;

/// Longest request in its canonical encoding, in bytes: 16 holders with the longest names take
/// about 2.7 kB.
pub const MAX_REQUEST: usize = 8 << 10;

/// Most approvals of one request that are kept: more people than any rule asks for.
pub const MAX_APPROVALS: usize = 32;

words! {
    /// The signature algorithm of an initiator's or approver's key.
    AuthorityAlgorithm("algorithm") {
        /// Ed25519 (RFC 8032); public keys of 32 bytes.
        Ed25519 = "ed25519",
        /// ECDSA with SHA-256 over P-256; public keys of 33 bytes, compressed SEC1.
        P256 = "p256",
    }
}

impl AuthorityAlgorithm {
    /// Length of its public keys in bytes.
    const fn key_len(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::P256 => 33,
        }
    }
}

/// The public key of an initiator or approver: `ed25519:` or `p256:` and hex digits. Whether the
/// bytes are a point of the curve shows when a signature is verified.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthorityKey {
    algorithm: AuthorityAlgorithm,
    bytes: Bytes,
}

impl AuthorityKey {
    /// A key from its parts.
    ///
    /// # Errors
    /// `invalid_request` when the length is not that of the algorithm's keys.
    pub fn new(algorithm: AuthorityAlgorithm, bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.len() == algorithm.key_len() {
            Ok(Self { algorithm, bytes })
        } else {
            Err(malformed())
        }
    }

    /// The signature algorithm of the key.
    pub fn algorithm(&self) -> AuthorityAlgorithm {
        self.algorithm
    }

    /// Ed25519: 32 bytes; P-256: 33 bytes, compressed SEC1.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn malformed() -> Error {
    Error::invalid(
        "a key of an initiator or approver is ed25519: and 64 hex digits, or p256: and 66 hex \
         digits (compressed)",
    )
}

impl FromStr for AuthorityKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, digits) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = name.parse().map_err(|_| malformed())?;
        Self::new(algorithm, hex::decode(digits).map_err(|_| malformed())?)
    }
}

impl fmt::Display for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), hex::encode(&self.bytes))
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for AuthorityKey {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AuthorityKey> for String {
    fn from(key: AuthorityKey) -> Self {
        key.to_string()
    }
}

/// A signature of an initiator or approver: 64 bytes, R ‖ S (Ed25519) or r ‖ s (P-256).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthoritySignature(pub [u8; 64]);

impl AuthoritySignature {
    /// A signature from the bytes of a wire.
    ///
    /// # Errors
    /// `invalid_request` when they are not 64.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let wrong = |_| Error::invalid_field("signature", "a signature of a request is 64 bytes");
        bytes.try_into().map(Self).map_err(wrong)
    }
}

impl fmt::Debug for AuthoritySignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl TryFrom<String> for AuthoritySignature {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::read(&hex::decode(text).unwrap_or_default())
    }
}

impl From<AuthoritySignature> for String {
    fn from(signature: AuthoritySignature) -> Self {
        hex::encode(signature.0)
    }
}

/// An approver's signature over the hash of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The public key of the approver.
    pub approver: AuthorityKey,
    /// Over the approval's domain and the SHA-256 of the request.
    pub signature: AuthoritySignature,
}

/// A request as its initiator has signed it, with the approvals that have come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// The request in its canonical encoding, which carries its version; at most [`MAX_REQUEST`]
    /// bytes.
    #[serde(with = "hex_bytes")]
    pub request: Bytes,
    /// The public key of the initiator.
    pub initiator: AuthorityKey,
    /// The initiator's, over `request`.
    pub signature: AuthoritySignature,
    /// In the order in which they came, one of each approver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
}

impl Authorization {
    /// Refuses one that is out of proportion.
    ///
    /// # Errors
    /// `invalid_request` naming the field.
    pub fn check_size(&self) -> Result<()> {
        if self.request.len() > MAX_REQUEST {
            let problem = format!("a signed request is at most {MAX_REQUEST} bytes");
            return Err(Error::invalid_field("authorization", problem));
        }
        if self.approvals.len() > MAX_APPROVALS {
            let problem = format!("a request has at most {MAX_APPROVALS} approvals");
            return Err(Error::invalid_field("approvals", problem));
        }
        Ok(())
    }
}

mod hex_bytes {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(input)?;
        hex::decode(text).map(Bytes::from).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_nothing_else_is() {
        for text in [format!("ed25519:{}", "ab".repeat(32)), format!("p256:{}", "02".repeat(33))] {
            assert_eq!(text.parse::<AuthorityKey>().unwrap().to_string(), text);
        }
        for wrong in ["", "ed25519", "ed25519:ab", "p256:", "rsa:00", "ed25519:zz"] {
            assert!(wrong.parse::<AuthorityKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_authorization_is_stored_and_read() {
        let key: AuthorityKey = format!("ed25519:{}", "ab".repeat(32)).parse().unwrap();
        let signature = AuthoritySignature([7; 64]);
        let authorization = Authorization {
            request: Bytes::from_static(b"request"),
            initiator: key.clone(),
            signature,
            approvals: vec![Approval { approver: key, signature }],
        };
        let text = serde_json::to_string(&authorization).unwrap();
        assert_eq!(serde_json::from_str::<Authorization>(&text).unwrap(), authorization);
    }
}
