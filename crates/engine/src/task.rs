//! What the parties of a run do together, and what comes of it.

use std::sync::Arc;

use quorate_types::{KeyEpoch, PartyId, PublicKey, Scheme, SignInput, Signature, Threshold};

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
        /// This party's share of the epoch that signs.
        share: Arc<Share>,
        /// Of this key.
        key: Arc<KeyEpoch>,
        /// The execution id of the run that made it; zeros for a key of the first version.
        made_by: [u8; 32],
        /// What is signed.
        input: SignInput,
    },
    /// Replace the shares of a key by those of its next epoch. All holders take part, in the
    /// order of their share indices.
    Refresh {
        /// Our share of the epoch that is replaced.
        share: Arc<Share>,
        /// The epoch that is replaced.
        key: Arc<KeyEpoch>,
        /// The execution id of the run that made it; zeros for a key of the first version.
        made_by: [u8; 32],
    },
}

impl Task {
    /// Its name in the execution id.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Keygen { .. } => "keygen",
            Self::Sign { .. } => "sign",
            Self::Refresh { .. } => "refresh",
        }
    }

    /// Whether it makes shares, which all holders then confirm.
    pub(crate) fn makes_shares(&self) -> bool {
        matches!(self, Self::Keygen { .. } | Self::Refresh { .. })
    }

    /// The key that it uses, as its holders know it, with the execution that made it.
    pub(crate) fn key(&self) -> Option<(&Share, &KeyEpoch, [u8; 32])> {
        match self {
            Self::Keygen { .. } => None,
            Self::Sign { share, key, made_by, .. } | Self::Refresh { share, key, made_by } => {
                Some((share, key, *made_by))
            }
        }
    }

    /// What it signs.
    pub(crate) fn input(&self) -> Option<&SignInput> {
        match self {
            Self::Sign { input, .. } => Some(input),
            _ => None,
        }
    }

    pub(crate) fn scheme(&self) -> Scheme {
        match self {
            Self::Keygen { scheme, .. } => *scheme,
            Self::Sign { share, .. } | Self::Refresh { share, .. } => share.scheme(),
        }
    }

    pub(crate) fn threshold(&self) -> Threshold {
        match self {
            Self::Keygen { threshold, .. } => *threshold,
            Self::Sign { share, .. } | Self::Refresh { share, .. } => share.threshold(),
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
    /// A key, or a key's next epoch, tried by test signatures. It is no use before all holders have
    /// confirmed that they keep their share: keep ours and call [`Run::kept`](crate::Run::kept).
    Key {
        /// Our share of it.
        share: Share,
        /// Its verifying key; a refresh leaves it as it was.
        public_key: PublicKey,
    },
    /// All holders have confirmed the key: their confirmations, in their order.
    Confirmed(Vec<u8>),
    /// A signature that verifies.
    Signature(Signature),
}
