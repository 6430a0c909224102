//! Words that have had their day: the glossary has the one that took their place.

use crate::files::{below, root};

/// An old word, and what is said instead. Wire and stored names of the first version are excepted;
/// the glossary lists them.
const OLD: &[(&str, &str)] = &[
    ("bells", "notify"),
    ("carrier", "transport"),
    ("carriers", "transports"),
    ("farewell", "abort"),
    ("gathering", "waiting for members"),
    ("goodbye", "close frame"),
    ("hellos", "handshakes"),
    ("introduction", "handshake"),
    ("introductions", "handshakes"),
    ("letter", "message"),
    ("letters", "messages"),
    ("mailbox", "inbox"),
    ("mailboxes", "inboxes"),
    ("postbox", "rendezvous"),
    ("postboxes", "rendezvous"),
];

/// Phrases in which an old word has its everyday meaning.
const EVERYDAY: &[&str] = &[
    "letters and digits",
    "letters, digits",
    "letter case",
    "letter is upper case",
    "dead letter",
];

/// No source and no document says an old word.
pub(crate) fn check() -> Result<(), String> {
    let mut found = Vec::new();
    for folder in ["crates", "docs", "proto", "xtask", "README.md", "CONTRIBUTING.md"] {
        let path = root().join(folder);
        let files = if path.is_file() { vec![path] } else { below(&path, &["rs", "md", "proto"]) };
        for file in files {
            if file.ends_with("xtask/src/words.rs") || file.ends_with("docs/glossary.md") {
                continue;
            }
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            for (number, line) in text.lines().enumerate() {
                for (word, instead) in old_words(line) {
                    let place = format!("{}:{}", file.display(), number + 1);
                    found.push(format!("{place} says {word:?}: say {instead:?}"));
                }
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

/// The old words of a line, as words of their own or as parts of identifiers.
fn old_words(line: &str) -> Vec<(&'static str, &'static str)> {
    let line = EVERYDAY.iter().fold(line.to_owned(), |line, phrase| line.replace(phrase, " "));
    let mut parts = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        let begins = c.is_uppercase() && before.is_lowercase();
        if begins || !c.is_alphanumeric() {
            parts.push(String::new());
        }
        if let Some(last) = parts.last_mut().filter(|_| c.is_alphanumeric()) {
            last.extend(c.to_lowercase());
        }
        before = c;
    }
    let old = |part: &String| OLD.iter().find(|(word, _)| part == word).copied();
    parts.iter().filter_map(old).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_words_are_found_in_prose_and_in_identifiers() {
        for line in ["the letter came", "struct SignedLetter;", "let old_letter = 1;", "Postbox"] {
            assert_eq!(old_words(line).len(), 1, "{line}");
        }
        for line in ["letters and digits", "a dead letter", "struct Lettering;", "relay"] {
            assert!(old_words(line).is_empty(), "{line}");
        }
    }
}
