//! Holders of a key that sign what they send and cheat in its refresh.

use super::*;

/// The key with the next epoch.
fn next_epoch(made: &Made) -> impl Fn(PublicKey) -> KeyEpoch {
    let before = made.epoch();
    move |public_key| KeyEpoch { epoch: before.epoch + 1, public_key, ..(*before).clone() }
}

#[test]
fn a_new_epoch_is_confirmed_by_all_holders() {
    for scheme in SCHEMES {
        for liar in [None, Some(0)] {
            let made = two_of_three(*scheme);
            let (parties, runs) = refreshing(session(50), made);
            confirmed_by_all(&parties, runs, next_epoch(made), liar);
        }
    }
}

/// All but the first are told who told two stories, with both.
fn assert_equivocation(parties: &[PartyId], mut runs: Vec<Run>) {
    let endings = deliver(parties, &mut runs, 5, |_, _| {});
    for fault in endings.into_iter().skip(1).map(|ending| ending.err().unwrap()) {
        assert_fault(&fault, FaultCode::EchoMismatch, Severity::Recoverable, Some(1));
        assert_eq!(fault.evidence.len(), 2);
    }
}

#[test]
fn a_broadcaster_that_tells_two_stories_in_a_refresh_is_convicted_by_both() {
    for round in [2, 3] {
        let (parties, mut runs) = refreshing(session(51), two_of_three(ECDSA));
        two_stories(&mut runs, 0, round);
        assert_equivocation(&parties, runs);
    }
    let made = two_of_three(Scheme::Ed25519);
    // Another polynomial of round 1, as good as its own, and another nonce of round 3.
    for round in [1, 3] {
        let (parties, mut runs) = refreshing(session(51), made);
        let mut other = crate::lockstep::refresh(&made.shares).remove(0);
        let polynomial = other.step(Input::default()).unwrap().sends.remove(0).body;
        cheat(&mut runs, 0, move |sends| {
            if let Some(send) = sends.iter().find(|send| send.round == round) {
                let mut body = send.body.clone();
                let at = body.len() - 32;
                match round {
                    1 => body.clone_from(&polynomial),
                    _ => body[at..].copy_from_slice(&frost::generator()),
                }
                sends.push(OutboundMessage { round, to: None, body });
            }
        });
        assert_equivocation(&parties, runs);
    }
}

#[test]
fn holders_that_know_another_origin_or_epoch_of_the_key_find_out_by_the_first_message() {
    for scheme in SCHEMES {
        let made = two_of_two(*scheme);
        let (parties, mut ours) = refreshing(session(52), made);
        let later = KeyEpoch { epoch: 1, ..(*made.epoch()).clone() };
        let task = |key: Arc<KeyEpoch>, made_by| {
            let shares = made.shares.clone();
            move |at: usize| Task::Refresh { share: shares[at].clone(), key: key.clone(), made_by }
        };
        for mut theirs in [
            runs(session(52), &parties, task(made.epoch(), [1; 32])),
            runs(session(52), &parties, task(Arc::new(later), [0; 32])),
        ] {
            let step = theirs[1].advance().unwrap();
            for (from, _, payload) in deliveries(&parties, 1, step.outgoing) {
                let fault = ours[0].receive(&from, &payload).unwrap_err();
                assert_eq!(fault.code, FaultCode::ExecutionMismatch);
            }
        }
    }
}

#[test]
fn a_flipped_byte_in_any_round_makes_no_epoch_and_blames_nobody_else() {
    // The messages of the fourth round of DKLs23 are the echo and nothing else.
    for (scheme, rounds) in [(ECDSA, &[1, 2, 3, 5, 6, 7][..]), (Scheme::Ed25519, &[1, 2, 3, 4])] {
        for round in rounds.iter().copied() {
            let (parties, mut runs) = refreshing(session(53), two_of_two(scheme));
            cheat(&mut runs, 0, move |sends| {
                for send in sends.iter_mut().filter(|send| send.round == round) {
                    let at = send.body.len() / 2;
                    send.body[at] ^= 1;
                }
            });
            let endings = deliver(&parties, &mut runs, 5, |_, _| {});
            assert!(!matches!(endings[1], Ok(Some(_))), "round {round}");
            let faults: Vec<_> = endings.into_iter().filter_map(Result::err).collect();
            assert!(!faults.is_empty(), "round {round}");
            for fault in faults {
                let blamed = fault.blame.as_ref().is_none_or(|party| *party == name(1));
                assert!(blamed, "round {round}: {fault}");
                // What was cheated with is dropped: the epoch that signs has no part in it.
                assert_eq!(fault.severity, Severity::Recoverable, "round {round}");
            }
        }
    }
}
