//! The library's complete refresh, in four rounds.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | | the point of our polynomial, whose constant term is zero |
//! | 2 | commitment to our proof | commitment to a zero-share seed |
//! | 3 | the proof | the seed; set-up of the multiplication |
//! | 4 | the echo of the broadcasts of rounds 2 and 3 | |
//!
//! It is the keygen with another polynomial and without a chain code: the sum of the points corrects
//! the share, and the set-up of the multiplication is made anew, so that bans of the epoch before have
//! no object. The points shown in round 3 must lie on a polynomial through zero, else the key would
//! change; who dealt one that does not cannot be told from them, and nobody is blamed.
//!
//! Equal commitments and equal points are refused as in a keygen.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use dkls23_secp256k1::Party;
use dkls23_secp256k1::protocols::dkg::{
    KeepInitMulPhase3to4, KeepInitZeroSharePhase2to3, KeepInitZeroSharePhase3to4, ProofCommitment,
};
use dkls23_secp256k1::protocols::{Abort, AbortReason, PartyIndex};
use dkls23_secp256k1::utilities::proofs::DLogProof;
use zeroize::{Zeroize as _, Zeroizing};

use super::setup::{self, Received, Setup, broadcast, direct, index_of, position_of};
use super::share::{Part, share};
use super::{Curve, fault};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, check_distinct,
    decode, encode,
};
use crate::share::Share;
use crate::task::Output;

/// One party's part in a refresh.
pub(super) struct Refresh {
    share: Arc<Share>,
    me: Position,
    parties: usize,
    execution: [u8; 32],
    round: u16,
    own_point: Zeroizing<Option<k256::Scalar>>,
    /// What is added to the share.
    correction: Zeroizing<Option<k256::Scalar>>,
    own_proof: Option<ProofCommitment<Curve>>,
    commitments: BTreeMap<Position, [u8; 32]>,
    proofs: BTreeMap<Position, DLogProof<Curve>>,
    kept: Kept,
    received: Received,
}

/// What the library gives to keep from one phase to the next; wiped when dropped.
#[derive(Default)]
struct Kept {
    seeds: BTreeMap<PartyIndex, KeepInitZeroSharePhase2to3>,
    zero: BTreeMap<PartyIndex, KeepInitZeroSharePhase3to4>,
    multiplication: BTreeMap<PartyIndex, KeepInitMulPhase3to4<Curve>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for kept in self.seeds.values_mut() {
            kept.seed.zeroize();
            kept.salt.zeroize();
        }
        self.zero.values_mut().for_each(|kept| kept.seed.zeroize());
        for kept in self.multiplication.values_mut() {
            kept.ot_sender.s.zeroize();
            kept.ot_receiver.seed.zeroize();
            kept.nonce.zeroize();
            kept.vec_r.zeroize();
            kept.correlation.zeroize();
        }
    }
}

impl Refresh {
    /// `me` is the holder's place; the caller has checked that all holders take part in their order.
    pub(super) fn new(
        share: Arc<Share>,
        me: Position,
        execution: [u8; 32],
    ) -> Result<Self, MachineFault> {
        if share.material::<Part>().is_none() {
            return Err(MachineFault::ours("the share is of another scheme"));
        }
        let parties = share.threshold().parties().into();
        Ok(Self {
            share,
            me,
            parties,
            execution,
            round: 0,
            own_point: Zeroizing::new(None),
            correction: Zeroizing::new(None),
            own_proof: None,
            commitments: BTreeMap::new(),
            proofs: BTreeMap::new(),
            kept: Kept::default(),
            received: Received::default(),
        })
    }

    fn party(&self) -> &Party {
        let part: &Part = self.share.material().expect("checked when the machine was made");
        &part.0
    }

    fn others(&self) -> Vec<Position> {
        (0..self.parties).filter(|position| *position != self.me).collect()
    }

    fn deal(&mut self) -> Vec<OutboundMessage> {
        let mut points = self.party().refresh_complete_phase1();
        let send = |position: Position| OutboundMessage {
            round: 1,
            to: Some(position),
            body: encode(&points[position]),
        };
        let sends = self.others().into_iter().map(send).collect();
        *self.own_point = Some(points[self.me]);
        points.zeroize();
        sends
    }

