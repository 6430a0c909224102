//! The test signatures by which new shares are tried before anybody keeps them.
//!
//! They follow the last round of the keygen or refresh, in as many rounds as the scheme signs in. The quorums
//! together cover every pair of holders: a key is tried by each pair that may later sign. Each
//! quorum signs a message of its own, which follows from the execution and the public key. What a
//! party sends for all its quorums travels in one message a round.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use quorate_types::{Digest, Scheme, ShareIndex, SignInput, Threshold};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::fault::Severity;
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, decode, encode,
};
use crate::share::Share;
use crate::task::Output;

/// Makes the machine of a signature: with our share, at our position, by the holders with these
/// share indices in the order of positions, of the input, in the execution.
pub(crate) type StartSign = fn(
    Arc<Share>,
    Position,
    &[ShareIndex],
    &SignInput,
    [u8; 32],
) -> Result<Box<dyn Machine>, MachineFault>;

/// Bodies of one envelope, each with the number of its quorum.
type Bundle = Vec<(u8, Zeroizing<Vec<u8>>)>;

/// A keygen or refresh whose shares are tried before they are given out.
pub(crate) struct Tried {
    making: Box<dyn Machine>,
    sign: StartSign,
    /// How the messages of a signature travel, by round from 1.
    rounds: &'static [Kind],
    me: Position,
    parties: usize,
    execution: [u8; 32],
    /// Of a refresh: our share of the epoch that it replaces.
    before: Option<Arc<Share>>,
    trial: Option<Trial>,
}

/// One party's part in the test signatures of a key.
struct Trial {
    share: Option<Arc<Share>>,
    /// The quorums this party signs in, by number: their positions and our part.
    signing: BTreeMap<u8, (Vec<Position>, Box<dyn Machine>)>,
    /// How many of the rounds were taken in.
    taken: usize,
}

impl Tried {
    pub(crate) fn new(
        making: Box<dyn Machine>,
        sign: StartSign,
        rounds: &'static [Kind],
        me: Position,
        threshold: Threshold,
        execution: [u8; 32],
        before: Option<Arc<Share>>,
    ) -> Self {
        let parties = threshold.parties().into();
        Self { making, sign, rounds, me, parties, execution, before, trial: None }
    }

    /// The round of a signature that this round is, from 1.
    fn signing_round(&self, round: u16) -> Option<u16> {
        let round = round.checked_sub(self.making.rounds()).filter(|round| *round > 0)?;
        (usize::from(round) <= self.rounds.len()).then_some(round)
    }

    fn kind(&self, round: u16) -> Option<Kind> {
        self.signing_round(round).map(|round| self.rounds[usize::from(round) - 1])
    }

    /// A refresh leaves everything but the secret as it was.
    fn check_same_key(&self, share: &Share) -> Result<(), MachineFault> {
        let facts = |share: &Share| {
            let numbers = (share.scheme(), share.threshold(), share.share_index());
            (share.public_key().clone(), numbers)
        };
        match &self.before {
            Some(before) if facts(before) != facts(share) => {
                Err(MachineFault::result_invalid("the refresh has made another key"))
            }
            _ => Ok(()),
        }
    }

    /// Begins the test signatures of the key that this share is of.
    fn begin(&mut self, share: Share) -> Result<Stepped, MachineFault> {
        self.check_same_key(&share)?;
        let share = Arc::new(share);
        let mut signing = BTreeMap::new();
        let signers = share.threshold().signers().into();
        for (number, quorum) in (0..).zip(quorums(signers, self.parties)) {
            let Some(position) = quorum.iter().position(|position| *position == self.me) else {
                continue;
            };
            let index =
                |position: &Position| ShareIndex(u8::try_from(position + 1).expect("few parties"));
            let indices: Vec<_> = quorum.iter().map(index).collect();
            let id = identifier(&self.execution, &share, number, b"id");
            let message = identifier(&self.execution, &share, number, b"message");
            let input = input(share.scheme(), message);
            let sign = (self.sign)(Arc::clone(&share), position, &indices, &input, id)?;
            signing.insert(number, (quorum, sign));
        }
        let trial = Trial { share: Some(share), signing, taken: 0 };
        let first = self.making.rounds() + 1;
        let (sends, _) = self.trial.insert(trial).step_all(first, BTreeMap::new())?;
        Ok(Stepped { sends, output: None })
    }
}

