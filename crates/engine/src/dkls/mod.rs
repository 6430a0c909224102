//! DKLs23 (<https://eprint.iacr.org/2023/765>) over secp256k1, by the library `dkls23-secp256k1`.

mod keygen;
mod sign;
mod trial;

use dkls23_secp256k1::Party;
use dkls23_secp256k1::protocols::{Abort, AbortKind, AbortReason, PartiesMessage, PartyIndex};
use k256::elliptic_curve::sec1::ToSec1Point as _;
pub(crate) use keygen::Keygen;
use quorate_types::{PublicKey, ShareIndex};
pub(crate) use sign::Sign;

use crate::fault::{FaultCode, Severity};
use crate::machine::{MachineFault, Position};

type Curve = k256::Secp256k1;

/// The verifying key of a share, uncompressed.
pub(crate) fn public_key(party: &Party) -> PublicKey {
    PublicKey(party.pk.to_sec1_point(false).as_bytes().to_vec())
}

fn index(share: ShareIndex) -> Result<PartyIndex, MachineFault> {
    PartyIndex::new(share.0).map_err(|_| MachineFault::ours("share indices start at 1"))
}

/// Translates the library's abort; `position_of` finds a party's position by its index.
fn fault(abort: &Abort, position_of: impl Fn(PartyIndex) -> Option<Position>) -> MachineFault {
    let message = abort.reason.to_string();
    match abort.kind {
        AbortKind::BanCounterparty(cheat) => MachineFault {
            code: FaultCode::OtCheckFailed,
            severity: Severity::Ban,
            blame: position_of(cheat),
            message: format!("failed the check of the multiplication: {message}"),
        },
        AbortKind::Recoverable => match culprit(&abort.reason).filter(|who| *who != abort.index) {
            Some(who) => MachineFault {
                code: FaultCode::ProtocolViolation,
                severity: Severity::Recoverable,
                blame: position_of(who),
                message: format!("broke the protocol: {message}"),
            },
            None => MachineFault { code: code(&abort.reason), ..MachineFault::ours(message) },
        },
    }
}

/// What to call an abort that points at nobody.
fn code(reason: &AbortReason) -> FaultCode {
    match reason {
        AbortReason::SignatureVerificationFailed | AbortReason::ZeroDenominator => {
            FaultCode::ResultInvalid
        }
        AbortReason::PolynomialInconsistency
        | AbortReason::TrivialPublicKey
        | AbortReason::TrivialKeyShare => FaultCode::ProtocolViolation,
        _ => FaultCode::BadInput,
    }
}

/// Refuses a message whose inside names other parties than its envelope.
fn check_parties(
    position: Position,
    inside: &PartiesMessage,
    sender: PartyIndex,
    receiver: PartyIndex,
) -> Result<(), MachineFault> {
    if inside.sender == sender && inside.receiver == receiver {
        return Ok(());
    }
    Err(MachineFault::violation(
        position,
        "sent a message between other parties in its own envelope",
    ))
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
