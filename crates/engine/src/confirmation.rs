//! What the holders of a new key say to each other before anybody signs with it.
//!
//! Each signs what it has stored: the execution, the public key, the threshold and the roster with
//! its identities. Whoever has the signatures of all knows that no holder is without its share.

use quorate_types::{PartyId, PublicKey, Threshold};

use crate::identity::{Identity, verify_identity};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, encode,
};
use crate::task::Output;

const DOMAIN: &str = "quorate/confirmation/v1";
/// Length of one confirmation in bytes.
pub const CONFIRMATION: usize = 64;

/// What a confirmation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    bytes: Vec<u8>,
    identities: Vec<[u8; 32]>,
}

impl Statement {
    /// That the holders, with these identities in their order, made this key in this execution.
    pub fn new(
        execution: &[u8; 32],
        public_key: &PublicKey,
        threshold: Threshold,
        holders: &[PartyId],
        identities: &[[u8; 32]],
    ) -> Self {
        let mut bytes = execution.to_vec();
        let mut add = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        add(&public_key.0);
        add(&threshold.signers().to_be_bytes());
        add(&threshold.parties().to_be_bytes());
        for (holder, identity) in holders.iter().zip(identities) {
            add(holder.as_str().as_bytes());
            add(identity);
        }
        Self { bytes, identities: identities.to_vec() }
    }

    fn signed(&self, identity: &Identity) -> [u8; CONFIRMATION] {
        identity.sign(DOMAIN, &self.bytes)
    }

    fn holds(&self, position: Position, confirmation: &[u8]) -> bool {
        let Ok(signature) = confirmation.try_into() else { return false };
        verify_identity(&self.identities[position], DOMAIN, &self.bytes, signature)
    }

    /// Whether these are the confirmations of all holders, in their order.
    pub fn confirmed_by(&self, confirmations: &[u8]) -> bool {
        let (each, rest) = confirmations.as_chunks::<CONFIRMATION>();
        let all = rest.is_empty() && each.len() == self.identities.len();
        all && each.iter().enumerate().all(|(position, one)| self.holds(position, one))
    }
}

/// The exchange of confirmations, as the last round of a keygen.
pub(crate) struct Confirm {
    statement: Statement,
    round: u16,
    me: Position,
    own: [u8; CONFIRMATION],
    sent: bool,
}

impl Confirm {
    pub(crate) fn new(statement: Statement, round: u16, me: Position, identity: &Identity) -> Self {
        let own = statement.signed(identity);
        Self { statement, round, me, own, sent: false }
    }
}

impl Machine for Confirm {
    fn need(&self) -> Need {
        let others = (0..self.statement.identities.len()).filter(|position| *position != self.me);
        let broadcasts = if self.sent { others.collect() } else { Vec::new() };
        Need { round: self.round, broadcasts, directs: Vec::new() }
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        if !self.sent {
            self.sent = true;
            let send =
                OutboundMessage { round: self.round, to: None, body: encode(&self.own.as_slice()) };
            return Ok(Stepped { sends: vec![send], output: None });
        }
        let mut confirmations = Vec::new();
        for position in 0..self.statement.identities.len() {
            if position == self.me {
                confirmations.extend_from_slice(&self.own);
                continue;
            }
            let one: Vec<u8> = crate::machine::decode(position, &input.broadcasts[&position])?;
            if !self.statement.holds(position, &one) {
                return Err(MachineFault::violation(
                    position,
                    "confirms another key than was made",
                ));
            }
            confirmations.extend_from_slice(&one);
        }
        Ok(Stepped { sends: Vec::new(), output: Some(Output::Confirmed(confirmations)) })
    }

    fn expects(&self, round: u16, kind: Kind, _: Position) -> bool {
        round == self.round && kind == Kind::Broadcast
    }

    fn rounds(&self) -> u16 {
        self.round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_hold_for_their_statement_and_all_holders_only() {
        let identities = [Identity::generate(), Identity::generate()];
        let public = [identities[0].public(), identities[1].public()];
        let holders: [PartyId; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        let statement = |execution: [u8; 32], key: u8, t: i64, holders: &[PartyId]| {
            let threshold = Threshold::new(t, if t == 2 { 2 } else { 3 }).unwrap();
            Statement::new(&execution, &PublicKey(vec![key]), threshold, holders, &public)
        };
        let made = statement([1; 32], 4, 2, &holders);
        let all = identities.each_ref().map(|identity| made.signed(identity)).concat();
        assert!(made.confirmed_by(&all));
        let swapped: Vec<_> = holders.iter().rev().cloned().collect();
        for other in [
            statement([2; 32], 4, 2, &holders),
            statement([1; 32], 5, 2, &holders),
            statement([1; 32], 4, 3, &holders),
            statement([1; 32], 4, 2, &swapped),
        ] {
            assert!(!other.confirmed_by(&all));
        }
        for bad in [&all[..64], &all[1..], &[&all[64..], &all[..64]].concat(), &[]] {
            assert!(!made.confirmed_by(bad));
        }
        assert!(!made.confirmed_by(&[&all[..], &all[..64]].concat()));
    }
}
