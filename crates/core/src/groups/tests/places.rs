//! Leaving, coming back, and what ends by itself.

use GroupKind::{Keygen, Sign};

use super::*;

const TOKEN: TokenHash = [7; 32];

/// Two members of a started keygen, of whom the second has a token.
fn started(bench: &mut Bench) -> Place {
    let place = bench.session(2, 1, Keygen);
    bench.ask(2, Command::Token(TOKEN));
    for member in [1, 2] {
        bench.signup(member, place, Keygen).0.unwrap();
    }
    place
}

fn resume(seen: Option<u64>) -> Command {
    Command::Resume { token: TOKEN, seen }
}

/// What a connection missed, by number.
fn resumed(bench: &mut Bench, connection: u64, seen: Option<u64>) -> Vec<u64> {
    let mut effects = Effects::default();
    let reply = bench.core.apply(bench.now, peer(connection), resume(seen), &mut effects);
    assert_eq!(reply, Ok(Reply::Resumed(effects.missed.len() as u64)));
    effects.missed.iter().map(|(number, _)| *number).collect()
}

#[test]
fn without_a_token_a_place_is_free_at_once_and_an_empty_group_is_gone() {
    for mut bench in [Bench::strict(), Bench::original()] {
        let place = bench.session(2, 1, Keygen);
        bench.leave(2, 0);
        bench.ask(3, Command::GroupJoin(place.group));
        bench.leave(1, 0);
        bench.leave(3, 0);
        assert_eq!(bench.core.counts(), Counts::default());
        assert_eq!(bench.core.next_expiry(), None, "nothing is left to look after");
        let gone = bench.refused(4, Command::GroupJoin(place.group));
        assert_eq!(gone, CallError::NoGroup(place.group));
        assert!(bench.changes.is_empty(), "nobody could have resumed");
    }
}

#[test]
fn events_are_counted_from_the_token_on_and_missed_ones_come_back() {
    let mut bench = Bench::strict();
    let place = started(&mut bench);
    let words = say(place, Keygen, 1, 1, None);
    bench.ask(1, words.clone());
    bench.leave(2, 2);
    for _ in 0..3 {
        assert!(bench.call(1, words.clone()).1.is_empty(), "nobody is there");
    }
    assert_eq!(resumed(&mut bench, 3, None), [3, 4, 5]);
    assert_eq!(bench.call(1, words).1.len(), 1);
    assert_eq!(resumed(&mut bench, 4, Some(4)), [5, 6]);
}

#[test]
fn what_has_arrived_is_forgotten_and_what_was_lost_is_not_passed_over() {
    let limits = GroupLimits { missed_events: 3, ..GroupLimits::default() };
    let mut bench = Bench::new(Compat::Strict, limits);
    let place = started(&mut bench);
    bench.core.arrived(2, 1);
    assert_eq!(bench.refused(3, resume(Some(0))), CallError::MissedTooMuch(1));
    assert_eq!(bench.refused(3, resume(Some(2))), CallError::SeenTooMany(1));
    for _ in 0..4 {
        bench.ask(1, say(place, Keygen, 1, 1, None));
    }
    assert_eq!(bench.refused(3, resume(Some(1))), CallError::MissedTooMuch(5));
    assert_eq!(resumed(&mut bench, 3, Some(2)), [3, 4, 5]);
}

#[test]
fn the_bytes_of_missed_events_are_bounded() {
    let one = Event::Frame("m".into()).bytes();
    // Of the bytes of all one address has half.
    for (missed_bytes, missed_total_bytes) in [(2 * one, usize::MAX), (usize::MAX, 4 * one)] {
        let limits = GroupLimits { missed_bytes, missed_total_bytes, ..GroupLimits::default() };
        bounded(Bench::new(Compat::Strict, limits));
    }
}

