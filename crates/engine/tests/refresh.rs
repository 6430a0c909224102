//! Refreshes through whole runs: the next epoch signs under the same key, and epochs never mix.

mod common;

use std::sync::Arc;

use common::*;
use quorate_engine::*;
use quorate_types::*;

/// Signs with each of these groups of holders.
fn sign_with(made: &Made, groups: &[&[usize]]) {
    for (seed, who) in (1_u8..).zip(groups) {
        let digest = Digest([seed; 32]);
        let (parties, mut runs) = signing(session(seed.into()), made, who, digest);
        let endings = deliver(&parties, &mut runs, seed.into(), |_, _| {});
        check(made, &digest, endings);
    }
}

#[test]
fn refreshed_shares_sign_under_the_same_public_key() {
    for scheme in SCHEMES {
        sign_with(&refresh(two_of_two(*scheme), 1), &[&[0, 1], &[1, 0]]);
        let refreshed = refresh(two_of_three(*scheme), 2);
        sign_with(&refreshed, &[&[0, 1], &[2, 0], &[1, 2], &[2, 1, 0]]);
        // The epoch before signs on for as long as nobody has confirmed the next.
        sign_with(two_of_three(*scheme), &[&[0, 2]]);
    }
}

#[test]
fn a_key_of_five_is_refreshed_and_three_of_them_sign_while_others_look_on() {
    for scheme in SCHEMES {
        let refreshed = refresh(&keygen(*scheme, 3, 5, 11), 3);
        sign_with(&refreshed, &[&[4, 1, 0], &[4, 3, 2, 1, 0]]);
    }
}

#[test]
fn a_key_is_refreshed_again_and_again() {
    for scheme in SCHEMES {
        let mut made = refresh(two_of_two(*scheme), 7);
        for seed in 8..10 {
            made = refresh(&made, seed);
        }
        assert_eq!(made.refreshes, 3);
        sign_with(&made, &[&[0, 1]]);
    }
}

#[test]
fn sixteen_holders_refresh_an_ed25519_key() {
    let refreshed = refresh(&keygen(Scheme::Ed25519, 9, 16, 12), 5);
    sign_with(&refreshed, &[&(0..16).collect::<Vec<_>>()]);
}

/// Two sign, the second with its share of another epoch; each says of the epoch what this gives.
fn mixed(before: &Made, after: &Made, epochs: [u32; 2]) -> Vec<Result<Option<Output>, Fault>> {
    let digest = Digest([8; 32]);
    let parties = before.holders[..2].to_vec();
    let shares = [&before.shares[0], &after.shares[1]];
    let mut runs = runs(session(60), &parties, |at| Task::Sign {
        share: Arc::clone(shares[at]),
        key: Arc::new(KeyEpoch { epoch: epochs[at], ..(*before.epoch()).clone() }),
        made_by: [0; 32],
        input: before.input(&digest),
    });
    let mut endings: Vec<_> = (0..2).map(|_| Ok(None)).collect();
    let mut under_way = Vec::new();
    for (at, run) in runs.iter_mut().enumerate() {
        under_way.extend(deliveries(
            &parties,
            at,
            run.advance().expect("the first step needs nothing").outgoing,
        ));
    }
    while let Some((from, to, payload)) = under_way.pop() {
        let at = usize::from(to == parties[1]);
        match runs[at].receive(&from, &payload).and_then(|()| runs[at].advance()) {
            Ok(step) => {
                under_way.extend(deliveries(&parties, at, step.outgoing));
                if step.output.is_some() {
                    endings[at] = Ok(step.output);
                }
            }
            Err(fault) => endings[at] = Err(fault),
        }
    }
    endings
}

#[test]
fn shares_of_two_epochs_sign_nothing_together() {
    for scheme in SCHEMES {
        let before = two_of_three(*scheme);
        let after = refresh(before, 6);
        for ending in mixed(before, &after, [0, 1]) {
            let fault = ending.err().expect("the first message says another epoch");
            let expected = (FaultCode::ExecutionMismatch, Severity::Benign, None);
            assert_eq!((fault.code, fault.severity, fault.blame), expected);
        }
        // Nor where both say that they are of one.
        for epoch in [0, 1] {
            let endings = mixed(before, &after, [epoch; 2]);
            assert!(endings.iter().any(Result::is_err));
            for ending in endings {
                assert!(!matches!(ending, Ok(Some(_))), "no signature");
            }
        }
    }
}

#[test]
fn a_refresh_takes_the_key_and_all_its_holders_in_their_order() {
    for scheme in SCHEMES {
        let made = two_of_three(*scheme);
        let other = two_of_two(*scheme);
        let identities: Vec<_> = (0..4).map(|_| Identity::generate()).collect();
        let attempt = |roster: &[PartyId], share: &Arc<Share>, key: Arc<KeyEpoch>| {
            let (handshakes, secrets): (Vec<_>, Vec<_>) = roster
                .iter()
                .zip(&identities)
                .map(|(party, identity)| {
                    make_handshake(identity, session(61), party, &Shown::default())
                })
                .unzip();
            let member = |(party, handshake): (&PartyId, Handshake)| Member {
                party_id: party.clone(),
                handshake,
            };
            let members = roster.iter().zip(handshakes).map(member).collect();
            let task = Task::Refresh { share: Arc::clone(share), key, made_by: [0; 32] };
            let secret = secrets.into_iter().next().unwrap();
            let run = Run::new(&identities[0], secret, (session(61), 0), &roster[0], members, task);
            run.err().map(|fault| (fault.code, fault.severity))
        };
        let [a, b, c] = [0, 1, 2].map(|at: usize| made.holders[at].clone());
        let all = [a.clone(), b.clone(), c.clone()];
        let refused = |code| Some((code, Severity::Benign));
        let share = &made.shares[0];
        assert_eq!(attempt(&all, share, made.epoch()), None);
        let bad = refused(FaultCode::BadInput);
        assert_eq!(attempt(&all[..2], share, made.epoch()), bad);
        assert_eq!(attempt(&[a.clone(), c.clone(), b.clone()], share, made.epoch()), bad);
        assert_eq!(attempt(&[a.clone(), b.clone(), name(9)], share, made.epoch()), bad);
        let four = [a, b, c, name(4)];
        assert_eq!(attempt(&four, share, made.epoch()), bad);
        let not_ours = refused(FaultCode::NotASigner);
        assert_eq!(attempt(&all, &made.shares[1], made.epoch()), not_ours);
        assert_eq!(attempt(&all, share, other.epoch()), not_ours);
        assert_eq!(attempt(&all, &other.shares[0], made.epoch()), not_ours);
    }
}
