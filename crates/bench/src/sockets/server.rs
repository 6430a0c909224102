//! Servers that are compared, each run as a process of its own.

use std::process::Stdio;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// What is served over WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// The binary relay.
    Relay,
    /// The JSON-RPC group relay.
    JsonRpc,
}

impl Service {
    /// The word that starts it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::JsonRpc => "jsonrpc",
        }
    }

    /// Where its WebSocket is.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Relay => "/v1/msg-relay",
            Self::JsonRpc => "/mpc",
        }
    }
}

/// The server that is measured in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// A bare axum WebSocket that sends back what comes.
    Echo,
    /// A plain relay, as one writes it first.
    Plain,
    /// Quorate's own relay.
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

/// Where a server's WebSocket is.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) path: &'static str,
}

/// Serves until the process is killed; the address is the first line of the output.
pub(crate) async fn serve(router: Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("it is bound"));
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await.expect("it serves");
}

/// A bare WebSocket that sends back what comes.
pub(crate) fn echo(service: Service) -> Router {
    Router::new().route(service.path(), get(upgrade))
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let back = matches!(message, Message::Binary(_) | Message::Text(_));
            if back && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// A server in a process of its own.
pub(crate) struct Server {
    pub(crate) kind: Kinds,
    pub(crate) endpoint: Endpoint,
    process: Child,
}

impl Server {
    pub(crate) async fn start(service: Service, kind: Kinds) -> Self {
        let own = std::env::current_exe().expect("a running program has a path");
        let mut process = Command::new(own)
            .args(["serve", service.name(), &format!("{kind:?}")])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a second process");
        let stdout = process.stdout.take().expect("stdout is piped");
        let line = BufReader::new(stdout).lines().next_line().await.expect("readable output");
        let endpoint = Endpoint { address: line.expect("an address"), path: service.path() };
        Self { kind, endpoint, process }
    }

    /// All that are compared, in the order of [`Kinds::ALL`].
    pub(crate) async fn all(service: Service) -> Vec<Self> {
        let mut all = Vec::new();
        for kind in Kinds::ALL {
            all.push(Self::start(service, kind).await);
        }
        all
    }

    /// Process id, to read its memory and CPU time.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }
}
