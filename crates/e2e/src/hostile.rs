//! What clients do that take without giving, and what honest ones see meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::{Cluster, call};

/// Where attackers come from: an address of their own, for bounds per address.
pub const ATTACKER: &str = "127.0.0.2:0";

/// A socket's receive buffer, in bytes: what an unread connection holds is then the server's.
const SMALL_BUFFER: u32 = 4 << 10;

/// Resident memory of a process, in MiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") >> 10
}

/// Connects from the attackers' address, with a small receive buffer.
pub async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(SMALL_BUFFER).expect("it may be small");
    socket.bind(ATTACKER.parse().expect("an address")).expect("all of 127/8 is ours");
    socket.connect(address).await.expect("it listens")
}

/// A WebSocket handshake as common clients send it.
pub fn handshake(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Opens a WebSocket from the attackers' address; what follows the handshake is unread.
pub async fn upgrade(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(handshake(address, path).as_bytes()).await.expect("it reads");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101", "{path}");
    stream
}

/// An HTTP/2 connection from the attackers' address whose streams may receive `window` bytes each.
pub async fn http2(address: SocketAddr, window: u32) -> h2::client::SendRequest<Bytes> {
    let stream = connect(address).await;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .handshake(stream)
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    client
}

/// A gRPC call's request without its body.
pub fn grpc(address: SocketAddr, path: &str) -> http::Request<()> {
    http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

/// Makes a 2 of 3 key among the server parties: its id.
pub async fn make_key(cluster: &Cluster) -> String {
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
    completed(cluster, &keygen).await
}

/// Makes `count` signatures one after the other.
pub async fn sign(cluster: &Cluster, key: &str, count: usize) {
    for n in 0..count {
        let hash = format!("{:064x}", n + 1);
        let sign = json!({"session_type": "sign", "key_id": key, "message_hash": hash});
        completed(cluster, &sign).await;
    }
}

async fn completed(cluster: &Cluster, request: &serde_json::Value) -> String {
    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    let (status, created) = call("POST", &sessions, Some(request)).await;
    assert_eq!(status, 201, "{created}");
    let id = created["session_id"].as_str().expect("an id").to_owned();
    let path = format!("{sessions}/{id}?wait=end&wait_seconds=60");
    let ended = tokio::time::timeout(Duration::from_secs(90), call("GET", &path, None)).await;
    let (_, ended) = ended.expect("an honest session is served");
    assert_eq!(ended["status"], "completed", "{ended}");
    id
}

/// Asserts that a process has grown by at most 64 MiB.
pub fn assert_grown_little(cluster: &Cluster, before: u64, what: &str) {
    let grown = resident(cluster.pid()).saturating_sub(before);
    assert!(grown <= 64, "{what}: grown by {grown} MiB from {before}");
}
