//! Routed messages, acknowledgements and delivery.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::Base64Text;
use crate::schema;

/// Routes a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteJson {
    /// The session; when the path or the socket names it, it must be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub session_id: Option<SessionId>,
    /// The id of the sending party.
    #[schema(value_type = String)]
    pub from_party: PartyId,
    /// The recipients; empty means all others of the session.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub to_parties: Vec<PartyId>,
    /// The protocol's round, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<i32>,
    /// Another name for `round`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_number: Option<i32>,
    /// Name of the message, chosen by the protocol.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub message_type: String,
    /// The payload, opaque to the router.
    pub payload: Base64Text,
    /// Optional; if given, must agree with `to_parties`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_broadcast: Option<bool>,
    /// Ids of messages to acknowledge in the same call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Uuid>)]
    pub acknowledges: Vec<MessageId>,
}

/// The one round that both names give; 0 where neither is given.
fn one_round(round: Option<i32>, round_number: Option<i32>) -> Result<i32> {
    let refused = |field, problem: String| Err(Error::invalid_field(field, problem));
    match (round, round_number) {
        (Some(a), Some(b)) if a != b => {
            refused("round_number", format!("round is {a} and round_number is {b}; give one"))
        }
        (Some(round), _) if round < 0 => {
            refused("round", format!("round is {round}; it counts from 0"))
        }
        (None, Some(round)) if round < 0 => {
            refused("round_number", format!("round_number is {round}; it counts from 0"))
        }
        (round, round_number) => Ok(round.or(round_number).unwrap_or(0)),
    }
}

impl RouteJson {
    /// The request; `session` is the one that the path or the socket names.
    ///
    /// # Errors
    /// `invalid_request` naming the member that is missing or contradicted.
    pub fn into_request(self, session: Option<SessionId>) -> Result<RouteRequest> {
        let session_id = match (session, self.session_id) {
            (Some(outer), Some(inner)) if outer != inner => {
                return Err(Error::invalid_field(
                    "session_id",
                    format!("session_id is {inner} but this goes to session {outer}"),
                ));
            }
            (None, None) => {
                return Err(Error::invalid_field("session_id", "session_id is missing"));
            }
            (outer, inner) => outer.or(inner).expect("one of them is there"),
        };
        let round = one_round(self.round, self.round_number)?;
        let broadcast = self.to_parties.is_empty();
        if self.is_broadcast.is_some_and(|says| says != broadcast) {
            let problem = if broadcast {
                "is_broadcast is false but to_parties is empty, which means all; name the recipients"
            } else {
                "is_broadcast is true but to_parties names recipients; leave to_parties empty"
            };
            return Err(Error::invalid_field("is_broadcast", problem));
        }
        Ok(RouteRequest {
            session_id,
            from_party: self.from_party,
            to_parties: self.to_parties,
            round,
            message_type: self.message_type,
            payload: self.payload.0,
            acknowledges: self.acknowledges,
            patient: false,
        })
    }
}

impl From<RouteRequest> for RouteJson {
    fn from(request: RouteRequest) -> Self {
        Self {
            session_id: Some(request.session_id),
            from_party: request.from_party,
            is_broadcast: Some(request.to_parties.is_empty()),
            to_parties: request.to_parties,
            round: Some(request.round),
            round_number: None,
            message_type: request.message_type,
            payload: Base64Text(request.payload),
            acknowledges: request.acknowledges,
        }
    }
}

/// The message is durable, or acknowledged by every recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteAnswerJson {
    /// Always `true`: a refusal is an error instead.
    pub success: bool,
    /// The message id, the same for all recipients.
    #[schema(value_type = Uuid)]
    pub message_id: MessageId,
}

/// A message as its recipient sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageJson {
    /// The message id, the same for all recipients: delivery is at least once, so deduplicate by
    /// it.
    #[schema(value_type = Uuid)]
    pub message_id: MessageId,
    /// The id of the session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// The id of the sending party.
    #[schema(value_type = String)]
    pub from_party: PartyId,
    /// Whether it was sent to all other parties.
    pub is_broadcast: bool,
    /// The protocol's round.
    pub round: i32,
    /// The same as `round`.
    pub round_number: i32,
    /// Name of the message, chosen by the protocol.
    pub message_type: String,
    /// The payload, opaque to the router.
    pub payload: Base64Text,
    /// Time at which the router accepted it, in seconds since 1970.
    pub timestamp: i64,
    /// Time at which the router accepted it, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
}

impl From<Message> for MessageJson {
    fn from(message: Message) -> Self {
        Self {
            message_id: message.message_id,
            session_id: message.session_id,
            from_party: message.from_party,
            is_broadcast: message.is_broadcast,
            round: message.round,
            round_number: message.round,
            message_type: message.message_type,
            payload: Base64Text(message.payload),
            timestamp: message.created_at.0.div_euclid(1000),
            created_at: message.created_at,
        }
    }
}

impl TryFrom<MessageJson> for Message {
    type Error = Error;

