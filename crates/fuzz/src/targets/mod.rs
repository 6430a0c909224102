//! What is fuzzed.

mod envelope;
mod jsonrpc;
mod package;
mod relay;
mod router;
mod websocket;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher as _};

/// Code that takes a stranger's bytes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Panics when something is wrong; else what it noted.
    pub(crate) run: fn(&[u8]) -> Vec<u64>,
    /// What its inputs are made of.
    pub(crate) words: &'static [&'static str],
}

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "jsonrpc-frame", run: jsonrpc::run, words: jsonrpc::WORDS },
    Target { name: "relay-frame", run: relay::run, words: relay::WORDS },
    Target { name: "router-message", run: router::run, words: router::WORDS },
    Target { name: "envelope", run: envelope::run, words: envelope::WORDS },
    Target { name: "package", run: package::run, words: package::WORDS },
    Target { name: "websocket-frame", run: websocket::run, words: websocket::WORDS },
];

/// What happened: each thing together with the one before it.
#[derive(Default)]
pub(crate) struct Notes {
    last: u64,
    pairs: Vec<u64>,
}

impl Notes {
    pub(crate) fn note(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let what = hasher.finish();
        self.pairs.push(what ^ self.last.rotate_left(1));
        self.last = what;
    }

    pub(crate) fn end(self) -> Vec<u64> {
        self.pairs
    }
}
