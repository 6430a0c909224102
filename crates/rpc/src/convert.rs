//! Proto messages to the shared words and back. What comes in is checked here, once.

mod api_key;
mod authorization;
mod delegate;
mod key;
mod notification;
mod routing;

use std::sync::Arc;

pub use api_key::*;
pub use authorization::*;
use bytes::Bytes;
pub use delegate::*;
use delegate::{behalf_in, behalf_out, lent_in, lent_out};
pub use key::*;
use key::{attestation_in, attestation_out, label_in, label_out};
pub use notification::*;
use quorate_types::*;
pub use routing::*;

use crate::proto::coordinator::v1 as co;
use crate::proto::router::v1 as ro;

fn millis(at: Timestamp) -> i64 {
    at.0
}

fn small(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

/// Reads a list of names.
pub fn parse_all<T: std::str::FromStr<Err = Error>>(texts: &[String]) -> Result<Vec<T>> {
    texts.iter().map(|text| text.parse()).collect()
}

fn names(parties: &[PartyId]) -> Vec<String> {
    parties.iter().map(PartyId::to_string).collect()
}

/// Reads an optional 32-byte digest.
pub fn parse_digest(bytes: &[u8]) -> Result<Option<Digest>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let digest: [u8; 32] = bytes
        .try_into()
        .map_err(|_| Error::invalid_field("message_hash", "message_hash is 32 bytes"))?;
    Ok(Some(Digest(digest)))
}

fn parse_threshold(t: i32, n: i32) -> Result<Option<Threshold>> {
    if (t, n) == (0, 0) { Ok(None) } else { Threshold::new(t.into(), n.into()).map(Some) }
}

fn device_in(device: Option<ro::DeviceInfo>) -> DeviceInfo {
    let device = device.unwrap_or_default();
    DeviceInfo {
        device_type: device.device_type,
        device_id: device.device_id,
        platform: device.platform,
        app_version: device.app_version,
    }
}

fn device_out(device: DeviceInfo) -> ro::DeviceInfo {
    ro::DeviceInfo {
        device_type: device.device_type,
        device_id: device.device_id,
        platform: device.platform,
        app_version: device.app_version,
    }
}

fn handshake_in(handshake: Bytes) -> Option<Handshake> {
    (!handshake.is_empty()).then_some(handshake)
}

fn party_out(party: &ParticipantView) -> ro::PartyInfo {
    ro::PartyInfo {
        party_id: party.party_id.to_string(),
        party_index: party.party_index.0.into(),
        device_info: Some(device_out(party.device.clone())),
        status: party.status.name().into(),
        handshake: party.handshake.clone().unwrap_or_default(),
        on_behalf_of: party.on_behalf_of.clone().map(behalf_out),
    }
}

fn party_in(party: ro::PartyInfo) -> Result<ParticipantView> {
    let index = u16::try_from(party.party_index)
        .map_err(|_| Error::invalid_field("party_index", "party_index is 0 or more"))?;
    Ok(ParticipantView {
        party_id: party.party_id.parse()?,
        party_index: PartyIndex(index),
        status: party.status.parse()?,
        device: device_in(party.device_info),
        handshake: handshake_in(party.handshake),
        on_behalf_of: party.on_behalf_of.map(behalf_in).transpose()?,
    })
}

fn failure_out(failure: &Failure) -> ro::Failure {
    ro::Failure {
        reason: failure.reason.name().into(),
        message: failure.message.clone(),
        parties: names(&failure.parties),
    }
}

fn failure_in(failure: ro::Failure) -> Result<Failure> {
    let reason = match failure.reason.as_str() {
        "" => FailureReason::PartyFailed,
        reason => reason.parse()?,
    };
    Ok(Failure { reason, message: failure.message, parties: parse_all(&failure.parties)? })
}

/// A signature as the wire carries it: the recovery id behind r ‖ s.
fn signature_out(mut bytes: Vec<u8>, recovery_id: Option<u8>) -> Bytes {
    bytes.extend(recovery_id);
    bytes.into()
}

