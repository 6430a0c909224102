//! What idle connections cost, and what is left of a flood.

use std::time::{Duration, Instant};

use quorate_wire::relay::Ttl;

use super::client::{Pinger, id, put_publish};
use super::load;
use super::servers::{Kinds, Server};
use crate::Effort;
use crate::process;

/// Idle connections whose memory is measured.
const IDLE: usize = 10_000;

/// Descriptors a process needs beside its connections.
const SPARE_FILES: usize = 200;

/// Messages of a flood, and their length and ttl.
const FLOOD: usize = 2_000;
const FLOOD_LENGTH: usize = 64 << 10;
const FLOOD_TTL: Ttl = Ttl(1);

/// Time to give a flood's memory back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Resident memory of the server per connection that does nothing.
pub(crate) async fn idle(effort: Effort) {
    let possible = process::open_files_limit().saturating_sub(SPARE_FILES);
    let wanted = effort.count(IDLE);
    let connections = wanted.min(possible);
    println!("\n  memory of an idle connection, {connections} of them");
    if connections < wanted {
        println!("    (fewer than {wanted}: the limit of open files allows no more)");
    }
    for kind in Kinds::ALL {
        let server = Server::start(kind).await;
        // The first connections pay for what is set up once.
        let warm = load::idle(&server, 50.min(connections)).await;
        let before = process::resident_kib(server.pid());
        let open = load::idle(&server, connections).await;
        let after = process::resident_kib(server.pid());
        println!("    {:<12} {:7.2} KiB", kind.name(), (after - before) / connections as f64);
        drop((warm, open));
    }
}

/// Resident memory before a flood that nobody asks for, with it, and once its ttl is over.
pub(crate) async fn flood(effort: Effort) {
    let messages = effort.count(FLOOD);
    println!("\n  memory and a flood of {messages} messages of 64 KiB with a ttl of 1 s");
    for kind in [Kinds::Plain, Kinds::Ours] {
        let server = Server::start(kind).await;
        drop(load::idle(&server, 50).await);
        let before = process::resident_kib(server.pid());
        let address = server.address.clone();
        let sent = tokio::task::spawn_blocking(move || send(&address, messages));
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
fn send(address: &str, messages: usize) -> Vec<Pinger> {
    let mut clients: Vec<_> = (0..4).map(|_| Pinger::connect(address)).collect();
    let mut frame = Vec::new();
    for number in 0..messages {
        frame.clear();
        put_publish(&mut frame, id(u64::MAX, number as u64), FLOOD_TTL, FLOOD_LENGTH);
        clients[number % 4].send(&frame);
    }
    clients.iter_mut().for_each(Pinger::settle);
    clients
}
