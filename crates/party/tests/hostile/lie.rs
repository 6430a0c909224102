//! Every way to change a JSON document in one place.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Values of other documents that are tried in the place of one.
const FOREIGN: usize = 4;

/// One change: another value at a JSON pointer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lie {
    pub(crate) path: String,
    pub(crate) value: Value,
}

impl Lie {
    pub(crate) fn apply(&self, document: &mut Value) {
        if let Some(place) = document.pointer_mut(&self.path) {
            *place = self.value.clone();
        }
    }
}

/// The values that documents have been seen with, by the name of their field.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<String, Vec<Value>>);

impl Seen {
    pub(crate) fn add(&mut self, document: &Value) {
        walk(document, "", "", &mut |_, name, value| {
            let known = self.0.entry(name.to_owned()).or_default();
            if !known.contains(value) {
                known.push(value.clone());
            }
        });
    }

    /// Some of the other values that were seen in this field, early and late ones.
    fn others(&self, name: &str, than: &Value) -> Vec<Value> {
        let known = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        let others: Vec<_> = known.iter().filter(|value| *value != than).collect();
        let step = others.len().div_ceil(FOREIGN).max(1);
        others.into_iter().step_by(step).cloned().collect()
    }
}

/// Visits every value below the root with its pointer and the name of its field.
fn walk(value: &Value, path: &str, name: &str, visit: &mut impl FnMut(&str, &str, &Value)) {
    if !path.is_empty() {
        visit(path, name, value);
    }
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                walk(value, &format!("{path}/{field}"), field, visit);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                walk(item, &format!("{path}/{at}"), name, visit);
            }
        }
        _ => {}
    }
}

/// Every lie about a document.
pub(crate) fn lies(document: &Value, seen: &Seen) -> Vec<Lie> {
    let mut lies = Vec::new();
    walk(document, "", "", &mut |path, name, value| {
        for other in changed(value).into_iter().chain(seen.others(name, value)) {
            lies.push(Lie { path: path.to_owned(), value: other });
        }
    });
    lies
}

/// Other values of the same form.
fn changed(value: &Value) -> Vec<Value> {
    let mut others = match value {
        Value::Null => Vec::new(),
        Value::Bool(yes) => vec![json!(!yes)],
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or_default();
            let near = [number + 1, number - 1];
            near.into_iter().chain([0, -1, i32::MAX.into(), i64::MAX]).map(Value::from).collect()
        }
        Value::String(text) => vec![json!(""), json!(altered(text)), json!(format!("{text}x"))],
        Value::Array(items) => {
            let mut others = vec![json!([])];
            let reversed: Vec<_> = items.iter().rev().cloned().collect();
            others.push(Value::Array(reversed));
            for at in 0..items.len() {
                let mut fewer = items.clone();
                let removed = fewer.remove(at);
                let mut more = items.clone();
                more.push(removed);
                others.extend([Value::Array(fewer), Value::Array(more)]);
            }
            others
        }
        Value::Object(fields) => {
            let without = |field: &String| {
                let mut fewer = fields.clone();
                fewer.remove(field);
                Value::Object(fewer)
            };
            let mut others: Vec<_> = fields.keys().map(without).collect();
            others.push(Value::Null);
            others
        }
    };
    others.retain(|other| other != value);
    others.dedup();
    others
}

/// The text with one character changed for another of its class, so that a number stays a number
/// and bytes stay bytes.
fn altered(text: &str) -> String {
    let mut characters: Vec<_> = text.chars().collect();
    let middle = characters.len() / 2;
    let at = (middle..characters.len()).chain(0..middle);
    for at in at {
        let other = match characters[at] {
            '0'..='8' | 'a'..='e' | 'g'..='y' | 'A'..='E' | 'G'..='Y' => {
                char::from_u32(u32::from(characters[at]) + 1)
            }
            '9' => Some('0'),
            'f' => Some('a'),
            'F' => Some('A'),
            _ => None,
        };
        if let Some(other) = other {
            characters[at] = other;
            return characters.into_iter().collect();
        }
    }
    text.to_owned()
}

#[test]
fn every_field_of_a_document_is_lied_about() {
    let document = json!({"id": "a1", "n": 2, "list": [{"yes": true}], "none": null});
    let mut seen = Seen::default();
    seen.add(&json!({"id": "b2", "none": {"x": 1}}));
    let lies = lies(&document, &seen);
    for path in ["/id", "/n", "/list", "/list/0", "/list/0/yes", "/none"] {
        let about: Vec<_> = lies.iter().filter(|lie| lie.path == path).collect();
        assert!(!about.is_empty(), "{path}");
        for lie in about {
            let mut changed = document.clone();
            lie.apply(&mut changed);
            assert_ne!(changed, document, "{lie:?}");
        }
    }
    assert!(lies.contains(&Lie { path: "/id".into(), value: json!("b2") }));
}
