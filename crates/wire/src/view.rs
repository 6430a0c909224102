//! A session as callers see it.

use std::sync::Arc;

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::authorization::AuthorizationJson;
use crate::codec::{Base64Text, DigestText, PublicKeyText, SignatureText};
use crate::delegate::OnBehalfOfJson;
use crate::device::DeviceJson;
use crate::report::FailureJson;
use crate::schema;

/// A participant's seat and status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeatJson {
    /// The id of the party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Index of its seat, from 0.
    #[schema(value_type = u16)]
    pub party_index: PartyIndex,
    /// The current status.
    #[schema(schema_with = schema::participant_status)]
    pub status: ParticipantStatus,
}

impl From<&ParticipantView> for SeatJson {
    fn from(view: &ParticipantView) -> Self {
        Self { party_id: view.party_id.clone(), party_index: view.party_index, status: view.status }
    }
}

/// A participant of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParticipantJson {
    /// The id of the party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Index of its seat, from 0.
    #[schema(value_type = u16)]
    pub party_index: PartyIndex,
    /// The current status.
    #[schema(schema_with = schema::participant_status)]
    pub status: ParticipantStatus,
    /// What its device says of itself.
    #[serde(default)]
    pub device_info: DeviceJson,
    /// Its handshake, if it has joined with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Base64Text>,
    /// The user for whom a delegate takes the seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOfJson>,
}

impl From<ParticipantView> for ParticipantJson {
    fn from(view: ParticipantView) -> Self {
        Self {
            party_id: view.party_id,
            party_index: view.party_index,
            status: view.status,
            device_info: view.device.into(),
            handshake: view.handshake.map(Base64Text),
            on_behalf_of: view.on_behalf_of.map(Into::into),
        }
    }
}

impl TryFrom<ParticipantJson> for ParticipantView {
    type Error = Error;

    fn try_from(json: ParticipantJson) -> Result<Self> {
        let words = |of: OnBehalfOfJson| of.into_words("on_behalf_of.");
        Ok(Self {
            party_id: json.party_id,
            party_index: json.party_index,
            status: json.status,
            device: json.device_info.into(),
            handshake: json.handshake.map(|handshake| handshake.0),
            on_behalf_of: json.on_behalf_of.map(words).transpose()?,
        })
    }
}

/// A session, as its participants and its owner see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionJson {
    /// The id of the session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// The type of session: keygen, sign or refresh.
    #[schema(schema_with = schema::session_kind)]
    pub session_type: SessionKind,
    /// The current status.
    #[schema(schema_with = schema::session_status)]
    pub status: SessionStatus,
    /// Number of signers needed.
    pub threshold_t: u16,
    /// Number of holders of the key.
    pub threshold_n: u16,
    /// The key's scheme.
    #[schema(schema_with = schema::scheme)]
    pub scheme: Scheme,
    /// The current or last attempt, from 0: a signature is retried with other holders when some
    /// cannot continue.
    #[serde(default)]
    pub attempt: u32,
    /// The parties in the order of their indices.
    pub participants: Vec<ParticipantJson>,
    /// Parties that took part in an earlier attempt and not in this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub replaced: Vec<PartyId>,
    /// Parties that the session is waiting for.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub waiting_for: Vec<PartyId>,
    /// The key used (sign, refresh) or made (completed keygen).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub key_id: Option<KeyId>,
    /// The verifying key, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyText>,
    /// Sign and refresh: the holders of the key in the order of their shares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub holders: Vec<PartyId>,
    /// Sign: the epoch of the key. Refresh: the epoch that is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<u32>,
    /// Sign: the hash that is signed, for a scheme that signs hashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<DigestText>,
    /// Sign: the message that is signed, in base64, for a scheme that signs messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Base64Text>,
    /// The request signed by its initiator, with the approvals so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<AuthorizationJson>,
    /// Sign: the verified signature, once completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureText>,
    /// Sign: 0 to 3, with the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<u8>,
    /// The failure, if it failed or expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureJson>,
    /// Creation time, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// Deadline, in seconds since 1970.
    pub expires_at: i64,
}

