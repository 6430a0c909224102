//! JSON that is carried and not understood: its members are sorted, its numbers stay as they were
//! written. What parses into numbers of the machine would change those that do not fit.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;

/// How deep values may be nested, as everywhere else.
const MAX_DEPTH: usize = 128;

/// A value, to be written again.
enum Node<'a> {
    /// A number, a string, or one of the three words.
    Plain(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Members(BTreeMap<String, Node<'a>>),
}

/// JSON text with sorted members and nothing between the tokens; of a member that is there twice the
/// last one.
///
/// # Errors
/// When it is no JSON, or nested too deep.
pub(super) fn sorted(text: &str) -> Result<String, String> {
    let mut reader = Reader { text, at: 0 };
    let node = reader.value(0)?;
    if reader.peek().is_some() {
        return Err(reader.unexpected());
    }
    let mut out = String::with_capacity(text.len());
    write(&node, &mut out);
    Ok(out)
}

fn write(node: &Node<'_>, out: &mut String) {
    match node {
        Node::Plain(text) => out.push_str(text),
        Node::List(items) => {
            for (at, item) in items.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                write(item, out);
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        Node::Members(members) => {
            for (at, (name, value)) in members.iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                out.push_str(&quoted(name));
                out.push(':');
                write(value, out);
            }
            out.push_str(if members.is_empty() { "{}" } else { "}" });
        }
    }
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings serialize")
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn unexpected(&self) -> String {
        format!("unexpected text at byte {}", self.at)
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at +=
            rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes this byte if it is the next one.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, String> {
        if depth > MAX_DEPTH {
            return Err("recursion limit exceeded".to_owned());
        }
        match self.peek() {
            Some(b'[') => self.list(depth),
            Some(b'{') => self.members(depth),
            Some(b'"') => Ok(Node::Plain(quoted(&self.string()?).into())),
            _ => self.word(),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node<'a>, String> {
        self.at += 1;
        let mut items = Vec::new();
        if self.takes(b']') {
            return Ok(Node::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.takes(b']') {
                return Ok(Node::List(items));
            }
            if !self.takes(b',') {
                return Err(self.unexpected());
            }
        }
    }

    fn members(&mut self, depth: usize) -> Result<Node<'a>, String> {
        self.at += 1;
        let mut members = BTreeMap::new();
        if self.takes(b'}') {
            return Ok(Node::Members(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let name = self.string()?;
            if !self.takes(b':') {
                return Err(self.unexpected());
            }
            members.insert(name, self.value(depth + 1)?);
            if self.takes(b'}') {
                return Ok(Node::Members(members));
            }
            if !self.takes(b',') {
                return Err(self.unexpected());
            }
        }
    }

    /// A string, from its first quotation mark.
    fn string(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let is_end = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            is_end
        });
        let token = end.and_then(|end| rest.get(..end + 2)).ok_or_else(|| self.unexpected())?;
        let text = serde_json::from_str(token).map_err(|error| error.to_string())?;
        self.at += token.len();
        Ok(text)
    }

    /// A number or a word.
    fn word(&mut self) -> Result<Node<'a>, String> {
        let rest = &self.text[self.at..];
        let end = rest.find([' ', '\t', '\r', '\n', ',', ']', '}']).unwrap_or(rest.len());
        let token = &rest[..end];
        serde_json::from_str::<IgnoredAny>(token).map_err(|error| error.to_string())?;
        self.at += end;
        Ok(Node::Plain(token.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn numbers_stay_as_they_were_written() {
        for number in [
            "123456789012345678901234567890",
            "0.1000000000000000055511151231257827",
            "-0",
            "1e400",
            "1E+2",
            "18446744073709551616",
        ] {
            assert_eq!(sorted(number).unwrap(), number);
            let nested = format!(r#"{{"b":[{number}, {{"n": {number}}}],"a":{number}}}"#);
            let expected = format!(r#"{{"a":{number},"b":[{number},{{"n":{number}}}]}}"#);
            assert_eq!(sorted(&nested).unwrap(), expected);
        }
    }

    #[test]
    fn members_are_sorted_and_the_last_of_two_counts() {
        let text = r#" { "b" : 1 , "\u0061" : "\u00e9\n" , "b" : [ ] , "c" : { } } "#;
        assert_eq!(sorted(text).unwrap(), r#"{"a":"é\n","b":[],"c":{}}"#);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "{",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "1 2",
            "01",
            "nul",
            "\"\\ud800\"",
            "\"a",
            "]",
            "+1",
            "[1}",
            ".5",
            "\"\\x\"",
            "\u{feff}1",
        ] {
            assert!(sorted(text).is_err(), "{text:?}");
        }
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(sorted(&deep(MAX_DEPTH)).is_ok());
        assert!(sorted(&deep(1_000_000)).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        plain.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("\\PC*", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_value_is_the_same(value in any_value()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let text = sorted(&pretty).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            prop_assert_eq!(sorted(&text).unwrap(), text);
        }

        #[test]
        fn junk_is_judged_as_everybody_does(text in "[\\[\\]{}\",:0-9a\\\\ .eE+-]{0,12}") {
            prop_assert_eq!(sorted(&text).is_ok(), serde_json::from_str::<Value>(&text).is_ok()
                || text.contains(['e', 'E']) && serde_json::from_str::<IgnoredAny>(&text).is_ok());
        }
    }
}
