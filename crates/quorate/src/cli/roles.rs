//! The roles one by one, each in a process of its own, talking gRPC to each other.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt as _;
use quorate_app::{CoordinatorApp, RemoteEvents, RemoteProgress};
use quorate_core::links::LinkRole;
use quorate_party::Backoff;
use quorate_ports::Deliver as _;
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::{RemoteCoordinator, RemoteRouter};
use quorate_types::*;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::credential::ApiKeyArgs;
use super::output::Output;
use crate::serve::authority::{ServiceInitiator, beside_link};
use crate::serve::compose::{self, Bound, Host};
use crate::serve::endpoints::{self, Pair};
use crate::serve::notifications::NotificationOptions;
use crate::serve::options::ServeOptions;
use crate::serve::peers;
use crate::serve::seat::RouterAt;

/// How to reach the other roles.
#[derive(clap::Args, Clone)]
pub(super) struct PeerArgs {
    #[command(flatten)]
    api_key: ApiKeyArgs,
    /// Certificate authority of the other roles' certificates, PEM
    #[arg(long, value_name = "FILE", env = "QUORATE_TLS_CA")]
    tls_ca: Option<PathBuf>,
}

impl PeerArgs {
    /// Another role, which is told for whom this one asks.
    fn role(&self, url: &str, host: &Host, own: LinkRole) -> Result<Endpoint> {
        let key = self.api_key.read()?;
        let link = host.link.as_ref().filter(|_| key.is_none());
        let ca = self.tls_ca.as_deref();
        let endpoint = peers::endpoint(url, key, ca, host.options.insecure)?.forwarding();
        match link {
            Some(link) => endpoint.with_credentials(Arc::new(link.credentials(own))),
            None => Ok(endpoint),
        }
    }

    /// Where a router is, for another process that shows proofs of its own.
    pub(super) fn router(&self, url: &str, host: &Host) -> RouterAt {
        let (url, tls_ca) = (url.to_owned(), self.tls_ca.clone());
        RouterAt { url, tls_ca, insecure: host.options.insecure }
    }

    pub(super) fn endpoint(&self, url: &str, host: &Host) -> Result<Endpoint> {
        let ca = self.tls_ca.as_deref();
        peers::endpoint(url, self.api_key.read()?, ca, host.options.insecure)
    }
}

/// Arguments of `coordinator`.
#[derive(clap::Args)]
pub(crate) struct CoordinatorArgs {
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten)]
    peers: PeerArgs,
    /// HTTP port
    #[arg(long, default_value_t = endpoints::COORDINATOR.0)]
    http_port: u16,
    /// gRPC port
    #[arg(long, default_value_t = endpoints::COORDINATOR.1)]
    grpc_port: u16,
    /// The router's gRPC address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052")]
    router: String,
    #[command(flatten)]
    service: ServiceInitiator,
    #[command(flatten)]
    notifications: NotificationOptions,
}

/// Arguments of `router`.
#[derive(clap::Args)]
pub(crate) struct RouterArgs {
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten)]
    peers: PeerArgs,
    /// HTTP port
    #[arg(long, default_value_t = endpoints::ROUTER.0)]
    http_port: u16,
    /// gRPC port
    #[arg(long, default_value_t = endpoints::ROUTER.1)]
    grpc_port: u16,
    /// The coordinator's gRPC address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    coordinator: String,
}

/// Arguments of `accounts`.
#[derive(clap::Args)]
pub(crate) struct AccountsArgs {
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten)]
    peers: PeerArgs,
    /// HTTP port
    #[arg(long, default_value_t = endpoints::ACCOUNTS.0)]
    http_port: u16,
    /// gRPC port
    #[arg(long, default_value_t = endpoints::ACCOUNTS.1)]
    grpc_port: u16,
    /// The coordinator's gRPC address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    coordinator: String,
}

/// Says where a role serves.
pub(super) fn announce(out: Output, service: &str, pair: Pair, host: &Host) {
    let value = json!({ "service": service, "http": pair.http, "grpc": pair.grpc });
    let scheme = host.options.scheme();
    out.show(&value, || {
        format!("{service}: {scheme}://{}, gRPC {}; stop with Ctrl-C", pair.http, pair.grpc)
    });
}

/// Runs the coordinator until it is told to stop.
pub(crate) async fn coordinator(args: CoordinatorArgs, out: Output) -> Result<()> {
    let bound = Bound::of_role(&args.options, args.http_port, args.grpc_port).await?;
    let told = args.notifications.open()?;
    let host = Host::open(args.options.clone()).await?;
    let endpoint = args.peers.role(&args.router, &host, LinkRole::Coordinator)?;
    let router = Arc::new(RemoteRouter::new(endpoint));
    let events = Arc::new(RemoteEvents::start(router.clone(), host.net.stop.clone()));
    let service = args.service.open(beside_link(&host.options).as_deref())?;
    let app = compose::open_coordinator(&host, router.clone(), events, service, told).await?;
    host.net.spawn(republish_on_return(router.clone(), app.clone(), host.net.stop.clone()));
    let mut signals = compose::Signals::take();
    let pair = compose::serve_coordinator(&host, bound, app, router).await?;
    announce(out, "coordinator", pair, &host);
    signals.next().await;
    signals.unless_again(host.net.drain()).await;
    Ok(())
}

/// Publishes the open sessions whenever the router has come back: it holds a stream of events as
/// a sign that it is there, and has forgotten the sessions when that stream broke.
async fn republish_on_return(
    router: Arc<RemoteRouter>,
    app: Arc<CoordinatorApp>,
    stop: CancellationToken,
) {
    let own: PartyId = "coordinator.internal".parse().expect("a valid name");
    let mut backoff = Backoff::default();
    loop {
        let watch = async {
            if let Ok(mut events) = router.subscribe_events(&Caller::System, &own, vec![]).await {
                app.republish();
                while let Some(Ok(_)) = events.next().await {}
                backoff.reset();
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = watch => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = backoff.pause() => {}
        }
    }
}

/// Runs the router until it is told to stop.
pub(crate) async fn router(args: RouterArgs, out: Output) -> Result<()> {
    let bound = Bound::of_role(&args.options, args.http_port, args.grpc_port).await?;
    let host = Host::open(args.options.clone()).await?;
    let endpoint = args.peers.role(&args.coordinator, &host, LinkRole::Router)?;
    let coordinator = Arc::new(RemoteCoordinator::new(endpoint));
    let progress = RemoteProgress::start(coordinator.clone(), host.net.stop.clone());
    let app = compose::open_router(&host, Arc::new(progress)).await?;
    let mut signals = compose::Signals::take();
    let pair = compose::serve_router(&host, bound, app, coordinator).await?;
    announce(out, "router", pair, &host);
    signals.next().await;
    signals.unless_again(host.net.drain()).await;
    Ok(())
}

/// Runs the account service until it is told to stop.
pub(crate) async fn accounts(args: AccountsArgs, out: Output) -> Result<()> {
    let bound = Bound::of_role(&args.options, args.http_port, args.grpc_port).await?;
    let host = Host::open(args.options.clone()).await?;
    let endpoint = args.peers.role(&args.coordinator, &host, LinkRole::Accounts)?;
    let coordinator = Arc::new(RemoteCoordinator::new(endpoint));
    let app = compose::open_accounts(&host, coordinator.clone()).await?;
    let mut signals = compose::Signals::take();
    let pair = compose::serve_accounts(&host, bound, app.clone(), coordinator).await?;
    announce(out, "accounts", pair, &host);
    signals.next().await;
    signals.unless_again(host.net.drain()).await;
    signals.unless_again(app.closed()).await;
    Ok(())
}
