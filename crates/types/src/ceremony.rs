//! What a session does, and with which key.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::KeyId;
use crate::key::KeyEpoch;
use crate::scheme::{Digest, PublicKey, Scheme};
use crate::threshold::Threshold;
use crate::words::words;

words! {
    /// The kind of a ceremony: the wires' `session_type`.
    SessionKind("session_type") {
        /// Makes a key that never exists in one place.
        Keygen = "keygen",
        /// Makes a signature under such a key.
        Sign = "sign",
        /// Replaces the shares of such a key; the key stays.
        Refresh = "refresh",
    }
}

impl SessionKind {
    /// Whether it makes shares: heavy, and by all holders of a key.
    pub fn makes_shares(self) -> bool {
        matches!(self, Self::Keygen | Self::Refresh)
    }
}

/// Longest message that can be signed, in bytes. Every signer gets all of it.
pub const MAX_MESSAGE: usize = 64 << 10;

/// What is signed. Which of the two a key takes is its scheme's to say.
#[derive(Clone, PartialEq, Eq)]
pub enum SignInput {
    /// A hash of 32 bytes (ECDSA).
    Digest(Digest),
    /// The message itself, at most [`MAX_MESSAGE`] bytes (Ed25519).
    Message(Bytes),
}

impl SignInput {
    /// Exactly one of the two wire fields, or neither.
    ///
    /// # Errors
    /// `invalid_request` when both are given or the message is too long.
    pub fn from_fields(digest: Option<Digest>, message: Option<Bytes>) -> Result<Option<Self>> {
        match (digest, message) {
            (Some(_), Some(_)) => {
                Err(Error::invalid_field("message", "give message_hash or message, not both"))
            }
            (None, Some(message)) if message.len() > MAX_MESSAGE => {
                let problem = format!("a message is at most {MAX_MESSAGE} bytes");
                Err(Error::invalid_field("message", problem))
            }
            (Some(digest), None) => Ok(Some(Self::Digest(digest))),
            (None, Some(message)) => Ok(Some(Self::Message(message))),
            (None, None) => Ok(None),
        }
    }

    /// The wire fields.
    pub fn into_fields(self) -> (Option<Digest>, Option<Bytes>) {
        match self {
            Self::Digest(digest) => (Some(digest), None),
            Self::Message(message) => (None, Some(message)),
        }
    }

    /// The digest, where that is what is signed.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Digest(digest) => Some(*digest),
            Self::Message(_) => None,
        }
    }

    /// The message, where that is what is signed.
    pub fn message(&self) -> Option<&Bytes> {
        match self {
            Self::Digest(_) => None,
            Self::Message(message) => Some(message),
        }
    }
}

impl fmt::Debug for SignInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Message(message) => write!(f, "Message({} bytes)", message.len()),
        }
    }
}

/// What a session does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Flat", into = "Flat")]
pub enum Ceremony {
    /// Makes a key.
    Keygen {
        /// The scheme of the new key.
        scheme: Scheme,
        /// Signers needed and holders.
        threshold: Threshold,
    },
    /// Makes a signature.
    Sign {
        /// With this key.
        key: Arc<KeyEpoch>,
        /// The digest or message that is signed.
        input: SignInput,
    },
    /// Makes the shares of the next epoch of a key, by all its holders in their order.
    Refresh {
        /// The epoch that is replaced.
        key: Arc<KeyEpoch>,
    },
}

impl Ceremony {
    /// From the parts that wires and documents keep side by side.
    ///
    /// # Errors
    /// `invalid_request` when a part is missing or belongs to another kind.
    pub fn from_parts(
        kind: SessionKind,
        scheme: Scheme,
        threshold: Threshold,
        key: Option<Arc<KeyEpoch>>,
        input: Option<SignInput>,
    ) -> Result<Self> {
        match (kind, key, input) {
            (SessionKind::Keygen, None, None) => Ok(Self::Keygen { scheme, threshold }),
            (SessionKind::Sign, Some(key), Some(input)) => Ok(Self::Sign { key, input }),
            (SessionKind::Refresh, Some(key), None) => Ok(Self::Refresh { key }),
            (SessionKind::Refresh, ..) => {
                Err(Error::invalid("a refresh session has a key and nothing to sign"))
            }
            (SessionKind::Keygen, ..) => {
                Err(Error::invalid("a keygen session has no key and nothing to sign"))
            }
            (SessionKind::Sign, ..) => {
                Err(Error::invalid("a sign session has a key and something to sign"))
            }
        }
    }

    /// Keygen, sign or refresh.
    pub fn kind(&self) -> SessionKind {
        match self {
            Self::Keygen { .. } => SessionKind::Keygen,
            Self::Sign { .. } => SessionKind::Sign,
            Self::Refresh { .. } => SessionKind::Refresh,
        }
    }

