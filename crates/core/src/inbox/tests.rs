//! Inboxes rule by rule.

use super::*;

fn name(n: usize) -> PartyId {
    format!("p{n}").parse().unwrap()
}

fn session(n: u128) -> SessionId {
    format!("{n:032x}").parse().unwrap()
}

fn id(n: u128) -> MessageId {
    format!("{n:032x}").parse().unwrap()
}

fn request(from: usize, to: &[usize]) -> RouteRequest {
    RouteRequest {
        session_id: session(1),
        from_party: name(from),
        to_parties: to.iter().copied().map(name).collect(),
        round: 1,
        message_type: "t".into(),
        payload: vec![7; 10].into(),
        acknowledges: vec![],
        patient: false,
    }
}

fn open(limits: InboxLimits) -> Inboxes {
    let mut boxes = Inboxes::new(limits);
    boxes.open_session(session(1), &Tenant::default(), 0, &[name(0), name(1), name(2)]);
    boxes
}

fn routed(boxes: &mut Inboxes, message: u128, from: usize, to: &[usize]) -> Accepted {
    boxes.accept(Timestamp(5), id(message), request(from, to)).unwrap()
}

fn refused(boxes: &mut Inboxes, request: RouteRequest) -> Error {
    let held = boxes.held_bytes();
    let error = boxes.accept(Timestamp(5), id(99), request).unwrap_err();
    assert_eq!(boxes.held_bytes(), held);
    assert_eq!(boxes.status(session(1), id(99)).unwrap_err().code, ErrorCode::NotFound);
    error
}

fn ack(boxes: &mut Inboxes, message: u128, by: usize, success: bool) -> Result<Acked> {
    let (message_id, party_id) = (id(message), name(by));
    let ack = Acknowledge { message_id, party_id, session_id: session(1), success };
    boxes.acknowledge(Timestamp(8), &ack)
}

fn ids(messages: Vec<(u64, Message)>) -> Vec<MessageId> {
    messages.into_iter().map(|(_, message)| message.message_id).collect()
}

fn stream(boxes: &mut Inboxes, party: usize, of: Option<u128>, cursor: u64) -> Vec<MessageId> {
    ids(boxes.next(
        Timestamp(6),
        &name(party),
        (of.map(session), cursor, Timestamp(0)),
        |_| true,
        100,
    ))
}

#[test]
fn what_waits_is_polled_in_pages_that_every_wire_takes() {
    for (size, count, first) in [(1 << 20, 8, 2), (900 << 10, 8, 3), (1, 20, 20)] {
        let mut boxes = open(InboxLimits::default());
        for n in 1..=count {
            let request = RouteRequest { payload: vec![7; size].into(), ..request(0, &[1]) };
            boxes.accept(Timestamp(5), id(n), request).unwrap();
        }
        let mut page = |after| boxes.pending(Timestamp(9), session(1), &name(1), after).unwrap();
        assert_eq!(page(Timestamp(0)).len(), first);
        let (mut polled, mut after) = (Vec::new(), Timestamp(0));
        while let Some(last) = page(after).last().map(|message| message.created_at) {
            polled.extend(page(after).into_iter().map(|message| message.message_id));
            after = last;
        }
        assert_eq!(polled, (1..=count).map(id).collect::<Vec<_>>());
    }
}

#[test]
fn nobody_named_means_all_others_and_says_so() {
    let mut boxes = open(InboxLimits::default());
    let all = routed(&mut boxes, 1, 1, &[]).row;
    assert_eq!(all.recipients, [name(0), name(2)]);
    assert!(all.message.is_broadcast);
    let named = routed(&mut boxes, 2, 1, &[2, 0, 2]).row;
    assert_eq!(named.recipients, [name(2), name(0)], "once each");
    assert!(!named.message.is_broadcast);
}

#[test]
fn sequences_count_from_one_over_all_sessions() {
    let mut boxes = open(InboxLimits::default());
    boxes.open_session(session(2), &Tenant::default(), 0, &[name(0), name(1)]);
    assert_eq!(routed(&mut boxes, 1, 0, &[]).row.sequence, 1);
    let other = RouteRequest { session_id: session(2), ..request(0, &[]) };
    assert_eq!(boxes.accept(Timestamp(5), id(2), other).unwrap().row.sequence, 2);
    assert_eq!(stream(&mut boxes, 1, None, 0), [id(1), id(2)]);
    assert_eq!(stream(&mut boxes, 1, Some(2), 0), [id(2)]);
    assert_eq!(stream(&mut boxes, 1, Some(1), 1), []);
    assert_eq!(stream(&mut boxes, 1, None, u64::MAX), []);
}

