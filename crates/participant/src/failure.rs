//! What a party reports when it cannot finish.

use quorate_engine::{Fault, Severity};
use quorate_types::*;

/// This party cannot take part, or its own machine let it down.
pub fn could_not(me: &PartyId, message: impl Into<String>) -> Failure {
    Failure {
        reason: FailureReason::PartyFailed,
        message: message.into(),
        parties: vec![me.clone()],
    }
}

/// This party has no place for another session.
pub fn busy(me: &PartyId) -> Failure {
    could_not(me, format!("{me} takes part in as many sessions as it can; try again later"))
}

/// The session runs with a handshake that this process knows nothing of.
pub fn restarted(me: &PartyId) -> Failure {
    let message = format!("{me} was restarted in the middle of the session; start a new one");
    Failure { reason: FailureReason::PartyRestarted, ..could_not(me, message) }
}

/// An error met on the way; the parties are those it blames.
pub(crate) fn of_error(me: &PartyId, error: Error) -> Failure {
    let parties = match error.details.blame {
        Some(blame) => vec![blame.party_id],
        None => vec![me.clone()],
    };
    Failure { reason: FailureReason::PartyFailed, message: error.message, parties }
}

/// A fault of the protocol; only a ban is called cheating.
pub(crate) fn of_fault(fault: Fault) -> Failure {
    let reason = match fault.severity {
        Severity::Ban => FailureReason::PartyCheated,
        Severity::Benign | Severity::Recoverable => FailureReason::PartyFailed,
    };
    Failure {
        reason,
        message: format!("{}: {}", fault.code.name(), fault.message),
        parties: fault.blame.into_iter().collect(),
    }
}
