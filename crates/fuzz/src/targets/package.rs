//! Packages of shares, which anybody can seal to a user's public key.
//!
//! The first byte of an input chooses: a package as it comes; or the two bytes behind it say how long
//! its facts are, and what follows is facts and share.

use quorate_engine::Package;

use super::Notes;

/// Front bytes of the formats.
pub(crate) const WORDS: &[&str] = &[
    "\0",
    "\u{1}",
    "\u{2}",
    "\u{2}\u{1}",
    "\u{2}\u{2}",
    "\u{5}alice",
    "\u{7}default",
    "abcdefghijklmnopqrstuvwxyzabcdef",
];

/// Runs an input.
pub(crate) fn run(input: &[u8]) -> Vec<u64> {
    let mut notes = Notes::default();
    match input.split_first() {
        Some((1, [high, low, rest @ ..])) => {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let mut framed = vec![2];
            framed.extend_from_slice(&[7; 32 + 8]);
            framed.extend_from_slice(&u32::try_from(length).expect("two bytes").to_be_bytes());
            framed.extend_from_slice(rest);
            decode(&framed, &mut notes);
        }
        Some((_, rest)) => decode(rest, &mut notes),
        None => decode(&[], &mut notes),
    }
    notes.end()
}

fn decode(bytes: &[u8], notes: &mut Notes) {
    match Package::decode(bytes) {
        // What is taken is written as it was, where it is of the newest version.
        Ok(package) if bytes[0] == 2 => {
            assert_eq!(*package.encode().expect("a known scheme"), bytes);
        }
        Ok(_) => {}
        Err(error) => notes.note((error.code.name(), error.message.len())),
    }
}