impl From<SessionView> for SessionJson {
    fn from(view: SessionView) -> Self {
        let waiting_for = view.waiting_for();
        let (key_id, public_key) = (view.key_id(), view.public_key().cloned());
        let signature = match view.outcome {
            Some(Outcome::Signature(signature)) => Some(signature),
            _ => None,
        };
        let threshold = view.ceremony.threshold();
        let key = view.ceremony.key();
        let input = view.ceremony.input();
        Self {
            session_id: view.session_id,
            session_type: view.ceremony.kind(),
            status: view.status,
            threshold_t: threshold.signers(),
            threshold_n: threshold.parties(),
            scheme: view.ceremony.scheme(),
            attempt: view.attempt,
            participants: view.participants.into_iter().map(Into::into).collect(),
            replaced: view.replaced,
            waiting_for,
            key_id,
            public_key: public_key.map(PublicKeyText),
            holders: key.map(|key| key.holders.clone()).unwrap_or_default(),
            key_epoch: key.map(|key| key.epoch),
            message_hash: input.and_then(SignInput::digest).map(DigestText),
            message: input.and_then(SignInput::message).cloned().map(Base64Text),
            authorization: view
                .authorization
                .map(|authorization| Arc::unwrap_or_clone(authorization).into()),
            recovery_id: signature.as_ref().and_then(Signature::recovery_id),
            signature: signature.map(|signature| SignatureText(signature.bytes().to_vec())),
            failure: view.failure.map(Into::into),
            created_at: view.created_at,
            expires_at: view.expires_at.as_seconds(),
        }
    }
}

impl TryFrom<SessionJson> for SessionView {
    type Error = Error;

    fn try_from(json: SessionJson) -> Result<Self> {
        let kind = json.session_type;
        let threshold = Threshold::new(json.threshold_t.into(), json.threshold_n.into())?;
        let public_key = json.public_key.map(|key| key.0);
        let recovery_id = json.recovery_id;
        let signature = json.signature.map(|text| Signature::from_parts(&text.0, recovery_id));
        let signature = signature.transpose()?.map(Outcome::Signature);
        let made = (json.status == SessionStatus::Completed && kind.makes_shares())
            .then(|| public_key.clone().map(Outcome::PublicKey))
            .flatten();
        let key = match (kind, json.key_id, public_key) {
            (SessionKind::Keygen, ..) => None,
            (_, Some(key_id), Some(public_key)) => Some(Arc::new(KeyEpoch {
                key_id,
                epoch: json.key_epoch.unwrap_or_default(),
                scheme: json.scheme,
                threshold,
                public_key,
                holders: json.holders,
            })),
            _ => None,
        };
        let digest = json.message_hash.map(|hash| hash.0);
        let input = SignInput::from_fields(digest, json.message.map(|message| message.0))?;
        Ok(Self {
            session_id: json.session_id,
            tenant: Tenant::default(),
            ceremony: Ceremony::from_parts(kind, json.scheme, threshold, key, input)?,
            status: json.status,
            attempt: json.attempt,
            participants: (json.participants.into_iter().map(TryInto::try_into))
                .collect::<Result<_>>()?,
            replaced: json.replaced,
            authorization: match json.authorization {
                Some(json) => Some(Arc::new(json.try_into()?)),
                None => None,
            },
            outcome: signature.or(made),
            failure: json.failure.map(Into::into),
            created_at: json.created_at,
            expires_at: Timestamp(json.expires_at.saturating_mul(1000)),
        })
    }
}

/// A page of sessions, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionsJson {
    /// At most as many sessions as the request limits.
    pub sessions: Vec<SessionJson>,
    /// Give this as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}

/// One entry of a session's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEntryJson {
    /// Time of the entry, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// The id of the party concerned, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub party_id: Option<PartyId>,
    /// Description of what happened.
    #[schema(example = "joined")]
    pub what: String,
}

/// A session's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineJson {
    /// The session as it stands.
    pub session: SessionJson,
    /// The entries, oldest first.
    pub entries: Vec<TimelineEntryJson>,
}

impl From<Timeline> for TimelineJson {
    fn from(timeline: Timeline) -> Self {
        let entry = |TimelineEntry { at, party_id, what }| TimelineEntryJson { at, party_id, what };
        Self {
            session: timeline.session.into(),
            entries: timeline.entries.into_iter().map(entry).collect(),
        }
    }
}

