//! Signing in two rounds by exactly `t` signers (RFC 9591, section 5).
//!
//! | round | to all |
//! |---|---|
//! | 1 | commitments to two nonces |
//! | 2 | the share of the signature; the echo of round 1 |
//!
//! When more than `t` holders take part, those with the lowest share indices sign; the others are
//! observers: they see both rounds and put the signature together as the signers do.
//!
//! The nonces are made in the first step and used up by the second; they are never stored, and a
//! commitment is answered once. With the same commitments before all, a share that does not
//! verify convicts its sender: the commitments and the share are signed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use frost_ed25519::round1::{NonceCommitment, SigningCommitments, SigningNonces};
use frost_ed25519::round2::SignatureShare;
use frost_ed25519::{Error, Identifier, SigningPackage, aggregate, round1, round2};
use quorate_types::{ShareIndex, SignInput};
use serde::{Deserialize, Serialize};

use super::share::Part;
use super::{SystemRandom, array, identifier};
use crate::fault::FaultCode;
use crate::machine::{
    Input, Kind, Machine, MachineFault, Need, OutboundMessage, Position, Stepped, decode, encode,
};
use crate::share::Share;
use crate::task::Output;

/// How the messages among signers travel, by round from 1.
pub(crate) const ROUNDS: &[Kind] = &[Kind::Broadcast, Kind::Broadcast];

/// The broadcast of round 1.
#[derive(Serialize, Deserialize)]
struct Commitments {
    hiding: [u8; 32],
    binding: [u8; 32],
}

enum State {
    Start,
    /// Before round 1 is taken in; without nonces for an observer.
    Committed(Option<Box<SigningNonces>>),
    /// Before round 2 is taken in; without a share of its own for an observer.
    Shown(Box<SigningPackage>, Option<SignatureShare>),
    Over,
}

/// One party's part in a signature.
pub(super) struct Sign {
    share: Arc<Share>,
    message: Bytes,
    me: Position,
    /// Signers in the order of their share indices: the position of each.
    signers: BTreeMap<ShareIndex, Position>,
    round: u16,
    state: State,
}

impl Sign {
    /// `indices` gives the share index of each position; the caller has checked that ours is right
    /// and that there are enough.
    pub(super) fn new(
        share: Arc<Share>,
        me: Position,
        indices: &[ShareIndex],
        input: &SignInput,
    ) -> Result<Self, MachineFault> {
        let message = input.message().ok_or_else(|| MachineFault::ours("there is no message"))?;
        if share.material::<Part>().is_none() {
            return Err(MachineFault::ours("the share is of another scheme"));
        }
        let mut signers: BTreeMap<_, _> =
            indices.iter().enumerate().map(|(position, index)| (*index, position)).collect();
        while signers.len() > usize::from(share.threshold().signers()) {
            signers.pop_last();
        }
        let message = message.clone();
        Ok(Self { share, message, me, signers, round: 0, state: State::Start })
    }

    fn part(&self) -> &Part {
        self.share.material().expect("checked when the machine was made")
    }

    fn signs(&self, position: Position) -> bool {
        self.signers.values().any(|signer| *signer == position)
    }

    /// The other signers.
    fn others(&self) -> Vec<Position> {
        self.signers.values().copied().filter(|position| *position != self.me).collect()
    }

    fn name(&self, position: Position) -> Identifier {
        let signer = self.signers.iter().find(|(_, signer)| **signer == position);
        identifier(*signer.expect("only signers are needed").0)
    }

    fn position(&self, name: Identifier) -> Option<Position> {
        self.signers.iter().find(|(index, _)| identifier(**index) == name).map(|(_, at)| *at)
    }

    fn commit(&mut self) -> Result<Vec<OutboundMessage>, MachineFault> {
        if !self.signs(self.me) {
            self.state = State::Committed(None);
            return Ok(Vec::new());
        }
        let (nonces, commitments) =
            round1::commit(self.part().key.signing_share(), &mut SystemRandom);
        let encode_one = |commitment: &NonceCommitment| {
            let bytes = commitment.serialize();
            bytes.map(|bytes| array(&bytes)).map_err(|error| self.fault(&error))
        };
        let message = Commitments {
            hiding: encode_one(commitments.hiding())?,
            binding: encode_one(commitments.binding())?,
        };
        self.state = State::Committed(Some(Box::new(nonces)));
        Ok(vec![OutboundMessage { round: 1, to: None, body: encode(&message) }])
    }

