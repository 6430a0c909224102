//! Session events as one subscriber sees them.

use std::collections::BTreeMap;

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::DigestText;
use crate::delegate::LentShareJson;
use crate::schema;
use crate::session::{tokens_in, tokens_out};
use crate::view::SessionJson;

/// What happened to a session.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EventJson {
    /// Unique per event; after a reconnect the last event of each open session is sent again.
    #[schema(value_type = Uuid)]
    pub event_id: EventId,
    /// The type of event.
    #[schema(schema_with = schema::event_kind)]
    pub event_type: EventKind,
    /// The id of the session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// Number of holders of the key.
    pub threshold_n: u16,
    /// Number of signers needed.
    pub threshold_t: u16,
    /// The session's parties in the order of their indices.
    #[schema(value_type = Vec<String>)]
    pub selected_parties: Vec<PartyId>,
    /// The subscriber's own join token, by its party id; no other party's.
    #[serde(default)]
    pub join_tokens: BTreeMap<String, String>,
    /// Sign: the share that a user lends the subscriber; nobody else sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate_user_share: Option<LentShareJson>,
    /// Sign: the hash to be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<DigestText>,
    /// Time of the event, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// The session's deadline, in seconds since 1970.
    pub expires_at: i64,
    /// The session after the event.
    pub session: SessionJson,
}

impl From<SessionEvent> for EventJson {
    fn from(event: SessionEvent) -> Self {
        let SessionEvent { event_id, kind, session, join_tokens, lent, created_at } = event;
        Self {
            event_id,
            event_type: kind,
            session_id: session.session_id,
            threshold_n: session.ceremony.threshold().parties(),
            threshold_t: session.ceremony.threshold().signers(),
            selected_parties: session.parties().cloned().collect(),
            join_tokens: tokens_out(join_tokens),
            delegate_user_share: lent.map(Into::into),
            message_hash: session.ceremony.input().and_then(SignInput::digest).map(DigestText),
            created_at,
            expires_at: session.expires_at.as_seconds(),
            session: session.into(),
        }
    }
}

impl TryFrom<EventJson> for SessionEvent {
    type Error = Error;

    fn try_from(json: EventJson) -> Result<Self> {
        Ok(Self {
            event_id: json.event_id,
            kind: json.event_type,
            session: json.session.try_into()?,
            join_tokens: tokens_in(json.join_tokens)?,
            lent: json.delegate_user_share.map(Into::into),
            created_at: json.created_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_its_json_token_included() {
        let party: PartyId = "a".parse().unwrap();
        let (delegate, package) = (party.clone(), vec![1, 2].into());
        let lent = LentShare { delegate, holder_index: PartyIndex(1), package };
        let event = SessionEvent {
            event_id: "660e8400-e29b-41d4-a716-446655440001".parse().unwrap(),
            kind: EventKind::SessionCreated,
            session: crate::view::tests::signed(),
            join_tokens: [(party.clone(), Secret::new("token".to_owned()))].into(),
            lent: Some(lent),
            created_at: Timestamp(4),
        };
        let text = serde_json::to_string(&EventJson::from(event.clone())).unwrap();
        let json: EventJson = serde_json::from_str(&text).unwrap();
        assert_eq!(json.selected_parties, ["a", "c"].map(|name| name.parse().unwrap()));
        let back = SessionEvent::try_from(json).unwrap();
        assert_eq!((back.session, back.lent), (event.session, event.lent));
        assert_eq!(back.join_tokens[&party].expose(), "token");
    }
}
