//! How many of how many, and who is who.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Most parties a key can have. Keygen sends a message of about 145 kB per pair of parties.
pub const MAX_PARTIES: u16 = 16;

/// `t` signers are needed out of `n` holders, 2 ≤ t ≤ n ≤ [`MAX_PARTIES`].
///
/// `t` counts signers. The JSON-RPC relay's `threshold` is one less; it converts at its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Threshold {
    t: u16,
    n: u16,
}

impl Threshold {
    /// Checks the bounds and names the field that breaks them.
    pub fn new(t: i64, n: i64) -> Result<Self, Error> {
        let max = i64::from(MAX_PARTIES);
        if !(2..=max).contains(&n) {
            return Err(Error::invalid_field(
                "threshold_n",
                format!("threshold_n is {n}; a key has 2 to {MAX_PARTIES} parties"),
            ));
        }
        if !(2..=n).contains(&t) {
            return Err(Error::invalid_field(
                "threshold_t",
                format!(
                    "threshold_t is {t}; the number of signers needed is 2 to threshold_n ({n})"
                ),
            ));
        }
        let small = |v: i64| u16::try_from(v).expect("within 2..=MAX_PARTIES");
        Ok(Self { t: small(t), n: small(n) })
    }

    /// Number of signers needed, *t*.
    pub fn signers(self) -> u16 {
        self.t
    }

    /// Holders of a share.
    pub fn parties(self) -> u16 {
        self.n
    }
}

/// Position among a session's participants, from 0, as REST and gRPC show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartyIndex(pub u16);

/// Position among a key's holders, from 1, as the threshold libraries count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShareIndex(pub u8);

impl From<PartyIndex> for ShareIndex {
    /// The holder that a keygen participant becomes.
    fn from(index: PartyIndex) -> Self {
        Self(u8::try_from(index.0 + 1).expect("at most MAX_PARTIES participants"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_accepts_exactly_two_to_n_of_two_to_sixteen() {
        for n in -1..20 {
            for t in -1..20 {
                let fits = (2..=16).contains(&n) && (2..=n).contains(&t);
                assert_eq!(Threshold::new(t, n).is_ok(), fits, "{t} of {n}");
            }
        }
    }

    #[test]
    fn share_index_starts_at_one() {
        assert_eq!(ShareIndex::from(PartyIndex(0)), ShareIndex(1));
    }
}
