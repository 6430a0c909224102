//! Requests to a session, and their answers.

use std::collections::BTreeMap;

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::authorization::AuthorizationJson;
use crate::codec::{Base64Text, DigestText, PublicKeyText};
use crate::delegate::LentShareJson;
use crate::device::{DeviceJson, NewParticipantJson, device, participants};
use crate::schema;
use crate::view::{SeatJson, SessionJson};

/// Creates a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSessionJson {
    /// The type of session: keygen, sign or refresh.
    #[schema(schema_with = schema::session_kind)]
    pub session_type: SessionKind,
    /// Number of holders of the key, 2 to 16. Required for keygen; otherwise, if given, must agree
    /// with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    pub threshold_n: Option<i64>,
    /// Number of signers needed, 2 to `threshold_n`. Required for keygen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 2)]
    pub threshold_t: Option<i64>,
    /// The participants. Any remaining seats are filled by online persistent parties; a refresh
    /// always takes all holders of the key.
    #[serde(default)]
    pub participants: Vec<NewParticipantJson>,
    /// Sign only: the 32-byte hash to sign, for a key whose scheme signs hashes (ECDSA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<DigestText>,
    /// Sign only: the message to sign, in base64, at most 64 KiB, for a key whose scheme signs
    /// messages (Ed25519).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Base64Text>,
    /// Seconds until the session expires, 1 to 604800. Default: 300, or 86400 if a participant is
    /// offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 300, minimum = 1, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// Sign and refresh: the key by id. If neither this nor `public_key` is given, the
    /// participants' only shared key signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub key_id: Option<KeyId>,
    /// Sign and refresh: the key by its verifying key instead of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyText>,
    /// Keygen only: the signature scheme; `ecdsa-secp256k1` if omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::scheme, required = false)]
    pub scheme: Option<Scheme>,
    /// The request signed by an initiator. Required if the coordinator has no service initiator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<AuthorizationJson>,
    /// Keygen only: the key's label, 1 to 64 letters, digits or `-_.:@+`. If an initiator has
    /// signed the request, the label is taken from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "treasury")]
    pub label: Option<KeyLabel>,
    /// Sign only: whether other holders can also replace named participants that cannot sign.
    /// Participants that were filled in can always be replaced.
    #[serde(
        default,
        deserialize_with = "crate::strict::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub replace: bool,
    /// Sign only: the share that a user lends a delegate for the request in `authorization`. The
    /// delegate takes the user's seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate_user_share: Option<LentShareJson>,
    /// The webhook that is told how the session ends: one that the operator has configured for the
    /// caller's tenant, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "settlement")]
    pub webhook: Option<String>,
}

/// Both numbers of a threshold, or none.
pub(crate) fn threshold(t: Option<i64>, n: Option<i64>) -> Result<Option<Threshold>> {
    let missing = |field, other| {
        Err(Error::invalid_field(field, format!("{field} is missing; give it with {other}")))
    };
    match (t, n) {
        (Some(t), Some(n)) => Threshold::new(t, n).map(Some),
        (Some(_), None) => missing("threshold_n", "threshold_t"),
        (None, Some(_)) => missing("threshold_t", "threshold_n"),
        (None, None) => Ok(None),
    }
}

/// The name of a webhook that a request gives.
pub(crate) fn named(webhook: Option<String>) -> Result<Option<String>> {
    webhook.as_deref().map_or(Ok(()), webhook_name)?;
    Ok(webhook)
}

fn only(field: &str, kind: SessionKind, given: bool) -> Result<()> {
    if !given {
        return Ok(());
    }
    let kind = kind.name();
    Err(Error::invalid_field(
        field,
        format!("{field} has no meaning in a {kind} session; leave it"),
    ))
}