/// A session in full.
pub fn detail(view: &SessionView) -> ro::SessionDetail {
    let signature = match &view.outcome {
        Some(Outcome::Signature(signature)) => {
            signature_out(signature.bytes().to_vec(), signature.recovery_id())
        }
        _ => Bytes::new(),
    };
    let key = view.ceremony.key();
    ro::SessionDetail {
        session_id: view.session_id.to_string(),
        session_type: view.ceremony.kind().name().into(),
        scheme: view.ceremony.scheme().name().into(),
        status: view.status.name().into(),
        threshold_n: view.ceremony.threshold().parties().into(),
        threshold_t: view.ceremony.threshold().signers().into(),
        key_id: view.key_id().map(|id| id.to_string()).unwrap_or_default(),
        public_key: view.public_key().map(|key| key.0.clone().into()).unwrap_or_default(),
        holders: key.map(|key| names(&key.holders)).unwrap_or_default(),
        message_hash: digest_out(&view.ceremony),
        participants: view.participants.iter().map(party_out).collect(),
        signature,
        failure: view.failure.as_ref().map(failure_out),
        created_at: millis(view.created_at),
        expires_at: millis(view.expires_at),
        tenant: view.tenant.as_str().into(),
        message: view.ceremony.input().and_then(SignInput::message).cloned(),
        key_epoch: key.map(|key| key.epoch).unwrap_or_default(),
        authorization: view.authorization.as_deref().map(authorization_out),
        attempt: view.attempt,
        replaced: names(&view.replaced),
    }
}

/// The digest that is signed, where one is.
fn digest_out(ceremony: &Ceremony) -> Bytes {
    let digest = ceremony.input().and_then(SignInput::digest);
    digest.map(|digest| Bytes::copy_from_slice(&digest.0)).unwrap_or_default()
}

/// Reads a session in full, as another role of ours sent it.
pub fn view(detail: Option<ro::SessionDetail>) -> Result<SessionView> {
    let detail = detail.ok_or_else(|| {
        Error::invalid_field("detail", "the other side is not a Quorate server: no session detail")
    })?;
    let kind: SessionKind = detail.session_type.parse()?;
    let scheme: Scheme = detail.scheme.parse()?;
    let threshold = Threshold::new(detail.threshold_t.into(), detail.threshold_n.into())?;
    let public_key = (!detail.public_key.is_empty()).then(|| PublicKey(detail.public_key.to_vec()));
    let status: SessionStatus = detail.status.parse()?;
    let outcome = match kind {
        SessionKind::Keygen => public_key.clone().map(Outcome::PublicKey),
        // Its key is known from the start.
        SessionKind::Refresh if status != SessionStatus::Completed => None,
        SessionKind::Refresh => public_key.clone().map(Outcome::PublicKey),
        SessionKind::Sign if detail.signature.is_empty() => None,
        SessionKind::Sign => {
            let (bytes, recovery_id) = match detail.signature.split_at_checked(64) {
                Some((bytes, [id])) => (bytes, Some(*id)),
                _ => (&detail.signature[..], None),
            };
            Some(Outcome::Signature(Signature::from_parts(bytes, recovery_id)?))
        }
    };
    let key = match (kind, public_key) {
        (SessionKind::Keygen, _) | (_, None) => None,
        (_, Some(public_key)) => Some(Arc::new(KeyEpoch {
            key_id: detail.key_id.parse()?,
            epoch: detail.key_epoch,
            scheme,
            threshold,
            public_key,
            holders: parse_all(&detail.holders)?,
        })),
    };
    let input = SignInput::from_fields(parse_digest(&detail.message_hash)?, detail.message)?;
    Ok(SessionView {
        session_id: detail.session_id.parse()?,
        tenant: match detail.tenant.as_str() {
            "" => Tenant::default(),
            name => name.parse()?,
        },
        ceremony: Ceremony::from_parts(kind, scheme, threshold, key, input)?,
        status,
        authorization: detail.authorization.map(authorization_in).transpose()?.map(Arc::new),
        attempt: detail.attempt,
        participants: detail.participants.into_iter().map(party_in).collect::<Result<_>>()?,
        replaced: parse_all(&detail.replaced)?,
        outcome,
        failure: detail.failure.map(failure_in).transpose()?,
        created_at: Timestamp(detail.created_at),
        expires_at: Timestamp(detail.expires_at),
    })
}

