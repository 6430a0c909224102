//! Connections that do nothing, and what they cost.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{PING, PONG_LENGTH};
use super::server::{Endpoint, Kinds, Server, Service};
use crate::Effort;
use crate::process;

/// Idle connections whose memory is measured.
const IDLE: usize = 10_000;

/// Descriptors a process needs beside its connections.
const SPARE_FILES: usize = 200;

/// Resident memory of the server per connection that does nothing.
pub(crate) async fn memory(service: Service, effort: Effort) {
    let possible = process::open_files_limit().saturating_sub(SPARE_FILES);
    let wanted = effort.count(IDLE);
    let connections = wanted.min(possible);
    println!("\n  memory of an idle connection, {connections} of them");
    if connections < wanted {
        println!("    (fewer than {wanted}: the limit of open files allows no more)");
    }
    for kind in Kinds::ALL {
        let server = Server::start(service, kind).await;
        // The first connections pay for what is set up once.
        let warm = idle(&server, 50.min(connections)).await;
        let before = process::resident_kib(server.pid());
        let open = idle(&server, connections).await;
        let after = process::resident_kib(server.pid());
        println!("    {:<12} {:7.2} KiB", kind.name(), (after - before) / connections as f64);
        drop((warm, open));
    }
}

/// A connection of many.
pub(crate) async fn connect(endpoint: &Endpoint) -> TcpStream {
    let mut stream = TcpStream::connect(&endpoint.address).await.expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.write_all(endpoint.handshake().as_bytes()).await.expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("it answers"));
    }
    stream
}

/// Connections that do nothing, once the server has them.
pub(crate) async fn idle(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = connect(&server.endpoint).await;
        stream.write_all(PING).await.expect("it reads");
        stream.read_exact(&mut [0; PONG_LENGTH]).await.expect("it answers");
        streams.push(stream);
    }
    streams
}
