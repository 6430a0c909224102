//! What is left of a flood.

use std::time::{Duration, Instant};

use quorate_wire::relay::Ttl;

use super::client::{id, put_publish};
use crate::Effort;
use crate::process;
use crate::sockets::client::Pinger;
use crate::sockets::idle::idle;
use crate::sockets::server::{Endpoint, Kinds, Server, Service};

/// Messages of a flood, and their length and ttl.
const FLOOD: usize = 2_000;
const FLOOD_LENGTH: usize = 64 << 10;
const FLOOD_TTL: Ttl = Ttl(1);

/// Time to give a flood's memory back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Resident memory before a flood that nobody asks for, with it, and once its ttl is over.
pub(crate) async fn flood(effort: Effort) {
    let messages = effort.count(FLOOD);
    println!("\n  memory and a flood of {messages} messages of 64 KiB with a ttl of 1 s");
    for kind in [Kinds::Plain, Kinds::Ours] {
        let server = Server::start(Service::Relay, kind).await;
        drop(idle(&server, 50).await);
        let before = process::resident_kib(server.pid());
        let endpoint = server.endpoint.clone();
        let sent = tokio::task::spawn_blocking(move || send(&endpoint, messages));
        let clients = sent.await.expect("a client");
        let full = process::resident_kib(server.pid());
        let (began, mut after) = (Instant::now(), full);
        while began.elapsed() < PATIENCE && after > 1.5 * before {
            tokio::time::sleep(Duration::from_millis(100)).await;
            after = process::resident_kib(server.pid());
        }
        let (took, mib) = (began.elapsed().as_secs_f64(), 1024.0);
        println!(
            "    {:<12} {:6.1} MiB before, {:6.1} with it, {:6.1} after {took:.1} s ({:.2})",
            kind.name(),
            before / mib,
            full / mib,
            after / mib,
            after / before
        );
        drop(clients);
    }
}

/// Four connections send; they stay open.
fn send(endpoint: &Endpoint, messages: usize) -> Vec<Pinger> {
    let mut clients: Vec<_> = (0..4).map(|_| Pinger::connect(endpoint)).collect();
    let mut frame = Vec::new();
    for number in 0..messages {
        frame.clear();
        put_publish(&mut frame, id(u64::MAX, number as u64), FLOOD_TTL, FLOOD_LENGTH);
        clients[number % 4].send(&frame);
    }
    clients.iter_mut().for_each(Pinger::settle);
    clients
}