#[test]
fn who_and_what_does_not_fit_is_refused_by_name() {
    let mut boxes = open(InboxLimits::default());
    let unknown = RouteRequest { session_id: session(9), ..request(0, &[]) };
    assert_eq!(refused(&mut boxes, unknown).code, ErrorCode::NotFound);
    assert_eq!(refused(&mut boxes, request(9, &[])).code, ErrorCode::Forbidden);
    let error = refused(&mut boxes, request(0, &[1, 9]));
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.contains("p9"));
    let error = refused(&mut boxes, request(0, &[1, 0]));
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.details.fields.contains_key("to_parties"));
    let error = refused(&mut boxes, RouteRequest { round: -1, ..request(0, &[]) });
    assert!(error.details.fields.contains_key("round"));
    let error =
        refused(&mut boxes, RouteRequest { message_type: "x".repeat(65), ..request(0, &[]) });
    assert!(error.details.fields.contains_key("message_type"));
    let large = RouteRequest { payload: vec![0; (1 << 20) + 1].into(), ..request(0, &[]) };
    assert_eq!(refused(&mut boxes, large).code, ErrorCode::MessageTooLarge);
}

#[test]
fn an_id_that_is_taken_is_a_conflict() {
    let mut boxes = open(InboxLimits::default());
    routed(&mut boxes, 1, 0, &[]);
    let again = boxes.accept(Timestamp(6), id(1), request(1, &[]));
    assert_eq!(again.unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(boxes.held_bytes(), 10 + MESSAGE_COST);
}

#[test]
fn a_full_session_names_the_party_that_does_not_read() {
    let mut boxes =
        open(InboxLimits { session_bytes: 3 * (10 + MESSAGE_COST), ..InboxLimits::default() });
    routed(&mut boxes, 1, 0, &[2]);
    routed(&mut boxes, 2, 0, &[]);
    routed(&mut boxes, 3, 1, &[2]);
    let error = refused(&mut boxes, request(0, &[]));
    assert_eq!(error.code, ErrorCode::RateLimited);
    assert!(error.message.contains("the box of p2"), "{}", error.message);
    assert_eq!(error.details.waiting_for, [name(2), name(1)]);
    ack(&mut boxes, 1, 2, true).unwrap();
    routed(&mut boxes, 4, 0, &[]);
}

#[test]
fn the_bound_on_all_sessions_holds_for_each_of_them() {
    let mut boxes =
        open(InboxLimits { total_bytes: 2 * (10 + MESSAGE_COST), ..InboxLimits::default() });
    boxes.open_session(session(2), &Tenant::default(), 0, &[name(0), name(1)]);
    let other = RouteRequest { session_id: session(2), ..request(0, &[]) };
    boxes.accept(Timestamp(5), id(1), other).unwrap();
    assert_eq!(refused(&mut boxes, request(0, &[])).code, ErrorCode::RateLimited);
    boxes.close_session(session(2));
    routed(&mut boxes, 2, 0, &[]);
}

#[test]
fn a_session_routes_so_many_messages_and_says_that_it_is_done() {
    let mut boxes = open(InboxLimits { session_messages: 2, ..InboxLimits::default() });
    for message in 1..3 {
        routed(&mut boxes, message, 0, &[1]);
        ack(&mut boxes, message, 1, true).unwrap();
    }
    let error = refused(&mut boxes, request(0, &[1]));
    assert_eq!(error.code, ErrorCode::RateLimited);
    assert!(error.message.contains("has routed its 2 messages"));
}

#[test]
fn the_first_message_of_a_round_is_told_once_per_sender() {
    let mut boxes = open(InboxLimits::default());
    assert!(routed(&mut boxes, 1, 0, &[1]).first_of_round);
    assert!(!routed(&mut boxes, 2, 0, &[2]).first_of_round);
    assert!(routed(&mut boxes, 3, 1, &[2]).first_of_round);
    let next = RouteRequest { round: 2, ..request(0, &[]) };
    assert!(boxes.accept(Timestamp(5), id(4), next).unwrap().first_of_round);
}

#[test]
fn polling_takes_nothing_away_and_counts_the_handing_over() {
    let mut boxes = open(InboxLimits::default());
    routed(&mut boxes, 1, 0, &[1, 2]);
    for time in [10, 11, 12] {
        let got = boxes.pending(Timestamp(time), session(1), &name(1), Timestamp(0)).unwrap();
        assert_eq!(got.len(), 1);
    }
    let status = boxes.status(session(1), id(1)).unwrap();
    assert_eq!(status[0].state, DeliveryState::Delivered);
    assert_eq!((status[0].delivered_at, status[0].retry_count), (Some(Timestamp(10)), 2));
    assert_eq!((status[1].state, status[1].delivered_at), (DeliveryState::Pending, None));
    let stranger = boxes.pending(Timestamp(13), session(1), &name(9), Timestamp(0));
    assert_eq!(stranger.unwrap_err().code, ErrorCode::Forbidden);
}

#[test]
fn after_the_last_message_seen_come_all_later_ones_even_if_the_clock_stands_or_goes_back() {
    let mut boxes = open(InboxLimits::default());
    let mut last = Timestamp(0);
    for (message, clock) in [(1, 100), (2, 100), (3, 100), (4, 40), (5, 200)] {
        boxes.accept(Timestamp(clock), id(message), request(0, &[1])).unwrap();
        let got = boxes.pending(Timestamp(clock), session(1), &name(1), last).unwrap();
        assert_eq!(got.iter().map(|m| m.message_id).collect::<Vec<_>>(), [id(message)]);
        last = got[0].created_at;
    }
    assert_eq!(last, Timestamp(200), "the clock's own time where that is later");
    assert!(boxes.next(Timestamp(200), &name(1), (None, 0, last), |_| true, 100).is_empty());
}

#[test]
fn an_acknowledged_message_is_never_delivered_again_and_its_body_goes_with_the_last() {
    let mut boxes = open(InboxLimits::default());
    let row = routed(&mut boxes, 1, 0, &[]).row;
    assert_eq!(ack(&mut boxes, 1, 1, true).unwrap(), Acked { first: true, all: false });
    assert_eq!((stream(&mut boxes, 1, None, 0), boxes.pending_count(&name(1))), (vec![], 0));
    assert_eq!(ack(&mut boxes, 1, 1, false).unwrap(), Acked { first: false, all: false });
    assert!(!row.is_settled());
    let held = (boxes.held_bytes(), boxes.pending_count(&name(2)));
    assert_eq!(held, (10 + MESSAGE_COST, 1));
    assert_eq!(ack(&mut boxes, 1, 2, false).unwrap(), Acked { first: true, all: true });
    assert!(row.is_settled());
    assert_eq!(boxes.held_bytes(), 0);
    assert_eq!(Arc::strong_count(&row), 1, "nobody else holds the body");
    let states: Vec<_> =
        boxes.status(session(1), id(1)).unwrap().into_iter().map(|d| d.state).collect();
    assert_eq!(states, [DeliveryState::Acknowledged, DeliveryState::Failed]);
}

#[test]
fn only_a_recipient_acknowledges_and_only_what_there_is() {
    let mut boxes = open(InboxLimits::default());
    routed(&mut boxes, 1, 0, &[1]);
    for other in [0, 2, 9] {
        assert_eq!(ack(&mut boxes, 1, other, true).unwrap_err().code, ErrorCode::Forbidden);
    }
    assert_eq!(ack(&mut boxes, 2, 1, true).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(boxes.pending_count(&name(1)), 1);
}

#[test]
fn a_closed_session_delivers_and_takes_nothing_but_still_knows() {
    let mut boxes = open(InboxLimits::default());
    routed(&mut boxes, 1, 0, &[1]);
    routed(&mut boxes, 2, 0, &[1]);
    ack(&mut boxes, 1, 1, true).unwrap();
    assert_eq!(boxes.close_session(session(1)), [id(2)]);
    assert_eq!(boxes.close_session(session(1)), []);
    assert_eq!((boxes.held_bytes(), boxes.pending_count(&name(1))), (0, 0));
    assert!(stream(&mut boxes, 1, None, 0).is_empty() && !boxes.is_open(session(1)));
    assert_eq!(refused(&mut boxes, request(0, &[])).code, ErrorCode::SessionExpired);
    let polled = boxes.pending(Timestamp(9), session(1), &name(1), Timestamp(0));
    assert_eq!(polled.unwrap_err().code, ErrorCode::SessionExpired);
    let late = ack(&mut boxes, 2, 1, true).unwrap();
    assert!(late.first && late.all);
    assert_eq!(boxes.held_bytes(), 0);
    boxes.open_session(session(1), &Tenant::default(), 0, &[name(0), name(1)]);
    assert!(!boxes.is_open(session(1)), "an ended session is not opened again");
}

#[test]
fn the_records_of_the_last_ended_sessions_are_kept() {
    let mut boxes = Inboxes::new(InboxLimits::default());
    let count = u128::try_from(ENDED_KEPT).unwrap() + 1;
    for n in 1..=count {
        boxes.open_session(session(n), &Tenant::default(), 0, &[name(0), name(1)]);
        let request = RouteRequest { session_id: session(n), ..request(0, &[]) };
        boxes.accept(Timestamp(5), id(n), request).unwrap();
        boxes.close_session(session(n));
    }
    assert_eq!(boxes.status(session(1), id(1)).unwrap_err().code, ErrorCode::NotFound);
    for n in [2, count] {
        boxes.status(session(n), id(n)).unwrap();
    }
    assert_eq!((boxes.sessions.len(), boxes.ended_records), (ENDED_KEPT, ENDED_KEPT));
    assert!(boxes.boxes.is_empty());
}

#[test]
fn the_records_of_ended_sessions_are_bounded_together() {
    let each = 20_000;
    let mut boxes = Inboxes::new(InboxLimits { session_messages: each, ..InboxLimits::default() });
    for n in 0..6 {
        boxes.open_session(session(n), &Tenant::default(), 0, &[name(0), name(1)]);
        for message in 0..u128::try_from(each).unwrap() {
            let request = RouteRequest { session_id: session(n), ..request(0, &[]) };
            boxes.accept(Timestamp(5), id(message), request).unwrap();
        }
        boxes.close_session(session(n));
    }
    assert_eq!(boxes.ended_records, ENDED_RECORDS_KEPT);
    assert_eq!(boxes.sessions.len(), 5);
    assert!(boxes.status(session(0), id(0)).is_err() && boxes.status(session(1), id(0)).is_ok());
}

#[test]
fn what_is_put_back_keeps_its_place_and_its_acknowledgements() {
    let mut first = open(InboxLimits::default());
    let rows: Vec<_> = (1..4).map(|message| routed(&mut first, message, 0, &[]).row).collect();
    let mut boxes = Inboxes::new(InboxLimits::default());
    boxes.restore(rows[0].clone(), &[]);
    assert_eq!(boxes.held_bytes(), 0, "its session is not open");
    boxes.open_session(session(1), &Tenant::default(), 0, &[name(0), name(1), name(2)]);
    boxes.continue_after(3);
    boxes.restore(rows[1].clone(), &[name(1)]);
    boxes.restore(rows[1].clone(), &[]);
    boxes.restore(rows[2].clone(), &[name(1), name(2)]);
    assert_eq!(boxes.held_bytes(), 10 + MESSAGE_COST, "once, and not what all have");
    let new = routed(&mut boxes, 9, 0, &[]);
    assert_eq!(new.row.sequence, 4);
    assert!(!new.first_of_round, "the round was seen before the restart");
    assert!(new.row.message.created_at > rows[1].message.created_at);
    assert_eq!(stream(&mut boxes, 1, None, 0), [id(9)]);
    assert_eq!(stream(&mut boxes, 2, None, 0), [id(2), id(9)]);
}

#[test]
fn a_stream_finds_nothing_of_another_owner() {
    let mut boxes = open(InboxLimits::default());
    routed(&mut boxes, 1, 0, &[1]);
    let seen = |tenant: &Tenant| tenant.as_str() == "other";
    let from = (None, 0, Timestamp(0));
    assert!(boxes.next(Timestamp(9), &name(1), from, seen, 10).is_empty());
    let untouched = boxes.status(session(1), id(1)).unwrap();
    assert_eq!(untouched[0].state, DeliveryState::Pending);
    assert_eq!(boxes.next(Timestamp(9), &name(1), from, |_| true, 10).len(), 1);
}

#[test]
fn a_tenant_that_fills_its_half_leaves_the_others_theirs() {
    let one = 10 + MESSAGE_COST;
    let mut boxes = Inboxes::new(InboxLimits { total_bytes: 8 * one, ..InboxLimits::default() });
    let tenants: [Tenant; 2] = ["evil".parse().unwrap(), "acme".parse().unwrap()];
    for (n, tenant) in tenants.iter().enumerate() {
        boxes.open_session(session(n as u128), tenant, 0, &[name(0), name(1)]);
    }
    let send = |boxes: &mut Inboxes, of: u128, message: u128| {
        let request = RouteRequest { session_id: session(of), ..request(0, &[]) };
        boxes.accept(Timestamp(5), id(message), request)
    };
    for message in 0..4 {
        send(&mut boxes, 0, message).unwrap();
    }
    let refused = send(&mut boxes, 0, 9).unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.message.contains("this tenant") && refused.details.retry_after.is_some());
    for message in 10..14 {
        send(&mut boxes, 1, message).unwrap();
    }
    boxes.close_session(session(0));
    assert_eq!(boxes.held_bytes(), 4 * one);
}

#[test]
fn empty_messages_are_bounded_also_after_they_were_acknowledged() {
    let mut boxes = open(InboxLimits { records: 6, ..InboxLimits::default() });
    for message in 0..3 {
        let empty = RouteRequest { payload: vec![].into(), ..request(0, &[1]) };
        boxes.accept(Timestamp(5), id(message), empty).unwrap();
        assert_eq!(boxes.held_bytes(), MESSAGE_COST);
        ack(&mut boxes, message, 1, true).unwrap();
        assert_eq!(boxes.held_bytes(), 0);
    }
    assert_eq!(refused(&mut boxes, request(0, &[])).code, ErrorCode::RateLimited);
    boxes.close_session(session(1));
    boxes.open_session(session(2), &Tenant::default(), 0, &[name(0), name(1)]);
    let other = RouteRequest { session_id: session(2), ..request(0, &[]) };
    assert!(boxes.accept(Timestamp(5), id(7), other).is_ok(), "given back at the session's end");
}

#[test]
fn a_new_attempt_begins_without_the_messages_of_the_one_before() {
    let mut boxes = Inboxes::new(InboxLimits::default());
    let (trio, tenant) = ([name(0), name(1), name(2)], Tenant::default());
    assert!(boxes.open_session(session(1), &tenant, 0, &trio[..2]).is_empty());
    let send = |boxes: &mut Inboxes, number: u128, from: usize| {
        let request = RouteRequest {
            session_id: session(1),
            from_party: name(from),
            to_parties: Vec::new(),
            round: 1,
            message_type: String::new(),
            payload: bytes::Bytes::from_static(b"x"),
            acknowledges: Vec::new(),
            patient: false,
        };
        boxes.accept(Timestamp(1), MessageId(uuid::Uuid::from_u128(number)), request)
    };
    assert!(send(&mut boxes, 1, 0).unwrap().first_of_round);
    let gone = boxes.open_session(session(1), &tenant, 1, &[name(0), name(2)]);
    assert_eq!(gone, [MessageId(uuid::Uuid::from_u128(1))]);
    let refused = send(&mut boxes, 2, 1).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden, "another has its place");
    assert!(boxes.has_member(session(1), &name(1)), "it may ask all the same");
    assert!(send(&mut boxes, 3, 0).unwrap().first_of_round, "rounds are counted anew");
    let mut waits = |party: usize| {
        boxes.next(Timestamp(2), &name(party), (None, 0, Timestamp(0)), |_| true, 9).len()
    };
    assert_eq!((waits(1), waits(2)), (0, 1));
    assert!(boxes.open_session(session(1), &tenant, 0, &trio).is_empty(), "nothing leads back");
    assert!(!boxes.has_member(session(1), &name(9)));
}
