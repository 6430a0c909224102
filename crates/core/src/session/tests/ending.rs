//! Deadlines, closing, what is left after the end, the history and the stored form.

use super::*;

#[test]
fn an_expiry_before_the_deadline_does_nothing() {
    repeated(&mut created(SessionKind::Keygen, 2), DEADLINE - 1, Command::Expire);
}

#[test]
fn what_never_started_expires_and_names_who_was_missing() {
    let mut session = created(SessionKind::Keygen, 3);
    at(&mut session, 1, join(0, None, true)).0.unwrap();
    at(&mut session, 1, join(1, None, false)).0.unwrap();
    let (_, effects) = at(&mut session, DEADLINE, Command::Expire);
    assert_eq!(effects.events, [EventKind::SessionExpired]);
    assert_eq!((effects.persist, effects.ended), (Durability::Now, true));
    assert_eq!(session.status(), SessionStatus::Expired);
    let failure = session.view().failure.unwrap();
    assert_eq!((failure.reason, failure.parties), (FailureReason::DeadlinePassed, names(&[1, 2])));
    assert!(history(&session).last().unwrap().starts_with("expired: "));
}

#[test]
fn what_was_running_fails_and_names_the_silent() {
    let mut session = running(SessionKind::Keygen, 3);
    at(&mut session, 2, made(1, public(1, true))).0.unwrap();
    let (_, effects) = at(&mut session, DEADLINE + 5, Command::Expire);
    assert_eq!(effects.events, [EventKind::SessionFailed]);
    assert_eq!(session.status(), SessionStatus::Failed);
    let view = session.view();
    assert!(view.outcome.is_none() && view.public_key().is_none());
    let failure = view.failure.unwrap();
    assert_eq!((failure.reason, failure.parties), (FailureReason::DeadlinePassed, names(&[0, 2])));
}

#[test]
fn a_known_signature_is_the_result_when_the_deadline_passes() {
    let mut session = running(SessionKind::Sign, 2);
    at(&mut session, 2, signed(1, signature(3))).0.unwrap();
    let (_, effects) = at(&mut session, DEADLINE, Command::Expire);
    assert_eq!(effects.events, [EventKind::SessionCompleted]);
    assert!(session.view().outcome.is_some());
    // The silent party comes late, with the same result, and is told that it is finished.
    let (reply, effects) = at(&mut session, DEADLINE + 1, signed(0, signature(3)));
    assert_eq!(reply.unwrap(), Reply::Done);
    assert!(effects.events.is_empty() && !effects.ended);
    assert_eq!(standing(&session), [ParticipantStatus::Completed; 2]);
}

#[test]
fn nothing_is_accepted_past_the_deadline_before_the_expiry_is_applied() {
    let mut session = running(SessionKind::Sign, 2);
    for command in [
        join(0, None, true),
        ready(0),
        Command::Start,
        signed(0, signature(3)),
        gave_up(0, FailureReason::PartyFailed, &[]),
        Command::Progress { party: name(0), round: 1 },
        Command::Close,
    ] {
        assert_eq!(refused(&mut session, DEADLINE, command).code, ErrorCode::SessionExpired);
    }
}

#[test]
fn a_closed_session_has_failed_even_if_a_signature_was_known() {
    let mut session = running(SessionKind::Sign, 2);
    at(&mut session, 2, signed(0, signature(3))).0.unwrap();
    let (_, effects) = at(&mut session, 3, Command::Close);
    assert_eq!(effects.events, [EventKind::SessionFailed]);
    assert_eq!((effects.persist, effects.ended), (Durability::Now, true));
    assert_eq!(session.view().failure.unwrap().reason, FailureReason::Closed);
    assert_eq!(session.view().outcome, None);
}

#[test]
fn after_the_end_closing_and_expiring_change_nothing_and_the_rest_is_gone() {
    let mut session = running(SessionKind::Sign, 2);
    at(&mut session, 2, Command::Close).0.unwrap();
    for now in [3, DEADLINE + 1] {
        repeated(&mut session, now, Command::Close);
        repeated(&mut session, now, Command::Expire);
        for command in [
            join(0, None, true),
            ready(0),
            Command::Start,
            signed(0, signature(3)),
            gave_up(0, FailureReason::PartyFailed, &[]),
            Command::Progress { party: name(0), round: 1 },
        ] {
            assert_eq!(refused(&mut session, now, command).code, ErrorCode::SessionExpired);
        }
    }
}

#[test]
fn a_false_or_other_signature_after_completion_is_refused_and_changes_nothing() {
    let mut session = running(SessionKind::Sign, 2);
    at(&mut session, 2, signed(0, signature(3))).0.unwrap();
    at(&mut session, DEADLINE, Command::Expire).0.unwrap();
    let other = refused(&mut session, DEADLINE, signed(1, signature(4)));
    assert_eq!(other.code, ErrorCode::Conflict);
    let wrong = refused(&mut session, DEADLINE, signed(1, spoiled(signature(3))));
    assert_eq!(wrong.code, ErrorCode::InvalidRequest);
}

#[test]
fn a_round_is_noted_once_per_party_and_costs_no_write() {
    let mut session = running(SessionKind::Keygen, 2);
    let round = |n, round| Command::Progress { party: name(n), round };
    for (n, number) in [(0, 1), (1, 1), (0, 1), (0, 2), (0, 1)] {
        let (reply, effects) = at(&mut session, 2, round(n, number));
        assert_eq!((reply.unwrap(), effects), (Reply::Done, Effects::default()));
    }
    let rounds: Vec<_> =
        history(&session).into_iter().filter(|what| what.starts_with("round")).collect();
    assert_eq!(rounds, ["round 1", "round 1", "round 2"]);
    assert_eq!(refused(&mut session, 2, round(7, 1)).code, ErrorCode::Forbidden);
}

#[test]
fn a_full_history_still_has_room_for_the_end() {
    let mut session = running(SessionKind::Keygen, 2);
    for round in 1..1_000 {
        at(&mut session, 2, Command::Progress { party: name(0), round }).0.unwrap();
    }
    assert_eq!(session.timeline().len(), MAX_TIMELINE - 1);
    at(&mut session, 3, Command::Close).0.unwrap();
    assert_eq!(session.timeline().len(), MAX_TIMELINE);
    assert!(history(&session).last().unwrap().starts_with("failed: closed"));
}

#[test]
fn a_sign_session_shows_its_key_and_all_its_holders() {
    let session =
        Session::create(new(SessionKind::Sign, 2, 3, &[2, 0]), &mut Effects::default()).unwrap();
    let view = session.view();
    assert_eq!(view.ceremony.key().unwrap().holders, names(&[0, 1, 2]));
    assert_eq!(view.public_key(), Some(&PublicKey(public(7, false))));
    assert_ne!(view.key_id(), Some(session.id().into()));
    let order: Vec<_> = view.participants.iter().map(|p| (p.party_index.0, &p.party_id)).collect();
    assert_eq!(order, [(0, &name(2)), (1, &name(0))]);
}

#[test]
fn a_session_read_back_from_its_stored_form_goes_on_where_it_was() {
    let mut session = running(SessionKind::Sign, 2);
    at(&mut session, 2, signed(0, signature(3))).0.unwrap();
    let stored = serde_json::to_vec(&session).unwrap();
    let mut read: Session = serde_json::from_slice(&stored).unwrap();
    assert_eq!(read.view(), session.view());
    assert_eq!(read.timeline(), session.timeline());
    let (_, effects) = at(&mut read, DEADLINE, Command::Expire);
    assert_eq!(effects.events, [EventKind::SessionCompleted], "the known signature was kept");
}
