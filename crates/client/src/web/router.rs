//! The router over WebSocket, and over REST while there is none.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream;
use quorate_ports::{BoxStream, Deliver};
use quorate_types::*;
use quorate_wire::{
    AckAnswerJson, AckJson, ClientFrame, EventJson, HeartbeatAnswerJson, HeartbeatJson,
    RegisterJson, RegisteredJson, RouteAnswerJson, RouteJson, ServerFrame,
};
use reqwest::Method;
use tokio::sync::{mpsc, oneshot};

use super::Rest;
use super::socket::Socket;

/// Messages to send that wait for the socket: more than a step of any run makes.
const SEND_QUEUE: usize = 32;

/// Sends over the session's message socket while it is open, else over REST.
///
/// Acknowledgements that cannot ride on a message go over REST: on the socket a refused one could
/// not be told from a refused message.
pub(crate) struct WebRouter {
    rest: Rest,
    sockets: Arc<Mutex<Sockets>>,
}

type Sockets = HashMap<SessionId, mpsc::Sender<Sending>>;

/// A message on its way to the socket, and where its answer goes.
struct Sending {
    frame: String,
    answer: oneshot::Sender<Result<MessageId>>,
}

impl WebRouter {
    pub(crate) fn new(rest: Rest) -> Self {
        Self { rest, sockets: Arc::default() }
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        lock(&self.sockets)
    }
}

fn lock(sockets: &Mutex<Sockets>) -> MutexGuard<'_, Sockets> {
    sockets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message socket with the messages it has sent and not heard of.
struct MessageSocket {
    socket: Socket,
    sends: mpsc::Receiver<Sending>,
    unanswered: VecDeque<oneshot::Sender<Result<MessageId>>>,
    /// Where it is entered while it is open.
    entry: Option<(Arc<Mutex<Sockets>>, SessionId)>,
}

impl MessageSocket {
    async fn next(&mut self) -> Result<Message> {
        loop {
            let text = tokio::select! {
                biased;
                // Answers and messages first: sending must not keep them waiting.
                text = self.socket.receive() => text?,
                Some(sending) = self.sends.recv() => {
                    self.unanswered.push_back(sending.answer);
                    self.socket.send(sending.frame).await?;
                    continue;
                }
            };
            let frame = serde_json::from_str(&text)
                .map_err(|_| Error::unavailable("the server sent an unknown frame"))?;
            match frame {
                ServerFrame::Message(message) => return Message::try_from(*message),
                ServerFrame::Routed { routed } => self.answer(Ok(routed.message_id)),
                ServerFrame::Error { error } => self.answer(Err(error.into())),
            }
        }
    }

    fn answer(&mut self, answer: Result<MessageId>) {
        if let Some(waiting) = self.unanswered.pop_front() {
            // Whoever asked may have gone.
            let _ = waiting.send(answer);
        }
    }
}

impl Drop for MessageSocket {
    fn drop(&mut self) {
        self.sends.close();
        if let Some((sockets, session)) = &self.entry {
            let mut sockets = lock(sockets);
            // A newer socket may have taken the place.
            if sockets.get(session).is_some_and(mpsc::Sender::is_closed) {
                sockets.remove(session);
            }
        }
    }
}

#[async_trait]
impl Deliver for WebRouter {
    async fn register(&self, _: &Caller, registration: Registration) -> Result<Timestamp> {
        let url = self.rest.url(&["parties"]);
        let body = RegisterJson::from(registration);
        let answer: RegisteredJson = self.rest.send(Method::POST, url, &body).await?;
        Ok(answer.registered_at)
    }

    async fn heartbeat(&self, _: &Caller, party: &PartyId) -> Result<Pulse> {
        let url = self.rest.url(&["parties", party.as_str(), "heartbeat"]);
        let body = HeartbeatJson::default();
        Ok(self.rest.send::<HeartbeatAnswerJson>(Method::POST, url, &body).await?.into())
    }

    async fn route(&self, _: &Caller, request: RouteRequest) -> Result<MessageId> {
        let session = request.session_id;
        let body = RouteJson::from(request);
        let socket = self.sockets().get(&session).cloned();
        if let Some(socket) = socket {
            let (answer, answered) = oneshot::channel();
            let frame = ClientFrame { route: Some(body.clone()), ..ClientFrame::default() };
            let frame = serde_json::to_string(&frame).expect("wire shapes serialize");
            if socket.send(Sending { frame, answer }).await.is_ok() {
                let broken = || Error::unavailable("the WebSocket broke before it answered");
                return answered.await.map_err(|_| broken())?;
            }
        }
        let url = self.rest.url(&["sessions", &session.to_string(), "messages"]);
        let answer: RouteAnswerJson = self.rest.send(Method::POST, url, &body).await?;
        Ok(answer.message_id)
    }

    /// Polling the stream also sends: it carries this session's messages both ways.
    async fn subscribe(
        &self,
        _: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>> {
        let mut url = self.rest.url(&["messages", "subscribe"]);
        url.query_pairs_mut().append_pair("party_id", party.as_str());
        if let Some(session) = session {
            url.query_pairs_mut().append_pair("session_id", &session.to_string());
        }
        if after > Timestamp(0) {
            url.query_pairs_mut().append_pair("after", &after.0.to_string());
        }
        let socket = Socket::open(&self.rest, url).await?;
        let (send, sends) = mpsc::channel(SEND_QUEUE);
        let entry = session.map(|session| (Arc::clone(&self.sockets), session));
        if let Some(session) = session {
            self.sockets().insert(session, send);
        }
        let state = MessageSocket { socket, sends, unanswered: VecDeque::new(), entry };
        Ok(Box::pin(stream::unfold(Some(state), |state| async {
            let mut state = state?;
            match state.next().await {
                Ok(message) => Some((Ok(message), Some(state))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    async fn acknowledge(&self, _: &Caller, ack: Acknowledge) -> Result<()> {
        let (session, message) = (ack.session_id.to_string(), ack.message_id.to_string());
        let url = self.rest.url(&["sessions", &session, "messages", &message, "ack"]);
        let body = AckJson {
            party_id: ack.party_id,
            success: ack.success,
            session_id: None,
            message_id: None,
        };
        self.rest.send::<AckAnswerJson>(Method::POST, url, &body).await.map(drop)
    }

    async fn subscribe_events(
        &self,
        _: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        let mut url = self.rest.url(&["events", "subscribe"]);
        url.query_pairs_mut().append_pair("party_id", party.as_str());
        if !kinds.is_empty() {
            let names: Vec<_> = kinds.into_iter().map(EventKind::name).collect();
            url.query_pairs_mut().append_pair("event_types", &names.join(","));
        }
        let socket = Socket::open(&self.rest, url).await?;
        Ok(Box::pin(stream::unfold(Some(socket), |socket| async {
            let mut socket = socket?;
            let event = socket.receive().await.and_then(|text| {
                let json: EventJson = serde_json::from_str(&text)
                    .map_err(|_| Error::unavailable("the server sent an unknown event"))?;
                SessionEvent::try_from(json)
            });
            let open = event.is_ok().then_some(socket);
            Some((event, open))
        })))
    }
}
