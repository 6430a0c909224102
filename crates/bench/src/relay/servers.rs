//! The relays that are compared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use quorate_front_relay::{Config, Relay};
use quorate_types::RelayId;
use quorate_wire::relay::{Header, Kind};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::sockets::server::{Kinds, Service, echo};

/// The routes of one of them.
pub(crate) fn router(kind: Kinds) -> Router {
    let path = Service::Relay.path();
    match kind {
        Kinds::Echo => echo(Service::Relay),
        Kinds::Plain => Router::new().route(path, get(plain)).with_state(Arc::<Plain>::default()),
        Kinds::Ours => {
            let relay = Relay::new(Config::default());
            let router = relay.router();
            tokio::spawn(async move { relay.run(CancellationToken::new()).await });
            router
        }
    }
}

/// What a plain relay knows of an id.
enum Slot {
    Ready(Bytes),
    Waiting(Vec<UnboundedSender<Bytes>>),
}

type Plain = Mutex<HashMap<RelayId, Slot>>;

async fn plain(State(ids): State<Arc<Plain>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| plain_connection(ids, socket))
}

async fn plain_connection(ids: Arc<Plain>, mut socket: WebSocket) {
    let (sender, mut receiver) = unbounded_channel();
    loop {
        tokio::select! {
            Some(frame) = receiver.recv() => {
                if socket.send(Message::Binary(frame)).await.is_err() {
                    return;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(frame))) => plain_frame(&ids, frame, &sender),
                Some(Ok(_)) => {}
                _ => return,
            }
        }
    }
}

fn plain_frame(ids: &Arc<Plain>, frame: Bytes, sender: &UnboundedSender<Bytes>) {
    let Some((header, kind)) = Header::parse(&frame) else {
        return;
    };
    let mut map = ids.lock().expect("no panic while it is held");
    let waiting = match (kind, map.get_mut(&header.id)) {
        (Kind::Ask, Some(Slot::Ready(frame))) => {
            let _ = sender.send(frame.clone());
            return;
        }
        (Kind::Ask, Some(Slot::Waiting(waiting))) => return waiting.push(sender.clone()),
        (Kind::Ask, None) => {
            map.insert(header.id, Slot::Waiting(vec![sender.clone()]));
            return;
        }
        (Kind::Publish, Some(Slot::Ready(_))) => return,
        (Kind::Publish, Some(Slot::Waiting(waiting))) => std::mem::take(waiting),
        (Kind::Publish, None) => Vec::new(),
    };
    for sender in waiting {
        let frame = frame.clone();
        tokio::spawn(async move { sender.send(frame) });
    }
    let ttl = header.ttl.duration();
    if ttl.is_zero() {
        map.remove(&header.id);
        return;
    }
    map.insert(header.id, Slot::Ready(frame));
    let ids = ids.clone();
    tokio::spawn(async move {
        tokio::time::sleep(ttl).await;
        ids.lock().expect("no panic while it is held").remove(&header.id);
    });
}
