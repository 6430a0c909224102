//! up: everything in one process.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_app::restore_keys;
use quorate_client::KnownPeers;
use quorate_front_grpc::Services;
use quorate_party::{Compute, PartyHandle};
use quorate_ports::{Router, TakePart};
use quorate_types::*;

use tokio::net::TcpListener;

use super::output::{Output, table, tell};
use super::peers::LocalPeers;
use crate::serve::authority::{self, AuthorityOptions, PartyRules, ServiceInitiator};
use crate::serve::compose::{self, Bound, Host};
use crate::serve::endpoints::{self, Endpoints, PartyEndpoint, Ports};
use crate::serve::listener::bind;
use crate::serve::notifications::{NotificationOptions, Told};
use crate::serve::options::ServeOptions;
use crate::serve::party::{LocalParty, VaultOptions, pin_each_other};
use crate::serve::relays::{self, RelayOptions};

/// Arguments of `up`.
#[derive(clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) options: ServeOptions,
    #[command(flatten)]
    pub(crate) relays: RelayOptions,
    /// Start without the two relays
    #[arg(long)]
    pub(crate) no_relays: bool,
    /// Which ports to listen on
    #[arg(long, value_enum, default_value_t = Ports::Default)]
    pub(crate) ports: Ports,
    #[command(flatten)]
    pub(crate) parties: PartyOptions,
    #[command(flatten)]
    pub(crate) notifications: NotificationOptions,
    /// Write the addresses as JSON to this file once everything is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) endpoints: Option<PathBuf>,
}

/// What concerns the server parties and what they sign.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct PartyOptions {
    #[command(flatten)]
    vaults: VaultOptions,
    #[command(flatten)]
    authority: AuthorityOptions,
    #[command(flatten)]
    service: ServiceInitiator,
}

/// The option for other ports.
const OTHERS: [&str; 2] = ["--ports ephemeral"; 2];

/// Runs until Ctrl-C or SIGTERM, then drains.
pub(crate) async fn run(args: UpArgs, out: Output) -> Result<()> {
    let bar = out.progress("starting");
    let (file, ports) = (args.endpoints.clone(), args.ports);
    let relays = (!args.no_relays).then_some(args.relays);
    let together = together(args.options.host, &args.options.data.data);
    let told = args.notifications.open()?;
    let running = Running::start(args.options, relays, ports, args.parties, told).await?;
    bar.finish_and_clear();
    for warning in together.iter().chain(&running.warning) {
        tell(warning);
    }
    let mut signals = compose::Signals::take();
    if let Some(file) = &file {
        running.endpoints.write(file)?;
    }
    out.show(&running.endpoints, || {
        let scheme = running.host.options.scheme();
        let rows = running.endpoints.rows(scheme);
        format!(
            "{}\n\nready; API documentation at {scheme}://{}/docs; stop with Ctrl-C",
            table(&["SERVICE", "HTTP", "GRPC"], &rows),
            running.endpoints.coordinator.http
        )
    });
    signals.next().await;
    let open = running.started_sessions();
    if open > 0 && !out.json {
        tell(&format!("waiting for {open} open sessions (Ctrl-C again to stop now)"));
    }
    match signals.unless_again(running.stop()).await {
        Some(true) => {}
        Some(false) => tell("stopped at the end of --grace, with work unfinished"),
        None => tell("stopped at once"),
    }
    Ok(())
}

/// Registers the keys that the parties hold and the store has lost.
async fn restore_lost(host: &Host, parties: &[LocalParty]) -> Result<()> {
    let mut held = Vec::new();
    for party in parties {
        held.extend(party.keys().await?);
    }
    let restored = restore_keys(&*host.store, held).await?;
    if !restored.is_empty() {
        let count = restored.len();
        tracing::warn!("{count} keys were not in the database: registered again from the vaults");
    }
    Ok(())
}

/// Tells the commands on this machine who the parties are, so that they can verify keys. Elsewhere
/// the user notes it.
fn local_peers(served: &Endpoints, parties: &[PartyHandle]) -> Result<Option<LocalPeers>> {
    let address = served.coordinator.grpc;
    if !address.ip().is_loopback() {
        return Ok(None);
    }
    let mut known = KnownPeers::default();
    for party in parties {
        let keyring = party.keyring();
        known.add(keyring.party().clone(), keyring.identity().public());
    }
    LocalPeers::write(address.port(), &known)
}

/// What an operator should know who serves others from one machine.
fn together(host: IpAddr, data: &Path) -> Option<String> {
    (!host.is_loopback()).then(|| {
        format!(
            "warning: the shares of all three server parties are in {}: anybody who can read it has \
             the keys; in production run each party on its own machine with `quorate party`",
            data.display()
        )
    })
}

/// The relays' listening sockets.
struct RelayPorts {
    jsonrpc: TcpListener,
    binary: Vec<TcpListener>,
}

impl RelayPorts {
    async fn bind(host: IpAddr, options: &RelayOptions, ports: Ports) -> Result<Self> {
        let binary = options.addresses(match ports {
            Ports::Default => relays::DEFAULT_ADDRESS,
            Ports::Ephemeral => "127.0.0.1:0",
        });
        let or_without = |error: Error| {
            Error::invalid(format!("{}; --no-relays starts without the relays", error.message))
        };
        let jsonrpc = ports.address(host, endpoints::JSONRPC);
        Ok(Self {
            jsonrpc: bind(jsonrpc, OTHERS[0]).await.map_err(or_without)?,
            binary: relays::bind_binary(&binary).await.map_err(or_without)?,
        })
    }
}

