//! What is signed: a message and how it is hashed, or a digest.

use quorate_schemes::{HashKind, hash_message};
use quorate_types::{Digest, Error, Result, SignInput};
use serde::{Deserialize, Serialize};

/// Longest message that is shown to the others, in bytes. A longer one is hashed by the caller.
const MAX_MESSAGE: usize = 16 << 10;

/// How a message becomes the 32 bytes that are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MessageHash {
    /// Keccak-256, as Ethereum hashes.
    Keccak256,
    /// SHA-256, applied once.
    Sha256,
    /// The message is the digest itself, 32 bytes.
    Raw,
    /// None: the message itself is signed, by a key whose scheme signs messages.
    None,
}

impl MessageHash {
    /// The name on the command line; the inverse of `from_str`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keccak256 => "keccak256",
            Self::Sha256 => "sha256",
            Self::Raw => "raw",
            Self::None => "none",
        }
    }

    /// What is signed of a message.
    ///
    /// # Errors
    /// `invalid_request` when a raw digest is not 32 bytes, or a message that is signed itself is too
    /// long.
    pub fn input(self, message: &[u8]) -> Result<SignInput> {
        let digest = match self {
            Self::Keccak256 => hash_message(HashKind::Keccak256, message),
            Self::Sha256 => hash_message(HashKind::Sha256, message),
            Self::Raw => Digest(message.try_into().map_err(|_| {
                Error::invalid_field("message", "a digest is 32 bytes, 64 hex digits")
            })?),
            Self::None => {
                let input = SignInput::from_fields(None, Some(message.to_vec().into()))?;
                return input.ok_or_else(Error::internal);
            }
        };
        Ok(SignInput::Digest(digest))
    }
}

impl std::str::FromStr for MessageHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "keccak256" => Ok(Self::Keccak256),
            "sha256" => Ok(Self::Sha256),
            "raw" => Ok(Self::Raw),
            "none" => Ok(Self::None),
            _ => Err(Error::invalid_field("hash", "hash is keccak256, sha256, raw or none")),
        }
    }
}

/// What a device proposes to sign, whole, so that the others see what they agree to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct SigningRequest {
    message: Vec<u8>,
    hash: MessageHash,
    input: SignInput,
}

#[derive(Clone, Serialize, Deserialize)]
struct Raw {
    message_hex: String,
    message_hash: MessageHash,
}

impl SigningRequest {
    /// A message and how it is hashed.
    ///
    /// # Errors
    /// `invalid_request` when a raw digest is not 32 bytes, or the message is over 16 KiB.
    pub fn new(message: Vec<u8>, hash: MessageHash) -> Result<Self> {
        if message.len() > MAX_MESSAGE {
            let problem = format!("a message is at most {MAX_MESSAGE} bytes; hash it first");
            return Err(Error::invalid_field("message", problem));
        }
        let input = hash.input(&message)?;
        Ok(Self { message, hash, input })
    }

    /// The message, or the digest where that is all there is.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// How it is hashed.
    pub fn hash(&self) -> MessageHash {
        self.hash
    }

    /// What is signed: a digest of the message, or the message.
    pub fn input(&self) -> SignInput {
        self.input.clone()
    }
}

impl TryFrom<Raw> for SigningRequest {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self> {
        let message = hex::decode(&raw.message_hex)
            .map_err(|_| Error::invalid_field("message_hex", "message_hex is hex"))?;
        Self::new(message, raw.message_hash)
    }
}

impl From<SigningRequest> for Raw {
    fn from(request: SigningRequest) -> Self {
        Self { message_hex: hex::encode(request.message), message_hash: request.hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_made_from_what_is_shown() {
        let request = SigningRequest::new(b"hello".to_vec(), MessageHash::Sha256).unwrap();
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"message_hex":"68656c6c6f","message_hash":"SHA256"}"#);
        assert_eq!(serde_json::from_str::<SigningRequest>(&text).unwrap(), request);
        let digest = hex::encode(request.input().digest().unwrap().0);
        assert_eq!(digest, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        let raw = SigningRequest::new(vec![9; 32], MessageHash::Raw).unwrap();
        assert_eq!(raw.input(), SignInput::Digest(Digest([9; 32])));
        let whole = SigningRequest::new(vec![9; 31], MessageHash::None).unwrap();
        assert_eq!(whole.input(), SignInput::Message(vec![9; 31].into()));
        assert!(SigningRequest::new(vec![9; 31], MessageHash::Raw).is_err());
        assert!(SigningRequest::new(vec![9; MAX_MESSAGE + 1], MessageHash::Sha256).is_err());
    }
}
