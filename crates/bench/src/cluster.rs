//! The system under measurement: the release binary as a process of its own.

use std::path::PathBuf;
use std::process::Stdio;

use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::{RemoteCoordinator, RemoteRouter};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::process;

/// `quorate up` on free ports.
pub(crate) struct Cluster {
    process: Child,
    endpoints: Value,
    _folder: TempDir,
}

impl Cluster {
    /// Starts the binary that lies beside this one.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = std::env::current_exe().expect("a running program has a path");
        let binary: PathBuf = own.with_file_name("quorate");
        let mut process = Command::new(&binary)
            .args(["up", "--ports", "ephemeral", "--json", "--data"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let stdout = process.stdout.take().expect("stdout is piped");
        let line = BufReader::new(stdout).lines().next_line().await.expect("readable output");
        let endpoints = serde_json::from_str(&line.expect("a line when ready")).expect("JSON");
        Self { process, endpoints, _folder: folder }
    }

    fn endpoint(&self, service: &str) -> Endpoint {
        let address = self.endpoints[service]["grpc"].as_str().expect("an address");
        Endpoint::new(&format!("http://{address}"), None).expect("a valid address")
    }

    /// A connection of its own to the coordinator.
    pub(crate) fn coordinator(&self) -> RemoteCoordinator {
        RemoteCoordinator::new(self.endpoint("coordinator"))
    }

    /// A connection of its own to the router.
    pub(crate) fn router(&self) -> RemoteRouter {
        RemoteRouter::new(self.endpoint("router"))
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> f64 {
        process::resident_kib(self.pid()) / 1024.0
    }

    /// CPU seconds used so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        process::cpu_seconds(self.pid())
    }

    fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }
}
