//! The one error body.

use std::collections::BTreeMap;

use quorate_types::{Blame, Details, Error, ErrorCode, PartyId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// The body of every error, on every path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorJson {
    /// The stable code; see docs/errors.md.
    #[schema(schema_with = schema::error_code)]
    pub error: String,
    /// What happened and what to do, in words.
    pub message: String,
    /// Details that programs can use.
    #[serde(default)]
    pub details: DetailsJson,
}

/// Details of an error. Further entries are named after the field that they explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DetailsJson {
    /// Whether the same request may succeed later without being changed.
    #[serde(default)]
    pub retryable: bool,
    /// Seconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// Parties that the session is waiting for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub waiting_for: Vec<PartyId>,
    /// Who is at fault, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<BlameJson>,
    /// Field → what is wrong with it.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

/// The party at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlameJson {
    /// The id of the party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Description of what it did.
    pub reason: String,
}

/// Members of `details` that no field may shadow.
const RESERVED: [&str; 4] = ["retryable", "retry_after", "waiting_for", "blame"];

impl From<&Error> for ErrorJson {
    fn from(error: &Error) -> Self {
        let details = &*error.details;
        let fields = details.fields.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str()));
        Self {
            error: error.code.name().to_owned(),
            message: error.message.clone(),
            details: DetailsJson {
                retryable: error.code.row().retryable,
                retry_after: details.retry_after,
                waiting_for: details.waiting_for.clone(),
                blame: details
                    .blame
                    .clone()
                    .map(|Blame { party_id, reason }| BlameJson { party_id, reason }),
                fields: fields.map(|(name, problem)| (name.clone(), problem.clone())).collect(),
            },
        }
    }
}

impl From<ErrorJson> for Error {
    /// A code this side does not know becomes `internal_error`.
    fn from(body: ErrorJson) -> Self {
        let known = ErrorCode::ALL.iter().find(|code| code.name() == body.error);
        let mut error = Self::new(known.copied().unwrap_or(ErrorCode::Internal), body.message);
        *error.details = Details {
            fields: body.details.fields,
            waiting_for: body.details.waiting_for,
            blame: body
                .details
                .blame
                .map(|BlameJson { party_id, reason }| Blame { party_id, reason }),
            retry_after: body.details.retry_after,
        };
        error
    }
}

/// Most bytes of a WebSocket close reason: a control frame carries 125, two of them are the code.
const MAX_CLOSE_REASON: usize = 123;

/// An error as the reason of a WebSocket close frame: `{"error","message"}`, the message cut short
/// where it does not fit.
pub fn close_reason(error: &Error) -> String {
    let render = |message: &str| {
        serde_json::json!({ "error": error.code.name(), "message": message }).to_string()
    };
    let whole = render(&error.message);
    if whole.len() <= MAX_CLOSE_REASON {
        return whole;
    }
    let mut kept = error.message.clone();
    while kept.pop().is_some() {
        let text = render(&format!("{kept}…"));
        if text.len() <= MAX_CLOSE_REASON {
            return text;
        }
    }
    render("")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn full() -> Error {
        let blame = Blame { party_id: "mallory".parse().unwrap(), reason: "forged".into() };
        let mut error = Error::invalid_field("threshold_t", "too many").blaming(blame);
        error = error.waiting_for(vec!["bob".parse().unwrap()]);
        error.details.retry_after = Some(3);
        error
    }

    #[test]
    fn every_particular_has_its_place() {
        assert_eq!(
            serde_json::to_value(ErrorJson::from(&full())).unwrap(),
            json!({
                "error": "invalid_request",
                "message": "too many",
                "details": {
                    "threshold_t": "too many",
                    "waiting_for": ["bob"],
                    "blame": {"party_id": "mallory", "reason": "forged"},
                    "retry_after": 3,
                    "retryable": false,
                },
            })
        );
    }

    #[test]
    fn an_error_survives_its_body() {
        let text = serde_json::to_string(&ErrorJson::from(&full())).unwrap();
        let back: ErrorJson = serde_json::from_str(&text).unwrap();
        assert_eq!(Error::from(back), full());
    }

    #[test]
    fn the_documented_example_is_read() {
        let body: ErrorJson = serde_json::from_value(json!({
            "error": "error_code",
            "message": "Human readable error message",
            "details": { "field": "specific field error" }
        }))
        .unwrap();
        let error = Error::from(body);
        assert_eq!(error.code, ErrorCode::Internal);
        assert_eq!(error.details.fields["field"], "specific field error");
    }

    #[test]
    fn a_field_cannot_shadow_a_particular() {
        let error = Error::invalid_field("retryable", "unknown field");
        let text = serde_json::to_string(&ErrorJson::from(&error)).unwrap();
        assert_eq!(text.matches("retryable").count(), 1);
    }

    proptest! {
        #[test]
        fn close_reason_fits_and_stays_json(message: String) {
            let reason = close_reason(&Error::invalid(message));
            prop_assert!(reason.len() <= MAX_CLOSE_REASON);
            let value: serde_json::Value = serde_json::from_str(&reason).unwrap();
            prop_assert_eq!(&value["error"], "invalid_request");
        }
    }
}
