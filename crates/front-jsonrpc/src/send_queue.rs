//! What waits to be written to one connection: bounded, in order, some of it until it is durable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use axum::extract::ws::Utf8Bytes;
use futures_util::task::AtomicWaker;
use quorate_core::budget::shared::Share;

use crate::config::RelayLimits;
use crate::metrics::DropReason;

/// Calls of one connection that may wait for the disk before it is not read from: enough to keep a
/// group commit busy. A notification has no answer to wait in the queue, so these are counted too.
const MAX_PENDING: usize = 16;

/// What a frame that waits costs beside its bytes.
const ENTRY_COST: usize = 128;

/// Holds frames back until what they tell is on the disk.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

/// As which a gate starts is neither of these.
const OPEN: u8 = 1;
const BROKEN: u8 = 2;

impl Gate {
    /// Lets the frames go, or says that they never will.
    pub(crate) fn settle(&self, durable: bool) {
        self.0.store(if durable { OPEN } else { BROKEN }, Ordering::Release);
    }

    fn state(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

/// A frame on its way.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) frame: Utf8Bytes,
    /// The event's number for a connection that may resume, else 0.
    pub(crate) number: u64,
    pub(crate) gate: Option<Arc<Gate>>,
    /// It was missed before, so that the bound for what is missed holds and not that of the queue.
    pub(crate) missed: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        self.frame.len() + ENTRY_COST
    }
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Of the entries that were not missed before.
    frames: usize,
    bytes: usize,
    closing: Option<DropReason>,
}

/// What the connection's task is to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// An entry to be written on the socket.
    Write(Entry),
    /// Nothing for now.
    Wait,
    /// Close the connection.
    Close(DropReason),
}

/// The queue of one connection. Pushing never waits.
pub(crate) struct SendQueue {
    queue: Mutex<Queue>,
    /// The number of the last event that was written.
    written: AtomicU64,
    /// Calls whose changes are not on the disk yet.
    pending: AtomicUsize,
    waker: AtomicWaker,
    /// What waits in all queues of its address.
    address: Arc<Share>,
}

impl std::ops::Drop for SendQueue {
    fn drop(&mut self) {
        self.clear(&mut self.lock());
    }
}

