//! Benchmarks that alternate a baseline and Quorate in one run and print ratios.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark speaks to its user")]

mod bare;
mod cluster;
mod jsonrpc;
mod process;
mod protocol;
mod relay;
mod route;
mod sockets;
mod stats;

use std::path::Path;
use std::process::ExitCode;

use quorate_types::Scheme;
use sockets::server::Kinds;

/// As in the binary that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
quorate-bench [WHAT] [--quick] [--against BINARY]

  sign        sequential 2-of-3 signatures: bare protocol and Quorate in turn
  ed25519     the same with Ed25519 keys
  throughput  signatures with 64 in flight, against the CPU bound
  keygen      2-of-3 keys: wall time against the protocol's CPU time over the cores
  refresh     refreshes of a 2-of-3 key, as keygen
  memory      resident memory over 1 000 sequential signatures and 100 sessions at once
  route       one routed and acknowledged message, against a bare gRPC call
  relay       the binary relay, against a WebSocket echo and a plain relay
  jsonrpc     the JSON-RPC group relay, against a WebSocket echo and a plain relay
  all         everything (default)

With --against, what signs and makes keys is measured with that binary too, in turn in the same run.
`cargo xtask bench --against REVISION` builds it.
";

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Divides all counts.
    pub(crate) quick: bool,
}

impl Effort {
    /// `full`, or a tenth of it.
    pub(crate) fn count(self, full: usize) -> usize {
        if self.quick { (full / 10).max(1) } else { full }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // How the measurements of the relays start their servers.
    if let ["serve", service, kind] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        runtime.block_on(serve(service, kind));
        return ExitCode::SUCCESS;
    }
    let mut words = arguments.iter().map(String::as_str);
    let (mut what, mut quick, mut against) = ("all", false, None);
    while let Some(word) = words.next() {
        match word {
            "--quick" => quick = true,
            "--against" => against = words.next().map(Path::new),
            word => what = word,
        }
    }
    let effort = Effort { quick };
    let known = [
        "sign",
        "ed25519",
        "throughput",
        "keygen",
        "refresh",
        "memory",
        "route",
        "relay",
        "jsonrpc",
        "all",
    ];
    if !known.contains(&what) {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    }
    println!("{}", stats::machine());
    let chosen = |name: &str| what == "all" || what == name;
    runtime.block_on(async {
        if !["relay", "jsonrpc"].contains(&what) {
            protocols(what, effort, against).await;
        }
        if chosen("relay") {
            relay::relay(effort).await;
        }
        if chosen("jsonrpc") {
            jsonrpc::jsonrpc(effort).await;
        }
    });
    ExitCode::SUCCESS
}

/// Serves one of the relays that are compared.
async fn serve(service: &str, kind: &str) {
    let mut all = Kinds::ALL.into_iter();
    let Some(kind) = all.find(|known| format!("{known:?}") == kind) else {
        return eprint!("{USAGE}");
    };
    let router = match service {
        "relay" => relay::router(kind),
        _ => jsonrpc::router(kind).await,
    };
    sockets::server::serve(router).await;
}

/// Everything that needs the services.
async fn protocols(what: &str, effort: Effort, against: Option<&Path>) {
    let chosen = |name: &str| what == "all" || what == name;
    let clusters = cluster::Cluster::all(against).await;
    if chosen("sign") {
        protocol::sequential(Scheme::EcdsaSecp256k1, &clusters, effort).await;
    }
    if chosen("ed25519") {
        protocol::sequential(Scheme::Ed25519, &clusters, effort).await;
    }
    if chosen("throughput") {
        protocol::throughput(&clusters, effort).await;
    }
    if chosen("keygen") {
        protocol::keygen(&clusters, effort).await;
    }
    if chosen("refresh") {
        protocol::refresh(&clusters, effort).await;
    }
    if chosen("memory") {
        protocol::memory(&clusters, effort).await;
    }
    if chosen("route") {
        route::route(&clusters[0], effort).await;
    }
}
