//! The test signatures by which a new key is tried before anybody keeps it.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 5 | | first messages of the signatures that both sign |
//! | 6 | | second messages |
//! | 7 | our part of each signature we sign | |
//!
//! The quorums together cover every pair of holders: a key is tried by each pair that may later sign.
//! Each quorum signs a message of its own, which follows from the execution and the public key.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_types::{Digest, ShareIndex};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Sign;
use crate::machine::{
    Input, Kind, Machine as _, MachineFault, Need, OutboundMessage, Position, Stepped, decode,
    encode,
};
use crate::run::Output;
use crate::share::Share;

/// The first round of the test signatures; they have three.
pub(super) const FIRST: u16 = 5;
/// Their last round.
pub(super) const LAST: u16 = FIRST + 2;

/// Bodies of one envelope, each with the number of its quorum.
type Bundle = Vec<(u8, Zeroizing<Vec<u8>>)>;

/// One party's part in the test signatures of a key.
pub(super) struct Trial {
    share: Option<Arc<Share>>,
    me: Position,
    parties: usize,
    /// The quorums this party signs in, by number: their positions and our part.
    signing: BTreeMap<u8, (Vec<Position>, Sign)>,
    /// How many of the three rounds were taken in.
    taken: u16,
}

impl Trial {
    pub(super) fn new(
        share: Share,
        me: Position,
        execution: [u8; 32],
    ) -> Result<Self, MachineFault> {
        let threshold = share.threshold();
        let parties = usize::from(threshold.parties());
        let share = Arc::new(share);
        let mut signing = BTreeMap::new();
        for (number, quorum) in (0..).zip(quorums(threshold.signers().into(), parties)) {
            let Some(position) = quorum.iter().position(|position| *position == me) else {
                continue;
            };
            let index =
                |position: &Position| ShareIndex(u8::try_from(position + 1).expect("few parties"));
            let positions: Vec<_> = quorum.iter().map(index).collect();
            let id = identifier(&execution, &share, number, b"id");
            let digest = Digest(identifier(&execution, &share, number, b"message"));
            let sign = Sign::new(Arc::clone(&share), position, &positions, digest, id)?;
            signing.insert(number, (quorum, sign));
        }
        Ok(Self { share: Some(share), me, parties, signing, taken: 0 })
    }

    fn others(&self) -> Vec<Position> {
        (0..self.parties).filter(|position| *position != self.me).collect()
    }

    pub(super) fn need(&self) -> Need {
        let others = self.others();
        let (broadcasts, directs) =
            if self.taken == 2 { (others, vec![]) } else { (vec![], others) };
        Need { round: FIRST + self.taken, broadcasts, directs }
    }

    /// Our first messages.
    pub(super) fn start(&mut self) -> Result<Vec<OutboundMessage>, MachineFault> {
        self.all(BTreeMap::new()).map(|(sends, _)| sends)
    }

