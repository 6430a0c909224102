//! Distributed key generation in two rounds (FROST paper, figure 1: <https://eprint.iacr.org/2020/852>).
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | commitments to our polynomial, proof that we know its constant term | |
//! | 2 | | our polynomial at the recipient's index; the echo of round 1 |
//!
//! The proof is bound to its maker's index: who repeats another's commitments has none. Two parties
//! that agree on one polynomial have: equal constant terms are refused.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use frost_ed25519::keys::SigningShare;
use frost_ed25519::keys::VerifiableSecretSharingCommitment;
use frost_ed25519::keys::dkg::{part1, part2, part3, round1, round2};
use frost_ed25519::{Error, Identifier, Signature};
use quorate_types::Threshold;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{SystemRandom, array, dealing, fault, name};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, check_distinct,
    decode, encode,
};
use crate::task::Output;

/// The broadcast of round 1.
#[derive(Clone, Serialize, Deserialize)]
struct Commitments {
    /// To the coefficients of the polynomial, constant term first.
    coefficients: Vec<[u8; 32]>,
    /// R and z of a Schnorr proof.
    proof: [[u8; 32]; 2],
}

enum State {
    Start,
    Committed(Box<round1::SecretPackage>),
    Dealt(Box<round2::SecretPackage>),
    Over,
}

/// One party's key generation.
pub(super) struct Keygen {
    me: Position,
    threshold: Threshold,
    round: u16,
    state: State,
    /// The packages of the others.
    packages: BTreeMap<Identifier, round1::Package>,
}

impl Keygen {
    pub(super) fn new(me: Position, threshold: Threshold) -> Self {
        Self { me, threshold, round: 0, state: State::Start, packages: BTreeMap::new() }
    }

    fn others(&self) -> Vec<Position> {
        (0..self.threshold.parties().into()).filter(|position| *position != self.me).collect()
    }

    fn commit(&mut self) -> Result<Vec<OutboundMessage>, MachineFault> {
        let (parties, signers) = (self.threshold.parties(), self.threshold.signers());
        let (secret, package) =
            part1(name(self.me), parties, signers, SystemRandom).map_err(|error| fault(&error))?;
        self.state = State::Committed(Box::new(secret));
        let body = encode(&commitments(&package).map_err(|error| fault(&error))?);
        Ok(vec![OutboundMessage { round: 1, to: None, body }])
    }

    fn deal(
        &mut self,
        secret: round1::SecretPackage,
        input: &Input,
    ) -> Result<Vec<OutboundMessage>, MachineFault> {
        let own = secret.commitment().serialize().map_err(|error| fault(&error))?;
        let mut constants = vec![(self.me, array(&own[0]))];
        for (position, body) in &input.broadcasts {
            let commitments: Commitments = decode(*position, body)?;
            if commitments.coefficients.len() != usize::from(self.threshold.signers()) {
                return Err(MachineFault::violation(
                    *position,
                    "committed to a polynomial for another threshold",
                ));
            }
            constants.push((*position, commitments.coefficients[0]));
            let package = package(&commitments).map_err(|_| {
                MachineFault::violation(*position, "sent a commitment that is no key of the curve")
            })?;
            self.packages.insert(name(*position), package);
        }
        let (secret, packages) = part2(secret, &self.packages).map_err(|error| fault(&error))?;
        check_distinct(constants.into_iter(), "commitment")?;
        self.state = State::Dealt(Box::new(secret));
        Ok(dealing::shares(self.others(), &packages))
    }

    fn finish(
        &mut self,
        secret: &round2::SecretPackage,
        input: &Input,
    ) -> Result<Output, MachineFault> {
        let mut packages = BTreeMap::new();
        for (position, body) in &input.directs {
            let share = Zeroizing::new(decode::<[u8; 32]>(*position, body)?);
            let share = SigningShare::deserialize(&*share).map_err(|_| {
                MachineFault::violation(*position, "dealt a share that is no scalar of the curve")
            })?;
            packages.insert(name(*position), round2::Package::new(share));
        }
        let (key, public) =
            part3(secret, &self.packages, &packages).map_err(|error| fault(&error))?;
        dealing::made(self.me, key, public, "the parties have made a trivial key")
    }
}

impl Machine for Keygen {
    fn need(&self) -> Need {
        dealing::need(self.round, self.others())
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        self.round += 1;
        let mut stepped = Stepped::default();
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start => stepped.sends = self.commit()?,
            State::Committed(secret) => stepped.sends = self.deal(*secret, &input)?,
            State::Dealt(secret) => stepped.output = Some(self.finish(&secret, &input)?),
            State::Over => {}
        }
        Ok(stepped)
    }

    fn expects(&self, round: u16, kind: Kind, _: Position) -> bool {
        dealing::expects(round, kind)
    }

    fn rounds(&self) -> u16 {
        dealing::ROUNDS
    }

    fn echoed(&self, round: u16) -> Option<RangeInclusive<u16>> {
        dealing::echoed(round)
    }
}

fn commitments(package: &round1::Package) -> Result<Commitments, Error> {
    let coefficients = package.commitment().serialize()?;
    let proof = package.proof_of_knowledge().serialize()?;
    let (point, scalar) = proof.split_at(32);
    Ok(Commitments {
        coefficients: coefficients.iter().map(|point| array(point)).collect(),
        proof: [array(point), array(scalar)],
    })
}

fn package(commitments: &Commitments) -> Result<round1::Package, Error> {
    let commitment = VerifiableSecretSharingCommitment::deserialize(&commitments.coefficients)?;
    Ok(round1::Package::new(commitment, Signature::deserialize(&commitments.proof.concat())?))
}

#[cfg(test)]
mod tests;
