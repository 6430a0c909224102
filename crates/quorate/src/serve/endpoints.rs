//! Which service listens where: the defaults, free ports for tests, and the file that tells.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use clap::ValueEnum;
use quorate_types::{Error, Result};
use serde::Serialize;

/// How ports are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ports {
    /// The documented ports
    Default,
    /// Free ports chosen by the system; find them in --endpoints
    Ephemeral,
}

impl Ports {
    /// The address of a service whose documented port is `port`.
    pub(crate) fn address(self, host: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(host, self.of((port, port)).0)
    }

    /// The two ports of a service whose documented ones these are.
    pub(crate) fn of(self, pair: (u16, u16)) -> (u16, u16) {
        match self {
            Self::Default => pair,
            Self::Ephemeral => (0, 0),
        }
    }
}

/// The documented ports: (HTTP, gRPC).
pub(crate) const COORDINATOR: (u16, u16) = (8080, 50051);
/// Of the router.
pub(crate) const ROUTER: (u16, u16) = (8081, 50052);
/// Of the account service.
pub(crate) const ACCOUNTS: (u16, u16) = (8083, 50054);
/// Of the server parties.
pub(crate) const PARTIES: [(u16, u16); 3] = [(8082, 50053), (8084, 50055), (8085, 50056)];

/// Of the JSON-RPC relay.
pub(crate) const JSONRPC: u16 = 3030;

/// One service's two addresses.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pair {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

/// A server party's addresses.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PartyEndpoint {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) pair: Pair,
}

/// Everything `up` serves.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Endpoints {
    pub(crate) coordinator: Pair,
    pub(crate) router: Pair,
    pub(crate) accounts: Pair,
    pub(crate) parties: Vec<PartyEndpoint>,
    /// The JSON-RPC relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jsonrpc: Option<SocketAddr>,
    /// The binary relay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) relay: Vec<SocketAddr>,
}

impl Endpoints {
    /// Writes the addresses as JSON, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).expect("plain data");
        super::data::write_private(path, &text)
            .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
    }

    /// The addresses as a table's rows; `scheme` is `http` or `https`.
    pub(crate) fn rows(&self, scheme: &str) -> Vec<Vec<String>> {
        let row = |name: &str, pair: Pair| {
            vec![name.to_owned(), format!("{scheme}://{}", pair.http), pair.grpc.to_string()]
        };
        let mut rows = vec![
            row("coordinator", self.coordinator),
            row("router", self.router),
            row("accounts", self.accounts),
        ];
        rows.extend(self.parties.iter().map(|party| row(&party.id, party.pair)));
        let socket = if scheme == "https" { "wss" } else { "ws" };
        let relay = |name: &str, address: &SocketAddr, path: &str| {
            vec![name.to_owned(), format!("{socket}://{address}{path}"), String::new()]
        };
        rows.extend(self.jsonrpc.iter().map(|at| relay("JSON-RPC relay", at, "/mpc")));
        rows.extend(self.relay.iter().map(|at| relay("binary relay", at, "/v1/msg-relay")));
        rows
    }
}
