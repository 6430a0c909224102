//! The group relays that are compared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_front_jsonrpc::{Config, NotKept, Relay};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::sockets::server::{Kinds, Service, echo};

/// The routes of one of them.
pub(crate) async fn router(kind: Kinds) -> Router {
    let path = Service::JsonRpc.path();
    match kind {
        Kinds::Echo => echo(Service::JsonRpc),
        Kinds::Plain => Router::new().route(path, get(plain)).with_state(Arc::<Plain>::default()),
        Kinds::Ours => {
            let relay = Relay::open(Config::default(), Arc::new(NotKept)).await;
            relay.expect("a store that keeps nothing").router()
        }
    }
}

type Sender = UnboundedSender<Utf8Bytes>;

/// All that a plain relay knows, behind one lock.
#[derive(Default)]
struct Everything {
    last: u64,
    senders: HashMap<u64, Sender>,
    groups: HashMap<String, Group>,
}

struct Group {
    parties: usize,
    members: Vec<u64>,
    /// Who signed up for each session; a party's number is its place, from 1.
    sessions: HashMap<String, Vec<u64>>,
}

type Plain = Mutex<Everything>;

async fn plain(State(all): State<Arc<Plain>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| connection(all, socket))
}

async fn connection(all: Arc<Plain>, socket: WebSocket) {
    let (writing, mut reading) = socket.split();
    let (sender, receiver) = unbounded_channel();
    let own = {
        let mut all = all.lock().expect("no panic while it is held");
        all.last += 1;
        let own = all.last;
        all.senders.insert(own, sender);
        own
    };
    let writer = tokio::spawn(write(writing, receiver));
    while let Some(Ok(message)) = reading.next().await {
        if let Message::Text(text) = message {
            all.lock().expect("no panic while it is held").frame(own, &text);
        }
    }
    all.lock().expect("no panic while it is held").senders.remove(&own);
    writer.abort();
}

async fn write(
    mut socket: futures_util::stream::SplitSink<WebSocket, Message>,
    mut receiver: UnboundedReceiver<Utf8Bytes>,
) {
    while let Some(text) = receiver.recv().await {
        if socket.send(Message::Text(text)).await.is_err() {
            return;
        }
    }
}

fn but(all: &[u64], own: u64) -> Vec<u64> {
    all.iter().copied().filter(|id| *id != own).collect()
}

fn event(name: &str, payload: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "result": [name, payload]})
}

impl Everything {
    fn frame(&mut self, own: u64, text: &str) {
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let params = &request["params"];
        let method = request["method"].as_str().unwrap_or_default();
        let mut answer = json!({"jsonrpc": "2.0", "id": request["id"]});
        let mut events = Vec::new();
        match self.call(own, method, params, &mut events) {
            Some(Value::Null) => {}
            Some(result) => answer["result"] = result,
            None => answer["error"] = json!({"code": -32602, "message": "it does not fit"}),
        }
        self.tell(&[own], &answer);
        events.iter().for_each(|(to, event)| self.tell(to, event));
    }

    /// Carries a call out; who is to hear of it once it is answered.
    fn call(
        &mut self,
        own: u64,
        method: &str,
        params: &Value,
        events: &mut Vec<(Vec<u64>, Value)>,
    ) -> Option<Value> {
        if method == "Group.create" {
            self.last += 1;
            let id = format!("{:032x}", self.last);
            let parties = params[1]["parties"].as_u64().and_then(|n| usize::try_from(n).ok())?;
            let group = Group { parties, members: vec![own], sessions: HashMap::new() };
            self.groups.insert(id.clone(), group);
            return Some(id.into());
        }
        let group = params.as_str().or_else(|| params[0].as_str())?;
        let group = self.groups.get_mut(group)?;
        match method {
            "Group.join" => group.members.push(own),
            "Session.create" => {
                self.last += 1;
                let id = format!("{:032x}", self.last);
                group.sessions.insert(id.clone(), Vec::new());
                let session = json!({"kind": params[1], "uuid": id, "value": params[2]});
                events.push((but(&group.members, own), event("sessionCreate", &session)));
                return Some(session);
            }
            "Session.signup" => {
                let session = group.sessions.get_mut(params[1].as_str()?)?;
                session.push(own);
                if session.len() == group.parties {
                    events.push((session.clone(), event("sessionSignup", &params[1])));
                }
                return Some(session.len().into());
            }
            "Session.message" => {
                let session = group.sessions.get(params[1].as_str()?)?;
                events.push((but(session, own), event("sessionMessage", &params[3])));
            }
            _ => return None,
        }
        Some(Value::Null)
    }

    fn tell(&self, to: &[u64], frame: &Value) {
        let frame = Utf8Bytes::from(frame.to_string());
        for sender in to.iter().filter_map(|to| self.senders.get(to)) {
            let _ = sender.send(frame.clone());
        }
    }
}
