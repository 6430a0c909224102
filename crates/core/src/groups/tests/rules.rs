//! Groups, sessions, numbers and messages.

use GroupKind::{Keygen, Sign};

use super::*;

#[test]
fn parameters_are_checked_in_the_order_of_the_original() {
    let mut bench = Bench::strict();
    for (parties, threshold, error) in [
        (1, 0, CallError::PartiesTooSmall),
        (0, 9, CallError::PartiesTooSmall),
        (3, 0, CallError::ThresholdTooSmall),
        (3, 3, CallError::ThresholdRange),
    ] {
        assert_eq!(bench.create(1, parties, threshold), Err(error));
    }
    assert!(bench.create(1, 3, 2).is_ok());
}

#[test]
fn every_bound_refuses_one_more() {
    let limits = GroupLimits {
        groups: 5,
        groups_per_client: 2,
        parties: 4,
        sessions_per_group: 2,
        sessions: 5,
        label_bytes: 3,
        value_bytes: 4,
        tokens: 1,
        ..GroupLimits::default()
    };
    let mut bench = Bench::new(Compat::Strict, limits);
    assert_eq!(bench.create(1, 5, 1), Err(CallError::Limit("parties are in a group", 4)));
    let group = bench.create(1, 2, 1).unwrap();
    bench.create(1, 2, 1).unwrap();
    assert_eq!(bench.create(1, 2, 1), Err(CallError::Limit("groups are open to a connection", 2)));
    let third = bench.create(2, 2, 1).unwrap();
    assert_eq!(bench.refused(1, Command::GroupJoin(third)).code(), ErrorCode::RateLimited);
    let fourth = bench.create(3, 2, 1).unwrap();
    bench.create(4, 2, 1).unwrap();
    assert_eq!(bench.create(5, 2, 1), Err(CallError::Limit("groups are open at once", 5)));
    let (id, params) = (GroupId(bench.uuid()), Parameters { parties: 2, threshold: 1 });
    let long = Command::GroupCreate { id, label: "long".into(), params };
    assert_eq!(bench.refused(6, long), CallError::TooLarge("a label", 3));
    let id = SessionId(bench.uuid());
    let large = Command::SessionCreate { group, id, kind: Sign, value: "12345".into() };
    assert_eq!(bench.refused(1, large), CallError::TooLarge("a session's value", 4));
    bench.open(1, group, Sign).unwrap();
    bench.open(1, group, Sign).unwrap();
    let full = CallError::Limit("sessions are open in a group", 2);
    assert_eq!(bench.open(1, group, Sign), Err(full));
    bench.open(2, third, Sign).unwrap();
    bench.open(2, third, Sign).unwrap();
    bench.open(3, fourth, Sign).unwrap();
    let full = CallError::Limit("sessions are open at once", 5);
    assert_eq!(bench.open(3, fourth, Sign), Err(full));
    bench.ask(1, Command::Token([1; 32]));
    assert_eq!(bench.refused(2, Command::Token([2; 32])).code(), ErrorCode::RateLimited);
    // The same place again is no more than one.
    bench.ask(1, Command::Token([3; 32]));
}

#[test]
fn one_address_has_half_however_many_connections_it_has() {
    let limits =
        GroupLimits { groups: 6, sessions: 10, value_total_bytes: 6 * 4, ..GroupLimits::default() };
    let mut bench = Bench::new(Compat::Strict, limits);
    for connection in [1, 101, 201] {
        bench.create(connection, 2, 1).unwrap();
    }
    let refused = CallError::Share("groups are open at once", 6);
    assert_eq!(bench.create(301, 2, 1), Err(refused.clone()));
    assert_eq!(refused.code(), ErrorCode::RateLimited);
    let group = bench.create(2, 2, 1).unwrap();
    bench.ask(301, Command::GroupJoin(group));
    for _ in 0..3 {
        bench.open(301, group, Sign).unwrap();
    }
    let refused = CallError::Share("bytes are the values of all sessions", 6 * 4);
    assert_eq!(bench.open(301, group, Sign), Err(refused));
    for _ in 0..3 {
        bench.open(2, group, Sign).unwrap();
    }
    // What an address has made is its own until it ends, whoever uses it then.
    bench.leave(1, 0);
    bench.create(301, 2, 1).unwrap();
    bench.leave(301, 0);
    bench.leave(2, 0);
    for connection in [101, 201] {
        bench.leave(connection, 0);
    }
    assert_eq!(bench.core.counts(), Counts::default());
    let held = &bench.core.held;
    assert_eq!((held.groups.used(), held.sessions.used(), held.values.used()), (0, 0, 0));
}

