//! What devices send each other, whichever relay carries it: slots, signatures, openings.

use bytes::{Bytes, BytesMut};
use quorate_types::{
    Error, ErrorCode, Hello, KeyId, PartyId, Result, Scheme, SessionId, Threshold,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::signer::{MessageSigner, VerifyingKey};
use super::what::Proposal;

const DOMAIN: &[u8] = b"quorate/peer-letter/v1";
const SIGNATURE: usize = 64;
const VERSION: u8 = 1;

/// 32 random bytes that the devices of one run have in common; fresh for each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceId(pub [u8; 32]);

impl InstanceId {
    /// A new one.
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the system gives randomness");
        Self(bytes)
    }

    /// The session that the run is to the protocol.
    pub(crate) fn session(self) -> SessionId {
        let hash = Sha256::new().chain_update(b"quorate/instance/v1").chain_update(self.0);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        SessionId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

/// What a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Slot {
    /// The sender is there, and what it wants to do.
    Opening,
    /// A message of the protocol.
    Round { round: u16, direct: bool },
    /// The sender has its result, and has kept it where it must be kept.
    Done,
    /// The sender gives up.
    Abort,
}

impl Slot {
    /// The slot as a number: the tag of the binary relay's message ids. A letter whose place was
    /// taken by somebody else's junk goes out again as the next attempt.
    pub(crate) fn tag(self, attempt: u32) -> u64 {
        let base = match self {
            Self::Abort => return u64::MAX - u64::from(attempt),
            Self::Opening => 1,
            Self::Done => 2,
            Self::Round { round, direct } => 16 + 2 * u64::from(round) + u64::from(direct),
        };
        u64::from(attempt) << 32 | base
    }
}

/// A letter that came, from the member with this index.
pub(crate) struct Letter {
    pub(crate) from: usize,
    pub(crate) slot: Slot,
    pub(crate) payload: Bytes,
}

fn signed(place: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(place.len()).expect("places are short").to_be_bytes();
    [DOMAIN, &length, place, payload].concat()
}

/// A payload with its sender's signature over it and its place in the run.
pub(crate) async fn seal(
    signer: &dyn MessageSigner,
    place: &[u8],
    payload: &[u8],
) -> Result<Bytes> {
    let signature = signer.sign(&signed(place, payload)).await?;
    let mut letter = BytesMut::with_capacity(SIGNATURE + payload.len());
    letter.extend_from_slice(&signature);
    letter.extend_from_slice(payload);
    Ok(letter.freeze())
}

/// The payload, if `key` signed it for this place.
pub(crate) fn open(key: &VerifyingKey, place: &[u8], letter: &Bytes) -> Option<Bytes> {
    let signature = letter.first_chunk::<SIGNATURE>()?;
    let payload = letter.slice(SIGNATURE..);
    key.verify(&signed(place, &payload), signature).then_some(payload)
}

/// The first letter of every run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    version: u8,
    /// Who writes.
    pub(crate) key: VerifyingKey,
    /// What the writer wants to do.
    pub(crate) purpose: Purpose,
    /// Its introduction to the protocol, in hex.
    hello: String,
}

/// What a run is for. All devices must say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    Keygen {
        scheme: Scheme,
        threshold: Threshold,
    },
    /// Who starts a signature proposes what to sign; the others agree to it or not.
    Sign {
        key_id: KeyId,
        proposal: Option<Proposal>,
    },
}

impl Purpose {
    /// Whether two devices can go on together.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sign { key_id: a, .. }, Self::Sign { key_id: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }
}

impl Opening {
    pub(crate) fn new(key: VerifyingKey, purpose: Purpose, hello: &Hello) -> Self {
        Self { version: VERSION, key, purpose, hello: hex::encode(hello) }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("plain data").into()
    }

    pub(crate) fn read(bytes: &[u8], from: &PartyId) -> Result<Self> {
        let unusable = |why: &str| {
            Error::new(ErrorCode::InvalidRequest, format!("the opening of {from} {why}"))
        };
        let opening: Self =
            serde_json::from_slice(bytes).map_err(|_| unusable("cannot be read"))?;
        if opening.version != VERSION {
            return Err(unusable("is of another version; update the older device"));
        }
        Ok(opening)
    }

    pub(crate) fn hello(&self) -> Hello {
        // What is no hex is no introduction; the engine says so.
        hex::decode(&self.hello).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use quorate_types::Secret;

    use super::*;
    use crate::peers::signer::{KeyType, SoftwareSigner};

    #[tokio::test]
    async fn a_letter_opens_with_its_key_at_its_place_only() {
        let signer = SoftwareSigner::new(KeyType::Ed25519, &Secret::new([1; 32])).unwrap();
        let other = SoftwareSigner::new(KeyType::Ed25519, &Secret::new([2; 32])).unwrap();
        let letter = seal(&signer, b"place", b"payload").await.unwrap();
        let key = signer.verifying_key();
        assert_eq!(open(&key, b"place", &letter).as_deref(), Some(&b"payload"[..]));
        assert!(open(&other.verifying_key(), b"place", &letter).is_none());
        assert!(open(&key, b"placf", &letter).is_none());
        for at in 0..letter.len() {
            let mut bad = letter.to_vec();
            bad[at] ^= 1;
            assert!(open(&key, b"place", &bad.into()).is_none(), "byte {at}");
            assert!(open(&key, b"place", &letter.slice(..at)).is_none(), "{at} bytes");
        }
    }

    #[test]
    fn tags_are_all_different_and_giving_up_is_the_last() {
        let mut tags = HashSet::new();
        for attempt in 0..16 {
            let mut slots = vec![Slot::Opening, Slot::Done, Slot::Abort];
            for round in 0..16 {
                slots.extend([false, true].map(|direct| Slot::Round { round, direct }));
            }
            for slot in slots {
                assert!(tags.insert(slot.tag(attempt)));
            }
        }
        assert_eq!(Slot::Abort.tag(0), u64::MAX);
    }
}