impl CreateSessionJson {
    /// The request; `idempotency_key` comes from the header of that name.
    ///
    /// # Errors
    /// `invalid_request` naming the member that is missing, out of place or contradicted.
    pub fn into_request(self, idempotency_key: Option<String>) -> Result<CreateSession> {
        let kind = self.session_type;
        let threshold = threshold(self.threshold_t, self.threshold_n)?;
        match kind {
            SessionKind::Keygen => {
                only("key_id", kind, self.key_id.is_some())?;
                only("public_key", kind, self.public_key.is_some())?;
            }
            SessionKind::Sign | SessionKind::Refresh => {
                only("scheme", kind, self.scheme.is_some())?;
                only("label", kind, self.label.is_some())?;
            }
        }
        only("replace", kind, self.replace && kind != SessionKind::Sign)?;
        let lends = self.delegate_user_share.is_some();
        only("delegate_user_share", kind, lends && kind != SessionKind::Sign)?;
        let key = match (self.key_id, self.public_key) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid_field(
                    "public_key",
                    "give key_id or public_key, not both",
                ));
            }
            (Some(id), None) => KeySelector::Id(id),
            (None, Some(key)) => KeySelector::PublicKey(key.0),
            (None, None) => KeySelector::ByParticipants,
        };
        let digest = self.message_hash.map(|hash| hash.0);
        let input = SignInput::from_fields(digest, self.message.map(|message| message.0))?;
        let scheme = self.scheme.unwrap_or_default();
        Ok(CreateSession {
            ceremony: CeremonyRequest::from_parts(kind, scheme, threshold, key, input)?,
            participants: participants(self.participants)?,
            expires_in_seconds: self.expires_in_seconds,
            idempotency_key,
            authorization: self.authorization.map(TryInto::try_into).transpose()?,
            label: self.label,
            replace: self.replace,
            lent: self.delegate_user_share.map(Into::into),
            webhook: named(self.webhook)?,
        })
    }
}

impl From<CreateSession> for CreateSessionJson {
    fn from(request: CreateSession) -> Self {
        let kind = request.ceremony.kind();
        let threshold = request.ceremony.threshold();
        let (scheme, key, input) = request.ceremony.into_parts();
        let (digest, message) = input.map_or((None, None), SignInput::into_fields);
        let (key_id, public_key) = match key {
            KeySelector::Id(id) => (Some(id), None),
            KeySelector::PublicKey(key) => (None, Some(PublicKeyText(key))),
            KeySelector::ByParticipants => (None, None),
        };
        Self {
            session_type: kind,
            threshold_n: threshold.map(|threshold| threshold.parties().into()),
            threshold_t: threshold.map(|threshold| threshold.signers().into()),
            participants: request.participants.into_iter().map(Into::into).collect(),
            message_hash: digest.map(DigestText),
            message: message.map(Base64Text),
            expires_in_seconds: request.expires_in_seconds,
            key_id,
            public_key,
            scheme,
            authorization: request.authorization.map(Into::into),
            label: request.label,
            replace: request.replace,
            delegate_user_share: request.lent.map(Into::into),
            webhook: request.webhook,
        }
    }
}

/// A created session: the session and each participant's join token.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedSessionJson {
    /// The session as it stands.
    #[serde(flatten)]
    pub session: SessionJson,
    /// Join tokens by party id, shown here and to the participant only.
    pub join_tokens: BTreeMap<String, String>,
    /// Keygen: fetch tokens by delegate id, with which users fetch their shares.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fetch_tokens: BTreeMap<String, String>,
}

/// Tokens as plain text, for the one answer and the one event that carry them.
pub(crate) fn tokens_out(tokens: BTreeMap<PartyId, JoinToken>) -> BTreeMap<String, String> {
    tokens.into_iter().map(|(party, token)| (party.into(), token.expose().clone())).collect()
}

/// Tokens as secrets again.
pub(crate) fn tokens_in(tokens: BTreeMap<String, String>) -> Result<BTreeMap<PartyId, JoinToken>> {
    let secret = |(party, token): (String, String)| Ok((party.parse()?, Secret::new(token)));
    tokens.into_iter().map(secret).collect()
}

