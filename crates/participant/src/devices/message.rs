//! What devices send each other, whichever relay carries it: slots, signed bytes, proposals.

use bytes::Bytes;
use quorate_types::{
    Error, ErrorCode, Handshake, KeyId, PartyId, Result, Scheme, SessionId, Threshold,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::key::VerifyingKey;
use super::signing_request::SigningRequest;

const DOMAIN: &[u8] = b"quorate/peer-message/v2";
/// Length of a message's signature, which stands before its payload, in bytes.
pub const SIGNATURE: usize = 64;
const VERSION: u8 = 2;

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
    pub fn session(self) -> SessionId {
        let hash = Sha256::new().chain_update(b"quorate/instance/v1").chain_update(self.0);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        SessionId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// The sender is there, and what it wants to do.
    Proposal,
    /// A message of the protocol.
    Round {
        /// The round of the envelope, from 1.
        round: u16,
        /// Whether it is for one member alone.
        direct: bool,
    },
    /// The sender has its result, and has kept it where it must be kept.
    Confirmation,
    /// The sender gives up.
    Abort,
}

impl MessageKind {
    /// The slot as a number: the tag of the binary relay's message ids. A message whose place was
    /// taken by somebody else's junk goes out again as the next attempt.
    pub fn tag(self, attempt: u32) -> u64 {
        let base = match self {
            Self::Abort => return u64::MAX - u64::from(attempt),
            Self::Proposal => 1,
            Self::Confirmation => 2,
            Self::Round { round, direct } => 16 + 2 * u64::from(round) + u64::from(direct),
        };
        u64::from(attempt) << 32 | base
    }
}

/// A message that came, from the member with this index.
pub struct SignedMessage {
    /// The sender's index among the members.
    pub from: usize,
    /// What it is.
    pub kind: MessageKind,
    /// Its payload, whose signature was checked.
    pub payload: Bytes,
}

/// What a sender signs: a payload and its place in the run.
pub fn signed(place: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(place.len()).expect("places are short").to_be_bytes();
    [DOMAIN, &length, place, payload].concat()
}

/// The payload, if `key` signed it for this place.
pub fn open(key: &VerifyingKey, place: &[u8], message: &Bytes) -> Option<Bytes> {
    let signature = message.first_chunk::<SIGNATURE>()?;
    let payload = message.slice(SIGNATURE..);
    key.verify(&signed(place, &payload), signature).then_some(payload)
}

/// The first message of every run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    version: u8,
    /// The key that signs the proposer's messages.
    pub(crate) key: VerifyingKey,
    /// What the writer wants to do.
    pub(crate) ceremony: ProposedCeremony,
    /// Its handshake, in hex.
    handshake: String,
}

/// What a run is for. All devices must say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposedCeremony {
    /// To make a key.
    Keygen {
        /// The scheme of the new key.
        scheme: Scheme,
        /// Signers needed and holders.
        threshold: Threshold,
    },
    /// Who starts a signature proposes what to sign; the others agree to it or not.
    Sign {
        /// The key to sign with.
        key_id: KeyId,
        /// What to sign; of the device that starts only.
        request: Option<SigningRequest>,
    },
    /// To give all holders of a key new shares.
    Refresh {
        /// The id of the key that is refreshed.
        key_id: KeyId,
    },
}

impl ProposedCeremony {
    /// Whether two devices can go on together.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sign { key_id: a, .. }, Self::Sign { key_id: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }
}

impl Proposal {
    /// What this device, known by `key`, proposes.
    pub(crate) fn new(
        key: VerifyingKey,
        ceremony: ProposedCeremony,
        handshake: &Handshake,
    ) -> Self {
        Self { version: VERSION, key, ceremony, handshake: hex::encode(handshake) }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("plain data").into()
    }

    pub(crate) fn read(bytes: &[u8], from: &PartyId) -> Result<Self> {
        let unusable = |why: &str| {
            Error::new(ErrorCode::InvalidRequest, format!("the proposal of {from} {why}"))
        };
        let proposal: Self =
            serde_json::from_slice(bytes).map_err(|_| unusable("cannot be read"))?;
        if proposal.version != VERSION {
            return Err(unusable("is of another version; update the older device"));
        }
        Ok(proposal)
    }

    pub(crate) fn handshake(&self) -> Handshake {
        // Anything but hex becomes an empty handshake, which the engine refuses.
        hex::decode(&self.handshake).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tags_are_all_different_and_giving_up_is_the_last() {
        let mut tags = HashSet::new();
        for attempt in 0..16 {
            let mut kinds =
                vec![MessageKind::Proposal, MessageKind::Confirmation, MessageKind::Abort];
            for round in 0..16 {
                kinds.extend([false, true].map(|direct| MessageKind::Round { round, direct }));
            }
            for kind in kinds {
                assert!(tags.insert(kind.tag(attempt)));
            }
        }
        assert_eq!(MessageKind::Abort.tag(0), u64::MAX);
    }
}
