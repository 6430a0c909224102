//! Benchmarks that alternate a baseline and Quorate in one run and print ratios.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark speaks to its user")]

mod bare;
mod cluster;
mod ecdsa;
mod route;
mod stats;

use std::process::ExitCode;

const USAGE: &str = "\
quorate-bench [WHAT] [--quick]

  sign        sequential 2-of-3 signatures: bare protocol and Quorate in turn
  throughput  signatures with 64 in flight, against the CPU bound
  keygen      2-of-3 keys: wall time against the protocol's CPU time over the cores
  memory      resident memory over 1 000 sequential signatures and 100 sessions at once
  route       one routed and acknowledged message, against a bare gRPC call
  all         everything (default)
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
    let quick = arguments.iter().any(|word| word == "--quick");
    let what = arguments.iter().find(|word| !word.starts_with('-')).map_or("all", String::as_str);
    let effort = Effort { quick };
    let known = ["sign", "throughput", "keygen", "memory", "route", "all"];
    if !known.contains(&what) {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", stats::machine());
    let chosen = |name: &str| what == "all" || what == name;
    runtime.block_on(async {
        let cluster = cluster::Cluster::start().await;
        if chosen("sign") {
            ecdsa::sequential(&cluster, effort).await;
        }
        if chosen("throughput") {
            ecdsa::throughput(&cluster, effort).await;
        }
        if chosen("keygen") {
            ecdsa::keygen(&cluster, effort).await;
        }
        if chosen("memory") {
            ecdsa::memory(&cluster, effort).await;
        }
        if chosen("route") {
            route::route(&cluster, effort).await;
        }
    });
    ExitCode::SUCCESS
}
