//! JSON of routed messages: what is read can be written, and is read back the same.

use std::fmt::Debug;

use quorate_types::{Error, Message, SessionId};
use quorate_wire::{AckJson, ClientFrame, MessageJson, RouteJson, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Notes;

/// Pieces of the bodies.
pub(crate) const WORDS: &[&str] = &[
    r#""session_id":"#,
    r#""from_party":"#,
    r#""to_parties":["#,
    r#""round":"#,
    r#""round_number":"#,
    r#""message_type":"#,
    r#""payload":"#,
    r#""is_broadcast":"#,
    r#""acknowledges":["#,
    r#""message_id":"#,
    r#""timestamp":"#,
    r#""created_at":"#,
    r#""party_id":"#,
    r#""success":"#,
    r#""ack":"#,
    r#""route":{"#,
    "true",
    "false",
    "null",
    "\"550e8400-e29b-41d4-a716-446655440000\"",
    "\"party_0\"",
    "\"AAEC\"",
    "\"AAE=\"",
    "-1",
    "2147483648",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
];

/// Longest refusal: a few names and a piece of what was sent.
const MAX_REFUSAL: usize = 1_024;

/// Runs an input.
pub(crate) fn run(input: &[u8]) -> Vec<u64> {
    let mut notes = Notes::default();
    if let Some(json) = read::<RouteJson>(input, &mut notes) {
        route(json, &mut notes);
    }
    if let Some(json) = read::<MessageJson>(input, &mut notes) {
        let message = Message::try_from(json);
        if let Some(message) = accepted(message, &mut notes) {
            let json = MessageJson::from(message.clone());
            assert_eq!(Message::try_from(again(&json)), Ok(message));
        }
    }
    if let Some(json) = read::<AckJson>(input, &mut notes) {
        let (session, message) = (json.session_id, json.message_id);
        if let (Some(session), Some(message)) = (session, message) {
            let ack = json.into_ack(session, message).expect("it agrees with itself");
            let json = AckJson::from(ack);
            assert_eq!(again(&json).into_ack(session, message).map(AckJson::from), Ok(json));
        }
    }
    if let Some(json) = read::<ClientFrame>(input, &mut notes) {
        again(&json);
    }
    notes.end()
}

fn route(json: RouteJson, notes: &mut Notes) {
    let other: SessionId = "660e8400-e29b-41d4-a716-446655440001".parse().expect("an id");
    for outer in [None, Some(other)] {
        let named = json.session_id.or(outer);
        let request = json.clone().into_request(outer);
        if let Some(request) = accepted(request, notes) {
            assert_eq!(Some(request.session_id), named);
            let json = RouteJson::from(request);
            assert_eq!(again(&json).into_request(outer).map(RouteJson::from), Ok(json));
        }
    }
}

fn read<T: DeserializeOwned + Serialize + PartialEq + Debug>(
    input: &[u8],
    notes: &mut Notes,
) -> Option<T> {
    let value = accepted(parse::<T>(input), notes)?;
    assert_eq!(again(&value), value);
    Some(value)
}

/// Notes a refusal, which is short.
fn accepted<T>(result: Result<T, Error>, notes: &mut Notes) -> Option<T> {
    // Names that were made up would all be new.
    let known = |name: &String| WORDS.iter().position(|word| word.contains(name.as_str()));
    let named = |error: &Error| error.details.fields.keys().next().and_then(known);
    notes.note(result.as_ref().map(|_| ()).map_err(named));
    let short = result.as_ref().err().is_none_or(|error| error.message.len() <= MAX_REFUSAL);
    assert!(short, "a refusal repeats too much of what was sent");
    result.ok()
}

/// Written and read again.
fn again<T: DeserializeOwned + Serialize>(value: &T) -> T {
    let text = serde_json::to_vec(value).expect("plain data");
    parse(&text).expect("what we write we read")
}
