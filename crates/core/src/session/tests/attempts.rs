//! Who takes part after some could not go on, and who does not come back.

use super::*;

/// A 2-of-`n` signature by the first two holders, with the others in reserve.
fn replaceable(n: usize, fixed: &[usize]) -> Session {
    let parties = i64::try_from(n).unwrap();
    let mut new = new(SessionKind::Sign, 2, parties, &[0, 1]);
    new.servers = names(&[0, 1]);
    let reserve = names(&(2..n).collect::<Vec<_>>());
    new.reserve = Some(Reserve { holders: reserve, fixed: names(fixed) });
    Session::create(new, &mut Effects::default()).unwrap()
}

fn ranked(session: &Session) -> Vec<(PartyId, [u8; 32])> {
    let number = |party: &PartyId| party.as_str()[1..].parse().unwrap();
    session.reserve().iter().map(|party| (party.clone(), token(number(party)))).collect()
}

/// Joins with the attempt under way.
fn enter(session: &mut Session, n: usize) -> Effects {
    let mut command = join(n, Some(b"handshake"), true);
    let under_way = session.attempt();
    if let Command::Join { attempt, .. } = &mut command {
        *attempt = under_way;
    }
    let (reply, effects) = at(session, 1, command);
    reply.unwrap();
    effects
}

fn started(n: usize, fixed: &[usize]) -> Session {
    let mut session = replaceable(n, fixed);
    enter(&mut session, 0);
    enter(&mut session, 1);
    assert_eq!(session.status(), SessionStatus::InProgress);
    session
}

/// A failure, and what follows from it.
fn fails(session: &mut Session, n: usize, reason: FailureReason, blamed: &[usize]) -> Effects {
    let mut command = gave_up(n, reason, blamed);
    let under_way = session.attempt();
    if let Command::Report { attempt, .. } = &mut command {
        *attempt = under_way;
    }
    let (reply, mut effects) = at(session, 5, command);
    reply.unwrap();
    if effects.set_back {
        let ranked = ranked(session);
        let again = Command::TryAgain { ranked };
        session.apply(Timestamp(5), again, &mut effects).unwrap();
    }
    effects
}

fn silent(session: &mut Session, parties: &[usize]) -> Effects {
    let (silent, ranked) = (names(parties), ranked(session));
    let (reply, effects) = at(session, 600, Command::Without { silent, ranked });
    reply.unwrap();
    effects
}

fn roster(session: &Session) -> Vec<PartyId> {
    session.view().participants.into_iter().map(|seat| seat.party_id).collect()
}

const CANNOT: FailureReason = FailureReason::PartyFailed;

#[test]
fn a_party_that_does_not_join_is_replaced_within_the_attempt() {
    let mut session = replaceable(3, &[]);
    enter(&mut session, 0);
    assert_eq!(session.awaited(), names(&[1]));
    let effects = silent(&mut session, &[1]);
    assert_eq!(effects.events, [EventKind::SessionCreated]);
    assert_eq!((roster(&session), session.attempt()), (names(&[0, 2]), 0));
    assert_eq!(session.replaced(), names(&[1]));
    assert_eq!(session.servers(), names(&[0, 2]));
    assert_eq!(standing(&session), [ParticipantStatus::Ready, ParticipantStatus::Waiting]);
    let late = refused(&mut session, 601, join(1, None, true));
    assert_eq!(late.code, ErrorCode::Unauthorized);
    enter(&mut session, 2);
    assert_eq!(session.status(), SessionStatus::InProgress);
}

#[test]
fn a_party_that_falls_silent_is_replaced_in_a_new_attempt() {
    let mut session = started(3, &[]);
    let round = |n, round| Command::Progress { party: name(n), round };
    at(&mut session, 2, round(0, 1)).0.unwrap();
    assert_eq!(session.awaited(), names(&[1]), "the one who is behind, and nobody else");
    let effects = silent(&mut session, &[1]);
    assert_eq!(effects.persist, Durability::Queued);
    assert_eq!((roster(&session), session.attempt()), (names(&[0, 2]), 1));
    assert_eq!(standing(&session), [ParticipantStatus::Waiting; 2], "both join anew");
    assert_eq!(refused(&mut session, 601, join(0, None, true)).code, ErrorCode::Conflict);
    enter(&mut session, 0);
    enter(&mut session, 2);
    assert_eq!(session.status(), SessionStatus::InProgress);
    let told = history(&session);
    assert!(told.contains(&"silent") && told.contains(&"attempt 2: p2 for p1"), "{told:?}");
}

#[test]
fn where_nobody_can_take_a_place_the_silent_are_waited_for() {
    let mut session = started(2, &[]);
    assert_eq!(silent(&mut session, &[1]), Effects::default());
    let mut session = started(3, &[]);
    assert_eq!(silent(&mut session, &[0, 1]), Effects::default(), "one alone does not sign");
    let mut session = started(3, &[1]);
    at(&mut session, 2, Command::Progress { party: name(0), round: 1 }).0.unwrap();
    assert_eq!(session.awaited(), []);
    at(&mut session, DEADLINE, Command::Expire).0.unwrap();
    let failure = session.view().failure.unwrap();
    assert_eq!(failure.parties, names(&[1]), "only who was silent is named");
}

