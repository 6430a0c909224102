//! The JSON-RPC group relay against a bare WebSocket echo and a plain relay, in turn.
//!
//! A member of a group tells all others something. The echo stands for the least that so many
//! deliveries can cost: every listener sends itself the same frame.

mod group;
mod servers;

use std::time::{Duration, Instant};

use group::Group;
pub(crate) use servers::router;

use crate::Effort;
use crate::process;
use crate::sockets::server::{Endpoint, Kinds, Server, Service};
use crate::sockets::{idle, print_rates};
use crate::stats::{Times, median, ratio};

/// Times every measurement is repeated, the servers in turn.
const ROUNDS: usize = 5;

/// Members of the groups.
const SIZES: [usize; 3] = [3, 10, 100];

/// Connections over which the messages of a throughput are spread, at least.
const CONNECTIONS: usize = 96;

/// A body, and how many of them a member sends before it waits for all to arrive.
#[derive(Clone, Copy)]
struct Body {
    length: usize,
    name: &'static str,
    window: usize,
    /// Deliveries of a throughput.
    deliveries: usize,
}

const BODIES: [Body; 2] = [
    Body { length: 200, name: "200 B", window: 32, deliveries: 1_000_000 },
    Body { length: 10 << 10, name: "10 KiB", window: 8, deliveries: 200_000 },
];

/// Measures everything about the group relay.
pub(crate) async fn jsonrpc(effort: Effort) {
    let all = Server::all(Service::JsonRpc).await;
    println!(
        "\nJSON-RPC relay: bare axum echo, a plain relay and Quorate in turn, medians of rounds"
    );
    for body in BODIES {
        for size in SIZES {
            latency(&all, size, body, effort).await;
        }
    }
    for body in BODIES {
        for size in SIZES {
            throughput(&all, size, body, effort).await;
        }
    }
    drop(all);
    idle::memory(Service::JsonRpc, effort).await;
}

/// From sending a message to the last member that has it.
async fn latency(all: &[Server], size: usize, body: Body, effort: Effort) {
    let count = effort.count(200_000 / (size + 37)) / ROUNDS;
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (server, times) in all.iter().zip(&mut times) {
            let (endpoint, kind) = (server.endpoint.clone(), server.kind);
            let work = move || one_by_one(&endpoint, kind, size, body.length, count);
            times.extend(tokio::task::spawn_blocking(work).await.expect("a client"));
        }
    }
    let times = times.map(Times::new);
    println!("\n  a message of {} until the last of {size} members has it", body.name);
    let micros = |times: &Times, percent| times.percentile(percent).as_secs_f64() * 1e6;
    for (kind, times) in Kinds::ALL.iter().zip(&times) {
        let (p50, p99) = (micros(times, 50), micros(times, 99));
        println!("    {:<12} p50 {p50:8.1} µs  p99 {p99:8.1} µs", kind.name());
    }
    let [echo, plain, ours] = &times;
    let against =
        |theirs: &Times, percent| ratio(ours.percentile(percent), theirs.percentile(percent));
    println!(
        "    Quorate / {} echoes {:.2}, / plain {:.2}; p99 / plain {:.2}",
        size - 1,
        against(echo, 50),
        against(plain, 50),
        against(plain, 99)
    );
}

fn one_by_one(
    endpoint: &Endpoint,
    kind: Kinds,
    size: usize,
    length: usize,
    count: usize,
) -> Vec<Duration> {
    let mut group = Group::new(endpoint, kind, size, length, 1);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        group.turn(1);
        times.push(began.elapsed());
        group.answers(1);
    }
    times
}

/// Several groups at once, each with a window of messages under way.
async fn throughput(all: &[Server], size: usize, body: Body, effort: Effort) {
    let groups = CONNECTIONS.div_ceil(size).max(2);
    let each = groups * (size - 1) * body.window;
    let turns = (effort.count(body.deliveries) / ROUNDS / each).max(2);
    let messages = groups * turns * body.window;
    let (mut rates, mut costs) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for _ in 0..ROUNDS {
        for (at, server) in all.iter().enumerate() {
            let ready = connect(server, groups, size, body).await;
            let before = process::cpu_seconds(server.pid());
            let began = Instant::now();
            let deliveries = run(ready, turns, body.window).await;
            rates[at].push(messages as f64 / began.elapsed().as_secs_f64());
            let cpu = process::cpu_seconds(server.pid()) - before;
            costs[at].push(cpu * 1e6 / deliveries as f64);
        }
    }
    let (rates, costs) = (rates.map(median), costs.map(median));
    println!("\n  messages of {} in {groups} groups of {size}", body.name);
    print_rates(rates, costs, "delivery");
}

async fn connect(server: &Server, groups: usize, size: usize, body: Body) -> Vec<Group> {
    let (endpoint, kind) = (server.endpoint.clone(), server.kind);
    let make = move || Group::new(&endpoint, kind, size, body.length, body.window);
    let made = tokio::task::spawn_blocking(move || (0..groups).map(|_| make()).collect());
    made.await.expect("clients")
}

/// Runs all groups at once; how many deliveries that were.
async fn run(groups: Vec<Group>, turns: usize, window: usize) -> usize {
    let deliveries = groups.iter().map(|group| group.listeners() * turns * window).sum();
    let tasks: Vec<_> = groups
        .into_iter()
        .map(|mut group| {
            tokio::task::spawn_blocking(move || {
                for _ in 0..turns {
                    group.turn(window);
                    group.answers(window);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client");
    }
    deliveries
}
