//! Random commands on a session never break its invariants; ready and complete commute.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use k256::ecdsa::signature::hazmat::PrehashSigner as _;
use k256::ecdsa::{Signature as Ecdsa, SigningKey};
use std::sync::Arc;

use proptest::prelude::*;
use quorate_core::session::{Command, Durability, Effects, NewSession, Reply, Session};
use quorate_types::*;

const DIGEST: Digest = Digest([9; 32]);
const DEADLINE: i64 = 1_000;

fn name(n: usize) -> PartyId {
    format!("p{n}").parse().unwrap()
}

fn public(seed: u8) -> Vec<u8> {
    let secret = SigningKey::from_slice(&[seed; 32]).unwrap();
    secret.verifying_key().to_sec1_point(false).as_bytes().to_vec()
}

/// A party's result: right, or wrong in the way of the session's kind.
fn result(kind: SessionKind, right: bool) -> PartyOutcome {
    let key = |seed| PartyOutcome::Key { public_key: public(seed), attestation: None, epoch: None };
    match kind {
        SessionKind::Keygen => return key(if right { 1 } else { 2 }),
        // The key that there is.
        SessionKind::Refresh => return key(if right { 7 } else { 2 }),
        SessionKind::Sign => {}
    }
    let secret = SigningKey::from_slice(&[7; 32]).unwrap();
    let signature: Ecdsa = secret.sign_prehash(&DIGEST.0).unwrap();
    let mut bytes = signature.normalize_s().to_bytes().to_vec();
    bytes[40] ^= u8::from(!right);
    PartyOutcome::Signature { bytes, recovery_id: None }
}

fn session(kind: SessionKind, parties: usize) -> Session {
    let participant = |n| {
        let device = DeviceInfo::default();
        (
            NewParticipant { party_id: name(n), device, on_behalf_of: None },
            [u8::try_from(n).unwrap(); 32],
        )
    };
    let threshold = Threshold::new(2, i64::try_from(parties).unwrap()).unwrap();
    let other: SessionId = format!("{:032x}", 2).parse().unwrap();
    let key = Arc::new(KeyEpoch {
        key_id: other.into(),
        epoch: 0,
        scheme: Scheme::default(),
        threshold,
        public_key: PublicKey(public(7)),
        holders: (0..parties).map(name).collect(),
    });
    let new = NewSession {
        session_id: format!("{:032x}", 1).parse().unwrap(),
        tenant: Tenant::default(),
        ceremony: match kind {
            SessionKind::Keygen => Ceremony::Keygen { scheme: Scheme::default(), threshold },
            SessionKind::Sign => Ceremony::Sign { key, input: SignInput::Digest(DIGEST) },
            SessionKind::Refresh => Ceremony::Refresh { key },
        },
        participants: (0..parties).map(participant).collect(),
        servers: Vec::new(),
        reserve: None,
        authorization: None,
        now: Timestamp(0),
        expires_at: Timestamp(DEADLINE),
        label: None,
    };
    Session::create(new, &mut Effects::default()).unwrap()
}

fn join(n: usize, token: usize, handshake: Option<u8>, ready: bool) -> Command {
    Command::Join {
        party: name(n),
        token_hash: [u8::try_from(token).unwrap(); 32],
        device: DeviceInfo::default(),
        handshake: handshake.map(|byte| vec![byte].into()),
        ready,
        attempt: 0,
    }
}

fn report(n: usize, outcome: PartyOutcome) -> Command {
    Command::Report { party: name(n), attempt: 0, outcome }
}

fn gave_up(n: usize) -> Command {
    let failure = Failure {
        reason: FailureReason::PartyFailed,
        message: "no power".into(),
        parties: vec![name(n)],
    };
    report(n, PartyOutcome::Failure(failure))
}

fn kind() -> impl Strategy<Value = SessionKind> {
    prop::sample::select(SessionKind::ALL)
}

