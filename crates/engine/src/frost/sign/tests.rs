//! One use of each nonce, and what the machines make of values that are none.

use proptest::prelude::*;
use quorate_types::Scheme;

use super::*;
use crate::fault::Severity;
use crate::lockstep::{self, Ending, drive};

/// Shares of a fresh 2-of-2 key.
fn shares() -> Vec<Arc<Share>> {
    let endings = drive(&mut lockstep::keygen(Scheme::Ed25519, 2, 2), |_, _| {});
    let share = |ending: Ending| match ending {
        Ok(Some(Output::Key { share, .. })) => Arc::new(share),
        _ => panic!("a key"),
    };
    endings.into_iter().map(share).collect()
}

fn signer(shares: &[Arc<Share>], me: Position, message: &[u8]) -> Sign {
    let indices = [ShareIndex(1), ShareIndex(2)];
    let input = SignInput::Message(message.to_vec().into());
    Sign::new(Arc::clone(&shares[me]), me, &indices, &input).unwrap()
}

/// What a step broadcasts.
fn broadcast(signer: &mut Sign, from: Position, body: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut input = Input::default();
    if let Some(body) = body {
        input.broadcasts.insert(from, body.to_vec().into());
    }
    let sends = signer.step(input).ok()?.sends;
    assert!(sends.len() <= 1);
    sends.into_iter().next().map(|send| send.body.to_vec())
}

#[test]
fn a_commitment_is_answered_by_one_share_whatever_is_replayed() {
    let shares = shares();
    let mut ours = signer(&shares, 0, b"pay 1");
    broadcast(&mut ours, 1, None).unwrap();
    // Two commitment lists, for one attempt of ours.
    let mut lists = [b"pay 1", b"pay 2"].map(|message| {
        let mut theirs = signer(&shares, 1, message);
        broadcast(&mut theirs, 0, None).unwrap()
    });
    lists.swap(0, 1);
    let first = broadcast(&mut ours, 1, Some(&lists[0]));
    assert!(first.is_some(), "the first list is answered");
    for list in &lists {
        assert!(broadcast(&mut ours, 1, Some(list)).is_none(), "no list is answered again");
    }
}

#[test]
fn a_step_that_fails_has_used_its_nonces_up() {
    let shares = shares();
    let mut ours = signer(&shares, 0, b"pay");
    broadcast(&mut ours, 1, None).unwrap();
    assert!(broadcast(&mut ours, 1, Some(&[1; 64])).is_none(), "no points of the group");
    let mut theirs = signer(&shares, 1, b"pay");
    let list = broadcast(&mut theirs, 0, None).unwrap();
    assert!(broadcast(&mut ours, 1, Some(&list)).is_none());
}

#[test]
fn each_attempt_makes_nonces_of_its_own() {
    let shares = shares();
    let commitment = || broadcast(&mut signer(&shares, 0, b"pay"), 1, None).unwrap();
    let (one, other) = (commitment(), commitment());
    assert_ne!(one[..32], other[..32]);
    assert_ne!(one[32..], other[32..]);
    assert_ne!(one[..32], one[32..]);
}

#[test]
fn a_commitment_that_is_no_point_of_the_group_is_its_senders_fault() {
    let shares = shares();
    for hex in [
        // No point; the neutral element, also in another encoding; small order; mixed order.
        "0200000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "0300000000000000000000000000000000000000000000000000000000000000",
    ] {
        for at in [0, 32] {
            let mut ours = signer(&shares, 0, b"pay");
            ours.step(Input::default()).unwrap();
            let mut list = broadcast(&mut signer(&shares, 1, b"pay"), 0, None).unwrap();
            list[at..at + 32].copy_from_slice(&hex::decode(hex).unwrap());
            let mut input = Input::default();
            input.broadcasts.insert(1, list.into());
            let fault = ours.step(input).err().unwrap();
            let got = (fault.code, fault.severity, fault.blame);
            assert_eq!(got, (FaultCode::ProtocolViolation, Severity::Recoverable, Some(1)));
        }
    }
}

#[test]
fn only_messages_are_signed_and_only_with_shares_of_this_scheme() {
    let shares = shares();
    let indices = [ShareIndex(1), ShareIndex(2)];
    let digest = SignInput::Digest(quorate_types::Digest([1; 32]));
    assert!(Sign::new(Arc::clone(&shares[0]), 0, &indices, &digest).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn commitments_come_back_from_their_bytes(hiding: [u8; 32], binding: [u8; 32]) {
        let body = encode(&Commitments { hiding, binding });
        prop_assert_eq!(body.len(), 64);
        let read: Commitments = decode(0, &body).unwrap();
        prop_assert_eq!((read.hiding, read.binding), (hiding, binding));
        prop_assert!(decode::<Commitments>(0, &body[1..]).is_err());
    }
}
