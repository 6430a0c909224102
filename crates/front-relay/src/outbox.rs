//! What waits for one connection: others put it in, its task takes it out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::postbox::{Account, Receiver};

use crate::config::Config;
use crate::websocket::{BINARY, Out, Writer};

/// Why a connection is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It does not read what it asked for.
    Slow,
    /// The relay stops.
    Stopping,
}

/// Bounds of an outbox, and what waits in all of them.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: usize,
    messages: usize,
    total_bytes: usize,
    total: AtomicUsize,
}

impl Room {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            bytes: config.queue_bytes,
            messages: config.queue_messages,
            total_bytes: config.queue_total_bytes,
            total: AtomicUsize::new(0),
        }
    }

    /// Bytes that wait for all connections.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Relaxed)
    }
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Out>,
    /// Of what has not left, be it here or in the connection's writer.
    bytes: usize,
    messages: usize,
    cut: Option<Cut>,
    gone: bool,
    waker: Option<Waker>,
}

/// The outbox of one connection.
pub(crate) struct Outbox {
    account: Arc<Account>,
    room: Arc<Room>,
    inner: Mutex<Inner>,
}

/// An outbox as the postbox knows it.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Arc<Outbox>);

impl Receiver for Handle {
    fn account(&self) -> &Arc<Account> {
        &self.0.account
    }
}

impl Outbox {
    pub(crate) fn new(account: Arc<Account>, room: Arc<Room>) -> Arc<Self> {
        Arc::new(Self { account, room, inner: Mutex::default() })
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Every step leaves the inside whole, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a message; whether the connection takes it. One whose bounds are full is cut,
    /// unless it sends to itself: it stops reading before that.
    pub(crate) fn deliver(&self, frame: &Bytes, since: Duration, own: bool) -> bool {
        let mut inner = self.lock();
        if inner.gone || inner.cut.is_some() {
            return false;
        }
        let length = frame.len();
        let room = &self.room;
        let total = room.total.fetch_add(length, Relaxed) + length;
        let full = inner.messages >= room.messages
            || inner.bytes + length > room.bytes
            || total > room.total_bytes;
        if inner.messages > 0 && full && !own {
            room.total.fetch_sub(length, Relaxed);
            inner.cut = Some(Cut::Slow);
        } else {
            inner.messages += 1;
            inner.bytes += length;
            inner.queue.push_back(Out {
                opcode: BINARY,
                payload: frame.clone(),
                since: Some(since),
            });
        }
        let taken = inner.cut.is_none();
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        taken
    }

    /// Adds a control frame of the connection's own, behind the deliveries that came before.
    pub(crate) fn control(&self, opcode: u8, payload: Bytes) {
        self.lock().queue.push_back(Out { opcode, payload, since: None });
    }

    /// Ends the connection from outside.
    pub(crate) fn cut(&self, cut: Cut) {
        let mut inner = self.lock();
        inner.cut.get_or_insert(cut);
        if let Some(waker) = inner.waker.take() {
            drop(inner);
            waker.wake();
        }
    }

    /// Its task begins a round: until [`Outbox::settle`] it need not be woken. Answers with the
    /// bytes and messages that have not left.
    pub(crate) fn begin(&self) -> (usize, usize) {
        let mut inner = self.lock();
        inner.waker = None;
        (inner.bytes, inner.messages)
    }

    /// Moves what waits to the writer.
    pub(crate) fn take(&self, writer: &mut Writer) -> Option<Cut> {
        let mut inner = self.lock();
        writer.take(&mut inner.queue);
        inner.cut
    }

    /// Notes what has left. Whether something waits already; if not, its task is woken when
    /// something does.
    pub(crate) fn settle(&self, cx: &mut Context<'_>, bytes: usize, messages: usize) -> bool {
        let mut inner = self.lock();
        inner.bytes -= bytes;
        inner.messages -= messages;
        self.room.total.fetch_sub(bytes, Relaxed);
        if !inner.queue.is_empty() || inner.cut.is_some() {
            return true;
        }
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        false
    }

    /// The connection is gone: nothing is taken any more, what waited is dropped.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.gone = true;
        inner.queue = VecDeque::new();
        inner.messages = 0;
        self.room.total.fetch_sub(std::mem::take(&mut inner.bytes), Relaxed);
    }
}
