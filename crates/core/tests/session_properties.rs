//! Random commands on a session never break its invariants; ready and complete commute.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use proptest::prelude::*;
use quorate_core::session::{Command, Effects, NewSession, Session};
use quorate_types::*;

const KEYS: [[u8; 33]; 2] = [
    // The generator of secp256k1, and twice it.
    *b"\x02\x79\xbe\x66\x7e\xf9\xdc\xbb\xac\x55\xa0\x62\x95\xce\x87\x0b\x07\x02\x9b\xfc\xdb\x2d\xce\x28\xd9\x59\xf2\x81\x5b\x16\xf8\x17\x98",
    *b"\x02\xc6\x04\x7f\x94\x41\xed\x7d\x6d\x30\x45\x40\x6e\x95\xc0\x7c\xd8\x5c\x77\x8e\x4b\x8c\xef\x3c\xa7\xab\xac\x09\xb9\x5c\x70\x9e\xe5",
];

fn name(n: usize) -> PartyId {
    format!("p{n}").parse().unwrap()
}

fn session(parties: usize) -> Session {
    let participant = |n| {
        let device = DeviceInfo::default();
        (NewParticipant { party_id: name(n), device }, [u8::try_from(n).unwrap(); 32])
    };
    let new = NewSession {
        session_id: format!("{:032x}", 1).parse().unwrap(),
        tenant: Tenant::default(),
        kind: SessionKind::Keygen,
        scheme: Scheme::default(),
        threshold: Threshold::new(2, i64::try_from(parties).unwrap()).unwrap(),
        key: None,
        digest: None,
        participants: (0..parties).map(participant).collect(),
        now: Timestamp(0),
        expires_at: Timestamp(1_000),
    };
    Session::create(new, &mut Effects::default()).unwrap()
}

fn join(n: usize, token: usize, ready: bool) -> Command {
    Command::Join {
        party: name(n),
        token_hash: [u8::try_from(token).unwrap(); 32],
        device: DeviceInfo::default(),
        hello: None,
        ready,
    }
}

fn report(n: usize, key: usize) -> Command {
    Command::Report { party: name(n), outcome: PartyOutcome::PublicKey(KEYS[key].to_vec()) }
}

fn command() -> impl Strategy<Value = Command> {
    let party = 0_usize..6;
    prop_oneof![
        4 => (party.clone(), any::<bool>()).prop_map(|(n, ready)| join(n, n, ready)),
        1 => (party.clone(), party.clone()).prop_map(|(n, token)| join(n, token, true)),
        4 => party.clone().prop_map(|n| Command::Ready { party: name(n) }),
        1 => Just(Command::Start),
        4 => party.clone().prop_map(|n| report(n, 0)),
        1 => party.clone().prop_map(|n| report(n, 1)),
        1 => (party, 0_i32..5).prop_map(|(n, round)| Command::Progress { party: name(n), round }),
        1 => Just(Command::Expire),
    ]
}

fn stage(status: SessionStatus) -> u8 {
    match status {
        SessionStatus::Created => 0,
        SessionStatus::Waiting => 1,
        SessionStatus::InProgress => 2,
        _ => 3,
    }
}

proptest! {
    #[test]
    fn random_commands_never_break_the_invariants(
        parties in 2_usize..6,
        commands in prop::collection::vec((command(), 0_i64..40), 1..60),
    ) {
        let mut session = session(parties);
        let mut now = 0;
        for (command, pause) in commands {
            now += pause;
            let before = session.view();
            let mut effects = Effects::default();
            let reply = session.apply(Timestamp(now), command, &mut effects);
            let after = session.view();
            prop_assert!(stage(after.status) >= stage(before.status), "no way back");
            if before.status.is_final() {
                prop_assert_eq!((after.status, &after.outcome), (before.status, &before.outcome));
                prop_assert!(!effects.ended && effects.events.is_empty());
            }
            prop_assert_eq!(effects.ended, after.status.is_final() && !before.status.is_final());
            let completed = after.status == SessionStatus::Completed;
            prop_assert_eq!(after.outcome.is_some(), completed);
            prop_assert_eq!(effects.key.is_some(), completed && effects.ended);
            let failed = matches!(after.status, SessionStatus::Failed | SessionStatus::Expired);
            prop_assert_eq!(after.failure.is_some(), failed);
            if after.status == SessionStatus::InProgress {
                let started = |p: &ParticipantView| {
                    !matches!(p.status, ParticipantStatus::Waiting | ParticipantStatus::Joined)
                };
                prop_assert!(after.participants.iter().all(started));
            }
            if reply.is_err() && !effects.ended {
                prop_assert_eq!(before, after, "a refusal changes nothing");
            }
        }
    }

    #[test]
    fn any_order_of_joining_readiness_and_completion_ends_the_same(
        parties in 2_usize..6,
        seed in prop::collection::vec(any::<u32>(), 12),
    ) {
        let order = |salt: usize| {
            let mut order: Vec<usize> = (0..parties).collect();
            order.sort_by_key(|n| seed[(n + salt) % seed.len()]);
            order
        };
        let mut session = session(parties);
        let run = |session: &mut Session, command| {
            session.apply(Timestamp(1), command, &mut Effects::default()).unwrap();
        };
        for n in order(0) {
            run(&mut session, join(n, n, false));
        }
        for n in order(3) {
            run(&mut session, Command::Ready { party: name(n) });
        }
        prop_assert_eq!(session.status(), SessionStatus::InProgress);
        for n in order(7) {
            // A ready that comes late, and a report that comes twice, change nothing.
            run(&mut session, report(n, 0));
            run(&mut session, Command::Ready { party: name(n) });
            run(&mut session, report(n, 0));
        }
        prop_assert_eq!(session.status(), SessionStatus::Completed);
        prop_assert_eq!(session.view().completed_parties(), parties);
    }
}
