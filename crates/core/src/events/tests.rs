//! What a subscriber sees, and what one that reads nothing costs.

use super::*;

fn name(text: &str) -> PartyId {
    text.parse().unwrap()
}

fn event(n: u128, kind: EventKind, status: SessionStatus, parties: &[&str]) -> Arc<SessionEvent> {
    let participant = |(index, party): (usize, &&str)| ParticipantView {
        party_id: name(party),
        party_index: PartyIndex(u16::try_from(index).unwrap()),
        status: ParticipantStatus::Waiting,
        device: DeviceInfo::default(),
        handshake: None,
        on_behalf_of: None,
    };
    let session = SessionView {
        session_id: SessionId(uuid::Uuid::from_u128(n)),
        tenant: Tenant::default(),
        ceremony: Ceremony::Keygen {
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 3).unwrap(),
        },
        status,
        participants: parties.iter().enumerate().map(participant).collect(),
        authorization: None,
        attempt: 0,
        replaced: Vec::new(),
        outcome: None,
        failure: None,
        created_at: Timestamp(1),
        expires_at: Timestamp(2),
    };
    let event_id = EventId(uuid::Uuid::from_u128(n));
    let (join_tokens, created_at) = (BTreeMap::new(), Timestamp(1));
    Arc::new(SessionEvent { event_id, kind, session, join_tokens, lent: None, created_at })
}

fn created(n: u128) -> Arc<SessionEvent> {
    event(n, EventKind::SessionCreated, SessionStatus::Created, &["a", "b"])
}

fn started(n: u128) -> Arc<SessionEvent> {
    event(n, EventKind::SessionStarted, SessionStatus::InProgress, &["a", "b"])
}

fn completed(n: u128) -> Arc<SessionEvent> {
    event(n, EventKind::SessionCompleted, SessionStatus::Completed, &["a", "b"])
}

/// Which sessions and kinds a subscriber reads, in batches of two.
fn read(events: &mut Events, id: SubscriberId) -> Vec<(u128, EventKind)> {
    let mut seen = Vec::new();
    loop {
        let batch = events.read(id, 2).unwrap();
        if batch.is_empty() {
            return seen;
        }
        assert!(batch.len() <= 2);
        seen.extend(batch.iter().map(|e| (e.session.session_id.0.as_u128(), e.kind)));
    }
}

#[test]
fn open_sessions_come_first_then_what_happens() {
    use EventKind::*;
    let mut events = Events::default();
    for n in 1..=4 {
        events.post(&created(n));
    }
    events.post(&started(2));
    events.post(&completed(3));
    let id = events.subscribe(&Caller::Open, &name("a"), vec![]);
    // Between subscribing and reading: neither lost nor told twice.
    events.post(&started(1));
    events.post(&completed(4));
    assert_eq!(events.post(&created(5)), 1);
    let seen = read(&mut events, id);
    let first = [(1, SessionCreated), (2, SessionStarted)];
    let then = [(1, SessionStarted), (4, SessionCompleted), (5, SessionCreated)];
    assert_eq!(seen, [&first[..], &then[..]].concat());
    assert_eq!(events.post(&completed(5)), 1);
    assert_eq!(read(&mut events, id), [(5, SessionCompleted)]);
    assert_eq!(events.held_bytes(), 0, "what all have read is not kept");
}

#[test]
fn only_the_kinds_asked_for_are_seen() {
    let mut events = Events::default();
    events.post(&created(1));
    let kinds = vec![EventKind::SessionCompleted];
    let id = events.subscribe(&Caller::Open, &name("b"), kinds);
    assert_eq!(events.post(&started(1)), 0);
    assert_eq!(events.held_bytes(), 0, "nobody waits for it");
    events.post(&completed(1));
    assert_eq!(read(&mut events, id), [(1, EventKind::SessionCompleted)]);
}

#[test]
fn another_tenant_sees_nothing() {
    let evil = Caller::Key { tenant: "evil".parse().unwrap(), scopes: vec![Scope::Party] };
    let mut events = Events::default();
    events.post(&created(1));
    let id = events.subscribe(&evil, &name("a"), vec![]);
    assert_eq!(events.post(&started(1)), 0);
    assert_eq!(read(&mut events, id), []);
}

#[test]
fn a_thousand_that_read_nothing_hold_each_event_once() {
    let mut events = Events::default();
    let ids: Vec<_> =
        (0..1_000).map(|_| events.subscribe(&Caller::Open, &name("a"), vec![])).collect();
    for n in 0..100 {
        assert_eq!(events.post(&created(n)), 1_000);
    }
    let one = cost(&created(1));
    assert_eq!(events.held_bytes(), 100 * one);
    for id in &ids[1..] {
        assert_eq!(read(&mut events, *id).len(), 100);
    }
    assert_eq!(events.held_bytes(), 100 * one, "one has yet to read them");
    events.unsubscribe(ids[0]);
    assert_eq!(events.held_bytes(), 0);
}

#[test]
fn a_full_log_cuts_only_those_that_are_behind() {
    let mut events = Events::new(10 * cost(&created(1)));
    let slow = events.subscribe(&Caller::Open, &name("a"), vec![]);
    let quick = events.subscribe(&Caller::Open, &name("a"), vec![]);
    let other = events.subscribe(&Caller::Open, &name("b"), vec![]);
    for n in 0..11 {
        events.post(&created(n));
        assert_eq!(read(&mut events, quick).len(), 1);
        assert_eq!(read(&mut events, other).len(), 1);
    }
    assert!(events.read(slow, 2).is_err(), "it is to subscribe again");
    assert_eq!(events.held_bytes(), 0, "nobody else waits for them");
    events.post(&started(1));
    assert_eq!((read(&mut events, quick).len(), read(&mut events, other).len()), (1, 1));
    let again = events.subscribe(&Caller::Open, &name("a"), vec![]);
    assert_eq!(read(&mut events, again).len(), 11, "where each open session stands");
}

#[test]
fn parties_without_sessions_and_subscribers_leave_nothing() {
    let mut events = Events::default();
    let id = events.subscribe(&Caller::Open, &name("a"), vec![]);
    events.post(&created(1));
    events.post(&completed(1));
    events.unsubscribe(id);
    assert!(events.parties.is_empty() && events.open.is_empty() && events.log.is_empty());
    assert!(events.subscribers.is_empty());
}