#[test]
fn the_sessions_of_one_address_leave_room_for_others() {
    let mut bench =
        Bench::new(Compat::Strict, GroupLimits { sessions: 4, ..GroupLimits::default() });
    let (own, others) = (bench.create(1, 2, 1).unwrap(), bench.create(2, 2, 1).unwrap());
    bench.open(1, own, Sign).unwrap();
    bench.open(1, own, Keygen).unwrap();
    assert_eq!(bench.open(1, own, Sign), Err(CallError::Share("sessions are open at once", 4)));
    bench.open(2, others, Sign).unwrap();
    bench.open(2, others, Sign).unwrap();
    assert_eq!(bench.open(2, others, Sign), Err(CallError::Limit("sessions are open at once", 4)));
}

#[test]
fn a_session_that_is_over_makes_room() {
    let limits = GroupLimits { sessions_per_group: 2, ..GroupLimits::default() };
    let mut bench = Bench::new(Compat::Strict, limits);
    let place = bench.session(2, 1, Sign);
    for member in [1, 2] {
        bench.signup(member, place, Sign).0.unwrap();
    }
    bench.ask(1, Command::SessionFinish(place, 1));
    bench.open(1, place.group, Sign).unwrap();
    assert!(bench.open(1, place.group, Sign).is_err());
    bench.ask(2, Command::SessionFinish(place, 2));
    bench.open(1, place.group, Sign).unwrap();
    assert_eq!(
        bench.refused(1, Command::SessionJoin(place, Sign)),
        CallError::NoSession(place.session, Compat::Strict)
    );
    assert_eq!(bench.core.counts().sessions, 2);
}

#[test]
fn strangers_see_nothing_of_a_group() {
    for mut bench in [Bench::strict(), Bench::original()] {
        let place = bench.session(2, 1, Keygen);
        let error = CallError::NotMember(9, place.group);
        for command in [
            Command::SessionJoin(place, Keygen),
            Command::SessionSignup(place, Keygen),
            Command::SessionLoad(place, Keygen, 1),
            Command::SessionFinish(place, 1),
            Command::SessionParticipant { place, index: 1, number: 1 },
            say(place, Keygen, 1, 1, None),
        ] {
            assert_eq!(bench.refused(9, command), error);
        }
        assert!(bench.refused(9, Command::GroupJoin(place.group)).closes());
        let nowhere = GroupId(Uuid::nil());
        assert_eq!(bench.refused(9, Command::GroupJoin(nowhere)), CallError::NoGroup(nowhere));
    }
}

#[test]
fn only_a_keygen_is_announced_and_not_to_its_maker() {
    let mut bench = Bench::strict();
    let place = bench.session(3, 1, Sign);
    for (kind, told) in [(Sign, vec![]), (Keygen, vec![1, 3])] {
        let (group, id) = (place.group, SessionId(bench.uuid()));
        let create = Command::SessionCreate { group, id, kind, value: "null".into() };
        assert_eq!(whom(&bench.call(2, create).1), told);
    }
}

#[test]
fn the_quorum_is_all_parties_of_a_keygen_and_one_more_than_the_threshold_of_a_signature() {
    for (kind, needed) in [(Keygen, 4), (Sign, 3)] {
        let mut bench = Bench::strict();
        let place = bench.session(4, 2, kind);
        for member in 1..=needed {
            let (reply, told) = bench.signup(member, place, kind);
            assert_eq!(reply, Ok(Reply::Number(u16::try_from(member).unwrap())));
            let all = if member == needed { (1..=needed).collect() } else { vec![] };
            assert_eq!(whom(&told), all);
        }
        let (reply, told) = bench.signup(1, place, kind);
        assert_eq!((reply, told), (Ok(Reply::Number(1)), vec![]));
    }
}

#[test]
fn the_kind_of_the_call_sets_the_quorum_of_the_original() {
    let mut bench = Bench::original();
    let place = bench.session(3, 1, Keygen);
    bench.signup(1, place, Sign).0.unwrap();
    let told = bench.signup(2, place, Sign).1;
    assert_eq!(told, [1, 2].map(|to| (to, Event::SessionSignup(place.session))));
}

