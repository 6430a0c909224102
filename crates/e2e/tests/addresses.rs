//! Bounds per address: what one client may fill is not all of it, behind a proxy neither.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use quorate_e2e::Cluster;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Groups of the relay, and of one connection.
const GROUPS: usize = 10_000;
const OF_CONNECTION: usize = 64;

type Socket = WebSocketStream<TcpStream>;

fn group_relay(cluster: &Cluster) -> SocketAddr {
    cluster.endpoints["jsonrpc"].as_str().expect("an address").parse().expect("host:port")
}

/// A connection to the group relay from an address of the loopback, for a client that it names.
async fn connect(relay: SocketAddr, from: &str, named: Option<&str>) -> Socket {
    let own = TcpSocket::new_v4().expect("a socket");
    own.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("all of 127/8 is ours");
    let stream = own.connect(relay).await.expect("it listens");
    let mut request = format!("ws://{relay}/mpc").into_client_request().expect("a request");
    if let Some(named) = named {
        request.headers_mut().insert("x-forwarded-for", named.parse().expect("header text"));
    }
    client_async(request, stream).await.expect("it is a WebSocket").0
}

/// Makes groups: how many of them were refused, and what the last answer was.
async fn make(socket: &mut Socket, count: usize) -> (usize, Value) {
    for id in 1..=count {
        let params = json!(["g", {"parties": 2, "threshold": 1}]);
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "Group.create", "params": params});
        socket.feed(Message::text(call.to_string())).await.expect("it reads");
    }
    socket.flush().await.expect("it reads");
    let (mut refused, mut last) = (0, Value::Null);
    for _ in 0..count {
        let answer = loop {
            if let Message::Text(text) = socket.next().await.expect("open").expect("a frame") {
                break text;
            }
        };
        last = serde_json::from_str(&answer).expect("JSON");
        refused += usize::from(last["error"].is_object());
    }
    (refused, last)
}

/// Makes groups until they are refused: the connections that hold them.
async fn fill(relay: SocketAddr, from: &str, named: Option<&str>) -> Vec<Socket> {
    let mut held = Vec::new();
    for _ in 0..GROUPS.div_ceil(OF_CONNECTION) {
        let mut socket = connect(relay, from, named).await;
        let (refused, last) = make(&mut socket, OF_CONNECTION).await;
        held.push(socket);
        if refused > 0 {
            assert_eq!(last["error"]["code"], -32002, "{last}");
            let made = held.len() * OF_CONNECTION - refused;
            assert_eq!(made, GROUPS / 2);
            return held;
        }
    }
    panic!("{from} takes every group");
}

#[tokio::test]
async fn one_address_cannot_take_every_group() {
    let (cluster, _folder) = Cluster::temporary().await;
    let relay = group_relay(&cluster);
    let _held = fill(relay, "127.0.0.2", None).await;
    // What it says about itself makes no difference.
    let mut again = connect(relay, "127.0.0.2", Some("198.51.100.1")).await;
    assert_eq!(make(&mut again, 1).await.0, 1);
    let mut other = connect(relay, "127.0.0.1", None).await;
    assert_eq!(make(&mut other, OF_CONNECTION).await.0, 0);
}

#[tokio::test]
async fn one_client_of_a_trusted_proxy_cannot_take_every_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_with(folder.path(), &["--trusted-proxy", "127.0.0.2"]).await;
    let relay = group_relay(&cluster);
    let _held = fill(relay, "127.0.0.2", Some("198.51.100.1")).await;
    let mut neighbour = connect(relay, "127.0.0.2", Some("198.51.100.2")).await;
    assert_eq!(make(&mut neighbour, OF_CONNECTION).await.0, 0);
    let mut stranger = connect(relay, "127.0.0.3", Some("198.51.100.1")).await;
    assert_eq!(make(&mut stranger, OF_CONNECTION).await.0, 0, "it is believed by nobody");
}