fn bounded(mut bench: Bench) {
    let place = started(&mut bench);
    bench.leave(2, 1);
    for _ in 0..2 {
        bench.ask(1, say(place, Keygen, 1, 1, None));
    }
    assert_eq!(resumed(&mut bench, 3, None), [2, 3]);
    bench.leave(3, 1);
    bench.ask(1, say(place, Keygen, 1, 1, None));
    bench.ask(1, say(place, Keygen, 1, 1, None));
    bench.ask(1, say(place, Keygen, 1, 1, None));
    assert_eq!(bench.refused(4, resume(None)), CallError::MissedTooMuch(6));
    // It may go on without them.
    assert!(resumed(&mut bench, 4, Some(6)).is_empty());
}

#[test]
fn a_place_is_held_for_the_grace_time() {
    let mut bench = Bench::strict();
    let place = started(&mut bench);
    bench.leave(2, 0);
    bench.pass(59_999);
    assert_eq!(
        bench.refused(3, Command::GroupJoin(place.group)),
        CallError::GroupFull(place.group)
    );
    resumed(&mut bench, 4, None);
    bench.pass(60_000);
    bench.leave(4, 0);
    bench.pass(59_999);
    assert_eq!(bench.core.counts().tokens, 1, "the time starts anew");
    bench.pass(1);
    assert_eq!(bench.refused(5, resume(None)), CallError::UnknownToken);
    bench.ask(3, Command::GroupJoin(place.group));
    assert!(bench.changes.contains(&Change::ForgetClient(2)));
}

#[test]
fn a_resumed_place_belongs_to_the_last_connection() {
    let mut bench = Bench::strict();
    let place = started(&mut bench);
    let mut effects = Effects::default();
    bench.core.apply(bench.now, peer(3), resume(None), &mut effects).unwrap();
    assert_eq!(effects.replaced, [2]);
    assert_eq!(bench.core.connection_of(&TOKEN), Some(3));
    assert_eq!(whom(&bench.call(1, say(place, Keygen, 1, 1, None)).1), [3]);
    bench.leave(2, 0);
    assert_eq!(bench.core.connection_of(&TOKEN), Some(3), "the old one's end changes nothing");
    // A place is no stranger to itself: its old number is in its refusals.
    let elsewhere = bench.create(1, 2, 1).unwrap();
    bench.open(1, elsewhere, Sign).unwrap();
    let join = Command::SessionJoin(Place { group: elsewhere, ..place }, Sign);
    assert_eq!(bench.refused(3, join), CallError::NotMember(2, elsewhere));
    assert_eq!(bench.refused(1, resume(None)), CallError::PlaceTaken);
}

#[test]
fn before_the_start_a_number_goes_with_its_owner_and_later_it_stays() {
    let mut bench = Bench::strict();
    let place = bench.session(3, 1, Sign);
    bench.signup(1, place, Sign).0.unwrap();
    bench.leave(1, 0);
    assert_eq!(bench.signup(2, place, Sign).0, Ok(Reply::Number(1)));
    assert_eq!(whom(&bench.signup(3, place, Sign).1), [2, 3]);
    bench.leave(2, 0);
    assert!(bench.call(3, say(place, Sign, 0, 1, None)).1.is_empty());
    bench.ask(4, Command::GroupJoin(place.group));
    assert_eq!(bench.signup(4, place, Sign).0, Err(CallError::SessionFull(place.session)));
}

#[test]
fn sessions_and_groups_end_when_nobody_uses_them() {
    let mut bench = Bench::strict();
    let place = bench.session(2, 1, Keygen);
    let rules = Rules::default();
    bench.pass(rules.idle_session - 1);
    bench.ask(1, Command::SessionJoin(place, Keygen));
    bench.pass(rules.idle_session - 1);
    assert_eq!(bench.core.counts().sessions, 1);
    bench.pass(1);
    assert_eq!((bench.core.counts().sessions, bench.core.counts().groups), (0, 1));
    bench.pass(rules.idle_group - rules.idle_session);
    assert_eq!(bench.core.counts().groups, 0);
    assert_eq!(bench.core.next_expiry(), None);
    // Those who were in it are free for another one.
    bench.create(1, 2, 1).unwrap();
}

