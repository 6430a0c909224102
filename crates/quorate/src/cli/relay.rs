//! relay: the two relays without the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::ValueEnum;
use quorate_store::SqliteStore;
use quorate_types::Result;
use serde_json::json;

use super::output::Output;
use crate::serve::compose::Signals;
use crate::serve::data::DataFolder;
use crate::serve::endpoints::JSONRPC;
use crate::serve::listener::bind;
use crate::serve::net::Net;
use crate::serve::options::ServeOptions;
use crate::serve::relays::{self, RelayOptions};

/// One of the relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Groups and sessions as JSON-RPC, at /mpc
    Jsonrpc,
    /// Messages by id, at /v1/msg-relay
    Binary,
}

/// Arguments of `relay`.
#[derive(clap::Args)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten)]
    relays: RelayOptions,
    /// Run only this relay
    #[arg(long, value_enum)]
    only: Option<Which>,
    /// Port of the JSON-RPC relay
    #[arg(long, default_value_t = JSONRPC)]
    port: u16,
}

/// Runs the relays until told to stop.
pub(crate) async fn run(args: RelayArgs, out: Output) -> Result<()> {
    let RelayArgs { options, relays: choice, only, port } = args;
    let net = Net::open(&options)?;
    let wanted = |which| only.is_none_or(|only| only == which);
    let mut jsonrpc = None;
    // The folder's lock is held as long as the relay serves.
    let mut folder = None;
    if wanted(Which::Jsonrpc) {
        let listener = bind(SocketAddr::new(options.host, port), "--port").await?;
        let data = folder.insert(DataFolder::open(&options.data.data)?);
        let store = Arc::new(SqliteStore::open_with(data.path(), options.accept_loss)?);
        jsonrpc = Some(relays::serve_jsonrpc(&net, listener, &choice, store).await?);
    }
    let mut binary = Vec::new();
    if wanted(Which::Binary) {
        let listeners = relays::bind_binary(&choice.addresses(relays::DEFAULT_ADDRESS)).await?;
        binary = relays::serve_binary(&net, listeners)?;
    }
    let mut signals = Signals::take();
    let scheme = if options.tls_cert.is_some() { "wss" } else { "ws" };
    out.show(&json!({ "jsonrpc": jsonrpc, "relay": binary }), || {
        let groups = jsonrpc.iter().map(|at| format!("JSON-RPC relay  {scheme}://{at}/mpc"));
        let ids = binary.iter().map(|at| format!("binary relay    {scheme}://{at}/v1/msg-relay"));
        let lines: Vec<_> = groups.chain(ids).collect();
        format!("{}\nready; metrics at /metrics of each; stop with Ctrl-C", lines.join("\n"))
    });
    signals.next().await;
    signals.unless_again(net.drain()).await;
    drop(folder);
    Ok(())
}
