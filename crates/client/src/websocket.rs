//! The ports a device needs, over WebSocket and REST.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use quorate_ports::{BoxStream, Coordinator, Router};
use quorate_types::*;
use quorate_wire::{
    EventJson, HeartbeatAnswerJson, JoinSessionJson, JoinedSessionJson, MessagesJson, PartiesJson,
    ReadyAnswerJson, RegisterJson, RegisteredJson, ReportJson, RouteAnswerJson, RouteJson,
    SessionJson,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite;

use crate::rest::Rest;
use crate::socket::{self, Request};

/// The router over WebSocket. While a session is subscribed to, its messages and acknowledgements
/// go through that socket; without one they go by REST.
pub struct WebRouter {
    rest: Rest,
    open: Mutex<HashMap<SessionId, mpsc::Sender<Request>>>,
}

impl WebRouter {
    /// The router at this URL.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { rest: Rest::new(url)?, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SessionId, mpsc::Sender<Request>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session's socket, while it is open.
    fn socket(&self, session: SessionId) -> Option<mpsc::Sender<Request>> {
        let mut open = self.open();
        open.retain(|_, socket| !socket.is_closed());
        open.get(&session).cloned()
    }
}

fn broken<T>(_: T) -> Error {
    Error::unavailable("the router's socket broke; trying again may help")
}

fn not_offered<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorCode::Unimplemented, format!("a device does not {what}")))
}

#[async_trait]
impl Router for WebRouter {
    async fn register(&self, _: &Caller, registration: Registration) -> Result<Timestamp> {
        let body = RegisterJson::from(registration);
        let answer: RegisteredJson = self.rest.post("/api/v1/parties", &body).await?;
        Ok(answer.registered_at)
    }

    async fn heartbeat(&self, _: &Caller, party: &PartyId) -> Result<Pulse> {
        let path = format!("/api/v1/parties/{party}/heartbeat");
        let answer: HeartbeatAnswerJson = self.rest.post(&path, &json!({})).await?;
        Ok(answer.into())
    }

    async fn route(&self, caller: &Caller, mut request: RouteRequest) -> Result<MessageId> {
        let session_id = request.session_id;
        for message_id in std::mem::take(&mut request.acknowledges) {
            let party_id = request.from_party.clone();
            let ack = Acknowledge { message_id, party_id, session_id, success: true };
            self.acknowledge(caller, ack).await?;
        }
        if let Some(socket) = self.socket(session_id) {
            let (answer, routed) = oneshot::channel();
            socket.send(Request::Route(request, answer)).await.map_err(broken)?;
            return routed.await.map_err(broken)?;
        }
        let path = format!("/api/v1/sessions/{session_id}/messages");
        let answer: RouteAnswerJson = self.rest.post(&path, &RouteJson::from(request)).await?;
        Ok(answer.message_id)
    }

