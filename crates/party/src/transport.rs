//! How the messages of one session leave and arrive.

use std::collections::HashSet;
use std::sync::Arc;

use quorate_engine::Outgoing;
use quorate_participant::{Gate, Incoming};
use quorate_ports::Deliver;
use quorate_types::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::authority::Stored;
use crate::outbox::Outbox;
use crate::seat::Names;

/// Message ids remembered per session to drop what a new stream delivers again. An honest keygen
/// of 16 parties brings fewer than 256; whoever sends more than this is refused.
const SEEN_LEN: usize = 4096;

/// What the router calls our messages; opaque to it.
const MESSAGE_TYPE: &str = "quorate";

/// The messages of one session of one party: it sends through a bounded queue of its own and receives
/// from a bounded queue that somebody's subscription fills.
pub(crate) struct RouterTransport {
    session: SessionId,
    me: PartyId,
    names: Names,
    inbox: mpsc::Receiver<Message>,
    outbox: Outbox,
    acknowledges: Vec<MessageId>,
    seen: HashSet<MessageId>,
    stop: CancellationToken,
    gate: Gate,
    /// A write that must have ended before a message that tells of the result leaves.
    held: Option<Stored>,
}

impl RouterTransport {
    /// Starts the outbox's task on the current runtime. After `stop` nothing is sent or received
    /// any more: the way to end a run without cutting off a computation whose fault must be kept.
    pub(crate) fn start(
        router: Arc<dyn Deliver>,
        session: SessionId,
        (me, names): (PartyId, Names),
        inbox: mpsc::Receiver<Message>,
        stop: CancellationToken,
    ) -> Self {
        let outbox = Outbox::start(router, Caller::Party(me.clone()));
        let (acknowledges, seen) = (Vec::new(), HashSet::new());
        Self {
            session,
            me,
            names,
            inbox,
            outbox,
            acknowledges,
            seen,
            stop,
            gate: Gate::open(),
            held: None,
        }
    }

    /// Lets no message that tells of the result leave before this has been written.
    pub(crate) fn hold_results(&mut self, until: Option<Stored>) {
        self.held = until;
    }

    /// Waits until everything sent is delivered or refused for good.
    pub(crate) async fn close(self) {
        self.outbox.close().await;
    }

    /// What is queued from now on asks this gate again before it leaves.
    pub(crate) fn guard(&mut self, gate: &Gate) {
        self.gate = gate.clone();
    }

    /// Hands a message over, in order. Returns before it is delivered or durable; a failure shows
    /// at a later call.
    pub(crate) async fn send(&mut self, outgoing: Outgoing) -> Result<()> {
        if outgoing.telling
            && let Some(stored) = self.held.take()
        {
            stored.await?;
        }
        let request = RouteRequest {
            session_id: self.session,
            from_party: self.me.clone(),
            to_parties: outgoing.to.into_iter().map(|to| self.names.party(to)).collect(),
            round: i32::from(outgoing.round),
            message_type: MESSAGE_TYPE.to_owned(),
            payload: outgoing.payload,
            acknowledges: std::mem::take(&mut self.acknowledges),
            patient: true,
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(stopped()),
            queued = self.outbox.route(request, self.gate.clone()) => queued,
        }
    }

    /// The next message, none twice. Cancelling it loses nothing.
    pub(crate) async fn receive(&mut self) -> Result<Incoming> {
        loop {
            let message = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(stopped()),
                error = self.outbox.last_error() => return Err(error),
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

    /// A message that has arrived already, without waiting.
    pub(crate) fn try_receive(&mut self) -> Option<Incoming> {
        // A refusal here comes again at the next `receive`: the set of seen ids stays full.
        loop {
            let message = self.inbox.try_recv().ok()?;
            if let Some(incoming) = self.take(message).ok()? {
                return Some(incoming);
            }
        }
    }

    /// The run has taken the message: acknowledge it with the next `send` or `flush`.
    pub(crate) fn accepted(&mut self, message: MessageId) {
        self.acknowledges.push(message);
    }

    /// The run has refused the message: acknowledge it as failed.
    pub(crate) async fn refused(&mut self, message: MessageId) -> Result<()> {
        let refusal = self.acknowledgement(message, false);
        self.acknowledge(refusal).await
    }

    /// Nothing is sent for now: acknowledge what was accepted, in the background.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        for message in std::mem::take(&mut self.acknowledges) {
            let ack = self.acknowledgement(message, true);
            self.acknowledge(ack).await?;
        }
        Ok(())
    }

