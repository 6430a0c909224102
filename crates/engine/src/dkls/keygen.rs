//! Distributed key generation in four rounds.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | | the point of our polynomial |
//! | 2 | commitments to our proof and chain code | commitment to a zero-share seed |
//! | 3 | the proof and the chain code | the seed; set-up of the multiplication |
//! | 4 | hash of all broadcasts of rounds 2 and 3 | |
//!
//! The library's `ProofCommitment` holds commitment and proof together; they are sent a round
//! apart, and the proof is checked against the commitment that came first. Round 4 is the echo:
//! no share leaves this machine unless all parties have seen the same broadcasts.

use std::collections::BTreeMap;

use dkls23_secp256k1::DkgSession;
use dkls23_secp256k1::protocols::dkg::{
    BroadcastDerivationPhase2to4, BroadcastDerivationPhase3to4, ProofCommitment,
    TransmitInitMulPhase3to4, TransmitInitZeroSharePhase2to4, TransmitInitZeroSharePhase3to4,
};
use dkls23_secp256k1::protocols::{Parameters, PartyIndex};
use dkls23_secp256k1::utilities::proofs::DLogProof;
use quorate_types::Threshold;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Curve, fault, index};
use crate::fault::{FaultCode, Severity};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, Product, Seat, Send, Stepped, decode, encode,
};
use crate::share::Share;

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

#[derive(Serialize, Deserialize)]
struct Setup {
    zero: TransmitInitZeroSharePhase3to4,
    multiplication: TransmitInitMulPhase3to4<Curve>,
}

/// One party's key generation.
pub(crate) struct Keygen {
    me: Seat,
    parties: usize,
    round: u16,
    session: Option<DkgSession<Curve>>,
    own_point: Option<k256::Scalar>,
    own_proof: Option<ProofCommitment<Curve>>,
    commitments: BTreeMap<Seat, Commitments>,
    openings: BTreeMap<Seat, Openings>,
    zero_commitments: Vec<TransmitInitZeroSharePhase2to4>,
    zero_seeds: Vec<TransmitInitZeroSharePhase3to4>,
    multiplications: Vec<TransmitInitMulPhase3to4<Curve>>,
    /// Hashes of the broadcasts of rounds 2 and 3, by round and seat.
    echoed: BTreeMap<(u16, Seat), [u8; 32]>,
    share: Option<Share>,
}

impl Keygen {
    pub(crate) fn new(
        me: Seat,
        threshold: Threshold,
        execution: [u8; 32],
    ) -> Result<Self, MachineFault> {
        let small = |n: u16| u8::try_from(n).expect("at most MAX_PARTIES");
        let parameters = Parameters {
            threshold: small(threshold.signers()),
            share_count: small(threshold.parties()),
        };
        let session = DkgSession::new(parameters, index(me)?, execution.to_vec());
        Ok(Self {
            me,
            parties: threshold.parties().into(),
            round: 0,
            session: Some(session),
            own_point: None,
            own_proof: None,
            commitments: BTreeMap::new(),
            openings: BTreeMap::new(),
            zero_commitments: Vec::new(),
            zero_seeds: Vec::new(),
            multiplications: Vec::new(),
            echoed: BTreeMap::new(),
            share: None,
        })
    }

    fn others(&self) -> Vec<Seat> {
        (0..self.parties).filter(|seat| *seat != self.me).collect()
    }

    fn session(&mut self) -> &mut DkgSession<Curve> {
        self.session.as_mut().expect("taken in the last step only")
    }

    fn remember(&mut self, round: u16, seat: Seat, body: &[u8]) {
        self.echoed.insert((round, seat), Sha256::digest(body).into());
    }

    fn broadcast(&mut self, round: u16, message: &impl Serialize) -> Send {
        let body = encode(message);
        self.remember(round, self.me, &body);
        Send { round, to: None, body }
    }

    fn deal(&mut self) -> Vec<Send> {
        let mut points = self.session().phase1();
        let sends = self
            .others()
            .into_iter()
            .map(|seat| Send { round: 1, to: Some(seat), body: encode(&points[seat]) })
            .collect();
        self.own_point = Some(points[self.me]);
        points.zeroize();
        sends
    }

    fn commit(&mut self, input: &Input) -> Result<Vec<Send>, MachineFault> {
        let mut points = Zeroizing::new(vec![self.own_point.take().expect("kept in round 1")]);
        for (seat, body) in &input.directs {
            points.push(decode(*seat, body)?);
        }
        let (proof, zero, chain_code) =
            self.session().phase2(&points).map_err(|abort| fault(&abort, seat_of))?;
        let commitments = Commitments { proof: proof.commitment, chain_code };
        let mut sends = vec![self.broadcast(2, &commitments)];
        sends.extend(zero.iter().map(|message| direct(2, message.parties.receiver, message)));
        self.commitments.insert(self.me, commitments);
        self.own_proof = Some(proof);
        Ok(sends)
    }