    async fn subscribe(
        &self,
        _: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>> {
        let of = session.map(|id| format!("&session_id={id}")).unwrap_or_default();
        let path = format!("/api/v1/messages/subscribe?party_id={}{of}&after={}", party, after.0);
        let (requests, inbox) = socket::run(socket::connect(&self.rest.socket_url(&path)).await?);
        if let Some(session) = session {
            self.open().insert(session, requests);
        }
        let next = |mut inbox: mpsc::Receiver<_>| async { Some((inbox.recv().await?, inbox)) };
        Ok(Box::pin(stream::unfold(inbox, next)))
    }

    async fn pending(
        &self,
        _: &Caller,
        session: SessionId,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<Vec<Message>> {
        let path =
            format!("/api/v1/sessions/{session}/messages?party_id={party}&after={}", after.0);
        let answer: MessagesJson = self.rest.get(&path).await?;
        answer.messages.into_iter().map(Message::try_from).collect()
    }

    async fn acknowledge(&self, _: &Caller, ack: Acknowledge) -> Result<()> {
        if let Some(socket) = self.socket(ack.session_id) {
            return socket.send(Request::Acknowledge(ack)).await.map_err(broken);
        }
        let (session, message) = (ack.session_id, ack.message_id);
        let path = format!("/api/v1/sessions/{session}/messages/{message}/ack");
        let body = json!({ "party_id": ack.party_id, "success": ack.success });
        self.rest.post::<Value>(&path, &body).await.map(drop)
    }

    async fn message_status(
        &self,
        _: &Caller,
        _: SessionId,
        _: MessageId,
    ) -> Result<Vec<Delivery>> {
        not_offered("follow its messages; ask GET /api/v1/sessions/{id}/messages/{message_id}")
    }

    async fn subscribe_events(
        &self,
        _: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        let path = format!("/api/v1/events/subscribe?party_id={party}");
        let socket = socket::connect(&self.rest.socket_url(&path)).await?;
        let events = socket.filter_map(move |frame| {
            let event = match frame {
                Ok(tungstenite::Message::Text(text)) => Some(event(&text)),
                Ok(tungstenite::Message::Close(_)) | Err(_) => Some(Err(broken(()))),
                Ok(_) => None,
            };
            let wanted = |event: &Result<SessionEvent>| {
                event.as_ref().map_or(true, |e| kinds.is_empty() || kinds.contains(&e.kind))
            };
            std::future::ready(event.filter(wanted))
        });
        Ok(Box::pin(events))
    }

    async fn publish_event(&self, _: &Caller, _: SessionEvent) -> Result<u32> {
        not_offered("publish events")
    }

    async fn parties(
        &self,
        _: &Caller,
        role: Option<PartyRole>,
        only_online: bool,
    ) -> Result<Vec<PartyView>> {
        let role = role.map(|role| format!("&role={}", role.name())).unwrap_or_default();
        let path = format!("/api/v1/parties?online={only_online}{role}");
        let answer: PartiesJson = self.rest.get(&path).await?;
        Ok(answer.parties.into_iter().map(PartyView::from).collect())
    }
}

fn event(text: &str) -> Result<SessionEvent> {
    let event: EventJson = serde_json::from_str(text).map_err(broken)?;
    event.try_into()
}

/// The coordinator over REST, with the calls a party needs.
pub struct WebCoordinator {
    rest: Rest,
}

/// The longest question the server lets hang.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl WebCoordinator {
    /// The coordinator at this URL.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { rest: Rest::new(url)? })
    }
}

#[async_trait]
impl Coordinator for WebCoordinator {
    async fn create(&self, _: &Caller, _: CreateSession) -> Result<CreatedSession> {
        not_offered("create sessions; its user's application does")
    }

    async fn join(&self, _: &Caller, request: JoinSession) -> Result<JoinedSession> {
        let body = JoinSessionJson::from(request);
        let answer: JoinedSessionJson = self.rest.post("/api/v1/sessions/join", &body).await?;
        answer.try_into()
    }

    async fn ready(&self, _: &Caller, session: SessionId, party: &PartyId) -> Result<ReadyCount> {
        let path = format!("/api/v1/sessions/{session}/parties/{party}/ready");
        let answer: ReadyAnswerJson = self.rest.put(&path, &json!({ "party_id": party })).await?;
        Ok(answer.into())
    }

    async fn start(&self, _: &Caller, _: SessionId) -> Result<SessionView> {
        not_offered("start sessions; the last ready party does")
    }

    async fn status(
        &self,
        _: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        let query = match wait {
            None => String::new(),
            Some((wait, limit)) => {
                let word = if wait == WaitFor::Start { "start" } else { "end" };
                format!("?wait={word}&wait_seconds={}", limit.min(LONGEST_WAIT).as_secs())
            }
        };
        let answer: SessionJson =
            self.rest.get(&format!("/api/v1/sessions/{session}{query}")).await?;
        answer.try_into()
    }

    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView> {
        let session = report.session_id;
        let path = format!("/api/v1/sessions/{session}/complete");
        self.rest.post::<Value>(&path, &ReportJson::from(report)).await?;
        self.status(caller, session, None).await
    }

    async fn close(&self, _: &Caller, _: SessionId) -> Result<SessionView> {
        not_offered("close sessions")
    }

    async fn timeline(&self, _: &Caller, _: SessionId) -> Result<Timeline> {
        not_offered("read timelines")
    }

    async fn list(&self, _: &Caller, _: Option<Timestamp>, _: u32) -> Result<Vec<SessionView>> {
        not_offered("list sessions")
    }

    async fn keys(&self, _: &Caller, _: u32) -> Result<Vec<KeyRecord>> {
        not_offered("list the server's keys; it has its own")
    }

    async fn progress(&self, _: SessionId, _: &PartyId, _: i32) {}
}