#[test]
fn loaded_numbers_are_in_range_free_and_one_each() {
    for mut bench in [Bench::strict(), Bench::original()] {
        let strict = bench.core.rules.compat == Compat::Strict;
        let place = bench.session(3, 1, Keygen);
        let load = |number| Command::SessionLoad(place, Keygen, number);
        assert_eq!(bench.refused(1, load(0)), CallError::ZeroNumber);
        assert_eq!(bench.refused(1, load(4)), CallError::NumberRange);
        bench.ask(1, load(3));
        assert_eq!(bench.refused(2, load(3)), CallError::NumberTaken(place.session));
        assert_eq!(bench.call(1, load(3)).0.is_ok(), strict);
        assert_eq!(bench.call(1, load(2)).0.is_err(), strict);
    }
}

#[test]
fn the_next_number_follows_the_last_one_and_skips_those_taken() {
    let mut bench = Bench::strict();
    let place = bench.session(4, 1, Keygen);
    for (member, number) in [(1, 2), (2, 1)] {
        bench.ask(member, Command::SessionLoad(place, Keygen, number));
    }
    assert_eq!(bench.signup(3, place, Keygen).0, Ok(Reply::Number(3)));
    let (reply, told) = bench.signup(4, place, Keygen);
    assert_eq!((reply, whom(&told)), (Ok(Reply::Number(4)), vec![1, 2, 3, 4]));
}

#[test]
fn a_signer_speaks_under_its_key_index_first_and_then_under_its_own_index() {
    let mut bench = Bench::strict();
    let place = bench.session(3, 1, Sign);
    bench.ask(1, Command::SessionLoad(place, Sign, 3));
    bench.ask(2, Command::SessionLoad(place, Sign, 1));
    assert_eq!(whom(&bench.call(1, say(place, Sign, 0, 77, None)).1), [2]);
    assert_eq!(bench.refused(1, say(place, Sign, 1, 2, Some(1))), CallError::BadParty(2));
    bench.ask(1, Command::SessionParticipant { place, index: 2, number: 3 });
    assert_eq!(bench.refused(1, say(place, Sign, 1, 2, Some(1))), CallError::NoReceiver(1));
    bench.ask(2, Command::SessionParticipant { place, index: 1, number: 1 });
    assert_eq!(whom(&bench.call(1, say(place, Sign, 1, 2, Some(1))).1), [2]);
    assert_eq!(whom(&bench.call(2, say(place, Sign, 1, 1, Some(2))).1), [1]);
    assert_eq!(bench.refused(2, say(place, Sign, 1, 2, None)), CallError::BadParty(2));
    // An index stays with its party.
    let steal = Command::SessionParticipant { place, index: 2, number: 1 };
    assert_eq!(bench.refused(2, steal), CallError::BadParty(2));
}

#[test]
fn the_end_is_told_once_to_all_when_all_are_done() {
    let mut bench = Bench::strict();
    let place = bench.session(2, 1, Keygen);
    for member in [1, 2] {
        bench.signup(member, place, Keygen).0.unwrap();
    }
    let finish = |number| Command::SessionFinish(place, number);
    assert_eq!(bench.refused(1, finish(2)), CallError::BadParty(2));
    assert_eq!(bench.refused(1, finish(7)), CallError::NoParty(7));
    assert!(bench.call(2, finish(2)).1.is_empty());
    let told = bench.call(1, finish(1)).1;
    assert_eq!(told, [1, 2].map(|to| (to, Event::SessionClosed([1, 2].into()))));
    assert!(bench.call(1, finish(1)).1.is_empty());
}

#[test]
fn notifications_reach_whom_they_concern() {
    for (mut bench, strict) in [(Bench::strict(), true), (Bench::original(), false)] {
        let place = bench.session(4, 1, Sign);
        bench.signup(1, place, Sign).0.unwrap();
        bench.signup(2, place, Sign).0.unwrap();
        let frame = bytes::Bytes::from_static(b"p");
        let proposal = Command::NotifyProposal(place, frame.clone());
        assert_eq!(whom(&bench.call(1, proposal.clone()).1), [2, 3, 4]);
        assert_eq!(bench.call(9, proposal).0.is_err(), strict);
        let signed = Command::NotifySigned(place, frame.clone());
        assert_eq!(whom(&bench.call(1, signed.clone()).1), [3, 4]);
        let told = whom(&bench.call(3, signed).1);
        assert_eq!(told, if strict { vec![4] } else { vec![3, 4] }, "an echo is the original's");
        let session = SessionId(Uuid::nil());
        let unknown = Command::NotifySigned(Place { session, ..place }, frame);
        assert_eq!(
            bench.refused(1, unknown),
            CallError::NoSession(session, bench.core.rules.compat)
        );
    }
}
