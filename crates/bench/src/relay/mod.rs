//! The binary relay against a bare WebSocket echo and a plain relay, in turn.

mod client;
mod flood;
mod load;
mod servers;

use std::time::{Duration, Instant};

use client::{id, put_ask, put_publish};
use quorate_wire::relay::Ttl;
pub(crate) use servers::router;

use crate::Effort;
use crate::process;
use crate::sockets::client::{Pinger, on_the_wire};
use crate::sockets::server::{Endpoint, Kinds, Server, Service};
use crate::sockets::{idle, print_rates};
use crate::stats::{Times, median, ratio};

/// Times every measurement is repeated, the servers in turn.
const ROUNDS: usize = 5;

/// Measures everything about the relay.
pub(crate) async fn relay(effort: Effort) {
    let all = Server::all(Service::Relay).await;
    println!(
        "\nbinary relay: bare axum echo, a plain relay and Quorate in turn, medians of rounds"
    );
    for (length, name) in [(200, "200 B"), (10 << 10, "10 KiB"), (100 << 10, "100 KiB")] {
        round_trips(&all, length, name, effort).await;
    }
    for connections in [2, 64, 1_000] {
        throughput(&all, connections, 200, "200 B", effort).await;
    }
    throughput(&all, 64, 100_000, "100 kB", effort).await;
    drop(all);
    idle::memory(Service::Relay, effort).await;
    flood::flood(effort).await;
}

/// A sends to B, B answers: two messages through a relay, and two echoes.
async fn round_trips(all: &[Server], length: usize, name: &str, effort: Effort) {
    let count = effort.count(4_000) / ROUNDS;
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        for (server, times) in all.iter().zip(&mut times) {
            let (endpoint, kind) = (server.endpoint.clone(), server.kind);
            let first = (round * (count + 1)) as u64;
            let taken = tokio::task::spawn_blocking(move || match kind {
                Kinds::Echo => echoes(&endpoint, length, count),
                _ => pairs(&endpoint, length, count, first),
            });
            times.extend(taken.await.expect("a client"));
        }
    }
    let times = times.map(Times::new);
    println!("\n  round trip of two messages of {name}");
    let [echo, plain, ours] = &times;
    let micros = |times: &Times, percent| times.percentile(percent).as_secs_f64() * 1e6;
    for (kind, times) in Kinds::ALL.iter().zip(&times) {
        let (p50, p99) = (micros(times, 50), micros(times, 99));
        println!("    {:<12} p50 {p50:8.1} µs  p99 {p99:8.1} µs", kind.name());
    }
    let against = |theirs: &Times| ratio(ours.percentile(50), theirs.percentile(50));
    println!("    Quorate / two echoes {:.2}, / plain {:.2}", against(echo), against(plain));
}

fn echoes(endpoint: &Endpoint, length: usize, count: usize) -> Vec<Duration> {
    let mut client = Pinger::connect(endpoint);
    let mut frame = Vec::new();
    put_publish(&mut frame, id(0, 0), Ttl(0), length);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        for _ in 0..2 {
            client.send(&frame);
            client.receive(on_the_wire(length));
        }
        times.push(began.elapsed());
    }
    times
}

/// Each asks for its next message in the same write that carries its own, as devices do.
fn pairs(endpoint: &Endpoint, length: usize, count: usize, first: u64) -> Vec<Duration> {
    let (mut a, mut b) = (Pinger::connect(endpoint), Pinger::connect(endpoint));
    let (name_a, name_b) = (length as u64 * 2, length as u64 * 2 + 1);
    let turn = |number: u64| {
        let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
        put_ask(&mut from_a, id(name_b, number));
        put_publish(&mut from_a, id(name_a, number), Ttl(0), length);
        put_ask(&mut from_b, id(name_a, number + 1));
        put_publish(&mut from_b, id(name_b, number), Ttl(0), length);
        (from_a, from_b)
    };
    let mut question = Vec::new();
    put_ask(&mut question, id(name_a, first));
    b.send(&question);
    b.settle();
    let mut times = Vec::with_capacity(count);
    for number in first..first + count as u64 {
        let (from_a, from_b) = turn(number);
        let began = Instant::now();
        a.send(&from_a);
        b.receive(on_the_wire(length));
        b.send(&from_b);
        a.receive(on_the_wire(length));
        times.push(began.elapsed());
    }
    times
}

async fn throughput(all: &[Server], connections: usize, length: usize, name: &str, effort: Effort) {
    let full = if length > 10_000 { 40_000 } else { 600_000 };
    let messages = effort.count(full) / ROUNDS;
    let (mut rates, mut costs) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for round in 0..ROUNDS {
        for (at, server) in all.iter().enumerate() {
            let load = load::Load { connections, length, messages, round };
            let clients = load.connect(server).await;
            let before = process::cpu_seconds(server.pid());
            let began = Instant::now();
            let sent = clients.run().await;
            rates[at].push(sent as f64 / began.elapsed().as_secs_f64());
            let cpu = process::cpu_seconds(server.pid()) - before;
            costs[at].push(cpu * 1e6 / sent as f64);
        }
    }
    let (rates, costs) = (rates.map(median), costs.map(median));
    println!("\n  messages of {name} over {connections} connections");
    print_rates(rates, costs, "message");
}
