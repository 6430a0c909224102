//! Cheats below the envelope, and what the machines make of them.

use std::sync::LazyLock;

use proptest::prelude::*;
use quorate_types::Scheme;

use super::*;
use crate::fault::FaultCode;
use crate::lockstep::{self, Ending, assert_all, drive};

fn shares() -> &'static [Arc<Share>] {
    static SHARES: LazyLock<Vec<Arc<Share>>> =
        LazyLock::new(|| lockstep::shares(Scheme::Ed25519, 3, 4));
    &SHARES
}

/// The first of four holders changes what it sends in a round.
fn refreshing(round: u16, change: impl Fn(&mut Vec<u8>)) -> Vec<Ending> {
    drive(&mut lockstep::refresh(shares()), |position, sends| {
        for send in sends.iter_mut().filter(|send| position == 0 && send.round == round) {
            change(&mut send.body);
        }
    })
}

/// It changes what it commits to.
fn committing(change: impl Fn(&mut Commitments)) -> Vec<Ending> {
    refreshing(1, |body| {
        let mut commitments: Commitments = decode(0, body).unwrap();
        change(&mut commitments);
        *body = encode(&commitments).to_vec();
    })
}

#[test]
fn every_share_is_new_and_the_key_is_not() {
    let endings = drive(&mut lockstep::refresh(shares()), |_, _| {});
    for (before, ending) in shares().iter().zip(endings) {
        let Ok(Some(Output::Key { share, .. })) = ending else { panic!("a share") };
        assert_eq!(before.public_key(), share.public_key());
        assert_eq!(before.share_index(), share.share_index());
        let secret = |share: &Share| *share.material::<Part>().unwrap().key.signing_share();
        assert!(secret(before) != secret(&share));
    }
}

#[test]
fn a_share_that_does_not_fit_its_commitment_is_its_dealers_fault() {
    let endings = refreshing(2, |share| share[0] ^= 1);
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn a_polynomial_with_another_constant_term_is_its_dealers_fault() {
    // Its commitment cannot be said; its shares are one too large.
    let endings = refreshing(2, |share| {
        let bytes: [u8; 32] = share.as_slice().try_into().unwrap();
        let dealt = Ed25519ScalarField::deserialize(&bytes).unwrap();
        *share = Ed25519ScalarField::serialize(&(dealt + Ed25519ScalarField::one())).to_vec();
    });
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn other_commitments_than_those_of_the_polynomial_are_their_senders_fault() {
    let endings = committing(|points| points.swap(0, 1));
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn a_share_that_is_no_scalar_is_its_dealers_fault() {
    for change in [
        |share: &mut Vec<u8>| share.fill(0xff),
        |share: &mut Vec<u8>| share.truncate(31),
        |share: &mut Vec<u8>| share.push(0),
    ] {
        assert_all(&refreshing(2, change), FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_polynomial_for_another_threshold_is_its_senders_fault() {
    for change in [
        |points: &mut Commitments| points.truncate(1),
        |points: &mut Commitments| points.clear(),
        |points: &mut Commitments| points.push(points[0]),
        |points: &mut Commitments| *points = [points[0]].repeat(65_536 + 2),
    ] {
        assert_all(&committing(change), FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_commitment_to_no_point_of_the_group_is_its_senders_fault() {
    // No 32 bytes of the curve, the neutral element, one of small order, one of mixed order.
    for hex in [
        "0200000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "0300000000000000000000000000000000000000000000000000000000000000",
    ] {
        let point: [u8; 32] = hex::decode(hex).unwrap().try_into().unwrap();
        for at in 0..2 {
            let endings = committing(|points| points[at] = point);
            assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
        }
    }
}

#[test]
fn a_party_that_repeats_anothers_commitment_refreshes_nothing() {
    let mut seen = None;
    let endings = drive(&mut lockstep::refresh(shares()), |position, sends| {
        for send in sends.iter_mut().filter(|send| send.round == 1) {
            match position {
                0 => seen = Some(send.body.clone()),
                1 => send.body.clone_from(seen.as_ref().unwrap()),
                _ => {}
            }
        }
    });
    for ending in &endings[2..] {
        let fault = ending.as_ref().err().unwrap();
        assert_eq!((fault.code, fault.blame), (FaultCode::ProtocolViolation, None));
        assert!(fault.message.contains("same commitment"), "{}", fault.message);
    }
}

#[test]
fn shares_that_do_not_sign_are_not_given_out() {
    for (round, code) in [(3, None), (4, Some(FaultCode::SignatureShareInvalid))] {
        let endings = refreshing(round, |body| {
            // The body of the first quorum: a commitment or the share of the signature.
            let mut bundle: Vec<(u8, Vec<u8>)> = decode(0, body).unwrap();
            bundle[0].1[0] ^= 1;
            *body = encode(&bundle).to_vec();
        });
        let mut faults = endings[1..].iter().filter_map(|ending| ending.as_ref().err());
        let fault = faults.next().expect("no share");
        assert_eq!(fault.blame, Some(0));
        assert!(code.is_none_or(|code| code == fault.code), "round {round}: {fault:?}");
    }
}

#[test]
fn a_share_of_another_scheme_is_not_refreshed() {
    let other = lockstep::shares(Scheme::EcdsaSecp256k1, 2, 2).remove(0);
    assert!(Refresh::new(other, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_value_of_a_polynomial_through_zero_is_that_of_its_terms(
        coefficients in proptest::collection::vec(1_u8.., 1..5),
        index in 1_u8..=16,
    ) {
        let point = |scalar: Scalar| Ed25519Group::generator() * scalar;
        let points: Vec<_> = coefficients.iter().map(|one| point(Scalar::from(*one))).collect();
        let (mut sum, mut power) = (Scalar::from(0_u8), Scalar::from(1_u8));
        for one in coefficients {
            power *= Scalar::from(index);
            sum += Scalar::from(one) * power;
        }
        prop_assert!(value(&points, index) == point(sum));
    }
}
