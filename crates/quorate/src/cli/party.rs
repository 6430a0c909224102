//! party: one server party alone, its shares, and the identities that it has pinned.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use quorate_party::Compute;
use quorate_ports::vault::{Ban, Pin, SealedShare};
use quorate_types::*;
use serde_json::{Value, json};

use super::DataArgs;
use super::output::{Output, table, tell};
use super::roles::{PeerArgs, announce};
use super::values::value;
use crate::serve::auth::parse_identities;
use crate::serve::authority::{AuthorityOptions, PartyRules, beside_link};
use crate::serve::compose::{self, Bound, Host};
use crate::serve::data::DataFolder;
use crate::serve::endpoints;
use crate::serve::options::ServeOptions;
use crate::serve::party::{LocalParty, VaultOptions, held_key};

/// Arguments of `party`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PartyArgs {
    #[command(subcommand)]
    command: Option<PartyCommand>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum PartyCommand {
    /// List or drop pinned identities, while the party is stopped
    Pins(PinsArgs),
    /// List or wipe shares, while the party is stopped
    Shares(SharesArgs),
}

/// Where one party keeps its secrets.
#[derive(clap::Args, Clone)]
struct SecretsArgs {
    /// The party's name
    #[arg(long, default_value = "server-party-1", value_parser = value::<PartyId>)]
    id: PartyId,
    /// File with the passphrase that seals the shares, instead of a generated key file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    vaults: VaultOptions,
}

impl SecretsArgs {
    /// Opens a stopped party, for a command on what it holds. Makes nothing.
    async fn open_stopped(&self, data: &Path) -> Result<LocalParty> {
        if !data.join(self.id.as_str()).exists() {
            let (id, data) = (&self.id, data.display());
            let why = format!(
                "party {id} has no folder in {data}: give --id and --data as when it was started"
            );
            return Err(Error::new(ErrorCode::NotFound, why).with_field("data"));
        }
        self.open(&DataFolder::open(data)?).await
    }

    async fn open(&self, data: &DataFolder) -> Result<LocalParty> {
        let (folder, file) = (data.part(self.id.as_str())?, self.passphrase_file.as_deref());
        LocalParty::prepare(&folder, self.id.clone(), file, self.vaults).await
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RoleArg {
    Persistent,
    Delegate,
}

#[derive(clap::Args)]
struct ServeArgs {
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten)]
    peers: PeerArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[command(flatten)]
    authority: AuthorityOptions,
    /// The party's role: a persistent party holds shares and is selected to fill sessions; a delegate
    /// takes the seats of users, hands them their shares and keeps none
    #[arg(long, value_enum, default_value_t = RoleArg::Persistent)]
    role: RoleArg,
    /// Port for HTTP
    #[arg(long, default_value_t = endpoints::PARTIES[0].0)]
    http_port: u16,
    /// Port for gRPC
    #[arg(long, default_value_t = endpoints::PARTIES[0].1)]
    grpc_port: u16,
    /// The router's gRPC address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052")]
    router: String,
    /// Another server party with its identity key: NAME=HEX. Give it once per party; beyond
    /// loopback name all of them
    #[arg(long = "peer", value_name = "NAME=HEX")]
    peer: Vec<String>,
    /// This is the only server party: keys are made with devices only
    #[arg(long, conflicts_with = "peer")]
    no_peers: bool,
    /// Print NAME=HEX of this party, for --peer and --trust elsewhere, and exit
    #[arg(long)]
    print_identity: bool,
}

/// Arguments of `party pins`.
#[derive(clap::Args)]
struct PinsArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[command(subcommand)]
    action: PinsAction,
}

#[derive(Subcommand)]
enum PinsAction {
    /// List pinned identities
    List,
    /// Remove the pin of a name: the next key made with that name pins its identity anew. Existing
    /// keys keep their holders
    Drop {
        /// The pinned name
        #[arg(value_parser = value::<PartyId>)]
        name: PartyId,
        /// Remove only this tenant's pin [default: every pin of the name]
        #[arg(long, value_parser = value::<Tenant>)]
        tenant: Option<Tenant>,
    },
}

/// Arguments of `party shares`.
#[derive(clap::Args)]
struct SharesArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[command(subcommand)]
    action: SharesAction,
}

#[derive(Subcommand)]
enum SharesAction {
    /// List shares, their states and their bans
    List,
    /// Wipe a share for good. A key with too few shares left can no longer sign
    Discard {
        /// The id of the key
        #[arg(value_parser = value::<KeyId>)]
        key: KeyId,
        /// The share's epoch
        #[arg(long, default_value_t = 0)]
        epoch: u32,
        /// Confirm: only an exported copy can bring the share back
        #[arg(long)]
        yes: bool,
    },
}

/// Runs one server party until it is told to stop, or a command on its folder.
pub(crate) async fn run(args: PartyArgs, out: Output) -> Result<()> {
    match args.command {
        Some(PartyCommand::Pins(args)) => pins(args, out).await,
        Some(PartyCommand::Shares(args)) => shares(args, out).await,
        None if args.serve.print_identity => print_identity(&args.serve, out).await,
        None => serve(args.serve, out).await,
    }
}

