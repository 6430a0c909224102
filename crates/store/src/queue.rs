//! The bounded queue before the writer thread, in three lanes.
//!
//! Urgent transactions go as soon as the disk is free, all that have come together. The others
//! linger, each lane for its own time and never with the first urgent one: most of them are
//! messages that will be acknowledged by then, or states that will be overtaken, and need not be
//! written at all, however busy the urgent lane is.
//!
//! Submitting never waits. A message that finds no room is refused, which hurts nobody: its sender
//! learns that it was not kept. Everything else is small and must follow the state it belongs to,
//! so it has room of its own, and overrunning that is a failure.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_ports::{Urgency, Write};
use quorate_types::Result;
use tokio::sync::oneshot;

/// Bytes that may wait before messages are refused: a second of writing on a slow disk.
const MAX_BYTES: usize = 64 << 20;
/// Transactions that may wait before messages are refused: a second of the fastest load measured.
const MAX_MESSAGES: usize = 32_768;
/// Transactions of any kind that may wait: the sessions and acknowledgements of so many messages.
const MAX_ITEMS: usize = 4 * MAX_MESSAGES;
/// Transactions of each urgency in one commit; more would save nothing and make the first wait.
const MAX_GROUP: usize = 4_096;
/// How long a transaction lingers that somebody waits for: about as long as a busy disk takes to
/// sync.
const SOON: Duration = Duration::from_millis(5);
/// How long one lingers that nobody waits for: longer than a message is computed with.
const LATER: Duration = Duration::from_millis(250);

/// A transaction and who waits for it.
pub(crate) struct Item {
    pub(crate) writes: Vec<Write>,
    pub(crate) urgency: Urgency,
    pub(crate) done: oneshot::Sender<Result<()>>,
}

impl Item {
    fn bytes(&self) -> usize {
        let of = |write: &Write| match write {
            Write::Message(row) => row.message.payload.len(),
            Write::Session(row) | Write::Interim(row, _) => row.document.len(),
            Write::DelegateShare(row) => row.package.len(),
            Write::LentShare(row) => row.lent.package.len(),
            Write::Group(write) => crate::groups::bytes(write),
            _ => 0,
        };
        self.writes.iter().map(of).sum()
    }

    fn is_refusable(&self) -> bool {
        self.writes.iter().all(|write| matches!(write, Write::Message(_)))
    }
}

/// Why a transaction was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// No room for messages just now.
    Messages,
    /// No room at all: what memory holds can no longer be made durable in order.
    Everything,
    /// The store is closing: nothing more is taken.
    Closed,
}

/// Transactions that linger, oldest first.
struct Lane {
    items: VecDeque<Item>,
    linger: Duration,
    /// When the oldest one has lingered enough.
    due: Option<Instant>,
}

impl Lane {
    fn new(linger: Duration) -> Self {
        Self { items: VecDeque::new(), linger, due: None }
    }

    fn push(&mut self, item: Item, now: Instant) {
        self.due.get_or_insert(now + self.linger);
        self.items.push_back(item);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.items.len() >= MAX_GROUP || self.due.is_some_and(|due| due <= now)
    }

    fn take(&mut self, now: Instant) -> impl Iterator<Item = Item> {
        let count = self.items.len().min(MAX_GROUP);
        // What remains has lingered too: the disk is behind.
        self.due = (self.items.len() > count).then_some(now);
        self.items.drain(..count)
    }
}

struct State {
    urgent: VecDeque<Item>,
    soon: Lane,
    later: Lane,
    bytes: usize,
    closed: bool,
}

impl Default for State {
    fn default() -> Self {
        let (soon, later) = (Lane::new(SOON), Lane::new(LATER));
        Self { urgent: VecDeque::new(), soon, later, bytes: 0, closed: false }
    }
}

impl State {
    fn len(&self) -> usize {
        self.urgent.len() + self.soon.items.len() + self.later.items.len()
    }

    /// Takes a transaction in; answers whether the writer need wake for it: not for more of what
    /// it will take anyway.
    fn push(&mut self, item: Item, now: Instant) -> Result<bool, Full> {
        let waiting = self.len();
        if self.closed {
            return Err(Full::Closed);
        }
        if waiting >= MAX_ITEMS {
            return Err(Full::Everything);
        }
        if item.is_refusable() && (waiting >= MAX_MESSAGES || self.bytes >= MAX_BYTES) {
            return Err(Full::Messages);
        }
        self.bytes += item.bytes();
        let length = match item.urgency {
            Urgency::Now => {
                self.urgent.push_back(item);
                return Ok(self.urgent.len() == 1);
            }
            Urgency::Soon => {
                self.soon.push(item, now);
                self.soon.items.len()
            }
            Urgency::Later => {
                self.later.push(item, now);
                self.later.items.len()
            }
        };
        Ok(length == 1 || length == MAX_GROUP)
    }

