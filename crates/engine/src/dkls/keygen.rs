//! Distributed key generation in four rounds.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | | the point of our polynomial |
//! | 2 | commitments to our proof and chain code | commitment to a zero-share seed |
//! | 3 | the proof and the chain code | the seed; set-up of the multiplication |
//! | 4 | the echo of the broadcasts of rounds 2 and 3 | |
//!
//! The library's `ProofCommitment` holds commitment and proof together; they are sent a round
//! apart, and the proof is checked against the commitment that came first. Nothing is made of the
//! broadcasts unless all parties have seen the same ones.
//!
//! The library binds proofs to the session and not to who proves: a party that repeats another's
//! commitment and later its proof would make a key that no quorum can sign with. Equal commitments
//! and equal points are refused.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use dkls23_secp256k1::DkgSession;
use dkls23_secp256k1::protocols::dkg::{
    BroadcastDerivationPhase2to4, BroadcastDerivationPhase3to4, ProofCommitment,
};
use dkls23_secp256k1::protocols::{Parameters, PartyIndex};
use dkls23_secp256k1::utilities::proofs::DLogProof;
use quorate_types::Threshold;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::setup::{self, Received, Setup, broadcast, direct, index_of, position_of};
use super::{Curve, fault};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, check_distinct,
    decode, encode,
};
use crate::share::Share;
use crate::task::Output;

#[derive(Serialize, Deserialize)]
struct Commitments {
    proof: [u8; 32],
    chain_code: BroadcastDerivationPhase2to4,
}

#[derive(Serialize, Deserialize)]
struct Openings {
    proof: DLogProof<Curve>,
    chain_code: BroadcastDerivationPhase3to4,
}

/// One party's key generation.
pub(crate) struct Keygen {
    me: Position,
    parties: usize,
    round: u16,
    session: Option<DkgSession<Curve>>,
    own_point: Zeroizing<Option<k256::Scalar>>,
    own_proof: Option<ProofCommitment<Curve>>,
    commitments: BTreeMap<Position, Commitments>,
    openings: BTreeMap<Position, Openings>,
    received: Received,
}

impl Keygen {
    pub(crate) fn new(me: Position, threshold: Threshold, execution: [u8; 32]) -> Self {
        let small = |n: u16| u8::try_from(n).expect("at most MAX_PARTIES");
        let parameters = Parameters {
            threshold: small(threshold.signers()),
            share_count: small(threshold.parties()),
        };
        let session = DkgSession::new(parameters, index_of(me), execution.to_vec());
        Self {
            me,
            parties: threshold.parties().into(),
            round: 0,
            session: Some(session),
            own_point: Zeroizing::new(None),
            own_proof: None,
            commitments: BTreeMap::new(),
            openings: BTreeMap::new(),
            received: Received::default(),
        }
    }

    fn others(&self) -> Vec<Position> {
        (0..self.parties).filter(|position| *position != self.me).collect()
    }

    fn session(&mut self) -> &mut DkgSession<Curve> {
        self.session.as_mut().expect("taken in the last step only")
    }

    fn deal(&mut self) -> Vec<OutboundMessage> {
        let mut points = self.session().phase1();
        let sends = self
            .others()
            .into_iter()
            .map(|position| OutboundMessage {
                round: 1,
                to: Some(position),
                body: encode(&points[position]),
            })
            .collect();
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
        let (proof, zero, chain_code) =
            self.session().phase2(&points).map_err(|abort| fault(&abort, position_of))?;
        let commitments = Commitments { proof: proof.commitment, chain_code };
        let mut sends = vec![broadcast(2, &commitments)];
        sends.extend(zero.iter().map(|message| direct(2, message.parties.receiver, message)));
        self.commitments.insert(self.me, commitments);
        self.own_proof = Some(proof);
        Ok(sends)
    }

    fn open(&mut self, input: &Input) -> Result<Vec<OutboundMessage>, MachineFault> {
        for (position, body) in &input.broadcasts {
            let message: Commitments = decode(*position, body)?;
            check_sender(*position, message.chain_code.sender_index)?;
            self.commitments.insert(*position, message);
        }
        self.received.commitments(self.me, input)?;
        let proofs = self.commitments.iter().map(|(position, message)| (*position, message.proof));
        check_distinct(proofs, "commitment")?;
        let (zero, multiplication, chain_code) =
            self.session().phase3().map_err(|abort| fault(&abort, position_of))?;
        let proof = self.own_proof.take().expect("made in round 2").proof;
        let openings = Openings { proof, chain_code };
        let mut sends = vec![broadcast(3, &openings)];
        for (zero, multiplication) in zero.into_iter().zip(multiplication) {
            let receiver = zero.parties.receiver;
            sends.push(direct(3, receiver, &Setup { zero, multiplication }));
        }
        self.openings.insert(self.me, openings);
        Ok(sends)
    }

    fn echo(&mut self, input: &Input) -> Result<Vec<OutboundMessage>, MachineFault> {
        for (position, body) in &input.broadcasts {
            let message: Openings = decode(*position, body)?;
            check_sender(*position, message.chain_code.sender_index)?;
            self.openings.insert(*position, message);
        }
        self.received.setups(self.me, input)?;
        let points =
            self.openings.iter().map(|(position, message)| (*position, message.proof.point));
        check_distinct(points, "point")?;
        Ok(vec![broadcast(4, &())])
    }

    fn finish(&mut self, input: &Input) -> Result<Share, MachineFault> {
        for (position, body) in &input.broadcasts {
            decode::<()>(*position, body)?;
        }
        let mut proofs = Vec::with_capacity(self.parties);
        let (mut committed, mut opened) = (BTreeMap::new(), BTreeMap::new());
        for (position, opening) in std::mem::take(&mut self.openings) {
            let commitments = self.commitments.remove(&position).expect("one of each in round 2");
            let (index, proof, commitment) = (index_of(position), opening.proof, commitments.proof);
            proofs.push(ProofCommitment { index, proof, commitment });
            committed.insert(index, commitments.chain_code);
            opened.insert(index, opening.chain_code);
        }
        let session = self.session.take().expect("taken here only");
        let (party, _) = session
            .phase4(
                &proofs,
                &self.received.zero_commitments,
                &self.received.zero_seeds,
                &self.received.multiplications,
                &committed,
                &opened,
                |_| String::new(),
            )
            .map_err(|abort| fault(&abort, position_of))?;
        super::share::share(Box::new(party)).map_err(|error| MachineFault::ours(error.message))
    }
}

impl Machine for Keygen {
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

/// Refuses a broadcast whose inside names another sender than its envelope.
fn check_sender(position: Position, inside: PartyIndex) -> Result<(), MachineFault> {
    if inside == index_of(position) {
        return Ok(());
    }
    Err(MachineFault::violation(position, "sent a broadcast in another party's name"))
}

#[cfg(test)]
mod tests;
