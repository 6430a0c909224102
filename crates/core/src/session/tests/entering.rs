//! Creating, joining, saying ready and starting.

use super::*;

fn create(new: NewSession) -> Result<Session> {
    Session::create(new, &mut Effects::default())
}

fn refusal(new: NewSession) -> (ErrorCode, Error) {
    let error = create(new).unwrap_err();
    (error.code, error)
}

#[test]
fn a_created_session_is_announced_and_must_be_on_disk() {
    let mut effects = Effects::default();
    let session =
        Session::create(new(SessionKind::Keygen, 2, 3, &[0, 1, 2]), &mut effects).unwrap();
    assert_eq!(effects.persist, Durability::Now);
    assert_eq!(effects.events, [EventKind::SessionCreated]);
    assert_eq!(session.status(), SessionStatus::Created);
    assert_eq!(history(&session), ["created"]);
}

#[test]
fn a_participant_named_twice_is_refused_by_name() {
    let (code, error) = refusal(new(SessionKind::Keygen, 2, 3, &[0, 1, 0]));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(error.details.fields["participants"].contains("p0"));
}

#[test]
fn a_keygen_takes_exactly_the_parties_of_its_key() {
    let (too_few, _) = refusal(new(SessionKind::Keygen, 2, 3, &[0, 1]));
    assert_eq!(too_few, ErrorCode::ThresholdNotMet);
    let (too_many, error) = refusal(new(SessionKind::Keygen, 2, 3, &[0, 1, 2, 3]));
    assert_eq!(too_many, ErrorCode::InvalidRequest);
    assert!(error.details.fields.contains_key("participants"));
}

#[test]
fn a_signature_takes_from_t_to_n_holders() {
    for signers in [&[0, 1][..], &[2, 0, 1], &[0, 1, 2]] {
        create(new(SessionKind::Sign, 2, 3, signers)).unwrap();
    }
    let (too_few, _) = refusal(new(SessionKind::Sign, 2, 3, &[0]));
    assert_eq!(too_few, ErrorCode::ThresholdNotMet);
}

#[test]
fn every_stranger_to_a_key_is_named() {
    let (code, error) = refusal(new(SessionKind::Sign, 2, 3, &[0, 5, 1, 4]));
    assert_eq!(code, ErrorCode::InvalidRequest);
    let problem = &error.details.fields["participants"];
    assert!(problem.contains("p4, p5") && !problem.contains("p0"), "{problem}");
}

#[test]
fn an_ecdsa_key_signs_no_message() {
    let mut wrong = new(SessionKind::Sign, 2, 2, &[0, 1]);
    let Ceremony::Sign { input, .. } = &mut wrong.ceremony else { panic!("a signature") };
    *input = SignInput::Message(b"pay".as_slice().into());
    let (code, error) = refusal(wrong);
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(error.details.fields.contains_key("message_hash"));
}

#[test]
fn a_deadline_that_is_not_ahead_is_refused() {
    for expires_at in [-1, 0] {
        let expires_at = Timestamp(expires_at);
        let late = NewSession { expires_at, ..new(SessionKind::Keygen, 2, 2, &[0, 1]) };
        assert_eq!(refusal(late).0, ErrorCode::InvalidRequest);
    }
}

#[test]
fn the_first_join_makes_the_session_wait_and_is_kept_in_memory() {
    let mut session = created(SessionKind::Keygen, 2);
    let (reply, effects) = at(&mut session, 1, join(1, Some(b"hello"), false));
    assert_eq!(reply.unwrap(), Reply::Joined { party_index: PartyIndex(1) });
    assert_eq!(effects.persist, Durability::None);
    assert_eq!(effects.events, [EventKind::PartyJoined]);
    assert_eq!(session.status(), SessionStatus::Waiting);
    assert_eq!(standing(&session), [ParticipantStatus::Waiting, ParticipantStatus::Joined]);
    assert_eq!(session.view().participants[1].handshake.as_deref(), Some(&b"hello"[..]));
}

