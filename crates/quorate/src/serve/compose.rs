//! The composition root: services out of their parts, and their life from start to drain.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use quorate_app::{
    AccountsApp, ApiKeys, Clock, CoordinatorApp, CoordinatorConfig, CoordinatorParts, EventSink,
    JoinTokens, LateProgress, ProgressSink, RouterApp, RouterConfig, RouterParts, SystemClock,
};
use quorate_authority::AuthoritySecret;
use quorate_front_grpc::Services;
use quorate_front_rest::{Readiness, Service, common};
use quorate_ports::{
    Accounts, Coordinator, Directory, ManageApiKeys, ManageSessions, Notifier, TakePart,
};
use quorate_rpc::endpoint::Endpoint;
use quorate_store::SqliteStore;
use quorate_types::*;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::auth::{Gate, identify, parse_identities};
use super::connections::Peer;
use super::data::DataFolder;
use super::edge::{Edge, guard};
use super::endpoints::Pair;
use super::link::LinkSecret;
use super::listener::{bind, by_content_type};
use super::metrics::Metrics;
use super::net::Net;
use super::notifications::Told;
use super::options::{AuthMode, ServeOptions};
use super::{peers, readiness};

/// What every serving process has: its data, its clock, its way to stop.
pub(crate) struct Host {
    pub(crate) options: ServeOptions,
    pub(crate) data: DataFolder,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) net: Net,
    gate: Arc<Gate>,
    api_keys: Arc<dyn ManageApiKeys>,
    edge: Arc<Edge>,
    /// What this role shows to others.
    pub(crate) link: Option<LinkSecret>,
    pub(crate) started: Instant,
}

impl Host {
    /// Opens what the options name, the data folder last: what is wrong with the others leaves no
    /// folder behind. Ports are bound before, by [`Bound::open`], for the same reason.
    pub(crate) async fn open(options: ServeOptions) -> Result<Self> {
        let net = Net::open(&options)?;
        let link = options.link()?;
        let certificate = options.tls_cert.as_deref();
        let edge = Arc::new(Edge::new(&options.allow_host, &options.allow_origin, certificate)?);
        let trusted = parse_identities("trust", &options.trust)?;
        let data = DataFolder::open(&options.data.data)?;
        let store = Arc::new(SqliteStore::open_with(data.path(), options.accept_loss)?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keys = match options.auth() {
            AuthMode::Open => None,
            AuthMode::Required => {
                Some(Arc::new(ApiKeys::open(store.clone(), clock.clone()).await?))
            }
        };
        let api_keys: Arc<dyn ManageApiKeys> = match &keys {
            Some(keys) => keys.clone(),
            None => Arc::new(NoApiKeys),
        };
        let gate = Gate::new(keys, trusted, link.clone(), edge.clone(), clock.clone())?;
        let (gate, started) = (Arc::new(gate), Instant::now());
        Ok(Self { options, data, store, clock, net, gate, api_keys, edge, link, started })
    }

    /// Serves REST, WebSocket and gRPC alike on both ports of a service.
    pub(crate) async fn serve(
        &self,
        bound: Bound,
        rest: Router,
        services: Services,
        metrics: Metrics,
    ) -> Result<Pair> {
        let services = Services { api_keys: Some(self.api_keys.clone()), ..services };
        let grpc = quorate_front_grpc::routes(services).await;
        let (rest, counted) = metrics.serve(rest);
        let router = counted.around(self.guarded(by_content_type(rest, grpc)));
        let serve = |listener, router| {
            self.net.serve(listener, router, Peer::Caller).map_err(|_| Error::internal())
        };
        Ok(Pair { http: serve(bound.http, router.clone())?, grpc: serve(bound.grpc, router)? })
    }

    /// Lets a party of this process call, whatever the mode.
    pub(crate) fn trust(&self, party: &PartyId, identity: [u8; 32]) {
        self.gate.trust(party.clone(), identity);
    }

    /// gRPC services for the parties of this process, which call them as if they were at `at`: each
    /// call of the answer is another connection.
    pub(crate) async fn inside(
        &self,
        services: Services,
        at: SocketAddr,
    ) -> impl Fn() -> Result<Endpoint> + use<> {
        let router = self.guarded(quorate_front_grpc::routes(services).await);
        let (inside, url) = (self.net.inside(peers::reachable(at), router), peers::url(at, false));
        move || {
            let inside = inside.clone();
            Endpoint::through(&url, move || inside.connect())
        }
    }

    fn guarded(&self, router: Router) -> Router {
        router
            .layer(axum::middleware::from_fn_with_state(self.gate.clone(), identify))
            .layer(axum::middleware::from_fn_with_state(self.edge.clone(), guard))
    }

    /// How the operator manages this server's API keys.
    pub(crate) fn api_key_routes(&self) -> Router {
        quorate_front_rest::api_key_routes(self.api_keys.clone())
    }

    /// The pages that every service has.
    fn common(&self, name: &str, service: Service, readiness: Readiness) -> Router {
        common(name, &[service], self.started, readiness).merge(self.api_key_routes())
    }
}

/// The API keys of a server that asks for none.
struct NoApiKeys;

impl NoApiKeys {
    fn refuse<T>() -> Result<T> {
        let why = "this server asks for no API keys; start it with --auth required";
        Err(Error::new(ErrorCode::Conflict, why))
    }
}

#[async_trait]
impl ManageApiKeys for NoApiKeys {
    async fn create_api_key(&self, _: &Caller, _: NewApiKey) -> Result<MadeApiKey> {
        Self::refuse()
    }

