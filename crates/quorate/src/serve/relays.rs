//! The two relays as this process serves them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::routing::get;
use clap::ValueEnum;
use quorate_front_jsonrpc as jsonrpc;
use quorate_front_relay as binary;
use quorate_front_rest::{Readiness, probes};
use quorate_store::SqliteStore;
use quorate_types::{Error, Result};
use tokio::net::TcpListener;

use super::connections::Peer;
use super::metrics::Metrics;
use super::net::Net;
use super::readiness::of_store;

/// How closely the JSON-RPC relay follows what older clients may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compat {
    /// A member speaks for itself only
    Strict,
    /// Any connection may send in any session it knows, as before
    Original,
}

/// Where the binary relay listens as documented.
pub(crate) const DEFAULT_ADDRESS: &str = binary::DEFAULT_ADDRESS;

/// Options of the relays.
#[derive(clap::Args, Clone)]
pub(crate) struct RelayOptions {
    /// Rules of the JSON-RPC relay
    #[arg(long, value_enum, default_value_t = Compat::Strict)]
    compat: Compat,
    /// Serve this folder beside the JSON-RPC relay, for pages with threads
    #[arg(long = "static", value_name = "DIR")]
    static_dir: Option<PathBuf>,
    /// More addresses of the binary relay, separated by spaces, beside localhost:8000 (a free port
    /// where all are)
    #[arg(
        long,
        value_name = "ADDRESSES",
        env = "LISTEN",
        default_value = "",
        hide_default_value = true
    )]
    listen: String,
}

impl RelayOptions {
    /// Where the binary relay listens: at this address and at those that were given.
    pub(crate) fn addresses(&self, default: &str) -> String {
        format!("{} {default}", self.listen)
    }
}

/// Serves the JSON-RPC relay and its metrics until the process stops.
pub(crate) async fn serve_jsonrpc(
    net: &Net,
    listener: TcpListener,
    options: &RelayOptions,
    store: Arc<SqliteStore>,
) -> Result<SocketAddr> {
    let config = jsonrpc::Config {
        compat: match options.compat {
            Compat::Strict => jsonrpc::Compat::Strict,
            Compat::Original => jsonrpc::Compat::Original,
        },
        static_dir: options.static_dir.clone(),
        ..jsonrpc::Config::default()
    };
    let health = store.clone();
    let relay = jsonrpc::Relay::open(config, store).await?;
    let mut metrics = Metrics::new("jsonrpc-relay").store(&health);
    let ready = Readiness::at_once(move || of_store(&health));
    relay.register_metrics(metrics.registry());
    let mut router = relay.router().merge(metrics.into_public_route());
    router = router.merge(probes("jsonrpc-relay", ready));
    if options.static_dir.is_none() {
        router = router.route("/", get(|| async { GROUPS }));
    }
    let stop = net.stop.clone();
    net.spawn(async move {
        stop.cancelled().await;
        relay.close().await;
    });
    address(net.serve(listener, router, Peer::Client))
}

/// Binds the binary relay's addresses. One that cannot be bound is reported and left out.
pub(crate) async fn bind_binary(addresses: &str) -> Result<Vec<TcpListener>> {
    binary::bind_all(addresses).await
}

/// Serves the binary relay and its metrics until the process stops.
pub(crate) fn serve_binary(net: &Net, listeners: Vec<TcpListener>) -> Result<Vec<SocketAddr>> {
    let relay = binary::Relay::new(binary::Config::default());
    let mut metrics = Metrics::new("binary-relay");
    relay.register_metrics(metrics.registry());
    let router = relay.router().merge(metrics.into_public_route());
    // It needs nothing but itself.
    let router = router.merge(probes("binary-relay", Readiness::at_once(Vec::new)));
    let stop = net.stop.clone();
    net.spawn(async move { relay.run(stop).await });
    listeners
        .into_iter()
        .map(|listener| address(net.serve(listener, router.clone(), Peer::Client)))
        .collect()
}

fn address(served: std::io::Result<SocketAddr>) -> Result<SocketAddr> {
    served.map_err(|_| Error::internal())
}

/// What a person reads who opens the group relay in a browser.
const GROUPS: &str = "This is Quorate's JSON-RPC group relay. Clients open a WebSocket at /mpc.\n\
    /health, /ready and /metrics are for operators.\n";