/// A request to create, as it comes in.
pub fn create_in(request: co::CreateSessionRequest) -> Result<CreateSession> {
    let participant = |p: co::ParticipantInfo| {
        Ok(NewParticipant {
            party_id: p.party_id.parse()?,
            device: device_in(p.device_info),
            on_behalf_of: p.on_behalf_of.map(behalf_in).transpose()?,
        })
    };
    Ok(CreateSession {
        ceremony: ceremony_in(&request)?,
        participants: request.participants.into_iter().map(participant).collect::<Result<_>>()?,
        expires_in_seconds: match request.expires_in_seconds {
            0 => None,
            seconds => Some(u64::try_from(seconds).map_err(|_| {
                Error::invalid_field("expires_in_seconds", "expires_in_seconds is 1 or more")
            })?),
        },
        idempotency_key: (!request.idempotency_key.is_empty()).then_some(request.idempotency_key),
        authorization: request.authorization.map(authorization_in).transpose()?,
        label: label_in(&request.label)?,
        replace: request.replace,
        lent: request.delegate_user_share.map(lent_in).transpose()?,
        webhook: webhook_in(request.webhook)?,
    })
}

fn webhook_in(name: String) -> Result<Option<String>> {
    if name.is_empty() {
        return Ok(None);
    }
    webhook_name(&name)?;
    Ok(Some(name))
}

fn ceremony_in(request: &co::CreateSessionRequest) -> Result<CeremonyRequest> {
    let digest = parse_digest(&request.message_hash)?;
    let input = SignInput::from_fields(digest, request.message.clone())?;
    let threshold = parse_threshold(request.threshold_t, request.threshold_n)?;
    let key = match (request.key_id.as_str(), request.public_key.is_empty()) {
        ("", true) => KeySelector::ByParticipants,
        ("", false) => KeySelector::PublicKey(PublicKey(request.public_key.to_vec())),
        (id, _) => KeySelector::Id(id.parse()?),
    };
    let scheme = match request.scheme.as_str() {
        "" => Scheme::default(),
        name => name.parse()?,
    };
    CeremonyRequest::from_parts(request.session_type.parse()?, scheme, threshold, key, input)
}

