//! The system under measurement: the release binary as a process of its own.

use std::path::Path;
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
    /// What it is called in the tables.
    pub(crate) name: &'static str,
    process: Child,
    endpoints: Value,
    _folder: TempDir,
}

impl Cluster {
    /// Starts the binary that lies beside this one, and the one it is compared with.
    pub(crate) async fn all(against: Option<&Path>) -> Vec<Self> {
        let own = std::env::current_exe().expect("a running program has a path");
        let mut all = vec![Self::start("Quorate", &own.with_file_name("quorate")).await];
        if let Some(binary) = against {
            all.push(Self::start("other version", binary).await);
        }
        all
    }

    async fn start(name: &'static str, binary: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut process = Command::new(binary)
            .args(["up", "--ports", "ephemeral", "--json", "--data"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let stdout = process.stdout.take().expect("stdout is piped");
        let line = BufReader::new(stdout).lines().next_line().await.expect("readable output");
        let endpoints = serde_json::from_str(&line.expect("a line when ready")).expect("JSON");
        Self { name, process, endpoints, _folder: folder }
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