impl TryFrom<TimelineJson> for Timeline {
    type Error = Error;

    fn try_from(json: TimelineJson) -> Result<Self> {
        let entry = |TimelineEntryJson { at, party_id, what }| TimelineEntry { at, party_id, what };
        Ok(Self {
            session: json.session.try_into()?,
            entries: json.entries.into_iter().map(entry).collect(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A signing session with every member set.
    pub(crate) fn signed() -> SessionView {
        let participant = |name: &str, index| ParticipantView {
            party_id: name.parse().unwrap(),
            party_index: PartyIndex(index),
            status: ParticipantStatus::Completed,
            device: DeviceInfo { device_type: "server".into(), ..DeviceInfo::default() },
            handshake: Some(vec![1, 2, 3].into()),
            on_behalf_of: None,
        };
        let session_id: SessionId = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        SessionView {
            tenant: Tenant::default(),
            session_id,
            ceremony: Ceremony::Sign {
                key: Arc::new(KeyEpoch {
                    key_id: session_id.into(),
                    epoch: 3,
                    scheme: Scheme::default(),
                    threshold: Threshold::new(2, 3).unwrap(),
                    public_key: PublicKey([&[4][..], &[9; 64]].concat()),
                    holders: ["a", "b", "c"].map(|name| name.parse().unwrap()).to_vec(),
                }),
                input: SignInput::Digest(Digest([5; 32])),
            },
            status: SessionStatus::Completed,
            attempt: 2,
            participants: vec![participant("a", 0), participant("c", 1)],
            replaced: vec!["b".parse().unwrap()],
            authorization: Some(Arc::new(crate::authorization::tests::authorization())),
            outcome: Some(Outcome::Signature(Signature::Ecdsa { rs: [6; 64], recovery_id: 1 })),
            failure: None,
            created_at: Timestamp(1_703_145_600_123),
            expires_at: Timestamp(1_703_145_900_000),
        }
    }

    #[test]
    fn a_signed_session_survives_its_json() {
        let text = serde_json::to_string(&SessionJson::from(signed())).unwrap();
        let back: SessionJson = serde_json::from_str(&text).unwrap();
        assert_eq!(SessionView::try_from(back).unwrap(), signed());
    }

    #[test]
    fn a_finished_keygen_survives_its_json() {
        let mut view = signed();
        view.outcome = view.public_key().cloned().map(Outcome::PublicKey);
        let (scheme, threshold) = (view.ceremony.scheme(), view.ceremony.threshold());
        view.ceremony = Ceremony::Keygen { scheme, threshold };
        let json = SessionJson::from(view.clone());
        assert!(json.signature.is_none());
        assert_eq!(SessionView::try_from(json).unwrap(), view);
    }

    #[test]
    fn a_failed_session_survives_its_json() {
        let mut view = signed();
        view.status = SessionStatus::Failed;
        view.outcome = None;
        view.failure = Some(Failure {
            reason: FailureReason::SignatureInvalid,
            message: "no".into(),
            parties: vec!["c".parse().unwrap()],
        });
        assert_eq!(SessionView::try_from(SessionJson::from(view.clone())).unwrap(), view);
    }

    #[test]
    fn a_waiting_session_says_for_whom_and_shows_no_null() {
        let mut view = signed();
        view.status = SessionStatus::Waiting;
        view.outcome = None;
        view.participants[1].status = ParticipantStatus::Joined;
        let text = serde_json::to_string(&SessionJson::from(view)).unwrap();
        assert!(text.contains(r#""waiting_for":["c"]"#), "{text}");
        assert!(!text.contains("null"), "{text}");
    }

    #[test]
    fn documented_members_have_the_documented_names() {
        let value = serde_json::to_value(SessionJson::from(signed())).unwrap();
        assert_eq!(value["status"], "completed");
        assert_eq!(value["threshold_t"], 2);
        assert_eq!(value["threshold_n"], 3);
        assert_eq!(value["participants"][1]["party_index"], 1);
        assert_eq!(value["expires_at"], 1_703_145_900);
        assert_eq!(value["signature"], "06".repeat(64));
    }
}
