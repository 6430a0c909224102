//! WebSockets of every port: handshakes as proxies send them, and ends that say why.

use std::net::SocketAddr;
use std::time::Duration;

use quorate_e2e::Cluster;
use quorate_e2e::hostile::upgrade;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Every WebSocket of a cluster: its address and path.
fn sockets(cluster: &Cluster) -> [(SocketAddr, &'static str); 4] {
    let at = |text: &serde_json::Value| -> SocketAddr {
        text.as_str().expect("an address").parse().expect("host:port")
    };
    let router = cluster.address("router", "http");
    [
        (at(&cluster.endpoints["jsonrpc"]), "/mpc"),
        (at(&cluster.endpoints["relay"][0]), "/v1/msg-relay"),
        (router, "/api/v1/events/subscribe?party_id=somebody"),
        (router, "/api/v1/messages/subscribe?party_id=somebody"),
    ]
}

/// Reads to the end of a connection, which must not be a reset: the code of the close frame.
async fn close_code(stream: &mut TcpStream, what: &str) -> u16 {
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    let read = read.unwrap_or_else(|_| panic!("{what}: it does not end"));
    read.unwrap_or_else(|error| panic!("{what}: {error}"));
    // An unmasked close frame: its opcode, a short length, the code.
    let frame = rest.windows(4).find(|bytes| bytes[0] == 0x88 && (0x03..=0x0f).contains(&bytes[2]));
    let frame = frame.unwrap_or_else(|| panic!("{what}: no close frame in {} bytes", rest.len()));
    u16::from_be_bytes([frame[2], frame[3]])
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_answered_not_reset() {
    let (cluster, _folder) = Cluster::temporary().await;
    // The binary relay takes up to 16 MiB.
    for (address, path) in
        sockets(&cluster).into_iter().filter(|(_, path)| *path != "/v1/msg-relay")
    {
        let mut stream = upgrade(address, path).await;
        let length = 5_u64 << 20;
        let head = [&[0x81, 0xff], &length.to_be_bytes()[..], &[0; 4]].concat();
        stream.write_all(&head).await.expect("it reads");
        let _ = stream.write_all(&vec![b'x'; 5 << 20]).await;
        assert_eq!(close_code(&mut stream, path).await, 1009, "{path}");
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so_on_every_socket() {
    let (cluster, _folder) = Cluster::temporary().await;
    let mut readers = Vec::new();
    for (address, path) in sockets(&cluster) {
        let mut stream = upgrade(address, path).await;
        readers.push(tokio::spawn(async move { (path, close_code(&mut stream, path).await) }));
    }
    let (stopped, codes) = tokio::join!(cluster.stop(), futures_util::future::join_all(readers));
    assert!(stopped, "it leaves in time");
    for code in codes {
        let (path, code) = code.expect("no panic");
        assert_eq!(code, 1012, "{path}");
    }
}

#[tokio::test]
async fn handshakes_that_proxies_have_changed_are_taken() {
    let (cluster, _folder) = Cluster::temporary().await;
    for (address, path) in sockets(&cluster) {
        for (version, status) in [(13, "101"), (8, "426")] {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: keep-alive\r\n\
                 Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: {version}\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("it reads");
            let mut head = vec![0; 200];
            let count = stream.read(&mut head).await.expect("an answer");
            let head = String::from_utf8_lossy(&head[..count]).to_lowercase();
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
            assert_eq!(head.contains("sec-websocket-version: 13"), status == "426", "{head}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_stopped_as_soon_as_it_is_there_stops_cleanly() {
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..5 {
        assert!(Cluster::start(folder.path()).await.stop().await);
    }
}
