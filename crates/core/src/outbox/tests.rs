//! Steps of single sessions, ends, providers that fail, and the bounds.

use uuid::Uuid;

use super::*;

const HOUR: i64 = 3_600_000;

fn at(millis: i64) -> Moment {
    Moment { wall: Timestamp(millis), monotonic: Duration::from_millis(millis.unsigned_abs()) }
}

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

/// A session of `n`'s own, with one party that has a mail address; its notifications have ids from
/// `n * 100`.
fn planned(n: u128, tenant: &str, lifetime: i64) -> Vec<Notification> {
    let recipient = Recipient {
        party: Some("phone".parse().unwrap()),
        channel: Medium::Email,
        address: "phone@x.example".into(),
    };
    let planned = Planned {
        session_id: session(n),
        tenant: &tenant.parse().unwrap(),
        created_at: Timestamp(0),
        expires_at: Timestamp(lifetime),
    };
    let mut id = n * 100;
    planned.notifications(&[recipient], || {
        id += 1;
        NotificationId(Uuid::from_u128(id))
    })
}

fn sent(outbox: &mut Outbox, now: Moment) -> Vec<Notification> {
    let mut all = Vec::new();
    while let Some(taken) = outbox.take(now) {
        let Taken::Send(row) = taken else { continue };
        outbox.settle(now, row.id, Attempt::Sent, 0).unwrap();
        all.push(row);
    }
    all
}

fn steps(rows: &[Notification]) -> Vec<&'static str> {
    rows.iter().map(|row| row.step.name()).collect()
}

#[test]
fn nothing_is_sent_before_its_session_is_on_the_disk() {
    let mut outbox = Outbox::default();
    outbox.enter(at(0), planned(1, "a", HOUR));
    assert_eq!((outbox.next(), outbox.take(at(0))), (None, None));
    outbox.release(session(1));
    assert_eq!(steps(&sent(&mut outbox, at(0))), ["session_created"]);
}

#[test]
fn an_end_waits_for_its_own_commit_though_the_creation_is_released_after_it() {
    let mut outbox = Outbox::default();
    outbox.enter(at(0), planned(1, "a", HOUR));
    outbox.ended(at(5), session(1), NotificationStep::SessionCompleted);
    outbox.release(session(1));
    assert_eq!(outbox.take(at(5)), None);
    outbox.release(session(1));
    assert_eq!(steps(&sent(&mut outbox, at(5))), ["session_completed"]);
}

#[test]
fn a_party_that_does_not_come_is_reminded_at_each_quarter_and_told_the_end() {
    let mut outbox = Outbox::default();
    outbox.enter(at(0), planned(1, "a", 4 * HOUR));
    outbox.release(session(1));
    let mut seen = Vec::new();
    for hour in 0..4 {
        if hour > 0 {
            assert_eq!(sent(&mut outbox, at(hour * HOUR - 1)), []);
        }
        seen.extend(steps(&sent(&mut outbox, at(hour * HOUR))));
    }
    outbox.ended(at(4 * HOUR), session(1), NotificationStep::SessionExpired);
    outbox.release(session(1));
    seen.extend(steps(&sent(&mut outbox, at(4 * HOUR))));
    let all = [
        "session_created",
        "first_reminder",
        "second_reminder",
        "last_reminder",
        "session_expired",
    ];
    assert_eq!(seen, all);
    assert_eq!((outbox.waiting(), outbox.recipients.used()), (0, 0));
}

#[test]
fn an_end_takes_the_reminders_back_also_one_that_is_under_way() {
    let mut outbox = Outbox::default();
    outbox.enter(at(0), planned(1, "a", 4 * HOUR));
    outbox.release(session(1));
    let Some(Taken::Send(first)) = outbox.take(at(0)) else { panic!("one is due") };
    let changes = outbox.ended(at(9), session(1), NotificationStep::SessionFailed);
    let forgotten = changes.iter().filter(|change| matches!(change, Change::Forget(_))).count();
    assert_eq!((changes.len(), forgotten), (4, 3));
    let settled = outbox.settle(at(10), first.id, Attempt::Failed("away".into()), 0);
    assert_eq!(settled, Some(Change::Forget(first.id)));
    outbox.release(session(1));
    assert_eq!(steps(&sent(&mut outbox, at(10))), ["session_failed"]);
    assert_eq!(outbox.waiting(), 0);
}

