//! The execution id: one hash over everything the parties of an attempt must agree on.
//!
//! Every envelope carries it, so a party with other facts (another digest, another roster, an old
//! epoch, an earlier attempt) is found out by its first message, before anything is computed.

use quorate_types::{Digest, KeyId, PartyId, Scheme, SessionId, SessionKind, Threshold};
use sha2::{Digest as _, Sha256};

use crate::hello::HelloView;

/// The facts of an attempt.
pub(crate) struct Facts<'a> {
    pub(crate) kind: SessionKind,
    /// The protocol that runs, with its version.
    pub(crate) protocol: &'static str,
    pub(crate) scheme: Scheme,
    pub(crate) session: SessionId,
    /// Sign: the key and its epoch.
    pub(crate) key: Option<(KeyId, u32)>,
    /// Sign: the holders in their order.
    pub(crate) holders: &'a [PartyId],
    pub(crate) threshold: Threshold,
    pub(crate) digest: Option<Digest>,
    /// The parties in the order of the session.
    pub(crate) roster: &'a [(PartyId, HelloView)],
}

/// SHA-256 over the facts, each with its length before it.
pub(crate) fn execution_id(facts: &Facts<'_>) -> [u8; 32] {
    let mut hash = Transcript(Sha256::new());
    hash.add(b"quorate/execution/v1");
    hash.add(facts.kind.name().as_bytes());
    hash.add(facts.protocol.as_bytes());
    hash.add(facts.scheme.name().as_bytes());
    hash.add(facts.session.0.as_bytes());
    match &facts.key {
        Some((key, epoch)) => {
            hash.add(key.0.as_bytes());
            hash.add(&epoch.to_be_bytes());
        }
        None => hash.add(b""),
    }
    hash.add(&facts.threshold.signers().to_be_bytes());
    hash.add(&facts.threshold.parties().to_be_bytes());
    hash.add(facts.digest.as_ref().map_or(&[][..], |digest| &digest.0));
    hash.count(facts.holders.len());
    for holder in facts.holders {
        hash.add(holder.as_str().as_bytes());
    }
    hash.count(facts.roster.len());
    for (party, hello) in facts.roster {
        hash.add(party.as_str().as_bytes());
        hash.add(&hello.identity);
        hash.add(&hello.encryption_key);
        hash.add(&hello.nonce);
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
    use super::*;

    #[test]
    fn each_fact_changes_the_id() {
        let hello = |n| HelloView { identity: [n; 32], encryption_key: [n; 32], nonce: [n; 32] };
        let roster = [("a".parse().unwrap(), hello(1)), ("b".parse().unwrap(), hello(2))];
        let other = [("a".parse().unwrap(), hello(1)), ("b".parse().unwrap(), hello(3))];
        let holders: [PartyId; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        let id = |n: u128| format!("{n:032x}");
        let base = || Facts {
            kind: SessionKind::Sign,
            protocol: "protocol/1",
            scheme: Scheme::EcdsaSecp256k1,
            session: id(1).parse().unwrap(),
            key: Some((id(2).parse().unwrap(), 0)),
            holders: &holders,
            threshold: Threshold::new(2, 3).unwrap(),
            digest: Some(Digest([5; 32])),
            roster: &roster,
        };
        let changed = [
            Facts { kind: SessionKind::Keygen, ..base() },
            Facts { protocol: "protocol/2", ..base() },
            Facts { session: id(9).parse().unwrap(), ..base() },
            Facts { key: None, ..base() },
            Facts { key: Some((id(2).parse().unwrap(), 1)), ..base() },
            Facts { holders: &holders[..1], ..base() },
            Facts { threshold: Threshold::new(3, 3).unwrap(), ..base() },
            Facts { threshold: Threshold::new(2, 4).unwrap(), ..base() },
            Facts { digest: Some(Digest([6; 32])), ..base() },
            Facts { roster: &other, ..base() },
            Facts { roster: &roster[..1], ..base() },
        ];
        let mut seen = std::collections::HashSet::from([execution_id(&base())]);
        for facts in &changed {
            assert!(seen.insert(execution_id(facts)));
        }
    }
}