    fn sign(
        &mut self,
        nonces: Option<Box<SigningNonces>>,
        input: &Input,
    ) -> Result<Vec<OutboundMessage>, MachineFault> {
        let mut commitments = BTreeMap::new();
        if let Some(nonces) = &nonces {
            commitments.insert(self.name(self.me), *nonces.commitments());
        }
        for (position, body) in &input.broadcasts {
            let message: Commitments = decode(*position, body)?;
            let read = |bytes: &[u8; 32]| {
                NonceCommitment::deserialize(bytes).map_err(|_| {
                    MachineFault::violation(*position, "sent a commitment that is no nonce's")
                })
            };
            let both = SigningCommitments::new(read(&message.hiding)?, read(&message.binding)?);
            commitments.insert(self.name(*position), both);
        }
        let package = SigningPackage::new(commitments, &self.message);
        let own = match &nonces {
            Some(nonces) => {
                let own = round2::sign(&package, nonces, &self.part().key);
                Some(own.map_err(|error| self.fault(&error))?)
            }
            None => None,
        };
        self.state = State::Shown(Box::new(package), own);
        let body = own.map(|own| encode(&array(&own.serialize())));
        Ok(body.into_iter().map(|body| OutboundMessage { round: 2, to: None, body }).collect())
    }

    fn assemble(
        &mut self,
        package: &SigningPackage,
        own: Option<SignatureShare>,
        input: &Input,
    ) -> Result<Output, MachineFault> {
        let mut shares: BTreeMap<_, _> =
            own.map(|own| (self.name(self.me), own)).into_iter().collect();
        for (position, body) in &input.broadcasts {
            let share: [u8; 32] = decode(*position, body)?;
            let share = SignatureShare::deserialize(&share).map_err(|_| {
                MachineFault::violation(*position, "sent a share that is no scalar of the curve")
            })?;
            shares.insert(self.name(*position), share);
        }
        let signature = aggregate(package, &shares, &self.part().public)
            .and_then(|signature| signature.serialize())
            .map_err(|error| self.fault(&error))?;
        let (scheme, key) = (self.share.scheme(), self.share.public_key());
        let signed = SignInput::Message(self.message.clone());
        quorate_schemes::parse_signature(scheme, &signature, None)
            .and_then(|made| quorate_schemes::complete_signature(scheme, key, &signed, made))
            .map(Output::Signature)
            .map_err(|error| MachineFault::result_invalid(error.message))
    }

    /// Translates the library's error.
    fn fault(&self, error: &Error) -> MachineFault {
        let Error::InvalidSignatureShare { culprits } = error else {
            return MachineFault::result_invalid(error.to_string());
        };
        match culprits.first().and_then(|culprit| self.position(*culprit)) {
            Some(culprit) if culprit != self.me => {
                let message = "sent a share of the signature that does not verify";
                MachineFault::ban(FaultCode::SignatureShareInvalid, Some(culprit), message)
            }
            _ => MachineFault::ours("this party's own share of the signature does not verify"),
        }
    }
}

impl Machine for Sign {
    fn need(&self) -> Need {
        let broadcasts = if self.round == 0 { Vec::new() } else { self.others() };
        Need { round: self.round, broadcasts, directs: Vec::new() }
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        self.round += 1;
        let mut stepped = Stepped::default();
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start => stepped.sends = self.commit()?,
            State::Committed(nonces) => stepped.sends = self.sign(nonces, &input)?,
            State::Shown(package, own) => {
                stepped.output = Some(self.assemble(&package, own, &input)?);
            }
            State::Over => {}
        }
        Ok(stepped)
    }

    fn expects(&self, round: u16, kind: Kind, from: Position) -> bool {
        kind == Kind::Broadcast && matches!(round, 1 | 2) && self.signs(from)
    }

    fn rounds(&self) -> u16 {
        2
    }

    fn echoed(&self, round: u16) -> Option<RangeInclusive<u16>> {
        (round == 2).then_some(1..=1)
    }
}

#[cfg(test)]
mod tests;
