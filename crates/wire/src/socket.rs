//! Text frames of the message socket, one JSON object each.

use quorate_types::MessageId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ErrorJson;
use crate::message::{MessageJson, RouteJson};

/// What a client sends: exactly one of `ack` and `route`.
///
/// Requests are carried out in their order. Each `route` is answered, in the same order; an `ack`
/// is answered only when it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientFrame {
    /// Acknowledges this message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub ack: Option<MessageId>,
    /// With `ack`: the session of the message. Needed where the socket follows all sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub session_id: Option<quorate_types::SessionId>,
    /// With `ack`: false when the message could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// Routes this message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteJson>,
}

/// The message a `route` became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoutedJson {
    /// One id for all recipients.
    #[schema(value_type = Uuid)]
    pub message_id: MessageId,
}

/// What the server sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ServerFrame {
    /// A message for the party.
    Message(Box<MessageJson>),
    /// Answer to a `route`.
    Routed {
        /// The message it became.
        routed: RoutedJson,
    },
    /// A `route` or an `ack` was refused.
    Error {
        /// The code and the sentence, as REST has them.
        error: ErrorJson,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        let id = "550e8400-e29b-41d4-a716-446655440000";
        let routed: ServerFrame =
            serde_json::from_str(&format!(r#"{{"routed":{{"message_id":"{id}"}}}}"#)).unwrap();
        assert!(matches!(routed, ServerFrame::Routed { .. }));
        let error: ServerFrame =
            serde_json::from_str(r#"{"error":{"error":"not_found","message":"no"}}"#).unwrap();
        assert!(matches!(error, ServerFrame::Error { .. }));
        let ack: ClientFrame = crate::parse(format!(r#"{{"ack":"{id}"}}"#).as_bytes()).unwrap();
        assert_eq!(ack.ack.unwrap().to_string(), id);
        assert_eq!(serde_json::to_string(&ack).unwrap(), format!(r#"{{"ack":"{id}"}}"#));
    }

    #[test]
    fn a_wrong_member_of_a_routed_message_is_named() {
        let json = r#"{"route":{"from_party":"a b","payload":""}}"#;
        let error = crate::parse::<ClientFrame>(json.as_bytes()).unwrap_err();
        assert!(error.details.fields.contains_key("route.from_party"), "{error:?}");
    }
}