/// A request to create, as it goes out.
pub fn create_out(request: CreateSession) -> co::CreateSessionRequest {
    let kind = request.ceremony.kind();
    let threshold = request.ceremony.threshold();
    let (scheme, key, input) = request.ceremony.into_parts();
    let (key_id, public_key) = match key {
        KeySelector::Id(id) => (id.to_string(), Bytes::new()),
        KeySelector::PublicKey(key) => (String::new(), key.0.into()),
        KeySelector::ByParticipants => (String::new(), Bytes::new()),
    };
    let (digest, message) = input.map_or((None, None), SignInput::into_fields);
    let participant = |p: NewParticipant| co::ParticipantInfo {
        party_id: p.party_id.to_string(),
        device_info: Some(device_out(p.device)),
        on_behalf_of: p.on_behalf_of.map(behalf_out),
    };
    co::CreateSessionRequest {
        session_type: kind.name().into(),
        threshold_n: threshold.map_or(0, |threshold| threshold.parties().into()),
        threshold_t: threshold.map_or(0, |threshold| threshold.signers().into()),
        participants: request.participants.into_iter().map(participant).collect(),
        message_hash: digest.map(|d| Bytes::copy_from_slice(&d.0)).unwrap_or_default(),
        message,
        expires_in_seconds: request
            .expires_in_seconds
            .map_or(0, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
        key_id,
        public_key,
        scheme: scheme.map_or("", Scheme::name).into(),
        idempotency_key: request.idempotency_key.unwrap_or_default(),
        authorization: request.authorization.as_ref().map(authorization_out),
        label: label_out(request.label),
        replace: request.replace,
        delegate_user_share: request.lent.map(lent_out),
        webhook: request.webhook.unwrap_or_default(),
    }
}

/// A created session.
pub fn created_out(created: &CreatedSession) -> co::CreateSessionResponse {
    co::CreateSessionResponse {
        session_id: created.session.session_id.to_string(),
        join_tokens: tokens_out(&created.join_tokens),
        fetch_tokens: tokens_out(&created.fetch_tokens),
        expires_at: millis(created.session.expires_at),
        detail: Some(detail(&created.session)),
    }
}

/// A created session, as it comes back.
pub fn created_in(response: co::CreateSessionResponse) -> Result<CreatedSession> {
    Ok(CreatedSession {
        session: view(response.detail)?,
        join_tokens: tokens_in(response.join_tokens)?,
        fetch_tokens: tokens_in(response.fetch_tokens)?,
    })
}

fn tokens_out(
    tokens: &std::collections::BTreeMap<PartyId, JoinToken>,
) -> std::collections::HashMap<String, String> {
    tokens.iter().map(|(party, t)| (party.to_string(), t.expose().clone())).collect()
}

fn tokens_in(
    tokens: std::collections::HashMap<String, String>,
) -> Result<std::collections::BTreeMap<PartyId, JoinToken>> {
    tokens.into_iter().map(|(party, token)| Ok((party.parse()?, Secret::new(token)))).collect()
}

/// A request to join, as it comes in.
pub fn join_in(request: ro::JoinSessionRequest) -> Result<JoinSession> {
    if request.join_token.is_empty() {
        return Err(Error::new(ErrorCode::Unauthorized, "joining needs a join_token"));
    }
    Ok(JoinSession {
        session_id: match request.session_id.as_str() {
            "" => None,
            id => Some(id.parse()?),
        },
        party_id: request.party_id.parse()?,
        token: Secret::new(request.join_token),
        device: device_in(request.device_info),
        handshake: handshake_in(request.handshake),
        ready: request.ready,
        awaiting_approval: request.awaiting_approval,
        attempt: request.attempt,
    })
}

/// A request to join, as it goes out.
pub fn join_out(request: JoinSession) -> ro::JoinSessionRequest {
    ro::JoinSessionRequest {
        session_id: request.session_id.map(|id| id.to_string()).unwrap_or_default(),
        party_id: request.party_id.to_string(),
        join_token: request.token.expose().clone(),
        device_info: Some(device_out(request.device)),
        handshake: request.handshake.unwrap_or_default(),
        ready: request.ready,
        awaiting_approval: request.awaiting_approval,
        attempt: request.attempt,
    }
}

/// The answer to joining; `status` words as the router's clients know them.
pub fn joined_out(joined: &JoinedSession) -> ro::JoinSessionResponse {
    let session = &joined.session;
    let others = session.participants.iter().filter(|p| p.party_index != joined.party_index);
    ro::JoinSessionResponse {
        success: true,
        session_info: Some(ro::SessionInfo {
            session_id: session.session_id.to_string(),
            session_type: session.ceremony.kind().name().into(),
            threshold_n: session.ceremony.threshold().parties().into(),
            threshold_t: session.ceremony.threshold().signers().into(),
            message_hash: digest_out(&session.ceremony),
            status: status_word(session.status).into(),
        }),
        other_parties: others.map(party_out).collect(),
        party_index: joined.party_index.0.into(),
        detail: Some(detail(session)),
    }
}

/// The answer to joining, as it comes back.
pub fn joined_in(response: ro::JoinSessionResponse) -> Result<JoinedSession> {
    let index = u16::try_from(response.party_index).map_err(|_| Error::internal())?;
    Ok(JoinedSession { party_index: PartyIndex(index), session: view(response.detail)? })
}

/// The router's clients know a session whose parties come together as created.
fn status_word(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Waiting | SessionStatus::AwaitingApproval => SessionStatus::Created.name(),
        other => other.name(),
    }
}

/// A session's status, in the router's words.
pub fn status_out(view: &SessionView) -> ro::GetSessionStatusResponse {
    ro::GetSessionStatusResponse {
        session_id: view.session_id.to_string(),
        status: status_word(view.status).into(),
        threshold_n: view.ceremony.threshold().parties().into(),
        threshold_t: view.ceremony.threshold().signers().into(),
        participants: view.participants.iter().map(party_out).collect(),
        detail: Some(detail(view)),
    }
}

