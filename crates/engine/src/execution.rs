//! The execution id: one hash over everything the parties of an attempt must agree on.
//!
//! Every envelope carries it, so a party with other facts (another digest, another roster, an old
//! epoch, an earlier attempt) is found out by its first message, before anything is computed.

use quorate_types::{KeyId, PartyId, PublicKey, Scheme, SessionId, SignInput, Threshold};
use sha2::{Digest as _, Sha256};

use crate::handshake::HandshakeView;

/// The facts of an attempt.
pub(crate) struct Facts<'a> {
    /// The name of the ceremony.
    pub(crate) ceremony: &'static str,
    /// The protocol that runs, with its version.
    pub(crate) protocol: &'static str,
    pub(crate) scheme: Scheme,
    pub(crate) session: SessionId,
    /// Counts the attempts of a session, from 0.
    pub(crate) attempt: u32,
    /// What is signed with or refreshed; `None` where a key is made.
    pub(crate) key: Option<KeyFacts<'a>>,
    pub(crate) threshold: Threshold,
    pub(crate) input: Option<&'a SignInput>,
    /// The derivation path, as it is written; empty for the key itself.
    pub(crate) path: &'a str,
    /// The parties in the order of the session.
    pub(crate) roster: &'a [(PartyId, HandshakeView)],
}

/// The key of a signature or a refresh.
pub(crate) struct KeyFacts<'a> {
    pub(crate) key_id: KeyId,
    pub(crate) epoch: u32,
    pub(crate) public_key: &'a PublicKey,
    /// The execution id of the run that made it; zeros for a key of the first version.
    pub(crate) made_by: [u8; 32],
    /// The holders in their order.
    pub(crate) holders: &'a [PartyId],
}

/// SHA-256 over the facts, each with its length before it.
pub(crate) fn execution_id(facts: &Facts<'_>) -> [u8; 32] {
    let mut hash = Transcript(Sha256::new());
    hash.add(b"quorate/execution/v2");
    hash.add(facts.ceremony.as_bytes());
    hash.add(facts.protocol.as_bytes());
    hash.add(facts.scheme.name().as_bytes());
    hash.add(facts.session.0.as_bytes());
    hash.add(&facts.attempt.to_be_bytes());
    match &facts.key {
        Some(key) => {
            hash.add(key.key_id.0.as_bytes());
            hash.add(&key.epoch.to_be_bytes());
            hash.add(&key.public_key.0);
            hash.add(&key.made_by);
            hash.count(key.holders.len());
            for holder in key.holders {
                hash.add(holder.as_str().as_bytes());
            }
        }
        None => hash.add(b""),
    }
    hash.add(&facts.threshold.signers().to_be_bytes());
    hash.add(&facts.threshold.parties().to_be_bytes());
    match &facts.input {
        Some(SignInput::Digest(digest)) => {
            hash.add(b"digest");
            hash.add(&digest.0);
        }
        Some(SignInput::Message(message)) => {
            hash.add(b"message");
            hash.add(message);
        }
        None => hash.add(b""),
    }
    hash.add(facts.path.as_bytes());
    hash.count(facts.roster.len());
    for (party, handshake) in facts.roster {
        hash.add(party.as_str().as_bytes());
        hash.add(&handshake.identity);
        hash.add(&handshake.encryption_key);
        hash.add(&handshake.nonce);
    }
    hash.0.finalize().into()
}

struct Transcript(Sha256);

impl Transcript {
    fn add(&mut self, part: &[u8]) {
        self.count(part.len());
        self.0.update(part);
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::Digest;

    use super::*;

    #[test]
    fn each_fact_changes_the_id() {
        let handshake = |n| {
            let shown = crate::handshake::Shown::default();
            HandshakeView { identity: [n; 32], encryption_key: [n; 32], nonce: [n; 32], shown }
        };
        let roster = [("a".parse().unwrap(), handshake(1)), ("b".parse().unwrap(), handshake(2))];
        let other = [("a".parse().unwrap(), handshake(1)), ("b".parse().unwrap(), handshake(3))];
        let holders: [PartyId; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        let id = |n: u128| format!("{n:032x}");
        let public_keys = [PublicKey(vec![4; 65]), PublicKey(vec![5; 65])];
        let key = || KeyFacts {
            key_id: id(2).parse().unwrap(),
            epoch: 0,
            public_key: &public_keys[0],
            made_by: [0; 32],
            holders: &holders,
        };
        let inputs = [
            SignInput::Digest(Digest([5; 32])),
            SignInput::Digest(Digest([6; 32])),
            SignInput::Message(vec![5; 32].into()),
        ];
        let base = || Facts {
            ceremony: "sign",
            protocol: "protocol/1",
            scheme: Scheme::EcdsaSecp256k1,
            session: id(1).parse().unwrap(),
            attempt: 0,
            key: Some(key()),
            threshold: Threshold::new(2, 3).unwrap(),
            input: Some(&inputs[0]),
            path: "",
            roster: &roster,
        };
        let changed = [
            Facts { ceremony: "refresh", ..base() },
            Facts { protocol: "protocol/2", ..base() },
            Facts { session: id(9).parse().unwrap(), ..base() },
            Facts { attempt: 1, ..base() },
            Facts { path: "m/0", ..base() },
            Facts { input: None, ..base() },
            Facts { key: None, ..base() },
            Facts { key: Some(KeyFacts { key_id: id(3).parse().unwrap(), ..key() }), ..base() },
            Facts { key: Some(KeyFacts { epoch: 1, ..key() }), ..base() },
            Facts { key: Some(KeyFacts { public_key: &public_keys[1], ..key() }), ..base() },
            Facts { key: Some(KeyFacts { made_by: [1; 32], ..key() }), ..base() },
            Facts { key: Some(KeyFacts { holders: &holders[..1], ..key() }), ..base() },
            Facts { threshold: Threshold::new(3, 3).unwrap(), ..base() },
            Facts { threshold: Threshold::new(2, 4).unwrap(), ..base() },
            Facts { input: Some(&inputs[1]), ..base() },
            Facts { input: Some(&inputs[2]), ..base() },
            Facts { roster: &other, ..base() },
            Facts { roster: &roster[..1], ..base() },
        ];
        let mut seen = std::collections::HashSet::from([execution_id(&base())]);
        for facts in &changed {
            assert!(seen.insert(execution_id(facts)));
        }
    }
}
