//! The rendezvous of the binary relay: who waits for which message id, and what is ready.
//!
//! A relay has several, each for a part of the ids, and calls one at a time. Time is what has
//! passed since any fixed moment. What is due has no effect from that time on, also before
//! [`Rendezvous::expire`] has come to it, so it does not matter how often that is called.

pub mod ledger;
#[cfg(test)]
mod tests;

use std::collections::hash_map;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::RelayId;

pub use ledger::{Account, ID_COST, Ledger, PRESSED_TTL, Rejection, RendezvousLimits};

/// A map this small keeps its room.
const KEPT_ROOM: usize = 256;

/// A connection as a rendezvous sees it.
pub trait Receiver: Clone {
    /// Its account, by whose number it is known.
    fn account(&self) -> &Arc<Account>;
}

/// A message that is published.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The id under which the message is published.
    pub id: RelayId,
    /// How long it stays: within its publisher's [`Account::longest_ttl`].
    pub ttl: Duration,
    /// It goes to exactly one asker and is then forgotten.
    pub one_receiver: bool,
    /// What askers get, header included.
    pub frame: Bytes,
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Here is the message.
    Ready(Bytes),
    /// Nothing yet: the asker waits, or goes on waiting.
    Waits,
    /// Nothing yet, and a question with a ttl of 0 does not wait.
    Nothing,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Delivered to so many, and not kept: its ttl is 0, or its one receiver has it.
    Delivered(usize),
    /// Delivered to so many, and kept until its ttl.
    Stored(usize),
    /// Another message has this id already.
    Ignored,
}

/// How much was dropped because its time had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Stored messages whose time to live ended.
    pub stored: usize,
    /// Requests for messages that nobody published in time.
    pub asks: usize,
}

/// When something is due. Numbers keep those of the same time apart.
type Due = (Duration, u64);

struct Waiter<R> {
    receiver: R,
    due: Due,
}

struct Stored {
    frame: Bytes,
    one_receiver: bool,
    account: Arc<Account>,
    due: Due,
}

enum Entry<R> {
    Waiting(Vec<Waiter<R>>),
    Ready(Stored),
}

/// What a deadline is about: the stored message, or the question of one connection.
#[derive(Clone, Copy)]
struct Subject {
    id: RelayId,
    asker: Option<u64>,
}

/// The message ids of one part of a relay.
pub struct Rendezvous<R> {
    entries: HashMap<RelayId, Entry<R>>,
    /// The open questions by connection.
    asks: BTreeSet<(u64, RelayId)>,
    deadlines: BTreeMap<Due, Subject>,
    last_number: u64,
}

impl<R> Default for Rendezvous<R> {
    fn default() -> Self {
        let (entries, asks, deadlines) = (HashMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { entries, asks, deadlines, last_number: 0 }
    }
}

impl<R: Receiver> Rendezvous<R> {
    /// A connection asks for a message.
    ///
    /// Asking again while waiting is one question, which lasts as long as the longer of both.
    pub fn ask(
        &mut self,
        now: Duration,
        id: RelayId,
        ttl: Duration,
        receiver: &R,
    ) -> Result<Asked, Rejection> {
        if let Some(frame) = self.take_ready(now, id) {
            return Ok(Asked::Ready(frame));
        }
        let number = receiver.account().number();
        if self.asks.contains(&(number, id)) && self.ask_again(now, id, ttl, number) {
            return Ok(Asked::Waits);
        }
        if ttl.is_zero() {
            return Ok(Asked::Nothing);
        }
        receiver.account().ask()?;
        let due = self.due(now + ttl, Subject { id, asker: Some(number) });
        self.asks.insert((number, id));
        let waiter = Waiter { receiver: receiver.clone(), due };
        match self.entries.entry(id).or_insert_with(|| Entry::Waiting(Vec::new())) {
            Entry::Waiting(waiters) => waiters.push(waiter),
            Entry::Ready(_) => unreachable!("a ready message was taken above"),
        }
        Ok(Asked::Waits)
    }

    /// Lengthens a question that is open; one whose time is over goes, and is asked anew.
    fn ask_again(&mut self, now: Duration, id: RelayId, ttl: Duration, number: u64) -> bool {
        let Some(Entry::Waiting(waiters)) = self.entries.get_mut(&id) else {
            return false;
        };
        let asked = |waiter: &&mut Waiter<R>| waiter.receiver.account().number() == number;
        let Some(waiter) = waiters.iter_mut().find(asked) else {
            return false;
        };
        if waiter.due.0 <= now {
            self.drop_ask(id, number);
            return false;
        }
        let due = (waiter.due.0.max(now + ttl), waiter.due.1);
        if let Some(subject) = self.deadlines.remove(&waiter.due) {
            self.deadlines.insert(due, subject);
        }
        waiter.due = due;
        true
    }