impl From<CreatedSession> for CreatedSessionJson {
    fn from(created: CreatedSession) -> Self {
        Self {
            session: created.session.into(),
            join_tokens: tokens_out(created.join_tokens),
            fetch_tokens: tokens_out(created.fetch_tokens),
        }
    }
}

impl TryFrom<CreatedSessionJson> for CreatedSession {
    type Error = Error;

    fn try_from(json: CreatedSessionJson) -> Result<Self> {
        Ok(Self {
            session: json.session.try_into()?,
            join_tokens: tokens_in(json.join_tokens)?,
            fetch_tokens: tokens_in(json.fetch_tokens)?,
        })
    }
}

/// Joins a session.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinSessionJson {
    /// The party's token; it decides the session.
    pub join_token: String,
    /// The id of the joining party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// The device's type, when `device_info` is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// The device's id, when `device_info` is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// What the device says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_info: Option<DeviceJson>,
    /// Optional; if given, must be the token's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub session_id: Option<SessionId>,
    /// The party's signed handshake, in base64; needed to compute with Quorate's own engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Base64Text>,
    /// Join and become ready in one call.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub ready: bool,
    /// Do not join, but report that the party is waiting for approvals of the request.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub awaiting_approval: bool,
    /// The attempt that is joined, from 0.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub attempt: u32,
}

impl JoinSessionJson {
    /// The request, with the device from either form.
    ///
    /// # Errors
    /// `invalid_request` when the flat and the nested device contradict each other.
    pub fn into_request(self) -> Result<JoinSession> {
        Ok(JoinSession {
            session_id: self.session_id,
            party_id: self.party_id,
            token: Secret::new(self.join_token),
            device: device(self.device_type, self.device_id, self.device_info, "")?,
            handshake: self.handshake.map(|handshake| handshake.0),
            ready: self.ready,
            awaiting_approval: self.awaiting_approval,
            attempt: self.attempt,
        })
    }
}

impl From<JoinSession> for JoinSessionJson {
    fn from(request: JoinSession) -> Self {
        Self {
            join_token: request.token.expose().clone(),
            party_id: request.party_id,
            device_type: None,
            device_id: None,
            device_info: Some(request.device.into()),
            session_id: request.session_id,
            handshake: request.handshake.map(Base64Text),
            ready: request.ready,
            awaiting_approval: request.awaiting_approval,
            attempt: request.attempt,
        }
    }
}

/// Answer to joining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinedSessionJson {
    /// The id of the session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// Index of the joining party's seat, from 0.
    #[schema(value_type = u16)]
    pub party_index: PartyIndex,
    /// Status of the joining party.
    #[schema(schema_with = schema::participant_status)]
    pub status: ParticipantStatus,
    /// All participants in the order of their indices.
    pub participants: Vec<SeatJson>,
    /// The whole session.
    pub session: SessionJson,
}

impl From<JoinedSession> for JoinedSessionJson {
    fn from(joined: JoinedSession) -> Self {
        let JoinedSession { party_index, session } = joined;
        let mut seats = session.participants.iter();
        let own = seats.find(|seat| seat.party_index == party_index).map(|seat| seat.status);
        Self {
            session_id: session.session_id,
            party_index,
            status: own.unwrap_or(ParticipantStatus::Joined),
            participants: session.participants.iter().map(SeatJson::from).collect(),
            session: session.into(),
        }
    }
}

impl TryFrom<JoinedSessionJson> for JoinedSession {
    type Error = Error;

    fn try_from(json: JoinedSessionJson) -> Result<Self> {
        Ok(Self { party_index: json.party_index, session: json.session.try_into()? })
    }
}

/// Marks a party ready. The body may be omitted: the path names the party.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReadyJson {
    /// Optional; if given, must be the path's party.
    #[schema(value_type = Option<String>)]
    pub party_id: Option<PartyId>,
}

