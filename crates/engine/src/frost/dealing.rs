//! What a keygen and a refresh have in common: commitments to all, then a share to each, behind the
//! echo of the commitments.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use frost_ed25519::Identifier;
use frost_ed25519::keys::dkg::round2;
use frost_ed25519::keys::{KeyPackage, PublicKeyPackage};
use zeroize::Zeroizing;

use super::{array, index, name, share};
use crate::machine::{Kind, MachineFault, Need, OutboundMessage, Position, encode};
use crate::task::Output;

/// How many rounds there are.
pub(super) const ROUNDS: u16 = 2;

/// What the step after this round needs.
pub(super) fn need(round: u16, others: Vec<Position>) -> Need {
    let (broadcasts, directs) = match round {
        0 => (vec![], vec![]),
        1 => (others, vec![]),
        _ => (vec![], others),
    };
    Need { round, broadcasts, directs }
}

/// Whether a round has messages of this kind.
pub(super) fn expects(round: u16, kind: Kind) -> bool {
    matches!((round, kind), (1, Kind::Broadcast) | (2, Kind::Direct))
}

/// Which broadcasts the messages of a round echo.
pub(super) fn echoed(round: u16) -> Option<RangeInclusive<u16>> {
    (round == 2).then_some(1..=1)
}

/// The message of round 2 to each of the others.
pub(super) fn shares(
    others: Vec<Position>,
    packages: &BTreeMap<Identifier, round2::Package>,
) -> Vec<OutboundMessage> {
    let send = |position| {
        let share = Zeroizing::new(packages[&name(position)].signing_share().serialize());
        let body = encode(&*Zeroizing::new(array(&share)));
        OutboundMessage { round: 2, to: Some(position), body }
    };
    others.into_iter().map(send).collect()
}

/// The share that was made; `trivial` says what it means that there is none.
pub(super) fn made(
    me: Position,
    key: KeyPackage,
    public: PublicKeyPackage,
    trivial: &str,
) -> Result<Output, MachineFault> {
    let share = share::share(index(me), Box::new(key), public);
    let share = share.ok_or_else(|| MachineFault::ours(trivial))?;
    let share = share.map_err(|error| MachineFault::ours(error.message))?;
    let public_key = share.public_key().clone();
    Ok(Output::Key { share, public_key })
}
