//! FROST (RFC 9591) for Ed25519, by the library `frost-ed25519`.
//!
//! The library expects reliable broadcasts and does not bind a signature to its session: the run's
//! echo and envelopes do. It refuses the neutral element, points outside the prime-order group and
//! encodings that are not canonical wherever it reads one.

mod dealing;
mod keygen;
mod refresh;
mod share;
mod sign;

use std::sync::Arc;

use frost_ed25519::rand_core::{self, CryptoRng, RngCore};
use frost_ed25519::{Error, Identifier};
use quorate_types::{ShareIndex, SignInput, Threshold};
pub(crate) use share::read as read_share;
pub(crate) use sign::ROUNDS as SIGN_ROUNDS;

use crate::machine::{Machine, MachineFault, Position};
use crate::share::Share;

/// Starts a keygen.
pub(crate) fn keygen(me: Position, threshold: Threshold, _: [u8; 32]) -> Box<dyn Machine> {
    Box::new(keygen::Keygen::new(me, threshold))
}

/// Starts a refresh.
pub(crate) fn refresh(
    share: Arc<Share>,
    me: Position,
    _: [u8; 32],
) -> Result<Box<dyn Machine>, MachineFault> {
    Ok(Box::new(refresh::Refresh::new(share, me)?))
}

/// Starts a signature.
pub(crate) fn sign(
    share: Arc<Share>,
    me: Position,
    indices: &[ShareIndex],
    input: &SignInput,
    _: [u8; 32],
) -> Result<Box<dyn Machine>, MachineFault> {
    Ok(Box::new(sign::Sign::new(share, me, indices, input)?))
}

/// The library's name of a holder.
fn identifier(share: ShareIndex) -> Identifier {
    Identifier::try_from(u16::from(share.0)).expect("share indices start at 1")
}

/// Where all holders take part in their order, a party's index is its position plus one.
fn index(position: Position) -> ShareIndex {
    ShareIndex(u8::try_from(position + 1).expect("at most MAX_PARTIES"))
}

/// The library's name of the party in this place, where all holders take part.
fn name(position: Position) -> Identifier {
    identifier(index(position))
}

/// Translates the library's error, which names who is to blame for the two that somebody is.
fn fault(error: &Error) -> MachineFault {
    let culprit = error.culprits().first().copied();
    let positions = 0..usize::from(quorate_types::threshold::MAX_PARTIES);
    let position = positions.into_iter().find(|position| Some(name(*position)) == culprit);
    let problem = match error {
        Error::InvalidProofOfKnowledge { .. } => "does not know what it committed to",
        Error::InvalidSecretShare { .. } => "dealt a share that does not fit its commitment",
        _ => "broke the protocol",
    };
    match position {
        Some(position) => MachineFault::violation(position, problem),
        None => MachineFault::ours(error.to_string()),
    }
}

/// The 32 bytes of a point or scalar that the library has encoded.
fn array(encoded: &[u8]) -> [u8; 32] {
    encoded.try_into().expect("points and scalars of Ed25519 are 32 bytes")
}

/// The system's randomness, as the library asks for it.
struct SystemRandom;

impl RngCore for SystemRandom {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system gives randomness");
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for SystemRandom {}
