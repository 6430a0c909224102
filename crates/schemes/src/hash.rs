//! Hashes that turn a message into the 32 bytes that are signed.

use std::fmt;
use std::str::FromStr;

use quorate_types::{Digest, Error};
use sha2::Digest as _;

/// A hash that signers and verifiers agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// Keccak-256, as Ethereum hashes.
    Keccak256,
    /// SHA-256, applied once.
    Sha256,
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keccak256 => "keccak256",
            Self::Sha256 => "sha256",
        })
    }
}

impl FromStr for HashKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "keccak256" => Ok(Self::Keccak256),
            "sha256" => Ok(Self::Sha256),
            _ => Err(Error::invalid_field("hash", "hash is keccak256 or sha256")),
        }
    }
}

/// Hashes a message.
pub fn hash_message(kind: HashKind, message: &[u8]) -> Digest {
    match kind {
        HashKind::Keccak256 => Digest(sha3::Keccak256::digest(message).into()),
        HashKind::Sha256 => Digest(sha2::Sha256::digest(message).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_nothing_are_the_known_ones() {
        let hex = |kind| hex::encode(hash_message(kind, b"").0);
        assert_eq!(
            hex(HashKind::Keccak256),
            "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
        );
        assert_eq!(
            hex(HashKind::Sha256),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn names_round_trip() {
        for kind in [HashKind::Keccak256, HashKind::Sha256] {
            assert_eq!(kind.to_string().parse::<HashKind>().unwrap(), kind);
        }
        assert!("md5".parse::<HashKind>().is_err());
    }
}
