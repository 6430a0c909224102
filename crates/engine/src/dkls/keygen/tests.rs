//! Cheats below the envelope, and what the machines make of them.

use quorate_types::Scheme;

use super::*;
use crate::fault::FaultCode;
use crate::lockstep::{self, assert_all, drive};

fn machines(t: i64, n: u16) -> Vec<Box<dyn Machine>> {
    lockstep::keygen(Scheme::EcdsaSecp256k1, t, n)
}

#[test]
fn honest_machines_make_one_key() {
    let endings = drive(&mut machines(2, 2), |_, _| {});
    let keys: Vec<_> = endings
        .into_iter()
        .map(|ending| match ending {
            Ok(Some(Output::Key { share, public_key })) => (share.share_index().0, public_key),
            _ => panic!("a key"),
        })
        .collect();
    assert_eq!((keys[0].0, keys[1].0), (1, 2));
    assert_eq!(keys[0].1, keys[1].1);
}

#[test]
fn a_proof_that_does_not_open_the_commitment_of_the_round_before_blames_its_sender() {
    let endings = drive(&mut machines(2, 2), |position, sends| {
        for send in
            sends.iter_mut().filter(|send| position == 0 && send.round == 2 && send.to.is_none())
        {
            send.body[0] ^= 1;
        }
    });
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn a_chain_code_that_does_not_open_its_commitment_blames_its_sender() {
    let endings = drive(&mut machines(2, 2), |position, sends| {
        for send in
            sends.iter_mut().filter(|send| position == 0 && send.round == 3 && send.to.is_none())
        {
            *send.body.last_mut().unwrap() ^= 1;
        }
    });
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn points_of_no_polynomial_are_found_out() {
    let endings = drive(&mut machines(2, 3), |position, sends| {
        if let Some(send) = sends.iter_mut().find(|send| position == 0 && send.round == 1) {
            let point: k256::Scalar = decode(0, &send.body).unwrap();
            send.body = encode(&(point + k256::Scalar::ONE));
        }
    });
    assert_all(&endings, FaultCode::ProtocolViolation, None);
}

#[test]
fn a_broadcast_in_another_partys_name_is_the_senders_fault() {
    let endings = drive(&mut machines(2, 2), |position, sends| {
        for send in
            sends.iter_mut().filter(|send| position == 0 && send.round == 2 && send.to.is_none())
        {
            // Behind the 32 bytes of the commitment stands the sender's index.
            assert_eq!(std::mem::replace(&mut send.body[32], 2), 1);
        }
    });
    assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
}

#[test]
fn a_key_that_does_not_sign_is_not_given_out() {
    for (round, code) in [(5, None), (7, Some(FaultCode::ResultInvalid))] {
        let endings = drive(&mut machines(2, 2), |position, sends| {
            for send in sends.iter_mut().filter(|send| position == 0 && send.round == round) {
                let at = send.body.len() - 1;
                send.body[at] ^= 1;
            }
        });
        for ending in &endings[1..] {
            let fault = ending.as_ref().err().expect("no key");
            assert!(code.is_none_or(|code| code == fault.code), "round {round}: {fault:?}");
        }
    }
}

#[test]
fn a_test_signature_that_is_left_out_is_its_partys_fault() {
    for round in [5, 7] {
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
    for round in 0..12 {
        let expected = [Kind::Broadcast, Kind::Direct].map(|kind| machine.expects(round, kind, 1));
        let broadcast = [2, 3, 4, 7].contains(&round);
        assert_eq!(expected, [broadcast, [1, 2, 3, 5, 6].contains(&round)], "{round}");
    }
}
