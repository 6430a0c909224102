//! DKLs23 (<https://eprint.iacr.org/2023/765>) over secp256k1, by the library `dkls23-secp256k1`.

mod keygen;
mod refresh;
mod setup;
mod share;
mod sign;

use std::sync::Arc;

use dkls23_secp256k1::protocols::{Abort, AbortKind, AbortReason, PartiesMessage, PartyIndex};
use quorate_types::{ShareIndex, SignInput, Threshold};
pub(crate) use share::read as read_share;
#[cfg(test)]
pub(crate) use share::{Part, share};
pub(crate) use sign::ROUNDS as SIGN_ROUNDS;

use crate::fault::FaultCode;
use crate::machine::{Machine, MachineFault, Position};
use crate::share::Share;

type Curve = k256::Secp256k1;

/// Starts a keygen.
pub(crate) fn keygen(me: Position, threshold: Threshold, execution: [u8; 32]) -> Box<dyn Machine> {
    Box::new(keygen::Keygen::new(me, threshold, execution))
}

/// Starts a refresh.
pub(crate) fn refresh(
    share: Arc<Share>,
    me: Position,
    execution: [u8; 32],
) -> Result<Box<dyn Machine>, MachineFault> {
    Ok(Box::new(refresh::Refresh::new(share, me, execution)?))
}

/// Starts a signature.
pub(crate) fn sign(
    share: Arc<Share>,
    me: Position,
    indices: &[ShareIndex],
    input: &SignInput,
    execution: [u8; 32],
) -> Result<Box<dyn Machine>, MachineFault> {
    Ok(Box::new(sign::Sign::new(share, me, indices, input, execution)?))
}

fn index(share: ShareIndex) -> Result<PartyIndex, MachineFault> {
    PartyIndex::new(share.0).map_err(|_| MachineFault::ours("share indices start at 1"))
}

/// Translates the library's abort; `position_of` finds a party's position by its index.
fn fault(abort: &Abort, position_of: impl Fn(PartyIndex) -> Option<Position>) -> MachineFault {
    let message = abort.reason.to_string();
    match abort.kind {
        AbortKind::BanCounterparty(cheat) => MachineFault::ban(
            FaultCode::OtCheckFailed,
            position_of(cheat),
            format!("failed the check of the multiplication: {message}"),
        ),
        AbortKind::Recoverable => match culprit(&abort.reason).filter(|who| *who != abort.index) {
            Some(who) => MachineFault {
                code: FaultCode::ProtocolViolation,
                blame: position_of(who),
                ..MachineFault::ours(format!("broke the protocol: {message}"))
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
