//! Cheats below the envelope, and what the machines make of them.

use frost_ed25519::rand_core;
use proptest::prelude::*;
use quorate_types::Scheme;

use super::*;
use crate::fault::FaultCode;
use crate::lockstep::{self, Ending, assert_all, drive};

/// Points that nobody may commit to: no 32 bytes of the curve, the neutral element, one of small
/// order, the neutral element in another encoding, and one of mixed order (the point with y = 3).
const NO_POINTS: [&str; 5] = [
    "0200000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0300000000000000000000000000000000000000000000000000000000000000",
];

fn machines(t: i64, n: u16) -> Vec<Box<dyn Machine>> {
    lockstep::keygen(Scheme::Ed25519, t, n)
}

/// The first of the parties changes what it commits to, for all alike.
fn committing(n: u16, change: impl Fn(&mut Commitments)) -> Vec<Ending> {
    drive(&mut machines(2, n), |position, sends| {
        for send in sends.iter_mut().filter(|send| position == 0 && send.round == 1) {
            let mut message = decode(0, &send.body).unwrap();
            change(&mut message);
            send.body = encode(&message);
        }
    })
}

/// The first of the parties changes the shares that it deals.
fn dealing(change: impl Fn(&mut Vec<u8>)) -> Vec<Ending> {
    drive(&mut machines(2, 3), |position, sends| {
        for send in sends.iter_mut().filter(|send| position == 0 && send.round == 2) {
            change(&mut send.body);
        }
    })
}

#[test]
fn honest_machines_make_one_key() {
    for (t, n) in [(2, 2), (2, 3), (3, 5)] {
        let endings = drive(&mut machines(t, n), |_, _| {});
        let keys = endings.into_iter().map(|ending| match ending {
            Ok(Some(Output::Key { share, public_key })) => (share.share_index().0, public_key),
            _ => panic!("a key"),
        });
        let (indices, keys): (Vec<_>, Vec<_>) = keys.unzip();
        assert!(indices.into_iter().eq(1..=u8::try_from(n).unwrap()));
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn a_commitment_to_no_point_of_the_group_is_its_senders_fault() {
    for hex in NO_POINTS {
        let point: [u8; 32] = hex::decode(hex).unwrap().try_into().unwrap();
        for at in 0..2 {
            let endings = committing(3, |message| message.coefficients[at] = point);
            assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
        }
        let endings = committing(3, |message| message.proof[0] = point);
        assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_polynomial_for_another_threshold_is_its_senders_fault() {
    for change in [
        |message: &mut Commitments| message.coefficients.truncate(1),
        |message: &mut Commitments| message.coefficients.clear(),
        |message: &mut Commitments| message.coefficients.push(message.coefficients[0]),
        |message: &mut Commitments| {
            message.coefficients = [message.coefficients[0]].repeat(65_536 + 2);
        },
    ] {
        assert_all(&committing(3, change), FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_proof_of_another_secret_is_its_senders_fault() {
    let endings = committing(3, |message| message.proof[1][0] ^= 1);
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
    let endings = committing(3, |message| message.coefficients.swap(0, 1));
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
    let endings = committing(3, |message| message.proof[1] = [0xff; 32]);
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn a_party_that_repeats_anothers_commitment_cannot_prove_it() {
    // The last party is stepped last: it has seen what the others sent.
    let mut seen = None;
    let endings = drive(&mut machines(2, 3), |position, sends| {
        for send in sends.iter_mut().filter(|send| send.round == 1) {
            match position {
                0 => seen = Some(send.body.clone()),
                2 => send.body.clone_from(seen.as_ref().unwrap()),
                _ => {}
            }
        }
    });
    for ending in &endings[..2] {
        let fault = ending.as_ref().err().unwrap();
        assert_eq!((fault.code, fault.blame), (FaultCode::ProtocolViolation, Some(2)));
    }
}

/// "Random" bytes that two parties have agreed on.
#[derive(Clone)]
struct Agreed(u8);

impl rand_core::RngCore for Agreed {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(1);
            *byte = self.0;
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl rand_core::CryptoRng for Agreed {}

#[test]
fn two_parties_with_one_polynomial_make_no_key_and_nobody_else_is_blamed() {
    let endings = drive(&mut machines(2, 3), |position, sends| {
        for send in sends.iter_mut().filter(|send| position < 2 && send.round == 1) {
            let (_, package) = part1(name(position), 3, 2, Agreed(7)).unwrap();
            send.body = encode(&commitments(&package).unwrap());
        }
    });
    let fault = endings[2].as_ref().err().unwrap();
    assert_eq!((fault.code, fault.blame), (FaultCode::ProtocolViolation, None));
    assert!(fault.message.contains("same commitment"), "{}", fault.message);
}

#[test]
fn a_share_that_does_not_fit_its_commitment_is_its_dealers_fault() {
    let endings = dealing(|share| share[0] ^= 1);
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn a_share_that_is_no_scalar_is_its_dealers_fault() {
    for change in [
        |share: &mut Vec<u8>| share.fill(0xff),
        |share: &mut Vec<u8>| share.truncate(31),
        |share: &mut Vec<u8>| share.push(0),
    ] {
        assert_all(&dealing(change), FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_key_that_does_not_sign_is_not_given_out() {
    for (round, code) in [(3, None), (4, Some(FaultCode::SignatureShareInvalid))] {
        let endings = drive(&mut machines(2, 2), |position, sends| {
            for send in sends.iter_mut().filter(|send| position == 0 && send.round == round) {
                // The body of the one quorum: a commitment or the share of the signature.
                let mut bundle: Vec<(u8, Vec<u8>)> = decode(0, &send.body).unwrap();
                bundle[0].1[0] ^= 1;
                send.body = encode(&bundle);
            }
        });
        let fault = endings[1].as_ref().err().expect("no key");
        assert_eq!(fault.blame, Some(0));
        assert!(code.is_none_or(|code| code == fault.code), "round {round}: {fault:?}");
    }
}

#[test]
fn a_test_signature_that_is_left_out_is_its_partys_fault() {
    for round in [3, 4] {
        let endings = drive(&mut machines(2, 2), |position, sends| {
            for send in sends.iter_mut().filter(|send| position == 0 && send.round == round) {
                send.body = encode(&Vec::<(u8, Vec<u8>)>::new());
            }
        });
        assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn only_the_rounds_of_the_protocol_are_expected() {
    let machine = machines(2, 2).remove(0);
    assert_eq!(machine.rounds(), 4);
    for round in 0..8 {
        let expected = [Kind::Broadcast, Kind::Direct].map(|kind| machine.expects(round, kind, 1));
        assert_eq!(expected, [[1, 3, 4].contains(&round), round == 2], "{round}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn commitments_come_back_from_their_bytes(
        coefficients in proptest::collection::vec(any::<[u8; 32]>(), 0..20),
        proof: [[u8; 32]; 2],
    ) {
        let body = encode(&Commitments { coefficients: coefficients.clone(), proof });
        let read: Commitments = decode(0, &body).unwrap();
        prop_assert_eq!((read.coefficients, read.proof), (coefficients, proof));
        prop_assert!(decode::<Commitments>(0, &body[1..]).is_err());
    }

    #[test]
    fn junk_is_no_package(junk: Vec<u8>) {
        if let Ok(read) = decode::<Commitments>(0, &junk) {
            let _ = package(&read);
        }
    }
}