    /// Takes a round in; at the end all signatures have verified and the share is given out.
    pub(super) fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        let broadcast = self.taken == 2;
        let bodies = if broadcast { input.broadcasts } else { input.directs };
        let mut inputs: BTreeMap<u8, Input> = BTreeMap::new();
        for (sender, body) in bodies {
            for (number, body) in decode::<Bundle>(sender, &body)? {
                // What a party says of quorums that are not ours is not for us.
                let Some((quorum, _)) = self.signing.get(&number) else { continue };
                let Some(position) = quorum.iter().position(|position| *position == sender) else {
                    return Err(MachineFault::violation(sender, "signs for a quorum of others"));
                };
                let input = inputs.entry(number).or_default();
                let place = if broadcast { &mut input.broadcasts } else { &mut input.directs };
                if place.insert(position, body).is_some() {
                    return Err(MachineFault::violation(sender, "sent a message twice over"));
                }
            }
        }
        self.complete(&inputs, broadcast)?;
        self.taken += 1;
        let (sends, verified) = self.all(inputs)?;
        let mut stepped = Stepped { sends, output: None };
        if self.taken == 3 && verified == self.signing.len() {
            self.signing.clear();
            let share = self.share.take().and_then(Arc::into_inner).expect("the last reference");
            let public_key = share.public_key().clone();
            stepped.output = Some(Output::Key { share, public_key });
        }
        Ok(stepped)
    }

    /// Every quorum has the message of each of its other members.
    fn complete(&self, inputs: &BTreeMap<u8, Input>, broadcast: bool) -> Result<(), MachineFault> {
        for (number, (quorum, _)) in &self.signing {
            let input = inputs.get(number);
            let missing = quorum.iter().enumerate().find(|(at, position)| {
                let place = |input: &Input| match broadcast {
                    true => input.broadcasts.contains_key(at),
                    false => input.directs.contains_key(at),
                };
                **position != self.me && !input.is_some_and(place)
            });
            if let Some((_, position)) = missing {
                return Err(MachineFault::violation(*position, "left out a test signature"));
            }
        }
        Ok(())
    }

    /// Steps every quorum, and bundles what they send. Answers with how many are done, too.
    fn all(
        &mut self,
        mut inputs: BTreeMap<u8, Input>,
    ) -> Result<(Vec<OutboundMessage>, usize), MachineFault> {
        let round = FIRST + self.taken;
        let mut directs: BTreeMap<Position, Bundle> = BTreeMap::new();
        let (mut broadcasts, mut verified) = (Bundle::new(), 0);
        for (number, (quorum, sign)) in &mut self.signing {
            let input = inputs.remove(number).unwrap_or_default();
            let stepped = sign.step(input).map_err(|fault| MachineFault {
                blame: fault.blame.map(|at| quorum[at]),
                ..fault
            })?;
            verified += usize::from(stepped.output.is_some());
            for OutboundMessage { to, body, .. } in stepped.sends {
                match to {
                    Some(at) => directs.entry(quorum[at]).or_default().push((*number, body)),
                    None => broadcasts.push((*number, body)),
                }
            }
        }
        let direct = |(position, bundle): (Position, Bundle)| OutboundMessage {
            round,
            to: Some(position),
            body: encode(&bundle),
        };
        let mut sends: Vec<_> = directs.into_iter().map(direct).collect();
        if !broadcasts.is_empty() {
            sends.push(OutboundMessage { round, to: None, body: encode(&broadcasts) });
        }
        Ok((sends, verified))
    }
}

pub(super) fn expects(round: u16, kind: Kind) -> bool {
    match kind {
        Kind::Broadcast => round == LAST,
        Kind::Direct => (FIRST..LAST).contains(&round),
    }
}

fn identifier(execution: &[u8; 32], share: &Share, number: u8, purpose: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"quorate/test-signature/v1")
        .chain_update(execution)
        .chain_update([number])
        .chain_update(&share.public_key().0)
        .chain_update(purpose)
        .finalize()
        .into()
}

/// Sets of `size` positions of `parties` that cover every pair, in an order all parties agree on.
fn quorums(size: usize, parties: usize) -> Vec<Vec<Position>> {
    let mut open: Vec<(Position, Position)> =
        (0..parties).flat_map(|a| (a + 1..parties).map(move |b| (a, b))).collect();
    let mut quorums = Vec::new();
    while let Some(&(a, b)) = open.first() {
        let mut quorum = vec![a, b];
        while quorum.len() < size {
            let gain = |position: Position| {
                let with = |&(a, b): &(Position, Position)| {
                    (a == position && quorum.contains(&b)) || (b == position && quorum.contains(&a))
                };
                open.iter().filter(|pair| with(pair)).count()
            };
            let next = (0..parties)
                .filter(|position| !quorum.contains(position))
                .max_by_key(|position| (gain(*position), std::cmp::Reverse(*position)));
            quorum.push(next.expect("a quorum is not larger than the party"));
        }
        quorum.sort_unstable();
        open.retain(|(a, b)| !(quorum.contains(a) && quorum.contains(b)));
        quorums.push(quorum);
    }
    quorums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_holders_is_in_a_quorum() {
        for parties in 2..=16 {
            for size in 2..=parties {
                let quorums = quorums(size, parties);
                for (a, b) in (0..parties).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    let covers =
                        |quorum: &Vec<Position>| quorum.contains(&a) && quorum.contains(&b);
                    assert!(quorums.iter().any(covers), "{size} of {parties}: {a}, {b}");
                }
                assert!(quorums.iter().all(|quorum| quorum.len() == size));
                assert!(quorums.len() <= parties * (parties - 1) / 2);
                // No pair carries more than a few: their messages travel together.
                let most = (0..parties).flat_map(|a| (0..a).map(move |b| (a, b))).map(|(a, b)| {
                    let both = |quorum: &&Vec<Position>| quorum.contains(&a) && quorum.contains(&b);
                    quorums.iter().filter(both).count()
                });
                assert!(most.max().unwrap_or_default() <= 8, "{size} of {parties}");
            }
        }
    }
}