    async fn api_keys(&self, _: &Caller, _: Option<ApiKeyId>) -> Result<Vec<ApiKey>> {
        Self::refuse()
    }

    async fn revoke_api_key(&self, _: &Caller, _: ApiKeyId) -> Result<ApiKey> {
        Self::refuse()
    }
}

/// A service's listening sockets.
pub(crate) struct Bound {
    http: TcpListener,
    grpc: TcpListener,
}

impl Bound {
    /// Binds two ports of the options' address. The options for other ones are named where a port
    /// is taken.
    pub(crate) async fn open(
        options: &ServeOptions,
        (http, grpc): (u16, u16),
        others: [&str; 2],
    ) -> Result<Self> {
        options.check()?;
        let at = |port| SocketAddr::new(options.host, port);
        Ok(Self { http: bind(at(http), others[0]).await?, grpc: bind(at(grpc), others[1]).await? })
    }

    /// As [`Bound::open`], for a role with options for its two ports.
    pub(crate) async fn of_role(options: &ServeOptions, http: u16, grpc: u16) -> Result<Self> {
        Self::open(options, (http, grpc), ["--http-port", "--grpc-port"]).await
    }
}

/// The store of a data folder, for commands that work on it while no server does.
pub(crate) fn open_store(path: &Path) -> Result<(Arc<SqliteStore>, Arc<dyn Clock>)> {
    let data = DataFolder::open(path)?;
    Ok((Arc::new(SqliteStore::open(data.path())?), Arc::new(SystemClock)))
}

/// A router whose progress notes go to whoever is connected later.
pub(crate) async fn open_router(
    host: &Host,
    progress: Arc<dyn ProgressSink>,
) -> Result<Arc<RouterApp>> {
    let parts = RouterParts {
        config: RouterConfig::default(),
        store: host.store.clone(),
        progress,
        clock: host.clock.clone(),
    };
    let router = Arc::new(RouterApp::open(parts).await?);
    for party in host.gate.trusted_parties() {
        router.reserve(&party);
    }
    Ok(router)
}

/// A coordinator over a directory of parties and a sink for its events.
pub(crate) async fn open_coordinator(
    host: &Host,
    directory: Arc<dyn Directory>,
    events: Arc<dyn EventSink>,
    service_initiator: Option<Arc<AuthoritySecret>>,
    told: Option<Told>,
) -> Result<Arc<CoordinatorApp>> {
    let parts = CoordinatorParts {
        config: CoordinatorConfig::default(),
        store: host.store.clone(),
        service_initiator,
        join_tokens: JoinTokens::new(host.data.secret("join-tokens.key")?),
        directory,
        events,
        notifier: told.as_ref().map(|told| told.providers.clone() as Arc<dyn Notifier>),
        clock: host.clock.clone(),
    };
    let coordinator = Arc::new(CoordinatorApp::open(parts).await?);
    for party in host.gate.trusted_parties() {
        coordinator.reserve(&party);
    }
    let (app, stop) = (coordinator.clone(), host.net.stop.clone());
    host.net.spawn(async move { app.watch_deadlines(stop).await });
    if let Some(told) = told {
        let (app, stop) = (coordinator.clone(), host.net.stop.clone());
        host.net.spawn(async move { app.deliver_notifications(stop).await });
        host.net.spawn(told.watch(host.net.stop.clone()));
    }
    if host.options.retention > 0 {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let (app, stop) = (coordinator.clone(), host.net.stop.clone());
        let retention = DAY * host.options.retention;
        host.net.spawn(async move { app.forget_ended(retention, stop).await });
    }
    Ok(coordinator)
}

/// The account service over a coordinator.
pub(crate) async fn open_accounts(
    host: &Host,
    coordinator: Arc<dyn ManageSessions>,
) -> Result<Arc<AccountsApp>> {
    let (store, clock, stop) = (host.store.clone(), host.clock.clone(), host.net.stop.clone());
    Ok(Arc::new(AccountsApp::open(store, coordinator, clock, stop).await?))
}

/// Coordinator and router of one process, each knowing the other directly.
pub(crate) async fn open_pair(
    host: &Host,
    service_initiator: Option<Arc<AuthoritySecret>>,
    told: Option<Told>,
) -> Result<(Arc<CoordinatorApp>, Arc<RouterApp>)> {
    let late = Arc::new(LateProgress::default());
    let router = open_router(host, late.clone()).await?;
    let coordinator =
        open_coordinator(host, router.clone(), router.clone(), service_initiator, told).await?;
    let sink: Arc<dyn ProgressSink> = coordinator.clone();
    late.connect(Arc::downgrade(&sink));
    router.forget_unclaimed();
    Ok((coordinator, router))
}

/// Serves the coordinator.
pub(crate) async fn serve_coordinator(
    host: &Host,
    bound: Bound,
    coordinator: Arc<CoordinatorApp>,
    directory: Arc<dyn Directory>,
) -> Result<Pair> {
    let ready = readiness::coordinator(host.store.clone(), directory);
    let mut metrics = Metrics::new("session-coordinator").store(&host.store);
    coordinator.register_metrics(metrics.registry());
    let coordinator: Arc<dyn Coordinator> = coordinator;
    let rest = quorate_front_rest::coordinator_routes(coordinator.clone()).merge(host.common(
        "session-coordinator",
        Service::Coordinator,
        ready,
    ));
    let services = Services { coordinator: Some(coordinator), ..Services::default() };
    host.serve(bound, rest, services, metrics).await
}

/// Serves the router, which passes session calls on to the coordinator.
pub(crate) async fn serve_router(
    host: &Host,
    bound: Bound,
    router: Arc<RouterApp>,
    coordinator: Arc<dyn TakePart>,
) -> Result<Pair> {
    let mut metrics = Metrics::new("message-router").store(&host.store);
    router.register_metrics(metrics.registry());
    let router: Arc<dyn quorate_ports::Router> = router;
    let ready = readiness::router(host.store.clone());
    let rest = quorate_front_rest::router_routes(router.clone())
        .merge(quorate_front_rest::ticket_routes(host.gate.tickets()))
        .merge(host.common("message-router", Service::Router, ready));
    let services = Services {
        router: Some((router, coordinator)),
        stop: host.net.stop.clone(),
        ..Services::default()
    };
    host.serve(bound, rest, services, metrics).await
}

/// Serves the account service.
pub(crate) async fn serve_accounts(
    host: &Host,
    bound: Bound,
    accounts: Arc<dyn Accounts>,
    coordinator: Arc<dyn ManageSessions>,
) -> Result<Pair> {
    let ready = readiness::accounts(host.store.clone(), coordinator);
    let rest = quorate_front_rest::accounts_routes(accounts).merge(host.common(
        "account-service",
        Service::Accounts,
        ready,
    ));
    let metrics = Metrics::new("account-service").store(&host.store);
    host.serve(bound, rest, Services::default(), metrics).await
}

/// Ctrl-C and SIGTERM. They count from when this is made: before anybody is told that the server is
/// there.
pub(crate) struct Signals {
    interrupt: std::io::Result<Signal>,
    terminate: std::io::Result<Signal>,
}

impl Signals {
    pub(crate) fn take() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()),
            terminate: signal(SignalKind::terminate()),
        }
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) {
        let Self { interrupt, terminate } = self;
        tokio::select! {
            () = one(interrupt) => {}
            () = one(terminate) => {}
        }
    }

    /// Runs to the end, but not beyond the next signal. Answers with nothing where that came first.
    pub(crate) async fn unless_again<T>(&mut self, stopping: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            ended = stopping => Some(ended),
            () = self.next() => None,
        }
    }
}

async fn one(signal: &mut std::io::Result<Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        // Where it cannot be handled, it ends the process.
        Err(_) => std::future::pending().await,
    }
}

/// Waits for Ctrl-C, which counts from the call on.
pub(crate) fn interrupted() -> impl Future<Output = ()> {
    let mut interrupt = signal(SignalKind::interrupt());
    async move { one(&mut interrupt).await }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Kind, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_second_signal_ends_a_stop_that_does_not() {
        let mut signals = Signals::take();
        assert_eq!(signals.unless_again(async { 1 }).await, Some(1));
        for kind in [Kind::INT, Kind::TERM] {
            kill_process(getpid(), kind).unwrap();
            signals.next().await;
            kill_process(getpid(), kind).unwrap();
            assert_eq!(signals.unless_again(std::future::pending::<()>()).await, None);
        }
    }
}
