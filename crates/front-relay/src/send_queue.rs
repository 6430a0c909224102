//! What waits for one connection: others put it in, its task takes it out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::budget::Over;
use quorate_core::budget::shared::Share;
use quorate_core::rendezvous::{Account, Receiver};

use crate::config::Config;
use crate::websocket::{BINARY, Out, Writer};

/// What a message that waits costs beside its bytes.
const QUEUED_COST: usize = 128;

/// Why a connection is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It does not read what it asked for.
    Slow,
    /// Its address, or all together, do not.
    Crowded(Over),
    /// The relay stops.
    Stopping,
}

impl Cut {
    /// Whether that is for not reading: what waits is dropped.
    pub(crate) fn drops(self) -> bool {
        self != Self::Stopping
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

/// The send_queue of one connection.
pub(crate) struct SendQueue {
    account: Arc<Account>,
    /// Bounds of this connection alone.
    most_bytes: usize,
    most_messages: usize,
    /// What waits for all connections of its address.
    address: Arc<Share>,
    inner: Mutex<Inner>,
}

/// What a connection that has ended still has to say; counted until it is dropped.
pub(crate) struct Rest {
    address: Arc<Share>,
    amount: usize,
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.address.give_back(self.amount);
    }
}

/// What so many bytes of so many messages are counted as.
fn cost(bytes: usize, messages: usize) -> usize {
    bytes + messages * QUEUED_COST
}

/// An send_queue as the rendezvous knows it.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Arc<SendQueue>);

impl Receiver for Handle {
    fn account(&self) -> &Arc<Account> {
        &self.0.account
    }
}

impl SendQueue {
    pub(crate) fn new(account: Arc<Account>, config: &Config, address: Arc<Share>) -> Arc<Self> {
        let (most_bytes, most_messages) = (config.queue_bytes, config.queue_messages);
        Arc::new(Self { account, most_bytes, most_messages, address, inner: Mutex::default() })
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
        let full = inner.messages >= self.most_messages || inner.bytes + length > self.most_bytes;
        if inner.messages > 0 && full && !own {
            inner.cut = Some(Cut::Slow);
        } else if let Err(over) = self.address.take(cost(length, 1)) {
            inner.cut = Some(Cut::Crowded(over));
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

    /// Its task begins a round: until [`SendQueue::settle`] it need not be woken. Answers with the
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
        self.address.give_back(cost(bytes, messages));
        if !inner.queue.is_empty() || inner.cut.is_some() {
            return true;
        }
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        false
    }

    /// The connection ends: nothing is taken any more. What waits here is dropped; what its writer
    /// has still to write goes on counting.
    pub(crate) fn end(&self, writer: &Writer) -> Rest {
        let (bytes, messages) = writer.deliveries();
        let amount = cost(bytes, messages);
        let mut inner = self.lock();
        inner.gone = true;
        inner.queue = VecDeque::new();
        let waited = cost(inner.bytes, inner.messages);
        (inner.bytes, inner.messages) = (0, 0);
        self.address.give_back(waited - amount);
        Rest { address: self.address.clone(), amount }
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.address.give_back(cost(inner.bytes, inner.messages));
    }
}
