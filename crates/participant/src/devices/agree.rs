//! What devices agree on before they compute, and what they tell each other when they cannot.

use std::sync::Arc;

use quorate_types::*;

use super::message::{Proposal, ProposedCeremony};
use super::signing_request::SigningRequest;

/// Longest reason that is taken from another device, in bytes.
const MAX_REASON: usize = 512;

/// The reason with which a device leaves a run whose request it does not approve.
pub(super) const DECLINED: &str = "declined to sign this";

/// Reads a proposal of the member with this name, which must want what this device wants.
pub(super) fn proposal(bytes: &[u8], from: &PartyId, ours: &ProposedCeremony) -> Result<Proposal> {
    let proposal = Proposal::read(bytes, from)?;
    if proposal.key.party_id() != *from {
        let why = format!("{from} opens with a key that is not its own");
        return Err(Error::new(ErrorCode::Conflict, why));
    }
    if !ours.fits(&proposal.ceremony) {
        return Err(disagreement(from, &proposal.ceremony, ours));
    }
    Ok(proposal)
}

/// What one device proposes to sign, and who does. No other may propose something else.
pub(super) fn request(proposals: &[Proposal]) -> Result<(PartyId, SigningRequest)> {
    let mut requests = proposals.iter().filter_map(|proposal| match &proposal.ceremony {
        ProposedCeremony::Sign { request, .. } => Some((&proposal.key, request.as_ref()?)),
        ProposedCeremony::Keygen { .. } => None,
    });
    let Some((proposer, request)) = requests.next() else {
        let why = "no device proposes what to sign; start the signature on one of them";
        return Err(Error::new(ErrorCode::InvalidRequest, why));
    };
    if requests.any(|(_, other)| other != request) {
        let why = "the devices propose different things to sign; start it on one of them only";
        return Err(Error::new(ErrorCode::Conflict, why));
    }
    Ok((proposer.party_id(), request.clone()))
}

/// What all have agreed to do, once this device's own key is known where one is used.
pub(super) fn ceremony(
    ours: &ProposedCeremony,
    key: Option<Arc<KeyEpoch>>,
    request: Option<&SigningRequest>,
) -> Result<Ceremony> {
    match (ours, key, request) {
        (ProposedCeremony::Keygen { scheme, threshold }, ..) => {
            Ok(Ceremony::Keygen { scheme: *scheme, threshold: *threshold })
        }
        (ProposedCeremony::Sign { .. }, Some(key), Some(request)) => {
            Ok(Ceremony::Sign { key, input: request.input() })
        }
        (ProposedCeremony::Sign { key_id, .. }, ..) => Err(Error::not_found("key", key_id)),
    }
}

/// The session as the protocol is to see it.
pub(super) fn view(
    session: SessionId,
    proposals: &[Proposal],
    ceremony: Ceremony,
) -> Box<SessionView> {
    let participant = |(index, proposal): (u16, &Proposal)| ParticipantView {
        party_id: proposal.key.party_id(),
        party_index: PartyIndex(index),
        status: ParticipantStatus::Computing,
        device: DeviceInfo::default(),
        handshake: Some(proposal.handshake()),
    };
    Box::new(SessionView {
        tenant: Tenant::default(),
        session_id: session,
        ceremony,
        status: SessionStatus::InProgress,
        participants: (0..).zip(proposals).map(participant).collect(),
        authorization: None,
        outcome: None,
        failure: None,
        created_at: Timestamp(0),
        expires_at: Timestamp(0),
    })
}

fn disagreement(who: &PartyId, theirs: &ProposedCeremony, ours: &ProposedCeremony) -> Error {
    let words = |ceremony: &ProposedCeremony| match ceremony {
        ProposedCeremony::Keygen { threshold, .. } => {
            format!("make a {}-of-{} key", threshold.signers(), threshold.parties())
        }
        ProposedCeremony::Sign { key_id, .. } => format!("sign with key {key_id}"),
    };
    let why = format!("{who} wants to {}, this device to {}", words(theirs), words(ours));
    Error::new(ErrorCode::Conflict, why)
}

/// What another device's abort is to this one.
pub(super) fn aborted(who: &PartyId, reason: &[u8]) -> Error {
    let reason = String::from_utf8_lossy(&reason[..reason.len().min(MAX_REASON)]);
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    let blame = Blame { party_id: who.clone(), reason: reason.clone() };
    let message = if reason == DECLINED {
        format!("{who} {reason}")
    } else {
        format!("{who} aborted: {reason}")
    };
    Error::new(ErrorCode::Conflict, message).blaming(blame)
}

/// A failure as `own` device tells it. What ended the run here need not be its own fault.
pub(super) fn of_failure(failure: Failure, own: &PartyId) -> Error {
    let mut error = Error::new(ErrorCode::Conflict, failure.message.clone());
    if let [party] = failure.parties.as_slice()
        && party != own
    {
        error = error.blaming(Blame { party_id: party.clone(), reason: failure.message });
    }
    error
}