    /// The scheme of its key.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Keygen { scheme, .. } => *scheme,
            Self::Sign { key, .. } | Self::Refresh { key } => key.scheme,
        }
    }

    /// Signers needed and holders of its key.
    pub fn threshold(&self) -> Threshold {
        match self {
            Self::Keygen { threshold, .. } => *threshold,
            Self::Sign { key, .. } | Self::Refresh { key } => key.threshold,
        }
    }

    /// The key that it uses.
    pub fn key(&self) -> Option<&Arc<KeyEpoch>> {
        match self {
            Self::Keygen { .. } => None,
            Self::Sign { key, .. } | Self::Refresh { key } => Some(key),
        }
    }

    /// What it signs.
    pub fn input(&self) -> Option<&SignInput> {
        match self {
            Self::Keygen { .. } | Self::Refresh { .. } => None,
            Self::Sign { input, .. } => Some(input),
        }
    }
}

/// A ceremony as stored documents spell it: the fields of all kinds side by side, as they were
/// before there was a type for it.
#[derive(Serialize, Deserialize)]
struct Flat {
    kind: SessionKind,
    scheme: Scheme,
    threshold: Threshold,
    #[serde(default)]
    key: Option<Arc<KeyEpoch>>,
    #[serde(default)]
    digest: Option<Digest>,
    /// The message that is signed, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl From<Ceremony> for Flat {
    fn from(ceremony: Ceremony) -> Self {
        Self {
            kind: ceremony.kind(),
            scheme: ceremony.scheme(),
            threshold: ceremony.threshold(),
            key: ceremony.key().cloned(),
            digest: ceremony.input().and_then(SignInput::digest),
            message: ceremony.input().and_then(SignInput::message).map(hex::encode),
        }
    }
}

impl TryFrom<Flat> for Ceremony {
    type Error = Error;

    fn try_from(flat: Flat) -> Result<Self> {
        let message = flat.message.map(hex::decode).transpose();
        let message = message.map_err(|_| Error::invalid_field("message", "message is hex"))?;
        let input = SignInput::from_fields(flat.digest, message.map(Bytes::from))?;
        Self::from_parts(flat.kind, flat.scheme, flat.threshold, flat.key, input)
    }
}

/// Which key a session uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySelector {
    /// The key with this id.
    Id(KeyId),
    /// By verifying key.
    PublicKey(PublicKey),
    /// The one key that fits the participants; refused when several do.
    ByParticipants,
}

/// What a creator asks a session to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CeremonyRequest {
    /// To make a key.
    Keygen {
        /// The scheme of the new key.
        scheme: Scheme,
        /// Signers needed and holders.
        threshold: Threshold,
    },
    /// A signature with a key.
    Sign {
        /// With this key.
        key: KeySelector,
        /// Checked against the key's own where given.
        threshold: Option<Threshold>,
        /// The digest or the message that is signed, as the scheme takes it.
        input: SignInput,
    },
    /// To refresh the shares of a key.
    Refresh {
        /// The key that is refreshed.
        key: KeySelector,
        /// Checked against the key's own where given.
        threshold: Option<Threshold>,
    },
}

impl CeremonyRequest {
    /// From the parts that wires keep side by side. What a kind has no use for is left to the wires
    /// that refuse it.
    ///
    /// # Errors
    /// `invalid_request` naming the part that is missing.
    pub fn from_parts(
        kind: SessionKind,
        scheme: Scheme,
        threshold: Option<Threshold>,
        key: KeySelector,
        input: Option<SignInput>,
    ) -> Result<Self> {
        let missing = |field, problem| Err(Error::invalid_field(field, problem));
        match (kind, threshold, input) {
            (SessionKind::Keygen, _, Some(_)) => missing(
                "message_hash",
                "a keygen session signs nothing: leave message_hash and message out",
            ),
            (SessionKind::Refresh, _, Some(_)) => missing(
                "message_hash",
                "a refresh session signs nothing: leave message_hash and message out",
            ),
            // A key is not guessed for what cannot be taken back.
            (SessionKind::Refresh, _, None) if matches!(key, KeySelector::ByParticipants) => {
                missing("key_id", "a refresh session needs key_id or public_key")
            }
            (SessionKind::Refresh, threshold, None) => Ok(Self::Refresh { key, threshold }),
            (SessionKind::Keygen, Some(threshold), None) => Ok(Self::Keygen { scheme, threshold }),
            (SessionKind::Keygen, None, None) => missing(
                "threshold_n",
                "a keygen session needs threshold_n (parties) and threshold_t (signers)",
            ),
            (SessionKind::Sign, threshold, Some(input)) => Ok(Self::Sign { key, threshold, input }),
            (SessionKind::Sign, _, None) => missing(
                "message_hash",
                "a sign session needs message_hash, 32 bytes, or message, as its key's scheme signs",
            ),
        }
    }