/// A running installation.
pub(crate) struct Running {
    host: Host,
    parties: Vec<PartyHandle>,
    accounts: Arc<quorate_app::AccountsApp>,
    /// What the operator should know about who may ask.
    warning: Option<String>,
    pub(crate) endpoints: Endpoints,
    /// What the commands of this user are told of the parties.
    _peers: Option<LocalPeers>,
}

impl Running {
    /// Starts everything and returns when the server parties are connected.
    pub(crate) async fn start(
        options: ServeOptions,
        relays: Option<RelayOptions>,
        ports: Ports,
        of_parties: PartyOptions,
        told: Option<Told>,
    ) -> Result<Self> {
        // All ports first: a taken one is reported before anything has started.
        let bind = async |pair| Bound::open(&options, ports.of(pair), OTHERS).await;
        let coordinator_ports = bind(endpoints::COORDINATOR).await?;
        let router_ports = bind(endpoints::ROUTER).await?;
        let accounts_ports = bind(endpoints::ACCOUNTS).await?;
        let mut party_ports = Vec::new();
        for pair in endpoints::PARTIES {
            party_ports.push(bind(pair).await?);
        }
        let relay_ports = match &relays {
            Some(relays) => Some(RelayPorts::bind(options.host, relays, ports).await?),
            None => None,
        };
        let host = Host::open(options).await?;
        let local = authority::in_folder(&host.options, host.data.path());
        let service = of_parties.service.open(local.as_deref())?;
        let rules = PartyRules::open(&of_parties.authority, local.as_deref())?;
        let warning = rules.warning()?;
        let (coordinator, router) = compose::open_pair(&host, service, told).await?;
        let accounts = compose::open_accounts(&host, coordinator.clone()).await?;
        let mut served = Endpoints {
            coordinator: compose::serve_coordinator(
                &host,
                coordinator_ports,
                coordinator.clone(),
                router.clone(),
            )
            .await?,
            router: compose::serve_router(&host, router_ports, router.clone(), coordinator.clone())
                .await?,
            accounts: compose::serve_accounts(
                &host,
                accounts_ports,
                accounts.clone(),
                coordinator.clone(),
            )
            .await?,
            parties: Vec::new(),
            jsonrpc: None,
            relay: Vec::new(),
        };
        if let (Some(options), Some(bound)) = (&relays, relay_ports) {
            let store = host.store.clone();
            served.jsonrpc =
                Some(relays::serve_jsonrpc(&host.net, bound.jsonrpc, options, store).await?);
            served.relay = relays::serve_binary(&host.net, bound.binary)?;
        }
        let mut prepared = Vec::new();
        for number in 1..=party_ports.len() {
            let id: PartyId = format!("server-party-{number}").parse()?;
            let folder = host.data.part(id.as_str())?;
            prepared.push(LocalParty::prepare(&folder, id, None, of_parties.vaults).await?);
        }
        pin_each_other(&prepared).await?;
        restore_lost(&host, &prepared).await?;
        for party in &prepared {
            host.trust(party.id(), party.identity());
            router.reserve(party.id());
            coordinator.reserve(party.id());
        }
        let services = Services {
            router: Some((router as Arc<dyn Router>, coordinator as Arc<dyn TakePart>)),
            stop: host.net.stop.clone(),
            ..Services::default()
        };
        let router = host.inside(services, served.router.grpc).await;
        // One pool for all parties of this process: the cores are shared anyway.
        let compute = Compute::default();
        let (mut parties, mut authorities) = (Vec::new(), Vec::new());
        for (prepared, bound) in prepared.into_iter().zip(party_ports) {
            let id = prepared.id().to_string();
            let authority = prepared.authority(&rules).await?;
            authorities.push(authority.clone());
            let started = prepared.start(&host, bound, router()?, compute.clone(), None, authority);
            let (party, pair) = started.await?;
            served.parties.push(PartyEndpoint { id, pair });
            parties.push(party);
        }
        host.net.spawn(rules.watch(authorities, host.net.stop.clone()));
        for party in &parties {
            party.connected().await;
        }
        let peers = local_peers(&served, &parties)?;
        Ok(Self { host, parties, accounts, warning, endpoints: served, _peers: peers })
    }

    /// Sessions in which the parties of this process compute.
    fn started_sessions(&self) -> usize {
        let computing = |party: &PartyHandle| party.status().started_sessions;
        // Each session counts at several parties.
        self.parties.iter().map(computing).max().unwrap_or(0)
    }

    /// Drains: parties finish what they compute, then the services close. Answers whether all of
    /// it ended in the grace time.
    pub(crate) async fn stop(self) -> bool {
        futures_util::future::join_all(self.parties.into_iter().map(PartyHandle::shutdown)).await;
        let clean = self.host.net.drain().await;
        self.accounts.closed().await;
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_all_shares_in_one_place_are_told() {
        let warned = |host: &str| together(host.parse().unwrap(), Path::new("/srv/q"));
        assert_eq!(warned("127.0.0.1"), None);
        assert_eq!(warned("::1"), None);
        assert!(warned("0.0.0.0").unwrap().contains("all three server parties are in /srv/q"));
    }
}