fn command(kind: SessionKind) -> impl Strategy<Value = Command> {
    let party = 0_usize..6;
    let handshake = prop::option::of(0_u8..2);
    prop_oneof![
        12 => (party.clone(), handshake, any::<bool>())
            .prop_map(|(n, handshake, ready)| join(n, n, handshake, ready)),
        2 => (party.clone(), party.clone()).prop_map(|(n, token)| join(n, token, None, true)),
        12 => party.clone().prop_map(|n| Command::Ready { party: name(n) }),
        3 => Just(Command::Start),
        12 => party.clone().prop_map(move |n| report(n, result(kind, true))),
        2 => party.clone().prop_map(move |n| report(n, result(kind, false))),
        1 => party.clone().prop_map(gave_up),
        3 => (party, 0_i32..5).prop_map(|(n, round)| Command::Progress { party: name(n), round }),
        1 => Just(Command::Close),
        2 => Just(Command::Expire),
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

/// What holds of every session at every time.
fn check_state(view: &SessionView) -> Result<(), TestCaseError> {
    let completed = view.status == SessionStatus::Completed;
    prop_assert_eq!(view.outcome.is_some(), completed, "a result if and only if completed");
    let failed = matches!(view.status, SessionStatus::Failed | SessionStatus::Expired);
    prop_assert_eq!(view.failure.is_some(), failed, "a reason if and only if failed");
    let standing: Vec<_> = view.participants.iter().map(|p| p.status).collect();
    let began = |p: &ParticipantStatus| {
        !matches!(p, ParticipantStatus::Waiting | ParticipantStatus::Joined)
    };
    match view.status {
        SessionStatus::Created => {
            prop_assert!(standing.iter().all(|p| *p == ParticipantStatus::Waiting));
        }
        SessionStatus::Waiting => {
            prop_assert!(!standing.iter().all(began), "it would have started");
            prop_assert!(standing.iter().any(|p| *p != ParticipantStatus::Waiting));
        }
        SessionStatus::InProgress => {
            prop_assert!(standing.iter().all(began), "all have joined and are ready");
            prop_assert!(standing.contains(&ParticipantStatus::Computing), "it would have ended");
        }
        SessionStatus::Completed if view.ceremony.kind().makes_shares() => {
            prop_assert!(standing.iter().all(|p| *p == ParticipantStatus::Completed));
        }
        SessionStatus::Completed => {
            prop_assert!(standing.contains(&ParticipantStatus::Completed));
        }
        _ => {}
    }
    Ok(())
}

/// What holds of every command.
fn check_step(
    before: &SessionView,
    after: &SessionView,
    effects: &Effects,
) -> Result<(), TestCaseError> {
    prop_assert!(stage(after.status) >= stage(before.status), "no way back");
    if before.status.is_final() {
        prop_assert_eq!(after.status, before.status);
        prop_assert_eq!(&after.outcome, &before.outcome);
        prop_assert_eq!(&after.failure, &before.failure);
        prop_assert!(effects.events.is_empty() && effects.key.is_none());
    }
    let ends = after.status.is_final() && !before.status.is_final();
    prop_assert_eq!(effects.ended, ends);
    prop_assert_eq!(effects.persist == Durability::Now, ends);
    let makes = ends && after.status == SessionStatus::Completed;
    prop_assert_eq!(effects.key.is_some(), makes && after.ceremony.kind().makes_shares());
    if let (Some((made, _)), Some(before)) = (&effects.key, after.ceremony.key()) {
        let next = KeyEpoch { epoch: before.epoch + 1, ..(**before).clone() };
        prop_assert_eq!(&*made.key, &next, "only the epoch is another");
    }
    for (was, is) in before.participants.iter().zip(&after.participants) {
        if matches!(was.status, ParticipantStatus::Completed | ParticipantStatus::Failed) {
            prop_assert_eq!(was.status, is.status, "what a party reported first stands");
        }
        let lost = was.status == ParticipantStatus::Ready && is.status == ParticipantStatus::Joined;
        prop_assert!(
            !lost || was.handshake != is.handshake,
            "ready is lost to a new handshake only"
        );
    }
    let starts = after.status == SessionStatus::InProgress && before.status != after.status;
    prop_assert!(!starts || effects.persist == Durability::Queued, "a start is written");
    Ok(())
}

proptest! {
    #[test]
    fn random_commands_never_break_the_invariants(
        (kind, commands) in kind().prop_flat_map(|kind| {
            (Just(kind), prop::collection::vec((command(kind), 0_i64..40), 1..60))
        }),
        parties in 2_usize..6,
    ) {
        let mut session = session(kind, parties);
        let mut now = 0;
        for (command, pause) in commands {
            now += pause;
            let before = session.view();
            let mut effects = Effects::default();
            let reply = session.apply(Timestamp(now), command, &mut effects);
            let after = session.view();
            check_state(&after)?;
            check_step(&before, &after, &effects)?;
            if reply.is_err() && !effects.ended {
                prop_assert_eq!(before, after, "a refusal changes nothing");
                prop_assert_eq!(effects, Effects::default());
            }
        }
    }

    /// Every party joins, says ready and reports, twice each, and tries again what comes too
    /// early: as clients do that lose answers and race each other.
    #[test]
    fn any_order_of_joining_readiness_and_completion_ends_the_same(
        kind in kind(),
        parties in 2_usize..6,
        seed in any::<[u32; 40]>(),
    ) {
        let mut commands = Vec::new();
        for _ in 0..2 {
            for n in 0..parties {
                commands.push(join(n, n, Some(1), false));
                commands.push(Command::Ready { party: name(n) });
                commands.push(report(n, result(kind, true)));
            }
        }
        let mut order: Vec<_> = (0..commands.len()).collect();
        order.sort_by_key(|at| seed[*at % seed.len()].rotate_left(u32::try_from(*at).unwrap()));
        let mut session = session(kind, parties);
        let mut started = 0;
        let mut ended = 0;
        for _ in 0..4 {
            order.retain(|at| {
                let mut effects = Effects::default();
                let reply = session.apply(Timestamp(1), commands[*at].clone(), &mut effects);
                started += effects.events.iter().filter(|e| **e == EventKind::SessionStarted).count();
                ended += usize::from(effects.ended);
                reply.is_err()
            });
        }
        let view = session.view();
        prop_assert_eq!((started, ended), (1, 1), "each told exactly once");
        prop_assert_eq!(view.status, SessionStatus::Completed);
        prop_assert_eq!(view.completed_parties(), parties);
        let expected = match result(kind, true) {
            PartyOutcome::Key { public_key, .. } => public_key,
            PartyOutcome::Signature { bytes, .. } => bytes,
            PartyOutcome::Failure(_) => unreachable!("a right result"),
        };
        let bytes = match view.outcome.unwrap() {
            Outcome::PublicKey(key) => key.0,
            Outcome::Signature(signature) => signature.bytes().to_vec(),
        };
        prop_assert_eq!(bytes, expected);
        // What is left was sent before its time, and joins after the end.
        let late = |at: &usize| matches!(commands[*at], Command::Join { .. });
        prop_assert!(order.iter().all(late));
    }

    /// Readiness that races results: whatever is said late, the count never falls.
    #[test]
    fn a_ready_that_comes_late_counts_all(
        kind in kind(),
        order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let parties = 4;
        let mut session = session(kind, parties);
        for n in 0..parties {
            session.apply(Timestamp(1), join(n, n, None, true), &mut Effects::default()).unwrap();
        }
        for step in order {
            let n = step % parties;
            if step < parties {
                let command = report(n, result(kind, true));
                session.apply(Timestamp(2), command, &mut Effects::default()).unwrap();
            } else {
                let command = Command::Ready { party: name(n) };
                let reply = session.apply(Timestamp(2), command, &mut Effects::default()).unwrap();
                prop_assert_eq!(reply, Reply::Ready(ReadyCount { ready: 4, total: 4 }));
            }
        }
        prop_assert_eq!(session.status(), SessionStatus::Completed);
    }
}