impl Machine for Tried {
    fn need(&self) -> Need {
        let Some(trial) = &self.trial else { return self.making.need() };
        let others = (0..self.parties).filter(|position| *position != self.me).collect();
        let (broadcasts, directs) = match self.rounds.get(trial.taken) {
            Some(Kind::Broadcast) => (others, vec![]),
            Some(Kind::Direct) => (vec![], others),
            None => (vec![], vec![]),
        };
        let taken = u16::try_from(trial.taken).expect("few rounds");
        Need { round: self.making.rounds() + 1 + taken, broadcasts, directs }
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        let Need { round, .. } = self.need();
        if let Some(trial) = &mut self.trial {
            let stepped = trial.step(round, self.rounds, self.me, input);
            // The shares that were tried are dropped with the run: a ban would be of those before,
            // with which nobody has cheated.
            let refreshes = self.before.is_some();
            return stepped.map_err(|fault| match fault.severity {
                Severity::Ban if refreshes => {
                    MachineFault { severity: Severity::Recoverable, ..fault }
                }
                _ => fault,
            });
        }
        let stepped = self.making.step(input)?;
        match stepped.output {
            Some(Output::Key { share, .. }) => {
                let mut begun = self.begin(share)?;
                begun.sends.splice(..0, stepped.sends);
                Ok(begun)
            }
            _ => Ok(stepped),
        }
    }

    fn expects(&self, round: u16, kind: Kind, from: Position) -> bool {
        self.making.expects(round, kind, from) || self.kind(round) == Some(kind)
    }

    fn rounds(&self) -> u16 {
        self.making.rounds() + u16::try_from(self.rounds.len()).expect("few rounds")
    }

    fn echoed(&self, round: u16) -> Option<RangeInclusive<u16>> {
        let Some(signing_round) = self.signing_round(round) else {
            return self.making.echoed(round);
        };
        let (_, sign) = self.trial.as_ref()?.signing.values().next()?;
        let echoed = sign.echoed(signing_round)?;
        let before = self.making.rounds();
        Some(echoed.start() + before..=echoed.end() + before)
    }
}

impl Trial {
    /// Takes a round in; at the end all signatures have verified and the share is given out.
    fn step(
        &mut self,
        round: u16,
        rounds: &[Kind],
        me: Position,
        input: Input,
    ) -> Result<Stepped, MachineFault> {
        let broadcast = rounds.get(self.taken) == Some(&Kind::Broadcast);
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
        self.complete(&inputs, me, broadcast)?;
        self.taken += 1;
        let (sends, verified) = self.step_all(round + 1, inputs)?;
        let mut stepped = Stepped { sends, output: None };
        if self.taken == rounds.len() && verified == self.signing.len() {
            self.signing.clear();
            let share = self.share.take().and_then(Arc::into_inner).expect("the last reference");
            let public_key = share.public_key().clone();
            stepped.output = Some(Output::Key { share, public_key });
        }
        Ok(stepped)
    }

    /// Every quorum has the message of each of its other members.
    fn complete(
        &self,
        inputs: &BTreeMap<u8, Input>,
        me: Position,
        broadcast: bool,
    ) -> Result<(), MachineFault> {
        for (number, (quorum, _)) in &self.signing {
            let input = inputs.get(number);
            let missing = quorum.iter().enumerate().find(|(at, position)| {
                let place = |input: &Input| match broadcast {
                    true => input.broadcasts.contains_key(at),
                    false => input.directs.contains_key(at),
                };
                **position != me && !input.is_some_and(place)
            });
            if let Some((_, position)) = missing {
                return Err(MachineFault::violation(*position, "left out a test signature"));
            }
        }
        Ok(())
    }

    /// Steps every quorum, and bundles what they send in this round. Answers with how many are done,
    /// too.
    fn step_all(
        &mut self,
        round: u16,
        mut inputs: BTreeMap<u8, Input>,
    ) -> Result<(Vec<OutboundMessage>, usize), MachineFault> {
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

/// The test message, as the scheme takes what it signs.
fn input(scheme: Scheme, message: [u8; 32]) -> SignInput {
    let digest = SignInput::Digest(Digest(message));
    if quorate_schemes::check_input(scheme, &digest).is_ok() {
        return digest;
    }
    SignInput::Message(message.to_vec().into())
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