#[test]
fn a_token_opens_the_seat_it_was_made_for_and_no_other() {
    let mut session = created(SessionKind::Keygen, 2);
    let with = |party: usize, token_hash| Command::Join {
        party: name(party),
        token_hash,
        device: DeviceInfo::default(),
        handshake: None,
        ready: true,
        attempt: 0,
    };
    for command in [with(0, token(1)), with(0, [0; 32]), with(7, token(0))] {
        assert_eq!(refused(&mut session, 1, command.clone()).code, ErrorCode::Unauthorized);
        let late = refused(&mut session, DEADLINE, command);
        assert_eq!(late.code, ErrorCode::Unauthorized, "it does not even learn of the deadline");
    }
}

#[test]
fn the_same_join_again_gives_the_same_place_and_changes_nothing() {
    let mut session = created(SessionKind::Keygen, 2);
    at(&mut session, 1, join(0, Some(b"one"), true)).0.unwrap();
    let place = Reply::Joined { party_index: PartyIndex(0) };
    assert_eq!(repeated(&mut session, 2, join(0, Some(b"one"), true)), place);
    assert_eq!(repeated(&mut session, 3, join(0, None, false)), place);
    assert_eq!(standing(&session)[0], ParticipantStatus::Ready);
}

#[test]
fn another_handshake_replaces_the_first_and_takes_readiness_back() {
    let mut session = created(SessionKind::Keygen, 2);
    at(&mut session, 1, join(0, Some(b"one"), true)).0.unwrap();
    at(&mut session, 2, join(0, Some(b"two"), false)).0.unwrap();
    assert_eq!(standing(&session)[0], ParticipantStatus::Joined);
    assert_eq!(session.view().participants[0].handshake.as_deref(), Some(&b"two"[..]));
    at(&mut session, 3, join(0, Some(b"three"), true)).0.unwrap();
    assert_eq!(standing(&session)[0], ParticipantStatus::Ready);
}

#[test]
fn another_handshake_to_a_running_session_is_told_to_report_a_failure() {
    let mut session = running(SessionKind::Keygen, 2);
    let error = refused(&mut session, 2, join(0, Some(b"new"), true));
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("runs already") && error.message.contains("report a failure"));
    repeated(&mut session, 2, join(0, None, true));
}

#[test]
fn joining_what_has_ended_says_how_it_ended() {
    let mut expired = created(SessionKind::Keygen, 2);
    at(&mut expired, DEADLINE, Command::Expire).0.unwrap();
    let mut failed = created(SessionKind::Keygen, 2);
    at(&mut failed, 1, Command::Close).0.unwrap();
    let mut completed = running(SessionKind::Keygen, 2);
    for n in 0..2 {
        at(&mut completed, 2, made(n, public(1, true))).0.unwrap();
    }
    for (session, how) in [
        (&mut expired, "has expired"),
        (&mut failed, "has failed"),
        (&mut completed, "has completed"),
    ] {
        let error = refused(session, DEADLINE, join(0, None, true));
        assert_eq!(error.code, ErrorCode::SessionExpired);
        assert!(error.message.contains(how), "{}", error.message);
        assert!(!error.message.ends_with(' '));
    }
}

#[test]
fn what_is_out_of_proportion_is_refused_by_field() {
    let mut session = created(SessionKind::Keygen, 2);
    static LARGE: [u8; MAX_HANDSHAKE + 1] = [0; MAX_HANDSHAKE + 1];
    let error = refused(&mut session, 1, join(0, Some(&LARGE), true));
    assert!(error.details.fields.contains_key("hello"));
    at(&mut session, 1, join(0, Some(&LARGE[1..]), false)).0.unwrap();
    let device = DeviceInfo { platform: "x".repeat(257), ..DeviceInfo::default() };
    let wordy = Command::Join {
        party: name(1),
        token_hash: token(1),
        device: device.clone(),
        handshake: None,
        ready: false,
        attempt: 0,
    };
    assert!(refused(&mut session, 1, wordy).details.fields.contains_key("platform"));
    let mut wordy = new(SessionKind::Keygen, 2, 2, &[0, 1]);
    wordy.participants[1].0.device = device;
    assert!(refusal(wordy).1.details.fields.contains_key("platform"));
}

#[test]
fn ready_needs_a_join_and_a_seat() {
    let mut session = created(SessionKind::Keygen, 2);
    let error = refused(&mut session, 1, ready(0));
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.message.contains("join"));
    assert_eq!(refused(&mut session, 1, ready(7)).code, ErrorCode::Forbidden);
}

