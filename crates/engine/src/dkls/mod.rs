//! DKLs23 (<https://eprint.iacr.org/2023/765>) over secp256k1, by the library `dkls23-secp256k1`.

mod keygen;
mod sign;

use dkls23_secp256k1::Party;
use dkls23_secp256k1::protocols::{Abort, AbortKind, AbortReason, PartyIndex};
use k256::elliptic_curve::sec1::ToSec1Point as _;
pub(crate) use keygen::Keygen;
use quorate_types::PublicKey;
pub(crate) use sign::Sign;

use crate::fault::{FaultCode, Severity};
use crate::machine::{MachineFault, Seat};

type Curve = k256::Secp256k1;

/// The verifying key of a share, uncompressed.
pub(crate) fn public_key(party: &Party) -> PublicKey {
    PublicKey(party.pk.to_sec1_point(false).as_bytes().to_vec())
}

/// The library's index of a holder whose position is `position`.
fn index(position: usize) -> Result<PartyIndex, MachineFault> {
    u8::try_from(position + 1).ok().and_then(|index| PartyIndex::new(index).ok()).ok_or_else(|| {
        MachineFault {
            code: FaultCode::BadInput,
            severity: Severity::Benign,
            blame: None,
            message: "a party's index is out of range".into(),
        }
    })
}

/// Translates the library's abort; `seat_of` finds a party's seat by its index.
fn fault(abort: &Abort, seat_of: impl Fn(PartyIndex) -> Option<Seat>) -> MachineFault {
    let message = abort.reason.to_string();
    match abort.kind {
        AbortKind::BanCounterparty(cheat) => MachineFault {
            code: FaultCode::OtCheckFailed,
            severity: Severity::Ban,
            blame: seat_of(cheat),
            message,
        },
        AbortKind::Recoverable => MachineFault {
            code: match abort.reason {
                AbortReason::SignatureVerificationFailed => FaultCode::ResultInvalid,
                _ => FaultCode::ProtocolViolation,
            },
            severity: Severity::Recoverable,
            blame: culprit(&abort.reason).and_then(seat_of),
            message,
        },
    }
}

/// The party that a reason points at, where it does.
fn culprit(reason: &AbortReason) -> Option<PartyIndex> {
    match reason {
        AbortReason::UnexpectedSender { sender } | AbortReason::DuplicateSender { sender } => {
            Some(*sender)
        }
        AbortReason::MissingMessageFromParty { party }
        | AbortReason::MissingCommittedPoint { party }
        | AbortReason::ChainCodeCommitmentFailed { party } => Some(*party),
        AbortReason::SessionBindingMismatch { counterparty }
        | AbortReason::ProofVerificationFailed { counterparty }
        | AbortReason::CommitmentMismatch { counterparty }
        | AbortReason::TrivialInstancePoint { counterparty }
        | AbortReason::OtConsistencyCheckFailed { counterparty }
        | AbortReason::MultiplicationVerificationFailed { counterparty, .. }
        | AbortReason::GammaUInconsistency { counterparty }
        | AbortReason::ZeroShareDecommitFailed { counterparty } => Some(*counterparty),
        _ => None,
    }
}