#[test]
fn what_is_kept_comes_back_and_what_nobody_can_resume_does_not() {
    let mut bench = Bench::strict();
    let place = started(&mut bench);
    bench.leave(1, 0);
    let mut kept = Kept::default();
    for change in std::mem::take(&mut bench.changes) {
        match change {
            Change::Client(id, token) => kept.clients.push((id, token)),
            Change::Group(id, record) => kept.groups = vec![(id, record)],
            Change::Session(place, record) => kept.sessions = vec![(place, record)],
            other => panic!("{other:?}"),
        }
    }
    let orphan = (GroupId(Uuid::nil()), kept.groups[0].1.clone());
    kept.groups.push((orphan.0, GroupRecord { members: vec![99], ..orphan.1 }));
    let mut core = Groups::new(Rules::default());
    let mut effects = Effects::default();
    core.restore(bench.now, kept, &mut effects);
    assert_eq!(effects.changes, [Change::ForgetGroup(orphan.0)]);
    assert_eq!(core.counts(), Counts { groups: 1, sessions: 1, tokens: 1 });
    assert_eq!(core.last_client(), 2);
    bench.core = core;
    // The client has counted one event, and the count goes on.
    resumed(&mut bench, 10, Some(1));
    let (id, kind) = (SessionId(bench.uuid()), Keygen);
    bench.ask(12, Command::GroupJoin(place.group));
    bench.ask(12, Command::SessionCreate { group: place.group, id, kind, value: "1".into() });
    assert_eq!(resumed(&mut bench, 13, Some(1)), [2]);
    bench.leave(12, 0);
    // The number of the one that is not back stays: the session had started.
    assert_eq!(bench.signup(13, place, Keygen).0, Ok(Reply::Number(2)));
    bench.ask(11, Command::GroupJoin(place.group));
    assert_eq!(bench.signup(11, place, Keygen).0, Err(CallError::SessionFull(place.session)));
}

#[test]
fn a_group_is_kept_from_the_first_token_on() {
    let mut bench = Bench::strict();
    let place = bench.session(3, 1, Sign);
    bench.signup(1, place, Sign).0.unwrap();
    assert!(bench.changes.is_empty());
    bench.ask(2, Command::Token(TOKEN));
    let kinds: Vec<_> = bench.changes.iter().map(std::mem::discriminant).collect();
    let (client, group) = (&bench.changes[0], &bench.changes[1]);
    assert_eq!(kinds.len(), 3);
    assert_eq!(*client, Change::Client(2, TOKEN));
    assert!(
        matches!(group, Change::Group(id, record) if *id == place.group && record.members == [1, 2, 3])
    );
    assert!(
        matches!(&bench.changes[2], Change::Session(at, record) if *at == place && record.signups == [(1, 1)])
    );
    bench.changes.clear();
    bench.signup(3, place, Sign).0.unwrap();
    assert_eq!(bench.changes.len(), 1);
}

#[test]
fn what_is_kept_for_a_place_counts_where_its_connection_comes_from() {
    let words = Event::Frame("m".into()).bytes();
    let limits = GroupLimits { missed_total_bytes: 8 * words, tokens: 2, ..GroupLimits::default() };
    let mut bench = Bench::new(Compat::Strict, limits);
    let place = started(&mut bench);
    bench.leave(2, 1);
    for _ in 0..5 {
        bench.call(1, say(place, Keygen, 1, 1, None)).0.unwrap();
    }
    // One address has half: room for four of the five that were missed.
    assert_eq!(bench.refused(3, resume(Some(1))), CallError::MissedTooMuch(6));
    assert_eq!(resumed(&mut bench, 3, Some(2)), [3, 4, 5, 6]);
    let other = [8; 32];
    assert!(matches!(bench.refused(103, Command::Token(other)), CallError::Share(..)));
    bench.ask(102, Command::Token(other));
    assert!(matches!(bench.refused(5, Command::Token([9; 32])), CallError::Limit(..)));
}
