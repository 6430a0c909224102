//! Cheats below the envelope, and what the machines make of them.

use std::sync::LazyLock;

use k256::Scalar;
use quorate_types::Scheme;

use super::*;
use crate::fault::FaultCode;
use crate::lockstep::{self, Ending, assert_all, drive};

fn shares(n: u16) -> &'static [Arc<Share>] {
    static SHARES: LazyLock<[Vec<Arc<Share>>; 2]> =
        LazyLock::new(|| [2, 3].map(|n| lockstep::shares(Scheme::EcdsaSecp256k1, 2, n)));
    &SHARES[usize::from(n) - 2]
}

/// Refreshes a 2-of-n key; the first changes what it sends in a round, to all or to each.
fn refreshing(n: u16, round: u16, kind: Kind, change: impl Fn(&mut Vec<u8>)) -> Vec<Ending> {
    drive(&mut lockstep::refresh(shares(n)), |position, sends| {
        let changed = |send: &&mut OutboundMessage| {
            position == 0 && send.round == round && send.to.is_some() == (kind == Kind::Direct)
        };
        sends.iter_mut().filter(changed).for_each(|send| change(&mut send.body));
    })
}

fn secret(share: &Share) -> Scalar {
    share.material::<Part>().unwrap().0.poly_point
}

#[test]
fn every_share_and_every_pair_is_new_and_the_key_is_not() {
    let endings = drive(&mut lockstep::refresh(shares(3)), |_, _| {});
    let after = endings.into_iter().map(|ending| match ending {
        Ok(Some(Output::Key { share, .. })) => share,
        _ => panic!("a share"),
    });
    for (before, after) in shares(3).iter().zip(after) {
        assert_eq!(before.public_key(), after.public_key());
        assert_eq!(before.share_index(), after.share_index());
        assert_ne!(secret(before), secret(&after));
        let part = |share: &Share| {
            let Part(party) = share.material().unwrap();
            let receivers = party.mul_receivers.values();
            let seeds: Vec<_> = receivers.map(|one| one.ote_receiver.seeds0.clone()).collect();
            let senders = party.mul_senders.values();
            let secrets: Vec<_> = senders.map(|one| one.ote_sender.correlation.clone()).collect();
            (seeds, secrets, party.session_id.clone())
        };
        let (before, after) = (part(before), part(&after));
        for pair in 0..2 {
            assert_ne!(before.0[pair], after.0[pair]);
            assert_ne!(before.1[pair], after.1[pair]);
        }
        assert_ne!(before.2, after.2);
    }
}

/// A party whose polynomial has another constant term than zero.
struct Shifted(Refresh);

impl Machine for Shifted {
    fn need(&self) -> Need {
        self.0.need()
    }

    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault> {
        let mut stepped = self.0.step(input)?;
        for send in stepped.sends.iter_mut().filter(|send| send.round == 1) {
            let point: Scalar = decode(0, &send.body)?;
            send.body = encode(&(point + Scalar::ONE));
        }
        if let Some(point) = self.0.own_point.as_mut() {
            *point += Scalar::ONE;
        }
        Ok(stepped)
    }

    fn expects(&self, round: u16, kind: Kind, from: Position) -> bool {
        self.0.expects(round, kind, from)
    }

    fn rounds(&self) -> u16 {
        self.0.rounds()
    }
}

#[test]
fn a_wrong_constant_term_changes_no_key_and_blames_nobody() {
    for n in [2, 3] {
        let mut machines = lockstep::refresh(shares(n));
        machines[0] = Box::new(Shifted(Refresh::new(shares(n)[0].clone(), 0, [5; 32]).unwrap()));
        let endings = drive(&mut machines, |_, _| {});
        assert_all(&endings, FaultCode::ProtocolViolation, None);
        for ending in &endings {
            let message = &ending.as_ref().err().unwrap().message;
            assert!(message.contains("would change the key"), "{message}");
        }
    }
}

#[test]
fn points_of_no_polynomial_are_found_out_and_blame_nobody() {
    let mut done = false;
    let endings = drive(&mut lockstep::refresh(shares(3)), |position, sends| {
        if let Some(send) = sends.iter_mut().find(|send| position == 0 && send.round == 1) {
            let point: Scalar = decode(0, &send.body).unwrap();
            send.body = encode(&(point + Scalar::ONE));
            done = true;
        }
    });
    assert!(done);
    assert_all(&endings, FaultCode::ProtocolViolation, None);
}

#[test]
fn what_does_not_open_its_commitment_or_fails_its_check_blames_its_sender_without_a_ban() {
    let flip = |at: fn(usize) -> usize| {
        move |body: &mut Vec<u8>| {
            let at = at(body.len());
            body[at] ^= 1;
        }
    };
    let first = flip(|_| 0);
    let last = flip(|length| length - 1);
    // Behind the two indices of a direct message.
    let third = flip(|_| 2);
    for endings in [
        refreshing(2, 2, Kind::Broadcast, first),
        refreshing(2, 2, Kind::Direct, last),
        refreshing(2, 3, Kind::Direct, third),
        refreshing(2, 3, Kind::Direct, last),
    ] {
        assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_direct_message_between_others_is_its_senders_fault() {
    for round in [2, 3] {
        let endings = refreshing(3, round, Kind::Direct, |body| body[1] = 1);
        assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_message_that_cannot_be_decoded_is_its_senders_fault() {
    for (round, kind) in [
        (1, Kind::Direct),
        (2, Kind::Broadcast),
        (2, Kind::Direct),
        (3, Kind::Broadcast),
        (3, Kind::Direct),
        (4, Kind::Broadcast),
    ] {
        let endings = refreshing(2, round, kind, |body| body.push(0));
        assert_all(&endings, FaultCode::ProtocolViolation, Some(0));
    }
}

#[test]
fn a_party_that_repeats_anothers_commitment_refreshes_nothing() {
    let mut seen = None;
    let endings = drive(&mut lockstep::refresh(shares(3)), |position, sends| {
        for send in sends.iter_mut().filter(|send| send.round == 2 && send.to.is_none()) {
            match position {
                0 => seen = Some(send.body.clone()),
                1 => send.body.clone_from(seen.as_ref().unwrap()),
                _ => {}
            }
        }
    });
    let fault = endings[2].as_ref().err().unwrap();
    assert_eq!((fault.code, fault.blame), (FaultCode::ProtocolViolation, None));
    assert!(fault.message.contains("same commitment"), "{}", fault.message);
}

#[test]
fn shares_that_do_not_sign_are_not_given_out() {
    for (round, code) in [(5, None), (7, Some(FaultCode::ResultInvalid))] {
        let kind = if round == 7 { Kind::Broadcast } else { Kind::Direct };
        let endings = refreshing(2, round, kind, |body| {
            let at = body.len() - 1;
            body[at] ^= 1;
        });
        let fault = endings[1].as_ref().err().expect("no share");
        assert!(code.is_none_or(|code| code == fault.code), "round {round}: {fault:?}");
    }
}

#[test]
fn a_share_of_another_scheme_is_not_refreshed() {
    let other = lockstep::shares(Scheme::Ed25519, 2, 2).remove(0);
    assert!(Refresh::new(other, 0, [5; 32]).is_err());
}