impl SendQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of an address that has this share of all.
    pub(crate) fn new(address: Arc<Share>) -> Self {
        Self {
            queue: Mutex::default(),
            written: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
            address,
        }
    }

    /// Drops all that waits.
    fn clear(&self, queue: &mut Queue) {
        self.address.give_back(queue.entries.iter().map(Entry::cost).sum());
        *queue = Queue { closing: queue.closing, ..Queue::default() };
    }

    /// Queues a frame. With no room for it the connection is cut, and what waited is dropped.
    /// The connection's task hears of it by [`SendQueue::ring`].
    pub(crate) fn push(&self, entry: Entry, limits: &RelayLimits) {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return;
        }
        if !entry.missed {
            queue.frames += 1;
            queue.bytes += entry.frame.len();
        }
        // One frame alone is always taken: it was within its own bound.
        let full = queue.frames > limits.queue_frames
            || queue.bytes > limits.queue_bytes && queue.frames > 1;
        if full || self.address.take(entry.cost()).is_err() {
            self.clear(&mut queue);
            queue.closing = Some(DropReason::Slow);
        } else {
            queue.entries.push_back(entry);
        }
    }

    /// Closes after what is queued. What waits for a connection that lost its place is not its own.
    pub(crate) fn close(&self, why: DropReason) {
        let mut queue = self.lock();
        if why == DropReason::Replaced {
            self.clear(&mut queue);
        }
        queue.closing.get_or_insert(why);
    }

    /// Events up to this number were written.
    pub(crate) fn wrote(&self, event: u64) {
        self.written.fetch_max(event, Ordering::Relaxed);
    }

    /// The number of the last event that was written.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Wakes the connection's task.
    pub(crate) fn ring(&self) {
        self.waker.wake();
    }

    /// Says whom to wake.
    pub(crate) fn listen(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Takes the next frame out.
    pub(crate) fn next(&self) -> Next {
        let mut queue = self.lock();
        let gate = queue.entries.front().map(|entry| entry.gate.as_ref().map(|gate| gate.state()));
        match gate {
            None => return queue.closing.map_or(Next::Wait, Next::Close),
            Some(None | Some(OPEN)) => {}
            Some(Some(BROKEN)) => return Next::Close(DropReason::Broken),
            Some(Some(_)) => return Next::Wait,
        }
        let entry = queue.entries.pop_front().expect("there is a first one");
        self.address.give_back(entry.cost());
        if !entry.missed {
            queue.frames -= 1;
            queue.bytes -= entry.frame.len();
        }
        if queue.entries.is_empty() {
            // An idle connection holds no memory.
            queue.entries = VecDeque::new();
        }
        Next::Write(entry)
    }

    /// A call of this connection waits for the disk.
    pub(crate) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// A call of this connection waits no more.
    pub(crate) fn end(&self) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether so much waits that the connection should read before it asks for more.
    pub(crate) fn is_busy(&self, limits: &RelayLimits) -> bool {
        if self.pending.load(Ordering::Acquire) >= MAX_PENDING {
            return true;
        }
        let queue = self.lock();
        queue.frames >= limits.queue_frames / 4 || queue.bytes >= limits.queue_bytes / 4
    }

    /// Whether the connection was cut for reading too slowly.
    pub(crate) fn is_cut(&self) -> bool {
        self.lock().closing == Some(DropReason::Slow)
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::budget::shared::Shares;

    use super::*;

    fn send_queue() -> SendQueue {
        SendQueue::new(Shares::new(1 << 20).of(0))
    }

    fn entry(text: &str, gate: Option<&Arc<Gate>>) -> Entry {
        Entry { frame: text.to_owned().into(), number: 0, gate: gate.cloned(), missed: false }
    }

    fn written(send_queue: &SendQueue) -> Vec<String> {
        let next = || match send_queue.next() {
            Next::Write(entry) => Some(entry.frame.to_string()),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_is_not_durable_holds_back_what_follows() {
        let (send_queue, limits, gate) = (send_queue(), RelayLimits::default(), Arc::default());
        send_queue.push(entry("a", None), &limits);
        send_queue.push(entry("b", Some(&gate)), &limits);
        send_queue.push(entry("c", None), &limits);
        assert_eq!(written(&send_queue), ["a"]);
        gate.settle(true);
        assert_eq!(written(&send_queue), ["b", "c"]);
    }

    #[test]
    fn what_will_never_be_durable_ends_the_connection() {
        let (send_queue, limits, gate) = (send_queue(), RelayLimits::default(), Arc::default());
        send_queue.push(entry("b", Some(&gate)), &limits);
        gate.settle(false);
        assert!(matches!(send_queue.next(), Next::Close(DropReason::Broken)));
    }

    #[test]
    fn a_full_queue_is_dropped_and_the_connection_cut() {
        let limits = RelayLimits { queue_frames: 2, queue_bytes: 10, ..RelayLimits::default() };
        for frames in [&["a", "b", "c"][..], &["123456", "12345"]] {
            let send_queue = send_queue();
            for frame in frames {
                assert!(!send_queue.is_cut());
                send_queue.push(entry(frame, None), &limits);
            }
            assert!(send_queue.is_cut());
            assert!(matches!(send_queue.next(), Next::Close(DropReason::Slow)));
        }
        let send_queue = send_queue();
        send_queue.push(entry("one frame that is larger than all", None), &limits);
        assert!(!send_queue.is_cut());
    }

    #[test]
    fn all_queues_together_are_bounded_and_give_back_what_they_took() {
        let shares = Shares::new(4 * (4 + ENTRY_COST));
        let [a, b, c] = [1, 1, 2].map(|address| SendQueue::new(shares.of(address)));
        let limits = RelayLimits::default();
        for send_queue in [&a, &b, &c] {
            send_queue.push(entry("1234", None), &limits);
        }
        a.push(entry("5678", None), &limits);
        assert!(a.is_cut(), "two queues of one address have half of all");
        assert_eq!(shares.used(), 2 * (4 + ENTRY_COST), "what waited for it is dropped");
        c.push(entry("5678", None), &limits);
        b.push(entry("5678", None), &limits);
        assert!(!b.is_cut() && !c.is_cut());
        c.push(entry("9", None), &limits);
        assert!(c.is_cut(), "all is taken");
        assert_eq!(written(&b), ["1234", "5678"]);
        assert_eq!(shares.used(), 0);
    }

    #[test]
    fn a_close_frame_comes_after_what_was_said() {
        let (send_queue, limits) = (send_queue(), RelayLimits::default());
        send_queue.push(entry("a", None), &limits);
        send_queue.close(DropReason::Full);
        send_queue.push(entry("too late", None), &limits);
        assert_eq!(written(&send_queue), ["a"]);
        assert!(matches!(send_queue.next(), Next::Close(DropReason::Full)));
    }
}
