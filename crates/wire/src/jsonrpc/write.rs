//! What goes back, byte for byte.

use quorate_types::{GroupId, GroupKind, SessionId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{RpcError, RpcRequest};

/// JSON text whose objects have their members sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Text that another [`Json`] gave out before.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The JSON text, borrowed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The JSON text, owned.
    pub fn into_string(self) -> String {
        self.0
    }

    /// A plain value as JSON.
    pub fn of(value: impl Serialize) -> Self {
        Self(text(serde_json::to_value(value).expect("plain values serialize")))
    }
}

/// A value as text, members sorted.
fn text(value: Value) -> String {
    serde_json::to_string(&sorted(value)).expect("values serialize")
}

/// Sorts all members, also where another crate makes serde_json keep their order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            let members = members.into_iter().map(|(name, value)| (name, sorted(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        plain => plain,
    }
}

/// The object that describes a group in answers.
pub fn group(id: GroupId, label: &str, parties: u16, threshold: u16) -> Json {
    let label = Json::of(label).0;
    Json(format!(
        r#"{{"label":{label},"params":{{"parties":{parties},"threshold":{threshold}}},"uuid":"{id}"}}"#
    ))
}

/// A session. Its value is text that a [`Json`] gave out before.
pub fn session(id: SessionId, kind: GroupKind, value: &str) -> Json {
    let kind = kind.name();
    Json(format!(r#"{{"kind":"{kind}","uuid":"{id}","value":{value}}}"#))
}

/// The id of a session.
pub fn session_id(id: SessionId) -> Json {
    Json(format!("\"{id}\""))
}

/// A non-negative number as JSON.
pub fn number(number: u64) -> Json {
    Json(number.to_string())
}

/// An event: a frame that answers nothing. Its id is the number 0.
pub fn event(name: &str, payload: &Json) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":0,"result":["{name}",{}]}}"#, payload.0)
}

impl RpcRequest {
    /// The answer to a call that succeeded; a notification gets none.
    pub fn answer(&self, result: Option<&Json>) -> Option<String> {
        let id = self.id.as_deref()?;
        Some(match result {
            Some(Json(result)) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            None => format!(r#"{{"jsonrpc":"2.0","id":{id}}}"#),
        })
    }

    /// The answer to a call that failed; for a notification without an id.
    pub fn refuse(&self, error: &RpcError) -> String {
        let mut frame = r#"{"jsonrpc":"2.0""#.to_owned();
        if let Some(id) = &self.id {
            frame.push_str(r#","id":"#);
            frame.push_str(id);
        }
        let message = Json::of(&error.message).0;
        frame.push_str(&format!(r#","error":{{"code":{},"message":{message}"#, error.code));
        if let Some(data) = &error.data {
            frame.push_str(r#","data":"#);
            frame.push_str(&Json::of(data).0);
        }
        frame.push_str("}}");
        frame
    }
}