#[test]
fn a_provider_that_is_away_for_an_hour_gets_each_notification_once() {
    let mut outbox = Outbox::default();
    outbox.enter(at(0), planned(1, "a", 24 * HOUR));
    outbox.release(session(1));
    let (mut now, mut attempts) = (0, 0);
    let sent_at = loop {
        let Some(Taken::Send(row)) = outbox.take(at(now)) else {
            now = i64::try_from(outbox.next().unwrap().as_millis()).unwrap();
            continue;
        };
        attempts += 1;
        assert_eq!(row.step, NotificationStep::SessionCreated);
        if now >= HOUR {
            outbox.settle(at(now), row.id, Attempt::Sent, 0).unwrap();
            break now;
        }
        let error = Attempt::Failed("connection refused".into());
        outbox.settle(at(now), row.id, error, u16::MAX).unwrap();
    };
    assert!(sent_at < HOUR + HOUR / 4 && (10..20).contains(&attempts), "{sent_at} {attempts}");
    assert_eq!(sent(&mut outbox, at(sent_at + 1)), []);
}

#[test]
fn what_fails_until_the_end_of_its_session_is_dead_and_has_no_address() {
    let mut outbox = Outbox::default();
    outbox.enter(at(0), planned(1, "a", 10_000));
    outbox.release(session(1));
    let mut dead = Vec::new();
    for now in (0..10_000).step_by(250) {
        while let Some(taken) = outbox.take(at(now)) {
            let Taken::Send(row) = taken else { continue };
            let failed = Attempt::Failed("away".into());
            if let Some(Change::Write(row)) = outbox.settle(at(now), row.id, failed, 0)
                && row.state == NotificationState::Dead
            {
                dead.push(row);
            }
        }
    }
    assert_eq!(dead.len(), 4);
    for row in dead {
        assert_eq!((row.recipient.address.as_str(), row.due_at), ("", None));
        assert_eq!(row.last_error.as_deref(), Some("away"));
        assert!(row.settled_at.is_some());
    }
}

#[test]
fn a_refusal_is_final_and_one_found_out_of_time_is_not_sent() {
    let mut outbox = Outbox::default();
    outbox.enter(at(0), planned(1, "a", HOUR));
    outbox.release(session(1));
    let Some(Taken::Send(row)) = outbox.take(at(0)) else { panic!("one is due") };
    let refused = outbox.settle(at(0), row.id, Attempt::Refused("no such address".into()), 0);
    assert!(matches!(refused, Some(Change::Write(row)) if row.state == NotificationState::Dead));
    let mut late = Outbox::default();
    late.restore(at(2 * HOUR), planned(2, "a", HOUR).remove(0));
    let taken = late.take(at(2 * HOUR));
    let Some(Taken::Settled(Change::Write(row))) = taken else { panic!("{taken:?}") };
    assert_eq!(row.state, NotificationState::Dead);
}

#[test]
fn after_a_long_stop_only_the_last_due_reminder_is_sent() {
    let mut outbox = Outbox::default();
    let mut rows = planned(1, "a", 4 * HOUR);
    rows.remove(0);
    for row in rows {
        outbox.restore(at(3 * HOUR), row);
    }
    assert_eq!(steps(&sent(&mut outbox, at(3 * HOUR))), ["last_reminder"]);
}

#[test]
fn a_tenant_has_its_places_and_leaves_the_others_theirs() {
    let mut outbox = Outbox::default();
    for n in 0..1_000 {
        outbox.enter(at(0), planned(n, "busy", HOUR));
        outbox.release(session(n));
    }
    outbox.enter(at(0), planned(2_000, "quiet", HOUR));
    outbox.release(session(2_000));
    let mut taken = Vec::new();
    while let Some(Taken::Send(row)) = outbox.take(at(0)) {
        taken.push(row);
    }
    let of = |name| taken.iter().filter(|row| row.tenant.as_str() == name).count();
    assert_eq!((of("busy"), of("quiet")), (UNDER_WAY_OF_TENANT, 1));
    let next = outbox.next().unwrap();
    assert_eq!(next, Duration::from_millis(HOUR.unsigned_abs() / 4), "the quiet one's reminder");
}

#[test]
fn recipients_are_bounded_and_a_tenant_has_half() {
    let mut outbox = Outbox::default();
    let tenant: Tenant = "a".parse().unwrap();
    outbox.recipients.add(&tenant, RECIPIENTS / 2 - 1);
    assert_eq!(outbox.check(&tenant, 1), Ok(()));
    assert_eq!(outbox.check(&tenant, 2), Err(Over::Share));
    outbox.enter(at(0), planned(1, "a", HOUR));
    assert_eq!(outbox.check(&tenant, 1), Err(Over::Share));
    outbox.withdraw(session(1));
    assert_eq!(outbox.check(&tenant, 1), Ok(()));
}
