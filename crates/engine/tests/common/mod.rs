//! Parties in one process: identities, introductions, and delivery in a shuffled order.



use std::sync::Arc;

use bytes::Bytes;
use quorate_engine::*;
use quorate_types::*;

/// A message under way.
pub(crate) type Letter = (PartyId, PartyId, Bytes);

/// A deterministic shuffler (SplitMix64); the seed is printed by the failing assertion.
pub(crate) struct Shuffle(pub(crate) u64);

impl Shuffle {
    pub(crate) fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 1).unwrap_or(0)
    }
}

pub(crate) fn name(n: usize) -> PartyId {
    format!("party-{n}").parse().expect("a name")
}

pub(crate) fn session(n: u128) -> SessionId {
    format!("{n:032x}").parse().expect("a UUID")
}

/// Runs for the given parties, all of them in one session.
pub(crate) fn runs(id: SessionId, parties: &[PartyId], task: impl Fn(usize) -> Task) -> Vec<Run> {
    let identities: Vec<_> = parties.iter().map(|_| Identity::generate()).collect();
    let hellos: Vec<_> = parties
        .iter()
        .zip(&identities)
        .map(|(party, identity)| introduce(identity, id, party))
        .collect();
    let roster: Vec<_> = parties
        .iter()
        .zip(&hellos)
        .map(|(party, (hello, _))| Member { party_id: party.clone(), hello: hello.clone() })
        .collect();
    hellos
        .into_iter()
        .enumerate()
        .map(|(at, (_, secret))| {
            let task = task(at);
            Run::new(&identities[at], secret, id, &parties[at], roster.clone(), task).expect("a run")
        })
        .collect()
}

/// Letters of a step, one per recipient.
pub(crate) fn letters(parties: &[PartyId], from: usize, outgoing: Vec<Outgoing>) -> Vec<Letter> {
    let mut letters = Vec::new();
    for message in outgoing {
        let all = parties.iter().filter(|party| **party != parties[from]).cloned();
        let to: Vec<_> = message.to.map_or_else(|| all.collect(), |to| vec![to]);
        letters.extend(to.into_iter().map(|to| (parties[from].clone(), to, message.payload.clone())));
    }
    letters
}

/// Delivers in a shuffled order until nothing is under way; `touch` sees each letter first and
/// may deliver false ones itself.
pub(crate) fn deliver(
    parties: &[PartyId],
    runs: &mut [Run],
    seed: u64,
    mut touch: impl FnMut(&mut Run, &Letter),
) -> Vec<Result<Option<Output>, Fault>> {
    let mut shuffle = Shuffle(seed);
    let mut outputs: Vec<Result<Option<Output>, Fault>> = runs.iter().map(|_| Ok(None)).collect();
    let mut under_way = Vec::new();
    for at in 0..runs.len() {
        let step = runs[at].advance().expect("the first step needs nothing");
        under_way.extend(letters(parties, at, step.outgoing));
    }
    while !under_way.is_empty() {
        let letter = under_way.swap_remove(shuffle.next() % under_way.len());
        let at = parties.iter().position(|party| *party == letter.1).expect("a party");
        touch(&mut runs[at], &letter);
        if outputs[at].is_err() {
            continue;
        }
        runs[at].receive(&letter.0, &letter.2).expect("an honest letter is taken");
        match runs[at].advance() {
            Ok(step) => {
                under_way.extend(letters(parties, at, step.outgoing));
                if step.output.is_some() {
                    outputs[at] = Ok(step.output);
                }
            }
            Err(fault) => outputs[at] = Err(fault),
        }
    }
    outputs
}

/// Makes a key; the shares in the order of the parties.
pub(crate) fn keygen(t: i64, n: usize, seed: u64) -> (Vec<PartyId>, Vec<Arc<Share>>, PublicKey) {
    let parties: Vec<_> = (1..=n).map(name).collect();
    let threshold = Threshold::new(t, i64::try_from(n).expect("small")).expect("a threshold");
    let mut runs = runs(session(1), &parties, |_| Task::Keygen {
        scheme: Scheme::EcdsaSecp256k1,
        threshold,
    });
    let mut shares = Vec::new();
    let mut keys = Vec::new();
    for output in deliver(&parties, &mut runs, seed, |_, _| {}) {
        match output.expect("no fault") {
            Some(Output::Key { share, public_key }) => {
                shares.push(Arc::new(share));
                keys.push(public_key);
            }
            _ => panic!("keygen ends with a key"),
        }
    }
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    (parties, shares, keys.remove(0))
}

/// Signing runs of the parties at these positions.
pub(crate) fn signing(
    id: SessionId,
    holders: &[PartyId],
    shares: &[Arc<Share>],
    who: &[usize],
    digest: Digest,
) -> (Vec<PartyId>, Vec<Run>) {
    let parties: Vec<_> = who.iter().map(|at| holders[*at].clone()).collect();
    let runs = runs(id, &parties, |at| Task::Sign {
        share: shares[who[at]].clone(),
        key_id: session(1).into(),
        epoch: 0,
        holders: holders.to_vec(),
        digest,
    });
    (parties, runs)
}
