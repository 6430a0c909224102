//! Signing in three rounds by exactly `t` signers, and a fourth message to those who look on.
//!
//! | round | to all | to each signer | to each observer |
//! |---|---|---|---|
//! | 1 | | commitment, first half of the multiplication | |
//! | 2 | | opening, second half | |
//! | 3 | the signer's part of the signature | | |
//! | 4 | | | the signature, from the first signer |
//!
//! When more than `t` holders take part, those with the lowest share indices sign; the others are
//! observers: they let the parts of round 3 pass by, and verify the signature they are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use dkls23_secp256k1::Party;
use dkls23_secp256k1::protocols::signing::{
    Broadcast3to4, KeepPhase1to2, KeepPhase2to3, SignData, TransmitPhase1to2, TransmitPhase2to3,
    UniqueKeep1to2, UniqueKeep2to3,
};
use dkls23_secp256k1::protocols::{PartiesMessage, PartyIndex};
use quorate_types::{Digest, ShareIndex, SignInput, Signature};
use serde::de::DeserializeOwned;

use super::share::Part;
use super::{Curve, check_parties, fault, index};
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, decode, encode,
};
use crate::share::Share;
use crate::task::Output;

/// How the messages among signers travel, by round from 1.
pub(crate) const ROUNDS: &[Kind] = &[Kind::Direct, Kind::Direct, Kind::Broadcast];

enum State {
    Start,
    Committed(UniqueKeep1to2<Curve>, BTreeMap<PartyIndex, KeepPhase1to2<Curve>>),
    Opened(UniqueKeep2to3<Curve>, BTreeMap<PartyIndex, KeepPhase2to3<Curve>>),
    Shown { x: String, own: Broadcast3to4<Curve> },
    Observing,
    Over,
}

/// One party's part in a signature.
pub(crate) struct Sign {
    share: Arc<Share>,
    data: SignData,
    me: Position,
    /// Signers by share index: the position of each.
    signers: BTreeMap<PartyIndex, Position>,
    observers: Vec<Position>,
    round: u16,
    state: State,
}

impl Sign {
    /// `positions` gives the share index of each position; the caller has checked that ours is right and
    /// that there are enough.
    pub(crate) fn new(
        share: Arc<Share>,
        me: Position,
        positions: &[ShareIndex],
        input: &SignInput,
        execution: [u8; 32],
    ) -> Result<Self, MachineFault> {
        let digest = input.digest().ok_or_else(|| MachineFault::ours("there is no digest"))?;
        if share.material::<Part>().is_none() {
            return Err(MachineFault::ours("the share is of another scheme"));
        }
        let mut signers = BTreeMap::new();
        for (position, share) in positions.iter().enumerate() {
            signers.insert(index(*share)?, position);
        }
        let mut observers = Vec::new();
        while signers.len() > usize::from(share.threshold().signers()) {
            let (_, position) = signers.pop_last().expect("more than the threshold");
            observers.push(position);
        }
        let observing = observers.contains(&me);
        let own = index(share.share_index())?;
        let others = signers.keys().copied().filter(|index| *index != own);
        let data = SignData {
            sign_id: execution.to_vec(),
            counterparties: if observing { Vec::new() } else { others.collect() },
            message_hash: digest.0,
        };
        let state = if observing { State::Observing } else { State::Start };
        let round = if observing { 4 } else { 0 };
        Ok(Self { share, data, me, signers, observers, round, state })
    }

    fn party(&self) -> &Party {
        &self.share.material::<Part>().expect("checked when the machine was made").0
    }

    fn others(&self) -> Vec<Position> {
        self.signers.values().copied().filter(|position| *position != self.me).collect()
    }

    fn first_signer(&self) -> Position {
        *self.signers.values().next().expect("a threshold is at least 2")
    }

    fn abort(&self, abort: &dkls23_secp256k1::protocols::Abort) -> MachineFault {
        fault(abort, |index| self.signers.get(&index).copied())
    }

    fn direct(
        &self,
        round: u16,
        to: PartyIndex,
        message: &impl serde::Serialize,
    ) -> OutboundMessage {
        OutboundMessage { round, to: self.signers.get(&to).copied(), body: encode(message) }
    }

    /// The direct messages, each between the parties that its envelope names.
    fn received<M: DeserializeOwned>(
        &self,
        input: &Input,
        parties: impl Fn(&M) -> &PartiesMessage,
    ) -> Result<Vec<M>, MachineFault> {
        let mut received = Vec::with_capacity(input.directs.len());
        for (index, position) in &self.signers {
            if let Some(body) = input.directs.get(position) {
                let message = decode(*position, body)?;
                check_parties(*position, parties(&message), *index, self.party().party_index)?;
                received.push(message);
            }
        }
        Ok(received)
    }

    fn commit(&mut self) -> Result<Vec<OutboundMessage>, MachineFault> {
        let (unique, kept, messages) =
            self.party().sign_phase1(&self.data).map_err(|abort| self.abort(&abort))?;
        self.state = State::Committed(unique, kept);
        Ok(messages.iter().map(|m| self.direct(1, m.parties.receiver, m)).collect())
    }