    /// What is to be written at `now`, the urgent ones first; nothing when all may wait.
    fn take(&mut self, now: Instant) -> Vec<Item> {
        let count = self.urgent.len().min(MAX_GROUP);
        let mut group: Vec<_> = self.urgent.drain(..count).collect();
        if self.closed || self.soon.is_due(now) {
            group.extend(self.soon.take(now));
        }
        // What belongs behind a message stays behind it.
        let behind = self.soon.due.is_some_and(|due| due <= now);
        if !behind && (self.closed || self.later.is_due(now)) {
            group.extend(self.later.take(now));
        }
        self.bytes -= group.iter().map(Item::bytes).sum::<usize>();
        group
    }

    /// When the next transaction has lingered enough.
    fn due(&self) -> Option<Instant> {
        self.soon.due.into_iter().chain(self.later.due).min()
    }
}

/// Transactions of each urgency in the order of their submission.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    waker: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: Item) -> Result<(), Full> {
        let wake = self.lock().push(item, Instant::now())?;
        if wake {
            self.waker.notify_one();
        }
        Ok(())
    }

    /// Takes nothing more in. What is queued can still be taken out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.waker.notify_one();
    }

    /// Waits for transactions and takes out a group, an empty one at `due`; `None` when closed and
    /// empty.
    pub(crate) fn next_group(&self, due: Option<Instant>) -> Option<Vec<Item>> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let group = state.take(now);
            if !group.is_empty() {
                return Some(group);
            }
            if state.closed {
                return None;
            }
            if due.is_some_and(|due| due <= now) {
                return Some(group);
            }
            state = match state.due().into_iter().chain(due).min() {
                None => self.waker.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let woken = self.waker.wait_timeout(state, due.saturating_duration_since(now));
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_types::*;

    use super::*;

    fn item(writes: Vec<Write>, urgency: Urgency) -> Item {
        Item { writes, urgency, done: oneshot::channel().0 }
    }

    fn note(n: u128) -> Write {
        Write::PendingKey { session: format!("{n:032x}").parse().unwrap(), account: None }
    }

    fn message(bytes: usize) -> Write {
        let message = Message {
            message_id: format!("{:032x}", 1).parse().unwrap(),
            session_id: format!("{:032x}", 2).parse().unwrap(),
            from_party: "a".parse().unwrap(),
            is_broadcast: false,
            round: 0,
            message_type: String::new(),
            payload: vec![0; bytes].into(),
            created_at: Timestamp(0),
        };
        Write::Message(Arc::new(MessageRow::new(message, 1, vec![])))
    }

    fn numbers(group: &[Item]) -> Vec<u128> {
        let of = |write: &Write| match write {
            Write::PendingKey { session, .. } => session.0.as_u128(),
            _ => unreachable!("only notes are queued here"),
        };
        group.iter().flat_map(|item| item.writes.iter().map(of)).collect()
    }

    fn queued(state: &mut State, notes: &[(u128, Urgency)], now: Instant) {
        for (n, urgency) in notes {
            state.push(item(vec![note(*n)], *urgency), now).unwrap();
        }
    }

    #[test]
    fn urgent_transactions_go_at_once_in_order_and_leave_the_others_lingering() {
        let (mut state, now) = (State::default(), Instant::now());
        let notes = [
            (1, Urgency::Later),
            (2, Urgency::Soon),
            (3, Urgency::Now),
            (4, Urgency::Soon),
            (5, Urgency::Now),
            (6, Urgency::Later),
        ];
        queued(&mut state, &notes, now);
        assert_eq!(numbers(&state.take(now)), [3, 5]);
        assert!(state.take(now).is_empty());
        assert_eq!(state.due(), Some(now + SOON));
        assert_eq!(numbers(&state.take(now + SOON)), [2, 4]);
        assert_eq!(state.due(), Some(now + LATER));
        assert_eq!(numbers(&state.take(now + LATER)), [1, 6]);
        assert_eq!(state.due(), None);
    }

    #[test]
    fn a_lane_lingers_for_the_time_of_its_oldest() {
        for (urgency, linger) in [(Urgency::Soon, SOON), (Urgency::Later, LATER)] {
            let (mut state, now) = (State::default(), Instant::now());
            queued(&mut state, &[(1, urgency)], now);
            queued(&mut state, &[(2, urgency)], now + linger / 2);
            assert!(state.take(now + linger / 2).is_empty());
            queued(&mut state, &[(3, Urgency::Now)], now + linger);
            assert_eq!(numbers(&state.take(now + linger)), [3, 1, 2]);
            queued(&mut state, &[(4, urgency)], now + linger);
            assert!(state.take(now + linger).is_empty(), "the next one lingers for its own time");
        }
    }

    #[test]
    fn a_backlog_is_cut_into_groups_and_does_not_linger() {
        for urgency in [Urgency::Soon, Urgency::Later] {
            let (mut state, now) = (State::default(), Instant::now());
            let notes: Vec<_> = (0..=MAX_GROUP as u128).map(|n| (n, urgency)).collect();
            queued(&mut state, &notes, now);
            assert_eq!(state.take(now).len(), MAX_GROUP);
            assert_eq!(numbers(&state.take(now)), [MAX_GROUP as u128]);
        }
    }

    #[test]
    fn what_is_written_later_never_overtakes_a_message_in_front_of_it() {
        let (mut state, now) = (State::default(), Instant::now());
        let notes: Vec<_> = (0..=MAX_GROUP as u128).map(|n| (n, Urgency::Soon)).collect();
        queued(&mut state, &notes, now);
        queued(&mut state, &[(9_999, Urgency::Later)], now);
        let first = numbers(&state.take(now + LATER));
        assert_eq!((first.len(), first.contains(&9_999)), (MAX_GROUP, false));
        assert_eq!(numbers(&state.take(now + LATER)), [MAX_GROUP as u128, 9_999]);
    }

    #[test]
    fn a_stream_of_urgent_transactions_does_not_hold_the_others_back() {
        let (mut state, now) = (State::default(), Instant::now());
        queued(&mut state, &[(7, Urgency::Soon), (8, Urgency::Later)], now);
        let notes: Vec<_> = (0..2 * MAX_GROUP as u128).map(|n| (n, Urgency::Now)).collect();
        queued(&mut state, &notes, now);
        let group = numbers(&state.take(now + LATER));
        assert_eq!((group.len(), &group[MAX_GROUP..]), (MAX_GROUP + 2, &[7, 8][..]));
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let queue = Queue::default();
        queue.push(item(vec![note(1)], Urgency::Later)).unwrap();
        queue.close();
        assert_eq!(queue.push(item(vec![note(2)], Urgency::Now)), Err(Full::Closed));
        assert_eq!(numbers(&queue.next_group(None).unwrap()), [1]);
        assert!(queue.next_group(None).is_none());
    }

    #[test]
    fn a_waiting_writer_gets_what_comes() {
        let queue = Queue::default();
        for urgency in [Urgency::Now, Urgency::Soon, Urgency::Later] {
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| queue.next_group(None).unwrap());
                queue.push(item(vec![note(1)], urgency)).unwrap();
                assert_eq!(numbers(&writer.join().unwrap()), [1]);
            });
        }
    }

    #[test]
    fn a_writer_is_woken_when_it_is_due() {
        let queue = Queue::default();
        let group = queue.next_group(Some(Instant::now() + SOON)).unwrap();
        assert!(group.is_empty());
    }

    #[test]
    fn messages_are_refused_when_too_many_wait_and_the_rest_later() {
        let (mut state, now) = (State::default(), Instant::now());
        let push = |state: &mut State, writes| state.push(item(writes, Urgency::Now), now);
        for _ in 0..MAX_MESSAGES {
            push(&mut state, vec![message(0)]).unwrap();
        }
        assert_eq!(push(&mut state, vec![message(0)]), Err(Full::Messages));
        assert_eq!(push(&mut state, vec![message(0), note(1)]), Ok(false));
        while state.urgent.len() < MAX_ITEMS {
            push(&mut state, vec![note(1)]).unwrap();
        }
        assert_eq!(push(&mut state, vec![note(1)]), Err(Full::Everything));
    }

    #[test]
    fn messages_are_refused_when_too_many_bytes_wait_and_accepted_again_after() {
        let (mut state, now) = (State::default(), Instant::now());
        let push = |state: &mut State, writes| state.push(item(writes, Urgency::Now), now);
        push(&mut state, vec![message(MAX_BYTES)]).unwrap();
        assert_eq!(push(&mut state, vec![message(1)]), Err(Full::Messages));
        assert_eq!(push(&mut state, vec![note(1)]), Ok(false));
        assert_eq!(state.take(now).len(), 2);
        assert_eq!(push(&mut state, vec![message(1)]), Ok(true));
    }
}