/// How many are ready.
pub fn ready_out(count: ReadyCount) -> ro::MarkPartyReadyResponse {
    ro::MarkPartyReadyResponse {
        success: true,
        all_ready: count.all_ready(),
        ready_count: count.ready.into(),
        total_parties: count.total.into(),
    }
}

/// How many are ready, as it comes back.
pub fn ready_in(response: &ro::MarkPartyReadyResponse) -> ReadyCount {
    let count = |n: i32| u16::try_from(n).unwrap_or(0);
    ReadyCount { ready: count(response.ready_count), total: count(response.total_parties) }
}

/// A party's report, as it comes in.
pub fn report_in(request: ro::ReportCompletionRequest) -> Result<Report> {
    let results = (request.public_key.is_empty(), request.signature.is_empty(), request.failure);
    let outcome = match results {
        (false, true, None) => PartyOutcome::Key {
            public_key: request.public_key.to_vec(),
            attestation: request.attestation.map(attestation_in).transpose()?.map(Box::new),
            epoch: request.epoch,
        },
        (true, false, None) => {
            PartyOutcome::Signature { bytes: request.signature.to_vec(), recovery_id: None }
        }
        (true, true, Some(failure)) => PartyOutcome::Failure(failure_in(failure)?),
        _ => {
            return Err(Error::invalid_field(
                "public_key",
                "report exactly one of public_key (keygen), signature (sign) and failure",
            ));
        }
    };
    Ok(Report {
        session_id: request.session_id.parse()?,
        party_id: request.party_id.parse()?,
        attempt: request.attempt,
        outcome,
    })
}

/// A party's report, as it goes out.
pub fn report_out(report: Report) -> ro::ReportCompletionRequest {
    let mut request = ro::ReportCompletionRequest {
        session_id: report.session_id.to_string(),
        party_id: report.party_id.to_string(),
        attempt: report.attempt,
        ..Default::default()
    };
    match report.outcome {
        PartyOutcome::Key { public_key, attestation, epoch } => {
            request.epoch = epoch;
            request.public_key = public_key.into();
            request.attestation = attestation.map(|attestation| attestation_out(*attestation));
        }
        PartyOutcome::Signature { bytes, recovery_id } => {
            request.signature = signature_out(bytes, recovery_id);
        }
        PartyOutcome::Failure(failure) => request.failure = Some(failure_out(&failure)),
    }
    request
}

/// The answer to a report.
pub fn completed_out(view: &SessionView) -> ro::ReportCompletionResponse {
    ro::ReportCompletionResponse {
        success: true,
        all_completed: view.status == SessionStatus::Completed
            && view.completed_parties() == view.participants.len(),
        detail: Some(detail(view)),
    }
}

/// A cursor from the wire, where there is one.
pub fn cursor_in(text: &str) -> Result<Option<Cursor>> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// A cursor on the wire; empty without one.
pub fn cursor_out(cursor: Option<Cursor>) -> String {
    cursor.map_or_else(String::new, String::from)
}

/// Converts a session's timeline to its message.
pub fn timeline_out(timeline: &Timeline) -> co::GetTimelineResponse {
    let entry = |entry: &TimelineEntry| co::TimelineEntry {
        at: millis(entry.at),
        party_id: entry.party_id.as_ref().map(PartyId::to_string).unwrap_or_default(),
        what: entry.what.clone(),
    };
    co::GetTimelineResponse {
        session: Some(detail(&timeline.session)),
        entries: timeline.entries.iter().map(entry).collect(),
    }
}

/// A timeline, as it comes back.
pub fn timeline_in(response: co::GetTimelineResponse) -> Result<Timeline> {
    let entry = |entry: co::TimelineEntry| {
        Ok(TimelineEntry {
            at: Timestamp(entry.at),
            party_id: match entry.party_id.as_str() {
                "" => None,
                party => Some(party.parse()?),
            },
            what: entry.what,
        })
    };
    Ok(Timeline {
        session: view(response.session)?,
        entries: response.entries.into_iter().map(entry).collect::<Result<_>>()?,
    })
}