    fn commit(&mut self, input: &Input) -> Result<Vec<OutboundMessage>, MachineFault> {
        let mut points = Zeroizing::new(Vec::with_capacity(self.parties));
        points.push(self.own_point.take().expect("kept in round 1"));
        for (position, body) in &input.directs {
            points.push(decode(*position, body)?);
        }
        let (correction, proof, seeds, zero) =
            self.party().refresh_complete_phase2(&self.execution, &points);
        let mut sends = vec![broadcast(2, &proof.commitment)];
        sends.extend(zero.iter().map(|message| direct(2, message.parties.receiver, message)));
        self.commitments.insert(self.me, proof.commitment);
        *self.correction = Some(correction);
        self.own_proof = Some(proof);
        self.kept.seeds = seeds;
        Ok(sends)
    }

    fn open(&mut self, input: &Input) -> Result<Vec<OutboundMessage>, MachineFault> {
        for (position, body) in &input.broadcasts {
            self.commitments.insert(*position, decode(*position, body)?);
        }
        self.received.commitments(self.me, input)?;
        let commitments = self.commitments.iter().map(|(position, one)| (*position, *one));
        check_distinct(commitments, "commitment")?;
        let (zero_kept, zero, multiplication_kept, multiplication) =
            self.party().refresh_complete_phase3(&self.execution, &self.kept.seeds);
        self.kept.zero = zero_kept;
        self.kept.multiplication = multiplication_kept;
        let proof = self.own_proof.take().expect("made in round 2").proof;
        let mut sends = vec![broadcast(3, &proof)];
        for (zero, multiplication) in zero.into_iter().zip(multiplication) {
            let receiver = zero.parties.receiver;
            sends.push(direct(3, receiver, &Setup { zero, multiplication }));
        }
        self.proofs.insert(self.me, proof);
        Ok(sends)
    }

    fn echo(&mut self, input: &Input) -> Result<Vec<OutboundMessage>, MachineFault> {
        for (position, body) in &input.broadcasts {
            self.proofs.insert(*position, decode(*position, body)?);
        }
        self.received.setups(self.me, input)?;
        check_distinct(self.proofs.iter().map(|(at, proof)| (*at, proof.point)), "point")?;
        Ok(vec![broadcast(4, &())])
    }

    fn finish(&mut self, input: &Input) -> Result<Share, MachineFault> {
        for (position, body) in &input.broadcasts {
            decode::<()>(*position, body)?;
        }
        let mut proofs = Vec::with_capacity(self.parties);
        for (position, proof) in std::mem::take(&mut self.proofs) {
            let commitment = self.commitments.remove(&position).expect("one of each in round 2");
            proofs.push(ProofCommitment { index: index_of(position), proof, commitment });
        }
        let correction = Zeroizing::new(self.correction.take().expect("made in round 2"));
        let party = self
            .party()
            .refresh_complete_phase4(
                &self.execution,
                &correction,
                &proofs,
                &self.kept.zero,
                &self.received.zero_commitments,
                &self.received.zero_seeds,
                &self.kept.multiplication,
                &self.received.multiplications,
            )
            .map_err(|abort| refused(&abort))?;
        share(Box::new(party)).map_err(|error| MachineFault::ours(error.message))
    }
}

/// Translates the library's abort. Points of no polynomial through zero are somebody's fault, and the
/// library names the party that noticed.
fn refused(abort: &Abort) -> MachineFault {
    let fault = fault(abort, position_of);
    if abort.reason != AbortReason::PolynomialInconsistency {
        return fault;
    }
    let message = "a party dealt points that would change the key; which one cannot be told";
    MachineFault { blame: None, message: message.into(), ..fault }
}

impl Machine for Refresh {
    fn need(&self) -> Need {
        setup::need(self.round, self.others())
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        let mut stepped = Stepped::default();
        match self.round {
            0 => stepped.sends = self.deal(),
            1 => stepped.sends = self.commit(&input)?,
            2 => stepped.sends = self.open(&input)?,
            3 => stepped.sends = self.echo(&input)?,
            _ => {
                let share = self.finish(&input)?;
                let public_key = share.public_key().clone();
                stepped.output = Some(Output::Key { share, public_key });
            }
        }
        self.round += 1;
        Ok(stepped)
    }

    fn expects(&self, round: u16, kind: Kind, _: Position) -> bool {
        setup::expects(round, kind)
    }

    fn rounds(&self) -> u16 {
        setup::ROUNDS
    }

    fn echoed(&self, round: u16) -> Option<RangeInclusive<u16>> {
        setup::echoed(round)
    }
}

#[cfg(test)]
mod tests;