#[test]
fn the_last_ready_starts_the_session_once() {
    let mut session = created(SessionKind::Keygen, 2);
    at(&mut session, 1, join(0, None, true)).0.unwrap();
    at(&mut session, 2, join(1, None, false)).0.unwrap();
    assert_eq!(
        repeated(&mut session, 3, ready(0)),
        Reply::Ready(ReadyCount { ready: 1, total: 2 })
    );
    let (reply, effects) = at(&mut session, 4, ready(1));
    let all = Reply::Ready(ReadyCount { ready: 2, total: 2 });
    assert_eq!(reply.unwrap(), all);
    assert_eq!(effects.events, [EventKind::PartyReady, EventKind::SessionStarted]);
    assert_eq!(effects.persist, Durability::Queued);
    assert!(!effects.ended);
    assert_eq!(standing(&session), [ParticipantStatus::Computing; 2]);
    assert_eq!(repeated(&mut session, 5, ready(1)), all);
    let steps = ["created", "joined", "ready", "joined", "ready", "started"];
    assert_eq!(history(&session), steps);
}

#[test]
fn ready_stays_counted_when_the_party_has_completed() {
    let mut session = running(SessionKind::Keygen, 2);
    let all = Reply::Ready(ReadyCount { ready: 2, total: 2 });
    at(&mut session, 2, made(0, public(1, true))).0.unwrap();
    assert_eq!(repeated(&mut session, 3, ready(0)), all);
    at(&mut session, 4, made(1, public(1, true))).0.unwrap();
    assert_eq!(session.status(), SessionStatus::Completed);
    assert_eq!(repeated(&mut session, 5, ready(1)), all);
}

#[test]
fn joining_ready_tells_all_of_it_in_order() {
    let mut session = created(SessionKind::Keygen, 2);
    at(&mut session, 1, join(0, None, true)).0.unwrap();
    let (_, effects) = at(&mut session, 2, join(1, None, true));
    let order = [EventKind::PartyJoined, EventKind::PartyReady, EventKind::SessionStarted];
    assert_eq!(effects.events, order);
}

#[test]
fn start_waits_for_all_and_repeats_once_it_runs() {
    let mut session = created(SessionKind::Keygen, 3);
    at(&mut session, 1, join(1, None, true)).0.unwrap();
    at(&mut session, 1, join(2, None, false)).0.unwrap();
    let error = refused(&mut session, 2, Command::Start);
    assert_eq!(error.code, ErrorCode::ThresholdNotMet);
    assert_eq!(error.details.waiting_for, names(&[0, 2]));
    assert_eq!(repeated(&mut running(SessionKind::Keygen, 2), 2, Command::Start), Reply::Done);
}

#[test]
fn a_keygen_of_server_parties_starts_when_it_is_admitted() {
    let with = NewSession { servers: names(&[1]), ..new(SessionKind::Keygen, 2, 2, &[0, 1]) };
    let mut session = Session::create(with, &mut Effects::default()).unwrap();
    at(&mut session, 1, join(0, None, true)).0.unwrap();
    let (_, effects) = at(&mut session, 2, Command::Admit);
    assert_eq!(effects, Effects::default(), "not all are ready");
    let (reply, effects) = at(&mut session, 3, join(1, None, true));
    assert_eq!(reply.unwrap(), Reply::Joined { party_index: PartyIndex(1) });
    assert!(effects.ready);
    assert_eq!(session.status(), SessionStatus::Waiting);
    assert_eq!(repeated(&mut session, 4, Command::Start), Reply::Done);
    let (_, effects) = at(&mut session, 5, Command::Admit);
    assert_eq!(effects.events, [EventKind::SessionStarted]);
    assert_eq!(effects.persist, Durability::Queued);
    assert_eq!(session.status(), SessionStatus::InProgress);
}

#[test]
fn a_keygen_that_is_never_admitted_says_what_it_waited_for() {
    let with = NewSession { servers: names(&[0, 1]), ..new(SessionKind::Keygen, 2, 2, &[0, 1]) };
    let mut session = Session::create(with, &mut Effects::default()).unwrap();
    for n in 0..2 {
        at(&mut session, 1, join(n, None, true)).0.unwrap();
    }
    at(&mut session, DEADLINE, Command::Expire).0.unwrap();
    assert_eq!(session.status(), SessionStatus::Expired);
    let message = session.view().failure.unwrap().message;
    assert!(message.contains("a free place at the server parties"), "{message}");
}
