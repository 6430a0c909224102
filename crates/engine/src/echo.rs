//! The echo of broadcasts: that all parties were sent the same ones.
//!
//! A protocol says by which round broadcasts must be known to agree. The body of each message of
//! that round then begins, for every such broadcast of another party than its sender, in the order
//! of rounds and senders:
//!
//! ```text
//! SHA-256 of the body as it was seen (32) | the signature of its envelope (64)
//! ```
//!
//! A hash that differs from ours convicts somebody without a further round: with a signature that
//! holds, the party that signed two broadcasts for one place; otherwise the one that sent the echo.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use quorate_schemes::IdentityVerifier;

use crate::envelope::{self, Address, SIGNATURE};
use crate::fault::FaultCode;
use crate::machine::{MachineFault, Position};

/// A hash of a body and the signature over it.
const ENTRY: usize = 32 + SIGNATURE;

/// The broadcasts of the rounds that are echoed, as this party has seen or sent them.
#[derive(Default)]
pub(crate) struct Broadcasts(BTreeMap<(u16, Position), Bytes>);

impl Broadcasts {
    /// Keeps an envelope whose signature holds.
    pub(crate) fn keep(&mut self, round: u16, from: Position, envelope: Bytes) {
        self.0.insert((round, from), envelope);
    }

    /// The envelope of this place, if it is kept.
    pub(crate) fn get(&self, round: u16, from: Position) -> Option<&Bytes> {
        self.0.get(&(round, from))
    }

    /// The envelopes of these rounds.
    pub(crate) fn of(&self, rounds: RangeInclusive<u16>) -> impl Iterator<Item = &Bytes> {
        self.0.range((*rounds.start(), 0)..=(*rounds.end(), Position::MAX)).map(|(_, kept)| kept)
    }

    fn echoed_by(
        &self,
        rounds: RangeInclusive<u16>,
        echoing: Position,
    ) -> impl Iterator<Item = (u16, Position, &Bytes)> {
        let kept = self.0.range((*rounds.start(), 0)..=(*rounds.end(), Position::MAX));
        kept.filter(move |((_, from), _)| *from != echoing)
            .map(|((round, from), envelope)| (*round, *from, envelope))
    }

    /// What `me` says of these rounds.
    pub(crate) fn echo(&self, rounds: RangeInclusive<u16>, me: Position) -> Vec<u8> {
        let mut echo = Vec::new();
        for (_, _, envelope) in self.echoed_by(rounds, me) {
            echo.extend_from_slice(&hash(envelope));
            echo.extend_from_slice(envelope::signature(envelope));
        }
        echo
    }

    /// Compares what `echoing` says of these rounds at the front of a body, and gives the length of
    /// that front.
    ///
    /// # Errors
    /// Names whose signed broadcasts differ, or who echoed what nobody signed.
    pub(crate) fn compare<'a>(
        &self,
        rounds: RangeInclusive<u16>,
        echoing: Position,
        body: &[u8],
        execution: [u8; 32],
        verifier: impl Fn(Position) -> &'a IdentityVerifier,
    ) -> Result<usize, MachineFault> {
        let mut rest = body;
        for (round, from, envelope) in self.echoed_by(rounds, echoing) {
            let Some((entry, behind)) = rest.split_first_chunk::<ENTRY>() else {
                return Err(MachineFault::violation(
                    echoing,
                    "sent a message without the echo of the broadcasts before it",
                ));
            };
            rest = behind;
            let (seen, signature) = entry.split_first_chunk().expect("an entry is longer");
            if *seen == hash(envelope) {
                continue;
            }
            let small = u8::try_from(from).expect("at most MAX_PARTIES");
            let header = Address { execution, from: small, to: None, round }.header();
            let signature = signature.try_into().expect("the rest of an entry");
            if !envelope::signed_by(verifier(from), &header, seen, signature) {
                return Err(MachineFault::violation(
                    echoing,
                    "echoed a broadcast that its sender has not signed",
                ));
            }
            let other = [&header[..], entry].concat();
            return Err(MachineFault {
                code: FaultCode::EchoMismatch,
                evidence: vec![envelope.clone(), other.into()],
                ..MachineFault::violation(from, "signed different broadcasts for different parties")
            });
        }
        Ok(body.len() - rest.len())
    }
}

