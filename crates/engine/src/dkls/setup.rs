//! What a keygen and a complete refresh have in common: the set-up of each pair of parties, and how
//! their messages are made and checked.

use std::ops::RangeInclusive;

use dkls23_secp256k1::protocols::dkg::{
    TransmitInitMulPhase3to4, TransmitInitZeroSharePhase2to4, TransmitInitZeroSharePhase3to4,
};
use dkls23_secp256k1::protocols::{PartiesMessage, PartyIndex};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::{Curve, check_parties};
use crate::machine::{Input, Kind, MachineFault, Need, OutboundMessage, Position, decode, encode};

/// How many rounds there are.
pub(super) const ROUNDS: u16 = 4;

/// What the step after this round needs.
pub(super) fn need(round: u16, others: Vec<Position>) -> Need {
    let (broadcasts, directs) = match round {
        0 => (vec![], vec![]),
        1 => (vec![], others),
        2 | 3 => (others.clone(), others),
        _ => (others, vec![]),
    };
    Need { round, broadcasts, directs }
}

/// Whether a round has messages of this kind.
pub(super) fn expects(round: u16, kind: Kind) -> bool {
    match kind {
        Kind::Broadcast => (2..=4).contains(&round),
        Kind::Direct => (1..=3).contains(&round),
    }
}

/// Which broadcasts the messages of a round echo.
pub(super) fn echoed(round: u16) -> Option<RangeInclusive<u16>> {
    (round == 4).then_some(2..=3)
}

/// The direct message of round 3.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) zero: TransmitInitZeroSharePhase3to4,
    pub(super) multiplication: TransmitInitMulPhase3to4<Curve>,
}

/// The direct messages that this party has been sent, in the library's form. The seeds are wiped
/// when dropped.
#[derive(Default)]
pub(super) struct Received {
    pub(super) zero_commitments: Vec<TransmitInitZeroSharePhase2to4>,
    pub(super) zero_seeds: Vec<TransmitInitZeroSharePhase3to4>,
    pub(super) multiplications: Vec<TransmitInitMulPhase3to4<Curve>>,
}

impl Drop for Received {
    fn drop(&mut self) {
        for message in &mut self.zero_seeds {
            message.seed.zeroize();
            message.salt.zeroize();
        }
    }
}

impl Received {
    /// Takes the direct messages of round 2.
    pub(super) fn commitments(&mut self, me: Position, input: &Input) -> Result<(), MachineFault> {
        for (position, body) in &input.directs {
            let message: TransmitInitZeroSharePhase2to4 = decode(*position, body)?;
            check_direct(me, *position, &message.parties)?;
            self.zero_commitments.push(message);
        }
        Ok(())
    }

    /// Takes the direct messages of round 3.
    pub(super) fn setups(&mut self, me: Position, input: &Input) -> Result<(), MachineFault> {
        for (position, body) in &input.directs {
            let message: Setup = decode(*position, body)?;
            check_direct(me, *position, &message.zero.parties)?;
            check_direct(me, *position, &message.multiplication.parties)?;
            self.zero_seeds.push(message.zero);
            self.multiplications.push(message.multiplication);
        }
        Ok(())
    }
}

/// Refuses a direct message whose inside names other parties than its envelope.
fn check_direct(
    me: Position,
    position: Position,
    inside: &PartiesMessage,
) -> Result<(), MachineFault> {
    check_parties(position, inside, index_of(position), index_of(me))
}

/// A message to all in this round.
pub(super) fn broadcast(round: u16, message: &impl Serialize) -> OutboundMessage {
    OutboundMessage { round, to: None, body: encode(message) }
}

/// A message to one party in this round.
pub(super) fn direct(
    round: u16,
    receiver: PartyIndex,
    message: &impl Serialize,
) -> OutboundMessage {
    OutboundMessage { round, to: position_of(receiver), body: encode(message) }
}

/// Where all holders take part in their order, a party's index is its position plus one.
pub(super) fn index_of(position: Position) -> PartyIndex {
    let index = u8::try_from(position + 1).expect("at most MAX_PARTIES");
    PartyIndex::new(index).expect("one more than something")
}

/// The inverse of [`index_of`].
pub(super) fn position_of(index: PartyIndex) -> Option<Position> {
    Some(usize::from(index.as_u8()) - 1)
}