    fn try_from(json: MessageJson) -> Result<Self> {
        Ok(Self {
            message_id: json.message_id,
            session_id: json.session_id,
            from_party: json.from_party,
            is_broadcast: json.is_broadcast,
            round: one_round(Some(json.round), Some(json.round_number))?,
            message_type: json.message_type,
            payload: json.payload.0,
            created_at: json.created_at,
        })
    }
}

/// Unacknowledged messages of a party, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessagesJson {
    /// The messages. Reading does not remove them: acknowledge each one after handling it.
    pub messages: Vec<MessageJson>,
}

/// Acknowledges a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AckJson {
    /// The id of the party that acknowledges.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// `false` if the message could not be processed: it is not delivered again and its status is
    /// failed.
    #[serde(default = "yes")]
    pub success: bool,
    /// Optional; if given, must be the path's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub session_id: Option<SessionId>,
    /// Optional; if given, must be the path's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub message_id: Option<MessageId>,
}

fn yes() -> bool {
    true
}

impl AckJson {
    /// The acknowledgement of the path's message.
    ///
    /// # Errors
    /// `invalid_request` when the body contradicts the path.
    pub fn into_ack(self, session_id: SessionId, message_id: MessageId) -> Result<Acknowledge> {
        let unequal = |field: &str| {
            Error::invalid_field(field, format!("{field} is not the one in the path; leave it out"))
        };
        if self.session_id.is_some_and(|given| given != session_id) {
            return Err(unequal("session_id"));
        }
        if self.message_id.is_some_and(|given| given != message_id) {
            return Err(unequal("message_id"));
        }
        Ok(Acknowledge { message_id, party_id: self.party_id, session_id, success: self.success })
    }
}

impl From<Acknowledge> for AckJson {
    fn from(ack: Acknowledge) -> Self {
        Self {
            party_id: ack.party_id,
            success: ack.success,
            session_id: Some(ack.session_id),
            message_id: Some(ack.message_id),
        }
    }
}

/// Answer to an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AckAnswerJson {
    /// Always `true`: a refusal is an error instead.
    pub success: bool,
    /// The result as a sentence.
    pub message: String,
}

/// Delivery of one message to one party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryJson {
    /// The id of the receiving party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Delivery status of its copy.
    #[schema(schema_with = schema::delivery_state)]
    pub status: DeliveryState,
    /// Time of the first delivery, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub delivered_at: Option<Timestamp>,
    /// Time of the acknowledgement, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub acknowledged_at: Option<Timestamp>,
    /// Number of redeliveries after the first delivery.
    #[serde(default)]
    pub retry_count: u32,
}

impl From<Delivery> for DeliveryJson {
    fn from(delivery: Delivery) -> Self {
        Self {
            party_id: delivery.party_id,
            status: delivery.state,
            delivered_at: delivery.delivered_at,
            acknowledged_at: delivery.acknowledged_at,
            retry_count: delivery.retry_count,
        }
    }
}

impl From<DeliveryJson> for Delivery {
    fn from(json: DeliveryJson) -> Self {
        Self {
            party_id: json.party_id,
            state: json.status,
            delivered_at: json.delivered_at,
            acknowledged_at: json.acknowledged_at,
            retry_count: json.retry_count,
        }
    }
}

/// Delivery status of a message for each recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageStatusJson {
    /// The id of the message.
    #[schema(value_type = Uuid)]
    pub message_id: MessageId,
    /// The id of the session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// One entry per recipient.
    pub deliveries: Vec<DeliveryJson>,
    /// Whether every recipient has acknowledged.
    pub all_acknowledged: bool,
}

