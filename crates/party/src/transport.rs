//! How the messages of one session leave and arrive.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_engine::Outgoing;
use quorate_ports::Router;
use quorate_types::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::outbox::Outbox;

/// Message ids remembered per session to drop what a new stream delivers again. An honest keygen
/// of 16 parties brings fewer than 256; whoever sends more than this is refused.
const SEEN_LEN: usize = 4096;

/// What the router calls our messages; opaque to it.
const MESSAGE_TYPE: &str = "quorate";

/// A message as the driver takes it.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What to acknowledge it by.
    pub message_id: MessageId,
    /// The sender as the router names it; the engine checks the signature against it.
    pub from: PartyId,
    /// The sealed envelope.
    pub payload: Bytes,
}

/// The messages of ONE session of ONE party.
#[async_trait]
pub trait Transport: Send {
    /// Hands a message over, in order. Returns before it is delivered or durable; a failure shows
    /// at a later call.
    async fn send(&mut self, outgoing: Outgoing) -> Result<()>;

    /// The next message, none twice. Cancelling it loses nothing.
    async fn receive(&mut self) -> Result<Incoming>;

    /// A message that has arrived already, without waiting.
    fn try_receive(&mut self) -> Option<Incoming>;

    /// The run has taken the message: acknowledge it with the next `send` or `flush`.
    fn accepted(&mut self, message: MessageId);

    /// The run has refused the message: acknowledge it as failed.
    async fn refused(&mut self, message: MessageId) -> Result<()>;

    /// Nothing is sent for now: acknowledge what was accepted, in the background.
    async fn flush(&mut self) -> Result<()>;
}

/// A [`Transport`] over a [`Router`]: sends through an [`Outbox`], receives from a bounded queue
/// that somebody's subscription fills.
pub struct RouterTransport {
    session: SessionId,
    me: PartyId,
    inbox: mpsc::Receiver<Message>,
    outbox: Outbox,
    acknowledges: Vec<MessageId>,
    seen: HashSet<MessageId>,
    stop: CancellationToken,
}

impl RouterTransport {
    /// Starts the outbox's task on the current runtime. After `stop` nothing is sent or received
    /// any more: the way to end a run without cutting off a computation whose fault must be kept.
    pub fn start(
        router: Arc<dyn Router>,
        session: SessionId,
        me: PartyId,
        inbox: mpsc::Receiver<Message>,
        stop: CancellationToken,
    ) -> Self {
        let outbox = Outbox::start(router, Caller::Party(me.clone()));
        let (acknowledges, seen) = (Vec::new(), HashSet::new());
        Self { session, me, inbox, outbox, acknowledges, seen, stop }
    }

    /// Waits until everything sent is delivered or refused for good.
    pub async fn close(self) {
        self.outbox.close().await;
    }

    fn acknowledgement(&self, message_id: MessageId, success: bool) -> Acknowledge {
        Acknowledge { message_id, party_id: self.me.clone(), session_id: self.session, success }
    }

    /// The message, unless it is known, of another session or our own.
    fn take(&mut self, message: Message) -> Result<Option<Incoming>> {
        if message.session_id != self.session || message.from_party == self.me {
            return Ok(None);
        }
        if self.seen.len() >= SEEN_LEN {
            return Err(Error::new(
                ErrorCode::RateLimited,
                "the session's messages are more than any honest run has; start it again",
            ));
        }
        if !self.seen.insert(message.message_id) {
            return Ok(None);
        }
        let Message { message_id, from_party: from, payload, .. } = message;
        Ok(Some(Incoming { message_id, from, payload }))
    }
}

fn stopped() -> Error {
    Error::new(ErrorCode::SessionExpired, "the session is over; start a new one")
}

#[async_trait]
impl Transport for RouterTransport {
    async fn send(&mut self, outgoing: Outgoing) -> Result<()> {
        let request = RouteRequest {
            session_id: self.session,
            from_party: self.me.clone(),
            to_parties: outgoing.to.into_iter().collect(),
            round: i32::from(outgoing.round),
            message_type: MESSAGE_TYPE.to_owned(),
            payload: outgoing.payload,
            acknowledges: std::mem::take(&mut self.acknowledges),
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(stopped()),
            queued = self.outbox.route(request) => queued,
        }
    }

    async fn receive(&mut self) -> Result<Incoming> {
        loop {
            let message = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(stopped()),
                error = self.outbox.trouble() => return Err(error),
                message = self.inbox.recv() => message,
            };
            let Some(message) = message else {
                return Err(Error::unavailable("the session's message stream has ended"));
            };
            if let Some(incoming) = self.take(message)? {
                return Ok(incoming);
            }
        }
    }

    fn try_receive(&mut self) -> Option<Incoming> {
        // A refusal here comes again at the next `receive`: the set of seen ids stays full.
        loop {
            let message = self.inbox.try_recv().ok()?;
            if let Some(incoming) = self.take(message).ok()? {
                return Some(incoming);
            }
        }
    }

    fn accepted(&mut self, message: MessageId) {
        self.acknowledges.push(message);
    }

    async fn refused(&mut self, message: MessageId) -> Result<()> {
        let refusal = self.acknowledgement(message, false);
        self.outbox.acknowledge(refusal).await
    }

    async fn flush(&mut self) -> Result<()> {
        for message in std::mem::take(&mut self.acknowledges) {
            let ack = self.acknowledgement(message, true);
            self.outbox.acknowledge(ack).await?;
        }
        Ok(())
    }
}