fn hash(envelope: &[u8]) -> [u8; 32] {
    Sha256::digest(envelope::body(envelope)).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    const EXECUTION: [u8; 32] = [7; 32];

    fn identities() -> Vec<Identity> {
        let secret = |n| quorate_types::Secret::new([n; 32]);
        (1..=3).map(|n| Identity::from_secret(&secret(n))).collect()
    }

    fn broadcast(identity: &Identity, from: u8, round: u16, body: &[u8]) -> Bytes {
        let address = Address { execution: EXECUTION, from, to: None, round };
        envelope::wrap(identity, &address, body, None).unwrap()
    }

    /// What each of three parties said in rounds 2 and 3, and 9, where nobody echoes.
    fn broadcasts(identities: &[Identity]) -> Broadcasts {
        let mut kept = Broadcasts::default();
        for (from, identity) in (0..).zip(identities) {
            for round in [2, 3, 9] {
                let envelope = broadcast(identity, from, round, &[from, 1]);
                kept.keep(round, from.into(), envelope);
            }
        }
        kept
    }

    fn compare(
        kept: &Broadcasts,
        identities: &[Identity],
        echoing: Position,
        body: &[u8],
    ) -> Result<usize, MachineFault> {
        let verifiers: Vec<_> = identities
            .iter()
            .map(|identity| IdentityVerifier::new(&identity.public()).unwrap())
            .collect();
        kept.compare(2..=3, echoing, body, EXECUTION, |position| &verifiers[position])
    }

    #[test]
    fn the_same_broadcasts_agree_whatever_stands_behind_the_echo() {
        let identities = identities();
        let kept = broadcasts(&identities);
        let mut body = kept.echo(2..=3, 1);
        assert_eq!(body.len(), 4 * ENTRY, "two rounds of two others");
        body.extend(b"behind");
        assert_eq!(compare(&kept, &identities, 1, &body).unwrap(), 4 * ENTRY);
        let fault = compare(&kept, &identities, 1, &body[..4 * ENTRY - 1]).unwrap_err();
        assert_eq!((fault.code, fault.blame), (FaultCode::ProtocolViolation, Some(1)));
    }

    #[test]
    fn a_second_signed_broadcast_convicts_its_sender_by_two_signatures() {
        let identities = identities();
        let (ours, mut theirs) = (broadcasts(&identities), broadcasts(&identities));
        theirs.keep(3, 0, broadcast(&identities[0], 0, 3, b"another story"));
        let fault = compare(&ours, &identities, 1, &theirs.echo(2..=3, 1)).unwrap_err();
        assert_eq!((fault.code, fault.blame), (FaultCode::EchoMismatch, Some(0)));
        let [held, echoed] = fault.evidence.as_slice() else { panic!("two signatures") };
        assert_eq!(held, ours.get(3, 0).unwrap());
        // Header, hash and signature: what a third party needs to check it.
        let verifier = IdentityVerifier::new(&identities[0].public()).unwrap();
        let (header, rest) = echoed.split_first_chunk().unwrap();
        let (hash, signature) = rest.split_first_chunk().unwrap();
        let signature = signature.try_into().unwrap();
        assert!(envelope::signed_by(&verifier, header, hash, signature));
        assert_eq!(header[..], held[..envelope::HEADER]);
        assert_ne!(hash[..], super::hash(held)[..]);
    }

    #[test]
    fn an_echo_of_what_nobody_signed_is_the_fault_of_who_sent_it() {
        let identities = identities();
        let kept = broadcasts(&identities);
        let honest = kept.echo(2..=3, 1);
        for entry in 0..4 {
            let mut body = honest.clone();
            body[entry * ENTRY] ^= 1;
            let fault = compare(&kept, &identities, 1, &body).unwrap_err();
            assert_eq!((fault.code, fault.blame), (FaultCode::ProtocolViolation, Some(1)));
            assert!(fault.evidence.is_empty());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn junk_convicts_nobody_but_who_sent_it(junk: Vec<u8>) {
            let identities = identities();
            let fault = compare(&broadcasts(&identities), &identities, 2, &junk).unwrap_err();
            prop_assert_eq!(fault.blame, Some(2));
        }
    }
}
