//! A relay on a free port, and clients that speak to it in frames.
#![allow(dead_code, reason = "no test uses all of them")]
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod client;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::serve::ListenerExt as _;
pub(crate) use client::Client;
use quorate_front_jsonrpc::{Compat, Config, NotKept, Relay};
use quorate_ports::GroupStore;
use quorate_types::ClientAddress;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Server {
    pub(crate) relay: Relay,
    pub(crate) address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn open(config: Config, store: Arc<dyn GroupStore>) -> Self {
        let relay = Relay::open(config, store).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let named =
            from_fn(|peer: ConnectInfo<SocketAddr>, mut request: Request, next: Next| async move {
                request.extensions_mut().insert(ClientAddress::of(peer.0.ip()));
                next.run(request).await
            });
        let router =
            relay.router().layer(named).into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { relay, address, task }
    }

    /// Stops as a program does.
    pub(crate) async fn close(self) {
        self.relay.close().await;
        self.task.abort();
        let _ = self.task.await;
    }

    pub(crate) async fn strict() -> Self {
        Self::open(Config::default(), Arc::new(NotKept)).await
    }

    pub(crate) async fn original() -> Self {
        let config = Config { compat: Compat::Original, ..Config::default() };
        Self::open(config, Arc::new(NotKept)).await
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_from("127.0.0.1").await
    }

    pub(crate) async fn client_from(&self, address: &str) -> Client {
        Client::connect_from(self.address, address).await.unwrap()
    }

    /// Clients that are the members of one new group, and its id.
    pub(crate) async fn group(&self, parties: usize, threshold: u16) -> (Vec<Client>, Value) {
        let mut first = self.client().await;
        let params = json!(["g", {"parties": parties, "threshold": threshold}]);
        let group = first.ask("Group.create", params).await;
        let mut clients = vec![first];
        while clients.len() < parties {
            let mut client = self.client().await;
            client.ask("Group.join", group.clone()).await;
            clients.push(client);
        }
        (clients, group)
    }
}
