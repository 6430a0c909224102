//! The three servers that are compared, each run as a process of its own.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use quorate_front_relay::{Config, Relay};
use quorate_types::RelayId;
use quorate_wire::relay::{Header, Kind};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// A bare axum WebSocket that sends back what comes.
    Echo,
    /// A plain relay, as one writes it first.
    Plain,
    /// Quorate's.
    Ours,
}

impl Kinds {
    pub(crate) const ALL: [Self; 3] = [Self::Echo, Self::Plain, Self::Ours];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "bare echo",
            Self::Plain => "plain relay",
            Self::Ours => "Quorate",
        }
    }
}

/// Serves one of them until the process is killed; its address is the first line of the output.
pub(crate) async fn serve(name: &str) {
    let relay = Relay::new(Config::default());
    let router = match name {
        "Echo" => Router::new().route("/v1/msg-relay", get(echo)),
        "Plain" => {
            Router::new().route("/v1/msg-relay", get(plain)).with_state(Arc::<Plain>::default())
        }
        _ => relay.router(),
    };
    tokio::spawn(async move { relay.run(CancellationToken::new()).await });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("it is bound"));
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await.expect("it serves");
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Binary(_)) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
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

/// A server in a process of its own.
pub(crate) struct Server {
    pub(crate) kind: Kinds,
    pub(crate) address: String,
    process: Child,
}

impl Server {
    pub(crate) async fn start(kind: Kinds) -> Self {
        let own = std::env::current_exe().expect("a running program has a path");
        let mut process = Command::new(own)
            .args(["relay-server", &format!("{kind:?}")])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a second process");
        let stdout = process.stdout.take().expect("stdout is piped");
        let line = BufReader::new(stdout).lines().next_line().await.expect("readable output");
        Self { kind, address: line.expect("an address"), process }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }
}
