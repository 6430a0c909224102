//! Random commands on mailboxes against a model: nothing lost, nothing twice, order kept.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_core::mailbox::{Limits, Mailboxes};
use quorate_types::*;

const PARTIES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Route { from: usize, to: Option<usize> },
    Read { by: usize, max: usize },
    Acknowledge { by: usize, which: usize, success: bool },
    Reconnect { by: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let party = 0..PARTIES;
    prop_oneof![
        3 => (party.clone(), prop::option::of(party.clone()))
            .prop_map(|(from, to)| Step::Route { from, to }),
        3 => (party.clone(), 1_usize..4).prop_map(|(by, max)| Step::Read { by, max }),
        3 => (party.clone(), 0_usize..20, any::<bool>())
            .prop_map(|(by, which, success)| Step::Acknowledge { by, which, success }),
        1 => party.prop_map(|by| Step::Reconnect { by }),
    ]
}

fn name(n: usize) -> PartyId {
    format!("p{n}").parse().unwrap()
}

fn session() -> SessionId {
    format!("{:032x}", 1).parse().unwrap()
}

fn message_id(n: usize) -> MessageId {
    format!("{n:032x}").parse().unwrap()
}

fn request(from: usize, to: Option<usize>) -> RouteRequest {
    RouteRequest {
        session_id: session(),
        from_party: name(from),
        to_parties: to.into_iter().map(name).collect(),
        round: 1,
        message_type: String::new(),
        payload: vec![0; 10].into(),
        acknowledges: vec![],
    }
}

/// What each party must still get, in order, and what its stream has shown.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<usize, Vec<usize>>,
    open: BTreeMap<usize, BTreeSet<usize>>,
    cursors: [u64; PARTIES],
    shown: [BTreeSet<usize>; PARTIES],
}

proptest! {
    #[test]
    fn no_message_is_lost_before_its_acknowledgement_or_comes_twice(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut boxes = Mailboxes::new(Limits::default());
        boxes.open_session(session(), &(0..PARTIES).map(name).collect::<Vec<_>>());
        let mut model = Model::default();
        let now = Timestamp(10);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Route { from, to } => {
                    let routed = boxes.accept(now, message_id(n), request(from, to));
                    if to == Some(from) {
                        prop_assert_eq!(routed.unwrap_err().code, ErrorCode::InvalidRequest);
                        continue;
                    }
                    routed.unwrap();
                    let all = (0..PARTIES).filter(|party| *party != from);
                    for party in all.filter(|party| to.is_none_or(|to| to == *party)) {
                        model.waiting.entry(party).or_default().push(n);
                        model.open.entry(n).or_default().insert(party);
                    }
                }
                Step::Read { by, max } => {
                    let cursor = model.cursors[by];
                    let got = boxes.next(now, &name(by), None, cursor, Timestamp(0), max);
                    let expected: Vec<_> = model.waiting.get(&by).into_iter().flatten()
                        .filter(|n| !model.shown[by].contains(n)).take(max).copied().collect();
                    let ids: Vec<_> = got.iter().map(|(_, m)| m.message_id).collect();
                    prop_assert_eq!(ids, expected.iter().map(|n| message_id(*n)).collect::<Vec<_>>());
                    model.cursors[by] = got.last().map_or(cursor, |(sequence, _)| *sequence);
                    model.shown[by].extend(expected);
                }
                Step::Acknowledge { by, which, success } => {
                    let ack = Acknowledge {
                        message_id: message_id(which),
                        party_id: name(by),
                        session_id: session(),
                        success,
                    };
                    let waited = model.waiting.get(&by).is_some_and(|all| all.contains(&which));
                    if let Ok(acked) = boxes.acknowledge(now, &ack) {
                        prop_assert_eq!(acked.first, waited);
                    } else {
                        prop_assert!(!waited);
                    }
                    if let Some(all) = model.waiting.get_mut(&by) {
                        all.retain(|n| *n != which);
                    }
                    if let Some(parties) = model.open.get_mut(&which) {
                        parties.remove(&by);
                    }
                }
                Step::Reconnect { by } => {
                    model.cursors[by] = 0;
                    model.shown[by].clear();
                }
            }
            let held = model.open.values().filter(|parties| !parties.is_empty()).count();
            prop_assert_eq!(boxes.held_bytes(), held * 10);
            for party in 0..PARTIES {
                let waiting = model.waiting.get(&party).map_or(0, Vec::len);
                prop_assert_eq!(boxes.pending_count(&name(party)) as usize, waiting);
            }
        }
        boxes.close_session(session());
        prop_assert_eq!(boxes.held_bytes(), 0);
        prop_assert!(boxes.next(now, &name(0), None, 0, Timestamp(0), 9).is_empty());
    }
}

#[test]
fn bounds_are_answered_by_name() {
    let limits = Limits { message_bytes: 10, session_messages: 2, ..Limits::default() };
    let mut boxes = Mailboxes::new(limits);
    boxes.open_session(session(), &[name(0), name(1)]);
    let mut large = request(0, None);
    large.payload = vec![0; 11].into();
    let code =
        |result: Result<_>| result.map(|_: quorate_core::mailbox::Accepted| ()).unwrap_err().code;
    assert_eq!(code(boxes.accept(Timestamp(1), message_id(1), large)), ErrorCode::MessageTooLarge);
    let nobody = boxes.accept(Timestamp(1), message_id(6), request(0, Some(2)));
    assert_eq!(code(nobody), ErrorCode::NotFound);
    boxes.accept(Timestamp(1), message_id(2), request(0, None)).unwrap();
    boxes.accept(Timestamp(1), message_id(3), request(0, None)).unwrap();
    let third = boxes.accept(Timestamp(1), message_id(4), request(0, None));
    assert_eq!(code(third), ErrorCode::RateLimited);
    let stranger = boxes.accept(Timestamp(1), message_id(5), request(2, None));
    assert_eq!(code(stranger), ErrorCode::Forbidden);
}
