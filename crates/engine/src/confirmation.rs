//! What the holders of a new key or epoch say to each other before anybody signs with it.
//!
//! Each signs what it has stored: the key's id and epoch, the execution that made it, the public key,
//! the threshold and the holders with their identities. Whoever has the signatures of all knows that
//! no holder is without its share: they are the certificate of the epoch, and a holder that has an
//! earlier one learns from them that its share is stale.
//!
//! ```text
//! version 2: execution (32) | key id (16) | epoch (4) | public key | t (2) | n (2)
//!            | each holder: name, identity            with the length (8) before what varies
//! version 1: the same without key id and epoch        for first epochs of earlier versions
//! ```

use quorate_types::KeyEpoch;

use crate::identity::{Identity, verify_identity};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, encode,
};
use crate::task::Output;

const VERSIONS: [&str; 2] = ["quorate/confirmation/v1", "quorate/confirmation/v2"];
/// Length of one confirmation in bytes.
pub const CONFIRMATION: usize = 64;

/// What a confirmation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    bytes: Vec<u8>,
    /// As it was signed before statements named key and epoch; of first epochs only.
    first_version: Option<Vec<u8>>,
    identities: Vec<[u8; 32]>,
}

impl Statement {
    /// That the holders of `key`, with these identities in their order, made it in this execution.
    pub fn new(key: &KeyEpoch, execution: &[u8; 32], identities: &[[u8; 32]]) -> Self {
        let mut rest = Vec::new();
        let mut add = |part: &[u8]| {
            rest.extend_from_slice(&(part.len() as u64).to_be_bytes());
            rest.extend_from_slice(part);
        };
        add(&key.public_key.0);
        add(&key.threshold.signers().to_be_bytes());
        add(&key.threshold.parties().to_be_bytes());
        for (holder, identity) in key.holders.iter().zip(identities) {
            add(holder.as_str().as_bytes());
            add(identity);
        }
        let (id, epoch) = (key.key_id.0.as_bytes(), key.epoch.to_be_bytes());
        Self {
            bytes: [&execution[..], id, &epoch, &rest].concat(),
            first_version: (key.epoch == 0).then(|| [&execution[..], &rest].concat()),
            identities: identities.to_vec(),
        }
    }

    /// The confirmation of the holder with this identity. Only who keeps its share says so.
    pub fn confirm(&self, identity: &Identity) -> [u8; CONFIRMATION] {
        identity.sign(VERSIONS[1], &self.bytes)
    }

    fn holds(&self, position: Position, confirmation: &[u8]) -> bool {
        self.verifies(position, VERSIONS[1], &self.bytes, confirmation)
    }

    /// Whether these are the confirmations of all holders, in their order, in either version.
    pub fn confirmed_by(&self, confirmations: &[u8]) -> bool {
        let (each, rest) = confirmations.as_chunks::<CONFIRMATION>();
        if !rest.is_empty() || each.len() != self.identities.len() {
            return false;
        }
        let all = |domain, bytes: &[u8]| {
            each.iter().enumerate().all(|(at, one)| self.verifies(at, domain, bytes, one))
        };
        let first = |bytes: &Vec<u8>| all(VERSIONS[0], bytes);
        all(VERSIONS[1], &self.bytes) || self.first_version.as_ref().is_some_and(first)
    }

    fn verifies(&self, position: usize, domain: &str, bytes: &[u8], confirmation: &[u8]) -> bool {
        let (Some(identity), Ok(signature)) =
            (self.identities.get(position), confirmation.try_into())
        else {
            return false;
        };
        verify_identity(identity, domain, bytes, signature)
    }
}

/// The exchange of confirmations, as the last round of a keygen or refresh.
pub(crate) struct Confirm {
    statement: Statement,
    round: u16,
    me: Position,
    own: [u8; CONFIRMATION],
    sent: bool,
}

impl Confirm {
    pub(crate) fn new(statement: Statement, round: u16, me: Position, identity: &Identity) -> Self {
        let own = statement.confirm(identity);
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
    use quorate_types::{PublicKey, Scheme, Secret, Threshold};

    use super::*;

    fn identities() -> [Identity; 2] {
        [1, 2].map(|n| Identity::from_secret(&Secret::new([n; 32])))
    }

    fn key(epoch: u32) -> KeyEpoch {
        KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch,
            scheme: Scheme::EcdsaSecp256k1,
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        }
    }

    fn statement(key: &KeyEpoch, execution: [u8; 32]) -> Statement {
        Statement::new(key, &execution, &identities().each_ref().map(Identity::public))
    }

    #[test]
    fn confirmations_hold_for_their_statement_and_all_holders_only() {
        let key = key(3);
        let made = statement(&key, [1; 32]);
        let all = identities().each_ref().map(|identity| made.confirm(identity)).concat();
        assert!(made.confirmed_by(&all));
        let changed = |change: fn(&mut KeyEpoch)| {
            let mut other = key.clone();
            change(&mut other);
            statement(&other, [1; 32])
        };
        for other in [
            statement(&key, [2; 32]),
            changed(|key| key.epoch = 2),
            changed(|key| key.epoch = 0),
            changed(|key| key.key_id = "550e8400-e29b-41d4-a716-446655440001".parse().unwrap()),
            changed(|key| key.public_key.0[7] ^= 1),
            changed(|key| key.threshold = Threshold::new(2, 3).unwrap()),
            changed(|key| key.holders.reverse()),
        ] {
            assert!(!other.confirmed_by(&all));
        }
        for bad in [&all[..64], &all[1..], &[&all[64..], &all[..64]].concat(), &[]] {
            assert!(!made.confirmed_by(bad));
        }
        assert!(!made.confirmed_by(&[&all[..], &all[..64]].concat()));
    }

    #[test]
    fn confirmations_of_earlier_versions_hold_for_first_epochs() {
        let old = statement(&key(0), [1; 32]).first_version.unwrap();
        let all = identities().each_ref().map(|identity| identity.sign(VERSIONS[0], &old)).concat();
        assert!(statement(&key(0), [1; 32]).confirmed_by(&all));
        assert!(!statement(&key(1), [1; 32]).confirmed_by(&all));
    }
}