async fn serve(args: ServeArgs, out: Output) -> Result<()> {
    let peers = parse_identities("peer", &args.peer)?;
    let loopback = args.options.host.is_loopback();
    if !loopback && peers.is_empty() && !args.no_peers {
        return Err(Error::invalid_field(
            "peer",
            "beyond loopback a server party must know the others: give --peer NAME=HEX for each, as \
             printed by its --print-identity, or --no-peers if there are none",
        ));
    }
    let bound = Bound::of_role(&args.options, args.http_port, args.grpc_port).await?;
    let host = Host::open(args.options.clone()).await?;
    let id = &args.secrets.id;
    let prepared = args.secrets.open(&host.data).await?;
    prepared.pin_peers(peers).await?;
    let identity = hex::encode(prepared.identity());
    let link = args.peers.endpoint(&args.router, &host)?;
    let rules = PartyRules::open(&args.authority, beside_link(&host.options).as_deref())?;
    if let Some(warning) = rules.warning()? {
        tell(&warning);
    }
    let authority = prepared.authority(&rules).await?;
    let compute = Compute::default();
    let delegate = match args.role {
        RoleArg::Persistent => None,
        RoleArg::Delegate => Some(prepared.delegate(args.peers.router(&args.router, &host))?),
    };
    let starting = prepared.start(&host, bound, link, compute, delegate, authority.clone());
    let (party, pair) = starting.await?;
    host.net.spawn(rules.watch(vec![authority], host.net.stop.clone()));
    if !out.json {
        tell(&format!(
            "identity: {id}={identity}; give it to other server parties as --peer, and to a router and \
             coordinator with --auth required as --trust"
        ));
    }
    let mut signals = compose::Signals::take();
    announce(out, id.as_str(), pair, &host);
    signals.next().await;
    let stopping = async {
        party.shutdown().await;
        host.net.drain().await
    };
    signals.unless_again(stopping).await;
    Ok(())
}

async fn print_identity(args: &ServeArgs, out: Output) -> Result<()> {
    let data = DataFolder::open(&args.options.data.data)?;
    let party = args.secrets.open(&data).await?;
    let identity = hex::encode(party.identity());
    let value = json!({ "party_id": party.id(), "identity": identity });
    out.show(&value, || format!("{}={identity}", party.id()));
    Ok(())
}

async fn pins(args: PinsArgs, out: Output) -> Result<()> {
    let party = args.secrets.open_stopped(&args.data.data).await?;
    match args.action {
        PinsAction::List => {
            let pins: Vec<Value> = party.pins().await?.iter().map(described).collect();
            out.show(&pins, || {
                let cell = |pin: &Value, name| pin[name].as_str().unwrap_or("any").to_owned();
                let row = |pin| ["name", "tenant", "identity"].map(|name| cell(pin, name)).to_vec();
                table(&["NAME", "TENANT", "IDENTITY"], &pins.iter().map(row).collect::<Vec<_>>())
            });
        }
        PinsAction::Drop { name, tenant } => {
            let dropped = party.drop_pins(&name, tenant.as_ref()).await?;
            if dropped == 0 {
                let message = format!("{} has no pinned identity for {name}", party.id());
                return Err(Error::new(ErrorCode::NotFound, message));
            }
            out.show(&json!({ "name": name, "dropped": dropped }), || {
                format!("{name}: {dropped} removed")
            });
        }
    }
    Ok(())
}

fn described(pin: &Pin) -> Value {
    json!({ "name": pin.peer, "tenant": pin.tenant, "identity": hex::encode(pin.identity) })
}

async fn shares(args: SharesArgs, out: Output) -> Result<()> {
    let party = args.secrets.open_stopped(&args.data.data).await?;
    match args.action {
        SharesAction::List => {
            let shares: Vec<Value> = party.shares().await?.into_iter().map(held).collect();
            out.show(&shares, || {
                table(&["KEY", "EPOCH", "STATE", "TENANT", "BANNED"], &rows(&shares))
            });
        }
        SharesAction::Discard { key, epoch, yes } => {
            if !yes {
                let why = "a wiped share cannot be recovered; confirm with --yes";
                return Err(Error::invalid_field("yes", why));
            }
            if !party.discard(key, epoch).await? {
                let message = format!("{} holds no share of epoch {epoch} of {key}", party.id());
                return Err(Error::new(ErrorCode::NotFound, message));
            }
            out.show(&json!({ "key_id": key, "epoch": epoch, "discarded": true }), || {
                format!("{key}: wiped the share of epoch {epoch}")
            });
        }
    }
    Ok(())
}

fn held((share, bans): (SealedShare, Vec<Ban>)) -> Value {
    let tenant = json!(share.record.tenant);
    let mut value = serde_json::to_value(held_key(share, bans)).expect("plain data");
    value["tenant"] = tenant;
    value
}

fn rows(shares: &[Value]) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |share: &Value| {
        let banned = share["bans"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<_> = banned.iter().map(|ban| text(&ban["party_id"])).collect();
        vec![
            text(&share["key_id"]),
            share["epoch"].to_string(),
            text(&share["state"]),
            text(&share["tenant"]),
            names.join(", "),
        ]
    };
    shares.iter().map(row).collect()
}