impl MessageStatusJson {
    /// The answer about one message.
    pub fn new(session_id: SessionId, message_id: MessageId, deliveries: Vec<Delivery>) -> Self {
        let done = |delivery: &Delivery| delivery.state == DeliveryState::Acknowledged;
        Self {
            message_id,
            session_id,
            all_acknowledged: deliveries.iter().all(done),
            deliveries: deliveries.into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse;

    const SESSION: &str = "550e8400-e29b-41d4-a716-446655440000";
    const OTHER: &str = "660e8400-e29b-41d4-a716-446655440001";

    fn route(json: &str, session: Option<&str>) -> Result<RouteRequest> {
        let session = session.map(|id| id.parse().unwrap());
        parse::<RouteJson>(json.as_bytes())?.into_request(session)
    }

    #[test]
    fn documented_route_request_is_read() {
        let request = route(
            r#"{"session_id": "550e8400-e29b-41d4-a716-446655440000", "from_party": "party_0",
            "to_parties": ["party_1"], "round": 1, "payload": "AAEC", "is_broadcast": false}"#,
            Some(SESSION),
        )
        .unwrap();
        assert_eq!(request.payload, &[0, 1, 2][..]);
        assert_eq!((request.round, request.to_parties.len()), (1, 1));
    }

    #[test]
    fn both_names_of_the_round_are_read_and_must_agree() {
        let with = |rounds: &str| {
            route(&format!(r#"{{"from_party":"a","payload":""{rounds}}}"#), Some(SESSION))
        };
        assert_eq!(with(r#","round":3"#).unwrap().round, 3);
        assert_eq!(with(r#","round_number":3"#).unwrap().round, 3);
        assert_eq!(with(r#","round":3,"round_number":3"#).unwrap().round, 3);
        assert_eq!(with("").unwrap().round, 0);
        for (field, rounds) in [
            ("round_number", r#","round":3,"round_number":4"#),
            ("round", r#","round":-1"#),
            ("round_number", r#","round_number":-1"#),
            ("round", r#","round":2147483648"#),
        ] {
            let error = with(rounds).unwrap_err();
            assert!(error.details.fields.contains_key(field), "{rounds}: {error:?}");
        }
    }

    #[test]
    fn contradicting_broadcast_is_refused() {
        for (to, says, fits) in [
            ("[]", "true", true),
            ("[]", "false", false),
            (r#"["b"]"#, "true", false),
            (r#"["b"]"#, "false", true),
        ] {
            let json = format!(
                r#"{{"from_party":"a","payload":"","to_parties":{to},"is_broadcast":{says}}}"#
            );
            assert_eq!(route(&json, Some(SESSION)).is_ok(), fits, "{json}");
        }
    }

    #[test]
    fn session_of_body_and_path_must_agree_and_one_must_be_given() {
        let bare = r#"{"from_party":"a","payload":""}"#;
        let named = format!(r#"{{"from_party":"a","payload":"","session_id":"{SESSION}"}}"#);
        assert!(route(bare, Some(SESSION)).is_ok());
        assert!(route(&named, Some(SESSION)).is_ok());
        assert!(route(&named, None).is_ok());
        for error in [route(bare, None).unwrap_err(), route(&named, Some(OTHER)).unwrap_err()] {
            assert!(error.details.fields.contains_key("session_id"));
        }
    }

    #[test]
    fn bad_payload_is_named() {
        let error = route(r#"{"from_party":"a","payload":"base64..."}"#, None).unwrap_err();
        assert!(error.details.fields["payload"].contains("base64"));
    }

    #[test]
    fn ack_must_agree_with_its_path() {
        let read = |json: &str| {
            let ack = parse::<AckJson>(json.as_bytes()).unwrap();
            ack.into_ack(SESSION.parse().unwrap(), OTHER.parse().unwrap())
        };
        assert!(read(r#"{"party_id":"a"}"#).unwrap().success);
        assert!(!read(r#"{"party_id":"a","success":false}"#).unwrap().success);
        assert!(read(&format!(r#"{{"party_id":"a","session_id":"{OTHER}"}}"#)).is_err());
        assert!(read(&format!(r#"{{"party_id":"a","message_id":"{SESSION}"}}"#)).is_err());
    }

    #[test]
    fn delivery_survives_its_json_and_sums_up() {
        let delivery = Delivery {
            party_id: "a".parse().unwrap(),
            state: DeliveryState::Acknowledged,
            delivered_at: Some(Timestamp(1)),
            acknowledged_at: None,
            retry_count: 2,
        };
        let text = serde_json::to_string(&DeliveryJson::from(delivery.clone())).unwrap();
        let back: DeliveryJson = serde_json::from_str(&text).unwrap();
        assert_eq!(Delivery::from(back), delivery);
        let status = |deliveries| {
            MessageStatusJson::new(SESSION.parse().unwrap(), OTHER.parse().unwrap(), deliveries)
        };
        assert!(status(vec![delivery.clone()]).all_acknowledged);
        let failed = Delivery { state: DeliveryState::Failed, ..delivery.clone() };
        assert!(!status(vec![delivery, failed]).all_acknowledged);
    }

    proptest! {
        #[test]
        fn a_message_survives_its_json(
            payload: Vec<u8>, round in 0..i32::MAX, kind: String, is_broadcast: bool, millis in 0_i64..1 << 50
        ) {
            let message = Message {
                message_id: OTHER.parse().unwrap(),
                session_id: SESSION.parse().unwrap(),
                from_party: "party_0".parse().unwrap(),
                is_broadcast,
                round,
                message_type: kind,
                payload: payload.into(),
                created_at: Timestamp(millis),
            };
            let text = serde_json::to_string(&MessageJson::from(message.clone())).unwrap();
            let back = parse::<MessageJson>(text.as_bytes()).unwrap();
            prop_assert_eq!(back.timestamp, millis / 1000);
            prop_assert_eq!(Message::try_from(back).unwrap(), message);
        }

        #[test]
        fn a_route_request_survives_its_json(payload: Vec<u8>, round in 0..i32::MAX, broadcast: bool) {
            let request = RouteRequest {
                session_id: SESSION.parse().unwrap(),
                from_party: "a".parse().unwrap(),
                to_parties: if broadcast { vec![] } else { vec!["b".parse().unwrap()] },
                round,
                message_type: "t".into(),
                payload: payload.into(),
                acknowledges: vec![OTHER.parse().unwrap()],
                patient: false,
            };
            let text = serde_json::to_string(&RouteJson::from(request.clone())).unwrap();
            let back = route(&text, Some(SESSION)).unwrap();
            prop_assert_eq!(format!("{back:?}"), format!("{request:?}"));
        }
    }
}
