//! Random sessions, providers that come and go, crashes: whatever happens, each step reaches each
//! recipient, at the right time, and twice only over a crash.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use quorate_core::outbox::{Attempt, Change, Outbox, Planned, Taken};
use quorate_types::*;
use uuid::Uuid;

#[derive(Clone, Debug)]
enum Step {
    Create { parties: u8, webhook: bool, lifetime: u16 },
    Pass { seconds: u16 },
    Deliver { outcome: u8, jitter: u16 },
    End { which: u8, completed: bool },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_u8, any::<bool>(), 60..20_000_u16)
            .prop_map(|(parties, webhook, lifetime)| Step::Create { parties, webhook, lifetime }),
        4 => (1..4_000_u16).prop_map(|seconds| Step::Pass { seconds }),
        6 => (0..4_u8, any::<u16>()).prop_map(|(outcome, jitter)| Step::Deliver { outcome, jitter }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(which, completed)| Step::End { which, completed }),
        1 => Just(Step::Crash),
    ]
}

/// An outbox with its rows on a disk, a clock, and what the provider has got.
#[derive(Default)]
struct World {
    outbox: Outbox,
    disk: BTreeMap<NotificationId, Notification>,
    sessions: Vec<(SessionId, bool)>,
    now: Moment,
    next: u128,
    taken: HashMap<NotificationId, u32>,
    /// Taken before the crash that came before their outcome was written.
    doubtful: HashSet<NotificationId>,
}

impl World {
    fn id(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(self.next)
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
    }

    fn write(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Forget(id) => drop(self.disk.remove(&id)),
                Change::Write(row) => drop(self.disk.insert(row.id, row)),
            }
        }
    }

    fn create(&mut self, parties: u8, webhook: bool, lifetime: u16) {
        let session_id = SessionId(self.id());
        let party = |n: u8| Recipient {
            party: Some(format!("party-{n}").parse().unwrap()),
            channel: [Medium::Email, Medium::Sms, Medium::Push][usize::from(n) % 3],
            address: format!("address-{n}"),
        };
        let mut recipients: Vec<_> = (0..parties).map(party).collect();
        let hook = Recipient { party: None, channel: Medium::Webhook, address: "hook".into() };
        recipients.extend(webhook.then_some(hook));
        let tenant: Tenant = format!("tenant-{}", lifetime % 3).parse().unwrap();
        let created_at = self.now.wall;
        let expires_at = created_at.plus_seconds(lifetime.into());
        let planned = Planned { session_id, tenant: &tenant, created_at, expires_at };
        let rows = planned.notifications(&recipients, || NotificationId(self.id()));
        assert_eq!(rows.len(), usize::from(parties) * 5 + usize::from(webhook));
        self.write(rows.iter().cloned().map(Change::Write));
        self.outbox.enter(self.now, rows);
        self.outbox.release(session_id);
        self.sessions.push((session_id, false));
    }

    fn end(&mut self, which: u8, completed: bool) {
        let count = self.sessions.len();
        if count == 0 {
            return;
        }
        let (session, ended) = &mut self.sessions[usize::from(which) % count];
        if std::mem::replace(ended, true) {
            return;
        }
        let (session, step) = (
            *session,
            match completed {
                true => NotificationStep::SessionCompleted,
                false => NotificationStep::SessionExpired,
            },
        );
        let changes = self.outbox.ended(self.now, session, step);
        self.write(changes);
        self.outbox.release(session);
    }

    /// Delivers all that is due, each with one outcome; a crash comes before the outcome of the
    /// last is written where that is 3.
    fn deliver(&mut self, outcome: u8, jitter: u16) {
        while let Some(taken) = self.outbox.take(self.now) {
            let row = match taken {
                Taken::Settled(change) => {
                    self.write([change]);
                    continue;
                }
                Taken::Send(row) => row,
            };
            assert!(row.due_at.unwrap() <= self.now.wall, "not before it is due");
            assert!(row.until > self.now.wall, "not when it is out of time");
            assert_ne!(row.step, NotificationStep::SessionEnded);
            let stored = self.disk.get(&row.id).expect("sent is what is on the disk");
            assert_eq!(stored.state, NotificationState::Waiting);
            let attempt = match outcome {
                0 | 3 => Attempt::Sent,
                1 => Attempt::Failed("away".into()),
                _ => Attempt::Refused("no".into()),
            };
            if attempt == Attempt::Sent {
                let times = self.taken.entry(row.id).or_default();
                *times += 1;
                assert!(*times == 1 || self.doubtful.contains(&row.id), "sent twice");
            }
            if outcome == 3 {
                self.doubtful.insert(row.id);
                return self.crash();
            }
            let change = self.outbox.settle(self.now, row.id, attempt, jitter);
            self.write(change);
        }
    }

    fn crash(&mut self) {
        self.outbox = Outbox::default();
        for row in self.disk.values().filter(|row| row.state == NotificationState::Waiting) {
            self.outbox.restore(self.now, row.clone());
        }
    }

    /// One row for each step and recipient, and none that is settled has an address.
    fn check(&self) {
        let mut seen = HashSet::new();
        for row in self.disk.values() {
            let Recipient { party, channel, address } = &row.recipient;
            assert!(seen.insert((row.session_id, party.clone(), *channel, row.step)));
            let settled = row.state != NotificationState::Waiting;
            assert!(!settled || *channel == Medium::Webhook || address.is_empty());
            assert_eq!(row.settled_at.is_some(), settled);
        }
        let waiting = |row: &&Notification| row.state == NotificationState::Waiting;
        assert_eq!(self.disk.values().filter(waiting).count(), self.outbox.waiting());
    }
}

proptest! {
    #[test]
    fn each_step_reaches_each_recipient_once(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Create { parties, webhook, lifetime } => world.create(parties, webhook, lifetime),
                Step::Pass { seconds } => world.pass(Duration::from_secs(seconds.into())),
                Step::Deliver { outcome, jitter } => world.deliver(outcome, jitter),
                Step::End { which, completed } => world.end(which, completed),
                Step::Crash => world.crash(),
            }
            world.check();
        }
        // At last all sessions end and the provider is there: nothing is left behind.
        for which in 0..world.sessions.len() {
            world.end(u8::try_from(which).unwrap(), true);
        }
        world.deliver(0, 0);
        world.pass(Duration::from_secs(900));
        world.deliver(0, 0);
        world.check();
        prop_assert_eq!(world.outbox.waiting(), 0);
        let sent = |row: &&Notification| row.state == NotificationState::Sent;
        for row in world.disk.values().filter(sent) {
            prop_assert!(world.taken.contains_key(&row.id), "none is called sent that was not");
        }
    }
}