/// Answer to marking a party ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyAnswerJson {
    /// Always `true`: a refusal is an error instead.
    pub success: bool,
    /// Whether the session has started.
    pub all_ready: bool,
    /// Number of participants that are ready or further.
    pub ready_count: u16,
    /// Number of participants.
    pub total_parties: u16,
}

impl From<ReadyCount> for ReadyAnswerJson {
    fn from(count: ReadyCount) -> Self {
        Self {
            success: true,
            all_ready: count.all_ready(),
            ready_count: count.ready,
            total_parties: count.total,
        }
    }
}

impl From<ReadyAnswerJson> for ReadyCount {
    fn from(json: ReadyAnswerJson) -> Self {
        Self { ready: json.ready_count, total: json.total_parties }
    }
}

/// Answer to starting and to closing a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionStepJson {
    /// Always `true`: a refusal is an error instead.
    pub success: bool,
    /// Status of the session.
    #[schema(schema_with = schema::session_status)]
    pub status: SessionStatus,
}

impl From<&SessionView> for SessionStepJson {
    fn from(session: &SessionView) -> Self {
        Self { success: true, status: session.status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn create(json: &str) -> Result<CreateSession> {
        parse::<CreateSessionJson>(json.as_bytes())?.into_request(None)
    }

    fn field(json: &str) -> String {
        let error = create(json).unwrap_err();
        error.details.fields.keys().next().cloned().unwrap_or_default()
    }

    #[test]
    fn documented_keygen_request_is_read() {
        let request = create(
            r#"{
            "session_type": "keygen",
            "threshold_n": 3,
            "threshold_t": 2,
            "participants": [
            {"party_id": "party_user_device", "device_type": "iOS", "device_id": "device_001"},
            {"party_id": "party_server", "device_type": "server", "device_id": "server_001"},
            {"party_id": "party_recovery", "device_type": "recovery", "device_id": "recovery_001"}
            ],
            "expires_in_seconds": 300
            }"#,
        )
        .unwrap();
        assert_eq!(request.ceremony.threshold().unwrap(), Threshold::new(2, 3).unwrap());
        assert_eq!(request.participants[2].device.device_id, "recovery_001");
        assert_eq!(request.expires_in_seconds, Some(300));
    }

    #[test]
    fn documented_curl_request_is_read() {
        let request = create(
            r#"{"session_type": "keygen", "threshold_n": 3, "threshold_t": 2,
            "participants": [{"party_id": "party_0"}, {"party_id": "party_1"}, {"party_id": "party_2"}]}"#,
        )
        .unwrap();
        assert_eq!(request.participants.len(), 3);
    }