    /// Queues an acknowledgement, unless the run is to stop: a router that lets the queue fill up
    /// must not hold a run.
    async fn acknowledge(&mut self, ack: Acknowledge) -> Result<()> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(stopped()),
            queued = self.outbox.acknowledge(ack, self.gate.clone()) => queued,
        }
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
        let Message { message_id, from_party, payload, .. } = message;
        let from = self.names.holder(from_party);
        Ok(Some(Incoming { message_id, from, payload }))
    }
}

fn stopped() -> Error {
    Error::new(ErrorCode::SessionExpired, "the session is over; start a new one")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_testkit::Fake;

    use super::*;

    fn session() -> SessionId {
        quorate_testkit::session().session_id
    }

    fn message(session_id: SessionId, from: &str, number: u128) -> Message {
        let message_id = MessageId(uuid::Uuid::from_u128(number));
        let from_party = from.parse().unwrap();
        Message { message_id, session_id, from_party, ..quorate_testkit::message(1) }
    }

    fn start(router: &Arc<Fake>) -> (mpsc::Sender<Message>, RouterTransport) {
        let (sender, inbox) = mpsc::channel(SEEN_LEN * 2);
        let (me, stop) = ("a".parse().unwrap(), CancellationToken::new());
        let names = Names::new(tokio::sync::watch::channel(None).1);
        (sender, RouterTransport::start(router.clone(), session(), (me, names), inbox, stop))
    }

    fn outgoing(round: u16) -> Outgoing {
        let telling = round > 1;
        Outgoing { to: None, round, telling, payload: Bytes::from_static(b"x") }
    }

    #[tokio::test]
    async fn a_message_is_received_once_and_only_of_its_session_and_of_others() {
        let (sender, mut transport) = start(&Arc::default());
        let elsewhere = SessionId(uuid::Uuid::nil());
        for message in [
            message(session(), "b", 1),
            message(session(), "b", 1),
            message(elsewhere, "b", 2),
            message(session(), "a", 3),
            message(session(), "b", 4),
        ] {
            sender.try_send(message).unwrap();
        }
        let ids = [transport.receive().await.unwrap(), transport.receive().await.unwrap()];
        assert_eq!(ids.map(|incoming| incoming.message_id.0.as_u128()), [1, 4]);
        assert!(transport.try_receive().is_none());
        drop(sender);
        assert_eq!(transport.receive().await.unwrap_err().code, ErrorCode::Unavailable);
    }

    #[tokio::test]
    async fn acknowledgements_ride_on_the_next_message_or_go_alone() {
        let router = Arc::<Fake>::default();
        let (_sender, mut transport) = start(&router);
        let id = |number| MessageId(uuid::Uuid::from_u128(number));
        transport.accepted(id(1));
        transport.send(outgoing(7)).await.unwrap();
        transport.accepted(id(2));
        transport.flush().await.unwrap();
        transport.refused(id(3)).await.unwrap();
        transport.close().await;
        let told = [
            "route a 7 1 acknowledges 1".to_owned(),
            format!("acknowledge a {} true", id(2)),
            format!("acknowledge a {} false", id(3)),
        ];
        assert_eq!(router.seen(), told);
    }

    #[tokio::test]
    async fn a_final_refusal_shows_at_a_later_call_and_while_waiting() {
        let over = Error::new(ErrorCode::SessionExpired, "the session has ended");
        let (_sender, mut transport) = start(&Fake::refusing(over.clone()));
        transport.send(outgoing(0)).await.unwrap();
        assert_eq!(transport.receive().await.unwrap_err(), over);
        assert_eq!(transport.send(outgoing(1)).await.unwrap_err(), over);
    }

    #[tokio::test]
    async fn a_stopped_transport_neither_sends_nor_waits() {
        let (_sender, mut transport) = start(&Arc::default());
        transport.stop.cancel();
        assert!(transport.send(outgoing(0)).await.is_err());
        assert!(transport.receive().await.is_err());
    }

    #[tokio::test]
    async fn a_flood_of_messages_ends_the_session_not_the_memory() {
        let (sender, mut transport) = start(&Arc::default());
        for number in 0..=SEEN_LEN as u128 {
            sender.try_send(message(session(), "b", number)).unwrap();
        }
        for _ in 0..SEEN_LEN {
            transport.receive().await.unwrap();
        }
        assert_eq!(transport.receive().await.unwrap_err().code, ErrorCode::RateLimited);
    }
}
