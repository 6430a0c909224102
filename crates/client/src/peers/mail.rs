//! The two ends between a run and the task that carries its letters.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quorate_party::Gate;
use quorate_types::{Error, Result};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::letter::{Letter, Slot};

/// Orders and letters that wait: a run of 16 devices has about 15 letters each way in a round.
const QUEUE: usize = 256;

/// What a run asks of its carrier.
pub(crate) enum Order {
    /// A letter from this member will be needed.
    Expect { slot: Slot, from: usize },
    /// Send a letter; to all others where `to` is `None`.
    Send { slot: Slot, to: Option<usize>, payload: Bytes, gate: Gate },
    /// Say when all that was ordered before has left.
    Flush(oneshot::Sender<()>),
}

/// What carries a run's letters; the task ends at the latest with this value.
pub(crate) struct Mail {
    orders: mpsc::Sender<Order>,
    letters: mpsc::Receiver<Result<Letter>>,
    trouble: Trouble,
    carrier: AbortOnDropHandle<()>,
}

/// The carrier's ends.
pub(crate) struct Ends {
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) letters: mpsc::Sender<Result<Letter>>,
    pub(crate) trouble: Trouble,
}

/// Why the relay is out of reach, while it is.
#[derive(Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    pub(crate) fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Mail {
    /// Starts a carrier.
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        carrier: impl FnOnce(Ends) -> F,
    ) -> Self {
        let (orders, orders_out) = mpsc::channel(QUEUE);
        let (letters_in, letters) = mpsc::channel(QUEUE);
        let trouble = Trouble::default();
        let ends = Ends { orders: orders_out, letters: letters_in, trouble: trouble.clone() };
        let task = tokio::spawn(carrier(ends));
        Self { orders, letters, trouble, carrier: AbortOnDropHandle::new(task) }
    }

    /// Says that a letter will be needed.
    pub(crate) async fn expect(&self, slot: Slot, from: usize) -> Result<()> {
        self.order(Order::Expect { slot, from }).await
    }

    /// Sends a letter.
    pub(crate) async fn send(&self, slot: Slot, to: Option<usize>, payload: Bytes) -> Result<()> {
        self.send_through(Gate::open(), slot, to, payload).await
    }

    /// Sends a letter that leaves only while the gate is open.
    pub(crate) async fn send_through(
        &self,
        gate: Gate,
        slot: Slot,
        to: Option<usize>,
        payload: Bytes,
    ) -> Result<()> {
        self.order(Order::Send { slot, to, payload, gate }).await
    }

    /// Waits until all letters have left this machine.
    pub(crate) async fn flush(&self) -> Result<()> {
        let (done, flushed) = oneshot::channel();
        self.order(Order::Flush(done)).await?;
        flushed.await.map_err(|_| ended())
    }

    /// The next letter.
    pub(crate) async fn receive(&mut self) -> Result<Letter> {
        self.letters.recv().await.unwrap_or_else(|| Err(ended()))
    }

    /// A letter that has come already.
    pub(crate) fn try_receive(&mut self) -> Option<Result<Letter>> {
        self.letters.try_recv().ok()
    }

    /// Why the relay is out of reach, if it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.get()
    }

    /// Lets the carrier end in its own way.
    pub(crate) async fn close(self) {
        drop((self.orders, self.letters));
        let _ = self.carrier.await;
    }

    async fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).await.map_err(|_| ended())
    }
}

fn ended() -> Error {
    Error::unavailable("the connection to the relay has ended for good")
}