    fn open(&mut self, input: &Input) -> Result<Vec<Send>, MachineFault> {
        for (seat, body) in &input.broadcasts {
            let message: Commitments = decode(*seat, body)?;
            from(*seat, message.chain_code.sender_index)?;
            self.remember(2, *seat, body);
            self.commitments.insert(*seat, message);
        }
        for (seat, body) in &input.directs {
            let message: TransmitInitZeroSharePhase2to4 = decode(*seat, body)?;
            from(*seat, message.parties.sender)?;
            self.zero_commitments.push(message);
        }
        let (zero, multiplication, chain_code) =
            self.session().phase3().map_err(|abort| fault(&abort, seat_of))?;
        let proof = self.own_proof.as_ref().expect("made in round 2").proof.clone();
        let openings = Openings { proof, chain_code };
        let mut sends = vec![self.broadcast(3, &openings)];
        for (zero, multiplication) in zero.into_iter().zip(multiplication) {
            let receiver = zero.parties.receiver;
            sends.push(direct(3, receiver, &Setup { zero, multiplication }));
        }
        self.openings.insert(self.me, openings);
        Ok(sends)
    }

    fn finish(&mut self, input: &Input) -> Result<Vec<Send>, MachineFault> {
        for (seat, body) in &input.broadcasts {
            let message: Openings = decode(*seat, body)?;
            from(*seat, message.chain_code.sender_index)?;
            self.remember(3, *seat, body);
            self.openings.insert(*seat, message);
        }
        for (seat, body) in &input.directs {
            let message: Setup = decode(*seat, body)?;
            from(*seat, message.zero.parties.sender)?;
            from(*seat, message.multiplication.parties.sender)?;
            self.zero_seeds.push(message.zero);
            self.multiplications.push(message.multiplication);
        }
        let mut proofs = Vec::with_capacity(self.parties);
        let (mut committed, mut opened) = (BTreeMap::new(), BTreeMap::new());
        for (seat, opening) in std::mem::take(&mut self.openings) {
            let commitments = self.commitments.remove(&seat).expect("one of each in round 2");
            let index = index(seat)?;
            proofs.push(ProofCommitment {
                index,
                proof: opening.proof,
                commitment: commitments.proof,
            });
            committed.insert(index, commitments.chain_code);
            opened.insert(index, opening.chain_code);
        }
        let session = self.session.take().expect("taken here only");
        let (party, _) = session
            .phase4(
                &proofs,
                &self.zero_commitments,
                &self.zero_seeds,
                &self.multiplications,
                &committed,
                &opened,
                |_| String::new(),
            )
            .map_err(|abort| fault(&abort, seat_of))?;
        self.share = Some(Share::new(party));
        let echo = self.echo();
        Ok(vec![Send { round: 4, to: None, body: encode(&echo) }])
    }

    /// One hash over all broadcasts, in the order of rounds and seats.
    fn echo(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"quorate/echo/v1");
        for ((round, seat), digest) in &self.echoed {
            hash.update(round.to_be_bytes());
            hash.update((*seat as u64).to_be_bytes());
            hash.update(digest);
        }
        hash.finalize().into()
    }

    fn compare(&mut self, input: &Input) -> Result<Product, MachineFault> {
        let own = self.echo();
        for (seat, body) in &input.broadcasts {
            let echo: [u8; 32] = decode(*seat, body)?;
            if echo != own {
                // Either this party lies or somebody sent it other broadcasts: nobody is blamed.
                return Err(MachineFault {
                    code: FaultCode::EchoMismatch,
                    severity: Severity::Recoverable,
                    blame: None,
                    message: "the parties have seen different broadcasts".into(),
                });
            }
        }
        let share = self.share.take().expect("made in round 3");
        let public_key = share.public_key().clone();
        Ok(Product::Key { share, public_key })
    }
}

impl Machine for Keygen {
    fn need(&self) -> Need {
        let others = self.others();
        let (broadcasts, directs) = match self.round {
            0 => (vec![], vec![]),
            1 => (vec![], others),
            2 | 3 => (others.clone(), others),
            _ => (others, vec![]),
        };
        Need { round: self.round, broadcasts, directs }
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        let mut stepped = Stepped::default();
        match self.round {
            0 => stepped.sends = self.deal(),
            1 => stepped.sends = self.commit(&input)?,
            2 => stepped.sends = self.open(&input)?,
            3 => stepped.sends = self.finish(&input)?,
            _ => stepped.product = Some(self.compare(&input)?),
        }
        self.round += 1;
        Ok(stepped)
    }

    fn expects(&self, round: u16, kind: Kind) -> bool {
        match kind {
            Kind::Broadcast => (2..=4).contains(&round),
            Kind::Direct => (1..=3).contains(&round),
        }
    }
}

fn direct(round: u16, receiver: PartyIndex, message: &impl Serialize) -> Send {
    Send { round, to: seat_of(receiver), body: encode(message) }
}

/// In key generation a party's index is its seat plus one.
fn seat_of(index: PartyIndex) -> Option<Seat> {
    Some(usize::from(index.as_u8()) - 1)
}

/// Refuses a message whose inside names another sender than its envelope.
fn from(seat: Seat, inside: PartyIndex) -> Result<(), MachineFault> {
    if seat_of(inside) == Some(seat) {
        return Ok(());
    }
    Err(MachineFault::violation(seat, "sent a message in another party's name"))
}
