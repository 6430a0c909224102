//! What devices agree on before they compute, and what they tell each other when they cannot.

use std::sync::Arc;

use quorate_engine::claimed;
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
        ProposedCeremony::Keygen { .. } | ProposedCeremony::Refresh { .. } => None,
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

/// What all have agreed to do, once this device's own key is known where one is used. A refresh
/// begins with the newest epoch that any of them shows: who is behind it follows its certificate.
pub(super) fn ceremony(
    ours: &ProposedCeremony,
    key: Option<Arc<KeyEpoch>>,
    request: Option<&SigningRequest>,
    proposals: &[Proposal],
) -> Result<Ceremony> {
    match (ours, key, request) {
        (ProposedCeremony::Keygen { scheme, threshold }, ..) => {
            Ok(Ceremony::Keygen { scheme: *scheme, threshold: *threshold })
        }
        (ProposedCeremony::Sign { .. }, Some(key), Some(request)) => {
            Ok(Ceremony::Sign { key, input: request.input() })
        }
        (ProposedCeremony::Refresh { .. }, Some(key), _) => {
            let shown = proposals.iter().filter_map(|proposal| claimed(&proposal.handshake()));
            let epoch = shown.map(|shown| shown.epoch).max().unwrap_or(key.epoch);
            Ok(Ceremony::Refresh { key: Arc::new(KeyEpoch { epoch, ..(*key).clone() }) })
        }
        (ProposedCeremony::Sign { key_id, .. } | ProposedCeremony::Refresh { key_id }, ..) => {
            Err(Error::not_found("key", key_id))
        }
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
        on_behalf_of: None,
    };
    Box::new(SessionView {
        tenant: Tenant::default(),
        session_id: session,
        ceremony,
        status: SessionStatus::InProgress,
        participants: (0..).zip(proposals).map(participant).collect(),
        authorization: None,
        attempt: 0,
        replaced: Vec::new(),
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
        ProposedCeremony::Refresh { key_id } => format!("refresh key {key_id}"),
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

#[cfg(test)]
mod tests {
    use quorate_engine::{Identity, Shown, make_handshake};

    use super::super::key::{KeyType, VerifyingKey};
    use super::*;

    fn key(epoch: u32) -> KeyEpoch {
        KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch,
            scheme: Scheme::Ed25519,
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: PublicKey(vec![4; 32]),
            holders: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        }
    }

    /// The proposal of a device that holds this epoch.
    fn proposed(ceremony: &ProposedCeremony, epoch: u32) -> Proposal {
        let identity = Identity::generate();
        let session = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let shown = Shown { epoch, ..Shown::default() };
        let (handshake, _) = make_handshake(&identity, session, &"a".parse().unwrap(), &shown);
        let own = VerifyingKey::new(KeyType::Ed25519, &identity.public()).unwrap();
        Proposal::new(own, ceremony.clone(), &handshake)
    }

    #[test]
    fn devices_refresh_the_newest_epoch_that_any_of_them_has() {
        let ours = ProposedCeremony::Refresh { key_id: key(0).key_id };
        let proposals = [proposed(&ours, 0), proposed(&ours, 3)];
        for own in [0, 3] {
            let agreed = ceremony(&ours, Some(Arc::new(key(own))), None, &proposals).unwrap();
            let Ceremony::Refresh { key } = agreed else { panic!("a refresh is a refresh") };
            assert_eq!(key.epoch, 3, "the one that holds {own}");
        }
        let unknown = ceremony(&ours, None, None, &proposals).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::NotFound);
    }

    #[test]
    fn a_device_that_wants_something_else_than_a_refresh_is_named() {
        let ours = ProposedCeremony::Refresh { key_id: key(0).key_id };
        let sign = ProposedCeremony::Sign { key_id: key(0).key_id, request: None };
        let other = proposed(&sign, 0);
        let name = other.key.party_id();
        let refused = proposal(&other.to_bytes(), &name, &ours).unwrap_err();
        assert!(refused.message.contains("to refresh key"), "{refused}");
        let other = proposed(&ours, 0);
        assert!(proposal(&other.to_bytes(), &other.key.party_id(), &ours).is_ok());
    }
}