    /// The scheme (keygen), the key (sign and refresh) and what is signed (sign).
    pub fn into_parts(self) -> (Option<Scheme>, KeySelector, Option<SignInput>) {
        match self {
            Self::Keygen { scheme, .. } => (Some(scheme), KeySelector::ByParticipants, None),
            Self::Sign { key, input, .. } => (None, key, Some(input)),
            Self::Refresh { key, .. } => (None, key, None),
        }
    }

    /// Keygen, sign or refresh.
    pub fn kind(&self) -> SessionKind {
        match self {
            Self::Keygen { .. } => SessionKind::Keygen,
            Self::Sign { .. } => SessionKind::Sign,
            Self::Refresh { .. } => SessionKind::Refresh,
        }
    }

    /// The key, where it uses one.
    pub fn key(&self) -> Option<&KeySelector> {
        match self {
            Self::Keygen { .. } => None,
            Self::Sign { key, .. } | Self::Refresh { key, .. } => Some(key),
        }
    }

    /// The threshold, where the creator gave one.
    pub fn threshold(&self) -> Option<Threshold> {
        match self {
            Self::Keygen { threshold, .. } => Some(*threshold),
            Self::Sign { threshold, .. } | Self::Refresh { threshold, .. } => *threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<KeyEpoch> {
        Arc::new(KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch: 0,
            scheme: Scheme::EcdsaSecp256k1,
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
        })
    }

    #[test]
    fn every_ceremony_is_stored_and_read() {
        let threshold = Threshold::new(2, 3).unwrap();
        let ceremonies = [
            Ceremony::Keygen { scheme: Scheme::EcdsaSecp256k1, threshold },
            Ceremony::Sign { key: key(), input: SignInput::Digest(Digest([7; 32])) },
            Ceremony::Sign { key: key(), input: SignInput::Message(Bytes::from_static(b"pay")) },
            Ceremony::Sign { key: key(), input: SignInput::Message(Bytes::new()) },
            Ceremony::Refresh { key: key() },
        ];
        for ceremony in ceremonies {
            let text = serde_json::to_string(&ceremony).unwrap();
            assert_eq!(serde_json::from_str::<Ceremony>(&text).unwrap(), ceremony, "{text}");
        }
    }

    #[test]
    fn fields_of_another_kind_are_refused() {
        let keygen = r#"{"kind":"keygen","scheme":"ecdsa-secp256k1","threshold":[2,3]"#;
        let threshold = serde_json::to_string(&Threshold::new(2, 3).unwrap()).unwrap();
        let keygen = keygen.replace("[2,3]", &threshold);
        let read = |rest: &str| serde_json::from_str::<Ceremony>(&format!("{keygen}{rest}}}"));
        assert!(read("").is_ok());
        assert!(read(r#","message":"00""#).is_err());
        assert!(read(&format!(r#","digest":{:?}"#, [0; 32])).is_err());
        for kind in ["sign", "refresh"] {
            let without_key = keygen.replace("keygen", kind);
            assert!(serde_json::from_str::<Ceremony>(&format!("{without_key}}}")).is_err());
        }
        let refresh = serde_json::to_string(&Ceremony::Refresh { key: key() }).unwrap();
        let message = refresh.replacen('{', r#"{"message":"00","#, 1);
        assert!(serde_json::from_str::<Ceremony>(&message).is_err(), "{message}");
    }

    #[test]
    fn a_refresh_names_its_key_and_signs_nothing() {
        let request = |key, input| {
            let (kind, scheme) = (SessionKind::Refresh, Scheme::default());
            CeremonyRequest::from_parts(kind, scheme, None, key, input)
        };
        let id = KeySelector::Id(key().key_id);
        let field = |error: Error| error.details.fields.into_keys().next().unwrap();
        assert!(request(id.clone(), None).is_ok());
        let unnamed = request(KeySelector::ByParticipants, None).unwrap_err();
        assert_eq!(field(unnamed), "key_id");
        let signing = request(id, Some(SignInput::Digest(Digest([0; 32])))).unwrap_err();
        assert_eq!(field(signing), "message_hash");
    }

    #[test]
    fn a_message_is_bounded_and_stands_alone() {
        let message = |length| Some(Bytes::from(vec![0; length]));
        assert!(SignInput::from_fields(None, message(MAX_MESSAGE)).unwrap().is_some());
        assert!(SignInput::from_fields(None, message(MAX_MESSAGE + 1)).is_err());
        assert!(SignInput::from_fields(Some(Digest([0; 32])), message(1)).is_err());
        assert_eq!(SignInput::from_fields(None, None).unwrap(), None);
    }
}
