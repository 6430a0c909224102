//! Refresh by distributed dealing, in two rounds (the library's `keys::refresh`).
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | commitments to our polynomial without its constant term, which is zero | |
//! | 2 | | our polynomial at the recipient's index; the echo of round 1 |
//!
//! A dealer cannot change the key: its share is checked against a polynomial through zero, whatever
//! it committed to. The library checks all shares and says only that one of them is wrong, so they
//! are checked here first, one by one. It takes no proof of a constant term that everybody knows; two
//! parties with equal commitments are refused.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use frost_ed25519::keys::dkg::{round1, round2};
use frost_ed25519::keys::refresh::{refresh_dkg_part1, refresh_dkg_part2, refresh_dkg_shares};
use frost_ed25519::keys::{SigningShare, VerifiableSecretSharingCommitment};
use frost_ed25519::{Ed25519Group, Ed25519ScalarField, Field, Group, Identifier, Signature};
use quorate_types::Threshold;
use zeroize::Zeroizing;

use super::share::Part;
use super::{SystemRandom, array, dealing, fault, index, name};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, check_distinct,
    decode, encode,
};
use crate::share::Share;
use crate::task::Output;

/// The broadcast of round 1: a point for each coefficient but the constant one, lowest first.
type Commitments = Vec<[u8; 32]>;

/// Points and scalars of the curve as the library computes with them.
type Point = <Ed25519Group as Group>::Element;
type Scalar = <Ed25519ScalarField as Field>::Scalar;

enum State {
    Start,
    Committed(Box<round1::SecretPackage>),
    Dealt(Box<round2::SecretPackage>),
    Over,
}

/// One party's part in a refresh.
pub(super) struct Refresh {
    share: Arc<Share>,
    me: Position,
    round: u16,
    state: State,
    /// The packages of the others.
    packages: BTreeMap<Identifier, round1::Package>,
    /// The points of the others, as in their packages.
    points: BTreeMap<Position, Vec<Point>>,
}

impl Refresh {
    /// `me` is the holder's place; the caller has checked that all holders take part in their order.
    pub(super) fn new(share: Arc<Share>, me: Position) -> Result<Self, MachineFault> {
        if share.material::<Part>().is_none() {
            return Err(MachineFault::ours("the share is of another scheme"));
        }
        let (packages, points) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { share, me, round: 0, state: State::Start, packages, points })
    }

    fn part(&self) -> &Part {
        self.share.material().expect("checked when the machine was made")
    }

    fn threshold(&self) -> Threshold {
        self.share.threshold()
    }

    fn others(&self) -> Vec<Position> {
        (0..self.threshold().parties().into()).filter(|position| *position != self.me).collect()
    }

    fn commit(&mut self) -> Result<Vec<OutboundMessage>, MachineFault> {
        let (parties, signers) = (self.threshold().parties(), self.threshold().signers());
        let (secret, package) = refresh_dkg_part1(name(self.me), parties, signers, SystemRandom)
            .map_err(|error| fault(&error))?;
        self.state = State::Committed(Box::new(secret));
        let body = encode(&commitments(package.commitment())?);
        Ok(vec![OutboundMessage { round: 1, to: None, body }])
    }

    fn deal(
        &mut self,
        secret: round1::SecretPackage,
        input: &Input,
    ) -> Result<Vec<OutboundMessage>, MachineFault> {
        let own = commitments(secret.commitment())?;
        let mut lowest = vec![(self.me, own[0])];
        for (position, body) in &input.broadcasts {
            let commitments: Commitments = decode(*position, body)?;
            if commitments.len() + 1 != usize::from(self.threshold().signers()) {
                return Err(MachineFault::violation(
                    *position,
                    "committed to a polynomial for another threshold",
                ));
            }
            lowest.push((*position, commitments[0]));
            let no_point = || {
                MachineFault::violation(*position, "sent a commitment that is no key of the curve")
            };
            let points = commitments.iter().map(Ed25519Group::deserialize);
            let points: Result<Vec<_>, _> = points.collect();
            self.points.insert(*position, points.map_err(|_| no_point())?);
            let commitment = VerifiableSecretSharingCommitment::deserialize(&commitments);
            // The library wants a proof in a package and does not read it.
            let unread = Signature::new(Ed25519Group::generator(), Ed25519ScalarField::one());
            let package = round1::Package::new(commitment.map_err(|_| no_point())?, unread);
            self.packages.insert(name(*position), package);
        }
        check_distinct(lowest.into_iter(), "commitment")?;
        let (secret, packages) =
            refresh_dkg_part2(secret, &self.packages).map_err(|error| fault(&error))?;
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
            let dealt = Zeroizing::new(decode::<[u8; 32]>(*position, body)?);
            let no_scalar = || {
                MachineFault::violation(*position, "dealt a share that is no scalar of the curve")
            };
            let share = SigningShare::deserialize(&*dealt).map_err(|_| no_scalar())?;
            let scalar = Ed25519ScalarField::deserialize(&dealt).map_err(|_| no_scalar())?;
            let scalar = Zeroizing::new(scalar);
            let image = value(&self.points[position], index(self.me).0);
            if Ed25519Group::generator() * *scalar != image {
                return Err(MachineFault::violation(
                    *position,
                    "dealt a share that does not fit its commitment",
                ));
            }
            packages.insert(name(*position), round2::Package::new(share));
        }
        let Part { key, public, .. } = self.part();
        let (key, public) = refresh_dkg_shares(
            secret,
            &self.packages,
            &packages,
            public.clone(),
            key.as_ref().clone(),
        )
        .map_err(|error| fault(&error))?;
        dealing::made(self.me, key, public, "the parties have made a trivial share")
    }
}

fn commitments(
    commitment: &VerifiableSecretSharingCommitment,
) -> Result<Commitments, MachineFault> {
    let points = commitment.serialize().map_err(|error| fault(&error))?;
    Ok(points.iter().map(|point| array(point)).collect())
}

/// The polynomial through zero with these coefficients, from the lowest, at this index.
fn value(coefficients: &[Point], index: u8) -> Point {
    let at = Scalar::from(index);
    coefficients.iter().rev().fold(Ed25519Group::identity(), |sum, point| (sum + point) * at)
}

impl Machine for Refresh {
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

#[cfg(test)]
mod tests;