    #[test]
    fn each_wrong_member_is_named() {
        let hash = "ab".repeat(32);
        for (expected, json) in [
            ("session_type", r#"{}"#.to_owned()),
            ("session_type", r#"{"session_type":"resharing"}"#.to_owned()),
            ("threshold_n", r#"{"session_type":"keygen"}"#.to_owned()),
            ("threshold_n", r#"{"session_type":"keygen","threshold_t":2}"#.to_owned()),
            ("threshold_t", r#"{"session_type":"keygen","threshold_n":2}"#.to_owned()),
            (
                "threshold_t",
                r#"{"session_type":"keygen","threshold_n":2,"threshold_t":3}"#.to_owned(),
            ),
            ("threshold_n", r#"{"session_type":"keygen","threshold_n":"3"}"#.to_owned()),
            ("message_hash", r#"{"session_type":"sign"}"#.to_owned()),
            ("message_hash", r#"{"session_type":"sign","message_hash":"abc123..."}"#.to_owned()),
            (
                "message_hash",
                format!(
                    r#"{{"session_type":"keygen","threshold_n":2,"threshold_t":2,"message_hash":"{hash}"}}"#
                ),
            ),
            (
                "scheme",
                format!(
                    r#"{{"session_type":"sign","message_hash":"{hash}","scheme":"ecdsa-secp256k1"}}"#
                ),
            ),
            ("key_id", r#"{"session_type":"refresh"}"#.to_owned()),
            (
                "key_id",
                r#"{"session_type":"refresh","participants":[{"party_id":"a"}]}"#.to_owned(),
            ),
            (
                "message_hash",
                format!(
                    r#"{{"session_type":"refresh","public_key":"02{0}","message_hash":"{hash}"}}"#,
                    "11".repeat(32)
                ),
            ),
            (
                "scheme",
                r#"{"session_type":"refresh","key_id":"550e8400-e29b-41d4-a716-446655440000",
                    "scheme":"ed25519"}"#
                    .to_owned(),
            ),
            ("sesion_type", r#"{"sesion_type":"sign"}"#.to_owned()),
            ("expires_in_seconds", r#"{"session_type":"sign","expires_in_seconds":-1}"#.to_owned()),
        ] {
            assert_eq!(field(&json), expected, "{json}");
        }
    }

    #[test]
    fn a_request_survives_its_json() {
        let key = KeySelector::Id("550e8400-e29b-41d4-a716-446655440000".parse().unwrap());
        let threshold = Some(Threshold::new(2, 3).unwrap());
        let input = SignInput::Digest(Digest([7; 32]));
        for ceremony in [
            CeremonyRequest::Sign { key: key.clone(), threshold, input },
            CeremonyRequest::Refresh { key, threshold },
        ] {
            let request = CreateSession {
                ceremony,
                participants: vec![NewParticipant {
                    party_id: "a".parse().unwrap(),
                    device: DeviceInfo { platform: "x".into(), ..DeviceInfo::default() },
                    on_behalf_of: None,
                }],
                expires_in_seconds: Some(9),
                idempotency_key: Some("k".into()),
                authorization: None,
                label: None,
                replace: false,
                lent: None,
                webhook: None,
            };
            let text = serde_json::to_string(&CreateSessionJson::from(request.clone())).unwrap();
            let back = parse::<CreateSessionJson>(text.as_bytes()).unwrap();
            let back = back.into_request(Some("k".into())).unwrap();
            assert_eq!(format!("{back:?}"), format!("{request:?}"));
        }
    }

    #[test]
    fn documented_join_request_is_read() {
        let json = r#"{"join_token": "token-uuid-1", "party_id": "party_user_device",
            "device_type": "iOS", "device_id": "device_001"}"#;
        let request = parse::<JoinSessionJson>(json.as_bytes()).unwrap().into_request().unwrap();
        assert_eq!(request.token.expose(), "token-uuid-1");
        assert_eq!(request.device.device_type, "iOS");
        assert!(!request.ready && request.handshake.is_none() && request.session_id.is_none());
    }

    #[test]
    fn a_join_survives_its_json() {
        let join = JoinSession {
            session_id: Some("550e8400-e29b-41d4-a716-446655440000".parse().unwrap()),
            party_id: "a".parse().unwrap(),
            token: Secret::new("t".into()),
            device: DeviceInfo { device_type: "web".into(), ..DeviceInfo::default() },
            handshake: Some(vec![1, 2, 255].into()),
            ready: true,
            awaiting_approval: false,
            attempt: 0,
        };
        let text = serde_json::to_string(&JoinSessionJson::from(join.clone())).unwrap();
        let back = parse::<JoinSessionJson>(text.as_bytes()).unwrap().into_request().unwrap();
        assert_eq!(back.handshake, join.handshake);
        assert_eq!(back.device, join.device);
        assert_eq!((back.session_id, back.ready), (join.session_id, true));
    }

    #[test]
    fn ready_answer_counts_as_documented() {
        let answer = ReadyAnswerJson::from(ReadyCount { ready: 2, total: 3 });
        let documented =
            r#"{"success": true, "all_ready": false, "ready_count": 2, "total_parties": 3}"#;
        assert_eq!(answer, serde_json::from_str(documented).unwrap());
    }
}
