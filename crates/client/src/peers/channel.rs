//! The two ends between a run and the task that carries its messages.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use quorate_participant::Gate;
use quorate_participant::devices::{MessageKind, SignedMessage};
use quorate_types::{Error, Result};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

/// Orders and messages that wait: a run of 16 devices has about 15 messages each way in a round.
const QUEUE: usize = 256;

/// What a run asks of its transport.
pub(crate) enum Order {
    /// A message from this member will be needed.
    Expect { kind: MessageKind, from: usize },
    /// Send a message; to all others where `to` is `None`.
    Send { kind: MessageKind, to: Option<usize>, payload: Bytes, gate: Gate },
    /// Say when all that was ordered before has left.
    Flush(oneshot::Sender<()>),
}

/// What carries a run's messages; the task ends at the latest with this value.
pub(crate) struct Channel {
    orders: mpsc::Sender<Order>,
    messages: mpsc::Receiver<Result<SignedMessage>>,
    last_error: LastError,
    failed: Arc<OnceLock<Error>>,
    transport: AbortOnDropHandle<()>,
}

/// The transport's ends.
pub(crate) struct Ends {
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) messages: mpsc::Sender<Result<SignedMessage>>,
    pub(crate) last_error: LastError,
    failed: Arc<OnceLock<Error>>,
}

impl Ends {
    /// Ends the run with this error, whatever it asks for next.
    pub(crate) async fn fail(&self, error: Error) {
        let _ = self.failed.set(error.clone());
        let _ = self.messages.send(Err(error)).await;
    }
}

/// Why the relay is out of reach, while it is.
#[derive(Clone, Default)]
pub(crate) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    pub(crate) fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Channel {
    /// Starts a transport.
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        transport: impl FnOnce(Ends) -> F,
    ) -> Self {
        let (orders, orders_out) = mpsc::channel(QUEUE);
        let (messages_in, messages) = mpsc::channel(QUEUE);
        let last_error = LastError::default();
        let failed = Arc::new(OnceLock::new());
        let ends = Ends {
            orders: orders_out,
            messages: messages_in,
            last_error: last_error.clone(),
            failed: failed.clone(),
        };
        let task = tokio::spawn(transport(ends));
        Self { orders, messages, last_error, failed, transport: AbortOnDropHandle::new(task) }
    }

    /// Says that a message will be needed.
    pub(crate) async fn expect(&self, kind: MessageKind, from: usize) -> Result<()> {
        self.order(Order::Expect { kind, from }).await
    }

    /// Sends a message that leaves only while the gate is open.
    pub(crate) async fn send(
        &self,
        gate: Gate,
        kind: MessageKind,
        to: Option<usize>,
        payload: Bytes,
    ) -> Result<()> {
        self.order(Order::Send { kind, to, payload, gate }).await
    }

    /// Waits until all messages have left this machine.
    pub(crate) async fn flush(&self) -> Result<()> {
        let (done, flushed) = oneshot::channel();
        self.order(Order::Flush(done)).await?;
        flushed.await.map_err(|_| self.ended())
    }

    /// The next message.
    pub(crate) async fn receive(&mut self) -> Result<SignedMessage> {
        self.messages.recv().await.unwrap_or_else(|| Err(self.ended()))
    }

    /// A message that has come already.
    pub(crate) fn try_receive(&mut self) -> Option<Result<SignedMessage>> {
        self.messages.try_recv().ok()
    }

    /// Why the relay is out of reach, while it is.
    pub(crate) fn watch_errors(&self) -> LastError {
        self.last_error.clone()
    }

    /// Lets the transport end in its own way.
    pub(crate) async fn close(self) {
        drop((self.orders, self.messages));
        let _ = self.transport.await;
    }

    async fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).await.map_err(|_| self.ended())
    }

    /// Why the transport has ended.
    fn ended(&self) -> Error {
        let failed = self.failed.get().cloned();
        failed.unwrap_or_else(|| Error::unavailable("the connection to the relay is closed"))
    }
}
