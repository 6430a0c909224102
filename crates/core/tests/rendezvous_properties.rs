//! Random steps on a rendezvous against a model that keeps plain lists and looks at all of them.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_core::rendezvous::*;
use quorate_types::{ClientAddress, RelayId};

const CONNECTIONS: u64 = 3;
const IDS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    Ask { by: u64, id: u8, ttl: u64 },
    Publish { by: u64, id: u8, ttl: u64, once: bool, length: usize },
    Wait { time: u64 },
    Expire { most: usize },
    Leave { who: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let by = 0..CONNECTIONS;
    prop_oneof![
        8 => (by.clone(), 0..IDS, 0_u64..6).prop_map(|(by, id, ttl)| Step::Ask { by, id, ttl }),
        8 => (by.clone(), 0..IDS, 0_u64..6, any::<bool>(), 1_usize..12).prop_map(
            |(by, id, ttl, once, length)| Step::Publish { by, id, ttl, once, length }),
        4 => (0_u64..4).prop_map(|time| Step::Wait { time }),
        3 => (0_usize..5).prop_map(|most| Step::Expire { most }),
        1 => by.prop_map(|who| Step::Leave { who }),
    ]
}

#[derive(Clone)]
struct Connection(Arc<Account>);

impl Receiver for Connection {
    fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

/// What is known, each with its end; all of it is looked through at each step.
#[derive(Default)]
struct Model {
    asks: Vec<(u8, u64, u64)>,
    stored: Vec<(u8, Bytes, bool, u64)>,
}

impl Model {
    fn forget(&mut self, now: u64) {
        self.asks.retain(|ask| ask.2 > now);
        self.stored.retain(|stored| stored.3 > now);
    }

    fn ask(&mut self, now: u64, id: u8, by: u64, ttl: u64) -> Option<Bytes> {
        if let Some(at) = self.stored.iter().position(|stored| stored.0 == id) {
            let frame = self.stored[at].1.clone();
            if self.stored[at].2 {
                self.stored.remove(at);
            }
            return Some(frame);
        }
        match self.asks.iter_mut().find(|ask| (ask.0, ask.1) == (id, by)) {
            Some(ask) => ask.2 = ask.2.max(now + ttl),
            None if ttl > 0 => self.asks.push((id, by, now + ttl)),
            None => {}
        }
        None
    }

    fn publish(&mut self, id: u8, frame: &Bytes, once: bool, end: Option<u64>) -> Vec<u64> {
        if self.stored.iter().any(|stored| stored.0 == id) {
            return Vec::new();
        }
        let waiting: Vec<u64> =
            self.asks.iter().filter(|ask| ask.0 == id).map(|ask| ask.1).collect();
        if once && let Some(first) = waiting.first() {
            self.asks.retain(|ask| (ask.0, ask.1) != (id, *first));
            return vec![*first];
        }
        self.asks.retain(|ask| ask.0 != id);
        if let Some(end) = end {
            self.stored.push((id, frame.clone(), once, end));
        }
        waiting
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

proptest! {
    #[test]
    fn a_rendezvous_answers_as_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let ledger = Ledger::new(RendezvousLimits::default());
        let accounts: Vec<_> =
            (0..CONNECTIONS).map(|n| Connection(Account::new(&ledger, n, ClientAddress::default()))).collect();
        let mut rendezvous = Rendezvous::default();
        let mut model = Model::default();
        let mut now = 0;
        for (number, step) in steps.into_iter().enumerate() {
            model.forget(now);
            match step {
                Step::Ask { by, id, ttl } => {
                    let asked = rendezvous
                        .ask(seconds(now), RelayId([id; 32]), seconds(ttl), &accounts[by as usize])
                        .unwrap();
                    let expected = model.ask(now, id, by, ttl);
                    let ready = match asked { Asked::Ready(frame) => Some(frame), _ => None };
                    prop_assert_eq!(ready, expected);
                }
                Step::Publish { by, id, ttl, once, length } => {
                    let frame = Bytes::from(vec![number as u8; length]);
                    let message = Publish {
                        id: RelayId([id; 32]),
                        ttl: seconds(ttl),
                        one_receiver: once,
                        frame: frame.clone(),
                    };
                    let mut got = Vec::new();
                    rendezvous.publish(seconds(now), message, &accounts[by as usize].0, |to, body| {
                        got.push((to.0.number(), body.clone()));
                        true
                    }).unwrap();
                    let end = (ttl > 0).then_some(now + ttl);
                    let expected = model.publish(id, &frame, once, end);
                    let expected: Vec<_> =
                        expected.into_iter().map(|to| (to, frame.clone())).collect();
                    prop_assert_eq!(got, expected);
                }
                Step::Wait { time } => now += time,
                Step::Expire { most } => {
                    let expired = rendezvous.expire(seconds(now), most);
                    prop_assert!(expired.stored + expired.asks <= most);
                }
                Step::Leave { who } => {
                    rendezvous.leave(who);
                    model.asks.retain(|ask| ask.1 != who);
                }
            }
        }
        // Once everything due is dropped, the books say what the model knows.
        model.forget(now);
        rendezvous.expire(seconds(now), usize::MAX);
        prop_assert_eq!(ledger.asks(), model.asks.len());
        prop_assert_eq!(ledger.stored(), model.stored.len());
        let bytes: usize = model.stored.iter().map(|stored| stored.1.len()).sum();
        let ids = model.asks.len() + model.stored.len();
        prop_assert_eq!(ledger.held_bytes(), bytes + ids * ID_COST);
        let ends = model.asks.iter().map(|ask| ask.2).chain(model.stored.iter().map(|s| s.3));
        prop_assert_eq!(rendezvous.next_deadline(), ends.min().map(seconds));
        rendezvous.expire(Duration::MAX, usize::MAX);
        prop_assert!(rendezvous.is_empty());
        prop_assert_eq!(ledger.held_bytes(), 0);
    }
}