    /// A connection publishes a message. `deliver` hands it to a waiting one and says whether
    /// that one takes it; it is called in the order of the questions.
    pub fn publish(
        &mut self,
        now: Duration,
        message: Publish,
        publisher: &Arc<Account>,
        mut deliver: impl FnMut(&R, &Bytes) -> bool,
    ) -> Result<Published, Rejection> {
        let Publish { id, ttl, one_receiver, frame } = message;
        if frame.len() > publisher.limits().message_bytes {
            return Err(Rejection::TooLarge);
        }
        self.drop_stale(now, id);
        if matches!(self.entries.get(&id), Some(Entry::Ready(_))) {
            return Ok(Published::Ignored);
        }
        if one_receiver && self.deliver_to_one(now, id, &frame, &mut deliver) {
            return Ok(Published::Delivered(1));
        }
        let kept = !ttl.is_zero();
        if kept {
            // Before anybody has it: what is refused reaches nobody.
            publisher.store(frame.len())?;
        }
        let mut delivered = 0;
        if let Some(Entry::Waiting(waiters)) = self.entries.remove(&id) {
            for waiter in waiters {
                self.forget_waiter(id, &waiter);
                let reached = waiter.due.0 > now && !one_receiver;
                delivered += usize::from(reached && deliver(&waiter.receiver, &frame));
            }
        }
        if !kept {
            self.shrink();
            return Ok(Published::Delivered(delivered));
        }
        let due = self.due(now + ttl, Subject { id, asker: None });
        let stored = Stored { frame, one_receiver, account: publisher.clone(), due };
        self.entries.insert(id, Entry::Ready(stored));
        Ok(Published::Stored(delivered))
    }

    /// Hands a message to the first waiting asker that takes it; the others go on waiting.
    fn deliver_to_one(
        &mut self,
        now: Duration,
        id: RelayId,
        frame: &Bytes,
        deliver: &mut impl FnMut(&R, &Bytes) -> bool,
    ) -> bool {
        let Some(Entry::Waiting(waiters)) = self.entries.get_mut(&id) else {
            return false;
        };
        let takes = |waiter: &Waiter<R>| waiter.due.0 > now && deliver(&waiter.receiver, frame);
        let Some(at) = waiters.iter().position(takes) else {
            return false;
        };
        let waiter = waiters.remove(at);
        if waiters.is_empty() {
            self.entries.remove(&id);
        }
        self.forget_waiter(id, &waiter);
        self.shrink();
        true
    }

    /// A connection is gone: its questions go, what it published stays. Answers with how many
    /// questions went.
    pub fn leave(&mut self, number: u64) -> usize {
        let all = (number, RelayId([0; 32]))..=(number, RelayId([0xff; 32]));
        let asked: Vec<RelayId> = self.asks.range(all).map(|(_, id)| *id).collect();
        for id in &asked {
            self.drop_ask(*id, number);
        }
        self.shrink();
        asked.len()
    }

    /// Drops what is due, the oldest first, at most so many: a caller that holds a lock lets go
    /// of it in between.
    pub fn expire(&mut self, now: Duration, most: usize) -> Expired {
        let mut expired = Expired::default();
        while expired.stored + expired.asks < most {
            let Some(first) = self.deadlines.first_entry().filter(|e| e.key().0 <= now) else {
                break;
            };
            let Subject { id, asker } = *first.get();
            match asker {
                Some(number) => {
                    self.drop_ask(id, number);
                    expired.asks += 1;
                }
                None => {
                    self.drop_stored(id);
                    expired.stored += 1;
                }
            }
        }
        self.shrink();
        expired
    }

    /// When the next thing is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first_key_value().map(|(due, _)| due.0)
    }

    /// Message ids that somebody waits for or that are ready.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is waited for and nothing is ready.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Ids there is room for without asking for memory.
    pub fn room(&self) -> usize {
        self.entries.capacity()
    }

    fn take_ready(&mut self, now: Duration, id: RelayId) -> Option<Bytes> {
        self.drop_stale(now, id);
        let Some(Entry::Ready(stored)) = self.entries.get(&id) else {
            return None;
        };
        let (frame, once) = (stored.frame.clone(), stored.one_receiver);
        if once {
            self.drop_stored(id);
            self.shrink();
        }
        Some(frame)
    }

    /// Drops the stored message of an id when it is due.
    fn drop_stale(&mut self, now: Duration, id: RelayId) {
        if matches!(self.entries.get(&id), Some(Entry::Ready(stored)) if stored.due.0 <= now) {
            self.drop_stored(id);
        }
    }

    fn drop_stored(&mut self, id: RelayId) {
        if let Some(Entry::Ready(stored)) = self.entries.remove(&id) {
            self.deadlines.remove(&stored.due);
            stored.account.forget_stored(stored.frame.len());
        }
    }

    fn drop_ask(&mut self, id: RelayId, number: u64) {
        let hash_map::Entry::Occupied(mut entry) = self.entries.entry(id) else {
            return;
        };
        let Entry::Waiting(waiters) = entry.get_mut() else {
            return;
        };
        let asked = |waiter: &Waiter<R>| waiter.receiver.account().number() == number;
        let Some(at) = waiters.iter().position(asked) else {
            return;
        };
        let waiter = waiters.remove(at);
        if waiters.is_empty() {
            entry.remove();
        }
        self.forget_waiter(id, &waiter);
    }

    /// Takes a waiter that has left its entry out of the books.
    fn forget_waiter(&mut self, id: RelayId, waiter: &Waiter<R>) {
        let account = waiter.receiver.account();
        self.deadlines.remove(&waiter.due);
        self.asks.remove(&(account.number(), id));
        account.forget_ask();
    }

    fn due(&mut self, at: Duration, subject: Subject) -> Due {
        self.last_number += 1;
        let due = (at, self.last_number);
        self.deadlines.insert(due, subject);
        due
    }

    /// Gives memory back after a flood. Twice of what is used stays, so it is cheap on average.
    fn shrink(&mut self) {
        let (room, used) = (self.entries.capacity(), self.entries.len());
        if room > KEPT_ROOM && used < room / 8 {
            self.entries.shrink_to((used * 2).max(KEPT_ROOM / 2));
        }
    }
}