#[test]
fn a_party_that_cannot_sign_is_replaced_and_does_not_come_back() {
    let mut session = started(4, &[]);
    fails(&mut session, 1, CANNOT, &[1]);
    assert_eq!(roster(&session), names(&[0, 2]));
    enter(&mut session, 0);
    enter(&mut session, 2);
    fails(&mut session, 0, FailureReason::PolicyDenied, &[]);
    assert_eq!(roster(&session), names(&[3, 2]));
    enter(&mut session, 2);
    enter(&mut session, 3);
    let effects = fails(&mut session, 3, CANNOT, &[3]);
    assert!(effects.ended);
    let failure = session.view().failure.unwrap();
    assert_eq!((failure.reason, failure.parties), (CANNOT, names(&[3])));
}

#[test]
fn a_server_that_was_restarted_comes_back_where_nobody_else_can_sign() {
    let restarted = FailureReason::PartyRestarted;
    let mut session = started(2, &[0, 1]);
    fails(&mut session, 1, restarted, &[]);
    assert_eq!((roster(&session), session.attempt()), (names(&[0, 1]), 1));
    assert_eq!(session.status(), SessionStatus::Created);
    let mut session = started(3, &[]);
    fails(&mut session, 1, restarted, &[]);
    assert_eq!(roster(&session), names(&[0, 2]), "another is there already");
    let mut session = started(2, &[0, 1]);
    session.servers = names(&[0]);
    assert!(fails(&mut session, 1, restarted, &[]).ended, "a device does not come by itself");
}

#[test]
fn who_blames_another_signs_with_others_and_so_does_the_other() {
    for reason in [CANNOT, FailureReason::PartyCheated] {
        let mut session = started(3, &[]);
        let effects = fails(&mut session, 0, reason, &[1]);
        assert_eq!(effects.bans.len(), usize::from(reason == FailureReason::PartyCheated));
        assert_eq!(roster(&session), names(&[0, 2]));
        enter(&mut session, 0);
        enter(&mut session, 2);
        fails(&mut session, 0, reason, &[2]);
        assert_eq!(roster(&session), names(&[1, 2]), "the two whom one has blamed");
        enter(&mut session, 1);
        enter(&mut session, 2);
        assert!(fails(&mut session, 2, reason, &[1]).ended, "no pair is left");
    }
}

#[test]
fn the_number_of_attempts_is_bounded() {
    let mut session = started(2, &[]);
    let mut attempts = 1;
    while !fails(&mut session, 1, FailureReason::PartyRestarted, &[]).ended {
        enter(&mut session, 0);
        enter(&mut session, 1);
        attempts += 1;
    }
    assert_eq!(attempts, 9);
    assert_eq!(session.view().failure.unwrap().reason, FailureReason::PartyRestarted);
}

#[test]
fn what_an_earlier_attempt_made_is_the_result() {
    let mut session = started(3, &[]);
    at(&mut session, 2, Command::Progress { party: name(0), round: 1 }).0.unwrap();
    silent(&mut session, &[1]);
    let late = gave_up(1, FailureReason::PartyRestarted, &[]);
    assert_eq!(repeated(&mut session, 601, late), Reply::Done, "it fails nobody any more");
    let spoilt = signed(1, spoiled(signature(3)));
    refused(&mut session, 602, spoilt);
    let (reply, effects) = at(&mut session, 603, signed(1, signature(3)));
    assert!(reply.is_ok() && effects.ended);
    assert_eq!(session.status(), SessionStatus::Completed);
}

#[test]
fn a_verified_signature_is_not_kept_waiting_for_a_silent_party() {
    let mut session = started(3, &[]);
    at(&mut session, 2, signed(0, signature(3))).0.unwrap();
    assert_eq!(session.awaited(), names(&[1]));
    assert!(silent(&mut session, &[1]).ended);
    assert_eq!(session.status(), SessionStatus::Completed);
}

#[test]
fn a_named_participant_keeps_its_place() {
    let mut session = replaceable(3, &[0]);
    enter(&mut session, 1);
    assert_eq!(session.awaited(), []);
    assert_eq!(silent(&mut session, &[0]), Effects::default());
    fails(&mut session, 1, CANNOT, &[1]);
    assert_eq!(roster(&session), names(&[0, 2]));
    enter(&mut session, 0);
    enter(&mut session, 2);
    assert!(fails(&mut session, 0, CANNOT, &[0]).ended);
}

#[test]
fn a_party_without_a_handshake_knows_of_no_attempts() {
    let mut session = replaceable(3, &[0]);
    session.servers = names(&[1]);
    at(&mut session, 1, join(0, None, true)).0.unwrap();
    assert!(fails(&mut session, 1, CANNOT, &[1]).ended);
}

#[test]
fn a_coordinator_that_forgot_an_attempt_goes_on_behind_it() {
    let mut session = started(3, &[]);
    let failure = gave_up(0, CANNOT, &[0]);
    let Command::Report { party, outcome, .. } = failure else { unreachable!() };
    let (reply, mut effects) = at(&mut session, 5, Command::Report { party, attempt: 1, outcome });
    reply.unwrap();
    let ranked = ranked(&session);
    session.apply(Timestamp(5), Command::TryAgain { ranked }, &mut effects).unwrap();
    assert_eq!(session.attempt(), 2, "its parties have begun the one before");
}

#[test]
fn a_session_that_is_tried_again_is_read_as_it_was_stored() {
    let mut session = started(3, &[]);
    fails(&mut session, 1, CANNOT, &[1]);
    let stored = serde_json::to_vec(&session).unwrap();
    let read: Session = serde_json::from_slice(&stored).unwrap();
    assert_eq!((read.view(), read.reserve()), (session.view(), session.reserve()));
    assert_eq!(read.replaced(), names(&[1]));
}