    fn open(
        &mut self,
        unique: UniqueKeep1to2<Curve>,
        kept: BTreeMap<PartyIndex, KeepPhase1to2<Curve>>,
        input: &Input,
    ) -> Result<Vec<OutboundMessage>, MachineFault> {
        let received = self.received(input, |message: &TransmitPhase1to2| &message.parties)?;
        let (unique, kept, messages) = self
            .party()
            .sign_phase2(&self.data, unique, kept, &received)
            .map_err(|abort| self.abort(&abort))?;
        self.state = State::Opened(unique, kept);
        Ok(messages.iter().map(|m| self.direct(2, m.parties.receiver, m)).collect())
    }

    fn show(
        &mut self,
        unique: UniqueKeep2to3<Curve>,
        kept: BTreeMap<PartyIndex, KeepPhase2to3<Curve>>,
        input: &Input,
    ) -> Result<Vec<OutboundMessage>, MachineFault> {
        let received =
            self.received(input, |message: &TransmitPhase2to3<Curve>| &message.parties)?;
        let (x, own) = self
            .party()
            .sign_phase3(&self.data, unique, kept, &received)
            .map_err(|abort| self.abort(&abort))?;
        let body = encode(&own);
        self.state = State::Shown { x, own };
        Ok(vec![OutboundMessage { round: 3, to: None, body }])
    }

    fn assemble(
        &mut self,
        x: &str,
        own: Broadcast3to4<Curve>,
        input: &Input,
    ) -> Result<Stepped, MachineFault> {
        let mut parts = vec![own];
        for (position, body) in &input.broadcasts {
            parts.push(decode(*position, body)?);
        }
        let (s, recovery_id) = self
            .party()
            .sign_phase4(&self.data, x, &parts, true)
            .map_err(|abort| self.abort(&abort))?;
        let bytes: Vec<u8> = hex_bytes(x).into_iter().chain(hex_bytes(&s)).collect();
        let signature = self.verified(&bytes, recovery_id)?;
        let mut sends = Vec::new();
        if self.me == self.first_signer() {
            for position in &self.observers {
                let body = encode(&(&bytes, recovery_id));
                sends.push(OutboundMessage { round: 4, to: Some(*position), body });
            }
        }
        Ok(Stepped { sends, output: Some(Output::Signature(signature)) })
    }

    fn observe(&self, input: &Input) -> Result<Stepped, MachineFault> {
        let position = self.first_signer();
        let body = input.directs.get(&position).map_or(&[][..], |body| body.as_slice());
        let (bytes, recovery_id): (Vec<u8>, u8) = decode(position, body)?;
        let signature = self.verified(&bytes, recovery_id).map_err(|_| {
            MachineFault::violation(position, "told a signature that does not verify")
        })?;
        Ok(Stepped { sends: Vec::new(), output: Some(Output::Signature(signature)) })
    }

    fn verified(&self, bytes: &[u8], recovery_id: u8) -> Result<Signature, MachineFault> {
        let (scheme, key) = (self.share.scheme(), self.share.public_key());
        let digest = Digest(self.data.message_hash);
        let input = SignInput::Digest(digest);
        quorate_schemes::parse_signature(scheme, bytes, Some(recovery_id))
            .and_then(|made| quorate_schemes::complete_signature(scheme, key, &input, made))
            .map_err(|error| MachineFault::result_invalid(error.message))
    }
}

/// The library gives field elements as fixed-width hex.
fn hex_bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("the library's own hex"))
        .collect()
}

impl Machine for Sign {
    fn need(&self) -> Need {
        let (broadcasts, directs) = match (&self.state, self.round) {
            (State::Observing, _) => (vec![], vec![self.first_signer()]),
            (_, 0) => (vec![], vec![]),
            (_, 3) => (self.others(), vec![]),
            (State::Over, _) => (vec![], vec![]),
            _ => (vec![], self.others()),
        };
        Need { round: self.round, broadcasts, directs }
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        self.round += 1;
        let sends = match std::mem::replace(&mut self.state, State::Over) {
            State::Start => self.commit()?,
            State::Committed(unique, kept) => self.open(unique, kept, &input)?,
            State::Opened(unique, kept) => self.show(unique, kept, &input)?,
            State::Shown { x, own } => return self.assemble(&x, own, &input),
            State::Observing => return self.observe(&input),
            State::Over => Vec::new(),
        };
        Ok(Stepped { sends, output: None })
    }

    fn expects(&self, round: u16, kind: Kind, from: Position) -> bool {
        let observing = self.observers.contains(&self.me);
        match (kind, round) {
            (Kind::Broadcast, 3) => !self.observers.contains(&from),
            (Kind::Direct, 1 | 2) => !observing && !self.observers.contains(&from),
            (Kind::Direct, 4) => observing && from == self.first_signer(),
            _ => false,
        }
    }

    fn rounds(&self) -> u16 {
        4
    }

    fn telling(&self) -> u16 {
        3
    }
}
