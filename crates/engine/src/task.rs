//! What the parties of a run do together, and what comes of it.

use std::sync::Arc;

use quorate_types::{
    KeyEpoch, PartyId, PublicKey, Scheme, SessionKind, SignInput, Signature, Threshold,
};

use crate::share::Share;

/// What the parties do together.
pub enum Task {
    /// Make a key.
    Keygen {
        /// For this scheme.
        scheme: Scheme,
        /// Signers needed and holders.
        threshold: Threshold,
    },
    /// Sign with a key.
    Sign {
        /// Our share.
        share: Arc<Share>,
        /// Of this key.
        key: Arc<KeyEpoch>,
        /// The execution id of the run that made it; zeros for a key of the first version.
        made_by: [u8; 32],
        /// What is signed.
        input: SignInput,
    },
}

impl Task {
    pub(crate) fn kind(&self) -> SessionKind {
        match self {
            Self::Keygen { .. } => SessionKind::Keygen,
            Self::Sign { .. } => SessionKind::Sign,
        }
    }

    pub(crate) fn scheme(&self) -> Scheme {
        match self {
            Self::Keygen { scheme, .. } => *scheme,
            Self::Sign { share, .. } => share.scheme(),
        }
    }

    pub(crate) fn threshold(&self) -> Threshold {
        match self {
            Self::Keygen { threshold, .. } => *threshold,
            Self::Sign { share, .. } => share.threshold(),
        }
    }
}

/// A message that a run will need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Who sends it.
    pub from: PartyId,
    /// The protocol's round.
    pub round: u16,
    /// Whether it is for this party alone.
    pub direct: bool,
}

/// What a run makes.
pub enum Output {
    /// A key, tried by test signatures. It is no use before all holders have confirmed that they
    /// keep their share: keep ours and call [`Run::kept`](crate::Run::kept).
    Key {
        /// Our share of it.
        share: Share,
        /// Its verifying key.
        public_key: PublicKey,
    },
    /// All holders have confirmed the key: their confirmations, in their order.
    Confirmed(Vec<u8>),
    /// A signature that verifies.
    Signature(Signature),
}
