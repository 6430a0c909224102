//! From bytes to a request, with refusals that name the member they are about.

use quorate_types::{Error, Result};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::strict::Strict;

/// How some programs mark that a text is UTF-8. It is no part of the JSON (RFC 8259, 8.1).
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Longest text of a refusal taken from a parser: it may quote what the caller sent.
const MAX_PROBLEM: usize = 300;

/// Reads one JSON value.
///
/// # Errors
/// `invalid_request`: with the member's path where a member is at fault.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let body = body.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(body);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid("the body is empty; send a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let input = Strict(&mut deserializer);
    let value = serde_path_to_error::deserialize(input).map_err(|error| {
        let path = error.path().to_string();
        describe(&path, error.inner(), body)
    })?;
    deserializer.end().map_err(|error| describe(".", &error, body))?;
    Ok(value)
}

fn describe(path: &str, error: &serde_json::Error, body: &[u8]) -> Error {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let problem = text.strip_suffix(&place).unwrap_or(&text);
    let mut problem = problem.strip_prefix("invalid_request: ").unwrap_or(problem);
    if !error.is_data() {
        // A word's place taken by a number is a syntax error to serde_json, although it is JSON.
        if serde_json::from_slice::<IgnoredAny>(body).is_err() {
            return Error::invalid(format!("the body is not JSON: {}{place}", shorten(problem)));
        }
        problem = "a value of another type is expected here";
    }
    let problem = match problem.split_once("expected struct ") {
        Some((found, _)) => &format!("{found}expected an object"),
        None => problem,
    };
    let path = if path == "." { "" } else { path };
    let field = match quoted_after(problem, "missing field ") {
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => match quoted_after(problem, "unknown field ") {
            Some(name) if path.is_empty() => name.to_owned(),
            // The path may or may not end in the unknown name itself.
            Some(name) if !path.ends_with(name) => format!("{path}.{name}"),
            _ => path.to_owned(),
        },
    };
    if field.is_empty() {
        return Error::invalid(shorten(problem));
    }
    let field = shorten(&field);
    Error::invalid_field(&field, format!("{field}: {}", shorten(problem)))
}

fn quoted_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.strip_prefix('`')?.split('`').next()
}

fn shorten(text: &str) -> String {
    if text.len() <= MAX_PROBLEM {
        return text.to_owned();
    }
    let end = (0..=MAX_PROBLEM).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use quorate_types::{ErrorCode, PartyId};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code)]
        count: u8,
        #[serde(default)]
        #[allow(dead_code)]
        inner: Vec<Inner>,
        #[serde(default)]
        #[allow(dead_code)]
        role: Option<quorate_types::PartyRole>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        party_id: PartyId,
    }

    fn refusal(body: &str) -> (String, String) {
        let error = parse::<Outer>(body.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
        let field = error.details.fields.keys().next().cloned().unwrap_or_default();
        (field, error.message)
    }

    #[test]
    fn wrong_type_names_the_member_and_both_types() {
        let (field, message) = refusal(r#"{"count":"x"}"#);
        assert_eq!(field, "count");
        assert!(message.contains("string") && message.contains("u8"), "{message}");
    }

    #[test]
    fn wrong_type_of_a_word_names_the_member() {
        for value in ["1", "[]", "true", "\"boss\""] {
            assert_eq!(refusal(&format!(r#"{{"count":1,"role":{value}}}"#)).0, "role", "{value}");
        }
    }

    #[test]
    fn unknown_member_is_named_at_every_depth() {
        assert_eq!(refusal(r#"{"count":1,"colour":2}"#).0, "colour");
        assert_eq!(refusal(r#"{"count":1,"inner":[{"party_id":"a","x":1}]}"#).0, "inner[0].x");
    }

    #[test]
    fn missing_member_is_named_at_every_depth() {
        assert_eq!(refusal("{}").0, "count");
        assert_eq!(refusal(r#"{"count":1,"inner":[{}]}"#).0, "inner[0].party_id");
    }

    #[test]
    fn malformed_value_keeps_its_own_sentence() {
        let (field, message) = refusal(r#"{"count":1,"inner":[{"party_id":"a b"}]}"#);
        assert_eq!(field, "inner[0].party_id");
        assert!(message.starts_with("inner[0].party_id: a party id is"), "{message}");
    }

    #[test]
    fn a_list_is_no_object() {
        for body in ["[1]", "[]", "[1,[],null]"] {
            let (field, message) = refusal(body);
            assert_eq!(field, "");
            assert!(message.contains("expected an object"), "{message}");
        }
        let (field, message) = refusal(r#"{"count":1,"inner":[["a"]]}"#);
        assert_eq!(field, "inner[0]");
        assert!(message.contains("sequence, expected an object"), "{message}");
    }

    #[test]
    fn a_null_list_is_empty_and_a_byte_order_mark_is_skipped() {
        let read = parse::<Outer>("\u{feff} {\"count\":1,\"inner\":null}".as_bytes()).unwrap();
        assert!(read.inner.is_empty());
        assert!(parse::<Outer>("\u{feff}\u{feff}{\"count\":1}".as_bytes()).is_err());
        assert_eq!(refusal(r#"{"count":null}"#).0, "count");
        assert_eq!(refusal(r#"{"count":1,"inner":[null]}"#).0, "inner[0]");
    }

    #[test]
    fn what_is_not_json_is_said_with_its_place() {
        for bad in ["{", "{\"count\":1} x", "nope", "{\"count\":1,}"] {
            let (field, message) = refusal(bad);
            assert_eq!(field, "");
            assert!(message.contains("line 1"), "{message}");
        }
        assert!(refusal("  ").1.contains("empty"));
    }

    #[test]
    fn long_input_is_not_echoed_whole() {
        let body = format!(r#"{{"count":1,"{}":1}}"#, "ü".repeat(10_000));
        let (field, message) = refusal(&body);
        assert!(field.len() < 310 && message.len() < 1000);
    }
}
