//! device: this machine as a phone would be, with its own signer, shares and peers.

pub(super) mod folder;
pub(super) mod names;
mod passphrase;
pub(super) mod qr;
pub(super) mod refresh;
pub(super) mod sign;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use quorate_client::peers::{DeviceLink, DeviceName, InstanceId, KeyType, Observer, Progress};
use quorate_types::{Error, KeyRecord, PartyId, Result, Scheme, Threshold};
use serde_json::{Value, json};

use super::ask::lines;
use super::output::{Output, table, tell};
use super::values::{key_among, value};
use folder::{Folder, PairingRoom};
use names::Names;

/// Where a device is.
#[derive(clap::Args)]
pub(super) struct FolderArgs {
    /// Folder with the device's signer, identity and sealed shares
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "./quorate-device",
        env = "QUORATE_DEVICE"
    )]
    pub(super) folder: PathBuf,
}

/// Arguments of `device`.
#[derive(clap::Args)]
pub(crate) struct DeviceArgs {
    #[command(flatten)]
    at: FolderArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create this device: its message signer and its folder
    Init(InitArgs),
    /// Show this device's name, link and keys
    Show,
    /// Create a pairing room from the links that other devices show, or join one by its link
    Pair(PairArgs),
    /// Make a key with the devices in the room
    Keygen(RunArgs),
    /// Sign with a key: start with --key, or join by the link that another device shows
    Sign(sign::SignArgs),
    /// Give all holders of a key new shares: start with --key, or join by the link that another device
    /// shows
    Refresh(refresh::RefreshArgs),
    /// Export a share to a passphrase-encrypted file
    Export(ExportArgs),
    /// Import a share exported from this device
    Import(ImportArgs),
}

/// The kinds of message signers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Signer {
    /// Ed25519
    Ed25519,
    /// ECDSA on P-256, as secure enclaves have it
    P256,
}

#[derive(clap::Args)]
struct InitArgs {
    /// The device's message signer
    #[arg(long, value_enum, default_value_t = Signer::Ed25519)]
    signer: Signer,
    /// The name that other devices see
    #[arg(long, value_name = "NAME", value_parser = value::<DeviceName>)]
    name: Option<DeviceName>,
    /// Address of the binary relay
    #[arg(
        long,
        value_name = "URL",
        default_value = "ws://127.0.0.1:8000/v1/msg-relay",
        value_parser = relay
    )]
    relay: String,
}

#[derive(clap::Args)]
struct PairArgs {
    /// Links that other devices show with `device show`, or one link of a room
    #[arg(required = true, value_name = "LINK")]
    links: Vec<String>,
    /// Signers needed [default: all]
    #[arg(short, long)]
    threshold: Option<u16>,
    /// The signature scheme: ecdsa-secp256k1 or ed25519 [default: ecdsa-secp256k1]
    #[arg(long, value_parser = value::<Scheme>)]
    scheme: Option<Scheme>,
}

fn relay(text: &str) -> std::result::Result<String, String> {
    quorate_client::peers::relay_url(text).map_err(|error| error.message)
}

/// How long a run may take.
#[derive(clap::Args)]
pub(super) struct RunArgs {
    /// Timeout in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
}

impl RunArgs {
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

#[derive(clap::Args)]
struct ExportArgs {
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    #[arg(short, long)]
    key: String,
    /// File with the passphrase [default: prompt, or read standard input]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File to write to; must not exist
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct ImportArgs {
    /// The exported file
    file: PathBuf,
    /// File with the passphrase [default: prompt, or read standard input]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Runs a device command.
pub(crate) async fn run(args: DeviceArgs, out: Output) -> Result<()> {
    let path = args.at.folder.as_path();
    match args.command {
        Command::Init(args) => {
            let key_type = match args.signer {
                Signer::Ed25519 => KeyType::Ed25519,
                Signer::P256 => KeyType::EcdsaP256Sec1,
            };
            Folder::init(path, key_type, &args.relay, args.name)?;
            show(&Folder::open(path)?, out).await
        }
        Command::Show => show(&Folder::open(path)?, out).await,
        Command::Pair(args) => pair(&Folder::open(path)?, &args, out),
        Command::Keygen(args) => keygen(&Folder::open(path)?, &args, out).await,
        Command::Sign(args) => sign::run(&Folder::open(path)?, args, out).await,
        Command::Refresh(args) => refresh::run(&Folder::open(path)?, args, out).await,
        Command::Export(args) => export(&Folder::open(path)?, &args, out).await,
        Command::Import(args) => import(&Folder::open(path)?, &args, out).await,
    }
}

async fn show(folder: &Folder, out: Output) -> Result<()> {
    let key = folder.verifying_key();
    let name = folder.name().cloned();
    let link = DeviceLink::Device { key: key.clone(), name: name.clone() }.to_string();
    let keys = folder.keyring().await?.keys().await?;
    let value = json!({
        "device": key.party_id(),
        "name": name,
        "verifying_key": key,
        "relay": folder.relay(),
        "link": link,
        "keys": keys.iter().map(described).collect::<Vec<_>>(),
    });
    out.show(&value, || {
        let row = |key: &KeyRecord| {
            let address = quorate_schemes::ethereum_address(key.scheme, &key.public_key);
            let signers = format!("{} of {}", key.threshold.signers(), key.threshold.parties());
            vec![key.key_id.to_string(), signers, address.unwrap_or_default()]
        };
        let rows: Vec<_> = keys.iter().map(row).collect();
        let keys = match rows.is_empty() {
            true => "no keys yet".to_owned(),
            false => table(&["KEY", "SIGNERS", "ADDRESS"], &rows),
        };
        let qr = qr::code(&link);
        let who = Names::new(std::slice::from_ref(&key), &[name]).full(&key.party_id());
        format!("{qr}{who}\n{link}\n\n{keys}")
    });
    Ok(())
}

fn pair(folder: &Folder, args: &PairArgs, out: Output) -> Result<()> {
    let links: Vec<DeviceLink> =
        args.links.iter().map(|link| link.parse()).collect::<Result<_>>()?;
    let own = folder.verifying_key();
    let mut joins = false;
    let room = match links.as_slice() {
        [DeviceLink::Room { relay, instance, scheme, signers, members, names }] => {
            if args.threshold.is_some() {
                let why = "the room's link says how many signers are needed";
                return Err(Error::invalid_field("threshold", why));
            }
            if args.scheme.is_some_and(|asked| asked != *scheme) {
                let why = format!("the room is for a key of {scheme}: leave --scheme out");
                return Err(Error::invalid_field("scheme", why));
            }
            joins = true;
            let kind = (*scheme, *signers);
            PairingRoom::new(relay.clone(), *instance, kind, members.clone(), names.clone())
        }
        devices => {
            let mut members = vec![own.clone()];
            let mut names = vec![folder.name().cloned()];
            for device in devices {
                let DeviceLink::Device { key, name } = device else {
                    let why = "give the links that the other devices show, or one room's link";
                    return Err(Error::invalid_field("link", why));
                };
                members.push(key.clone());
                names.push(name.clone());
            }
            let all = u16::try_from(members.len()).unwrap_or(u16::MAX);
            let signers = args.threshold.unwrap_or(all);
            let kind = (args.scheme.unwrap_or_default(), signers);
            PairingRoom::new(folder.relay().to_owned(), InstanceId::random(), kind, members, names)
        }
    };
    room.check(&own)?;
    folder.enter(&room)?;
    let link = room.link().to_string();
    let members: Vec<_> = room.members().iter().map(|key| key.party_id()).collect();
    let value = json!({
        "link": link,
        "scheme": room.scheme().name(),
        "threshold_t": room.threshold()?.signers(),
        "threshold_n": room.threshold()?.parties(),
        "members": members,
    });
    out.show(&value, || {
        let names = room.names();
        let others = members.iter().filter(|member| **member != own.party_id());
        let others = others.map(|member| names.full(member)).collect::<Vec<_>>().join(", ");
        // Who joins has the link from the one who shows it to all.
        if joins {
            return format!(
                "joined the room of this device and {others}\nstart `device keygen` on all of them"
            );
        }
        let qr = qr::code(&link);
        format!(
            "{qr}{link}\n\na room for this device and {others}\nshow them this link: they join with \
             `device pair LINK`; then start `device keygen` on all"
        )
    });
    Ok(())
}

async fn keygen(folder: &Folder, args: &RunArgs, out: Output) -> Result<()> {
    let room = folder.room()?;
    let session = folder.session(room.relay(), folder.keyring().await?, args.limit())?;
    let bar = Steps::new(out, "making a key", room.names());
    let mut observer = bar.observer();
    let threshold: Threshold = room.threshold()?;
    let made = session
        .keygen(room.instance(), room.members(), room.scheme(), threshold, &mut observer)
        .await;
    drop(observer);
    bar.finish();
    let record = made?;
    folder.keep_members(record.key_id, &room)?;
    let value = described(&record);
    out.show(&value, || lines(&value));
    Ok(())
}

async fn export(folder: &Folder, args: &ExportArgs, out: Output) -> Result<()> {
    if args.out.exists() {
        let why = format!("{} exists: choose another file with --out", args.out.display());
        return Err(Error::invalid_field("out", why));
    }
    let passphrase = passphrase::new(args.passphrase_file.as_deref())?;
    let keyring = folder.keyring().await?;
    let compute = quorate_client::Compute::default();
    let key = key_among(keyring.keys().await?, &args.key)?.key_id;
    let bytes = keyring.export(key, &passphrase, &compute).await?;
    crate::serve::data::write_new_private(&args.out, &bytes)
        .map_err(|error| Error::invalid(format!("cannot write {}: {error}", args.out.display())))?;
    let value = json!({ "key_id": key, "file": args.out, "bytes": bytes.len() });
    out.show(&value, || lines(&value));
    Ok(())
}

async fn import(folder: &Folder, args: &ImportArgs, out: Output) -> Result<()> {
    let passphrase = passphrase::known(args.passphrase_file.as_deref())?;
    let bytes = std::fs::read(&args.file)
        .map_err(|error| Error::invalid(format!("cannot read {}: {error}", args.file.display())))?;
    let compute = quorate_client::Compute::default();
    let record = folder.keyring().await?.import(&bytes, &passphrase, &compute).await?;
    let value = described(&record);
    out.show(&value, || lines(&value));
    Ok(())
}

/// The public side of a key.
pub(super) fn described(key: &KeyRecord) -> Value {
    json!({
        "key_id": key.key_id,
        "epoch": key.epoch,
        "scheme": key.scheme.name(),
        "threshold_t": key.threshold.signers(),
        "threshold_n": key.threshold.parties(),
        "public_key": hex::encode(&key.public_key.0),
        "ethereum_address": quorate_schemes::ethereum_address(key.scheme, &key.public_key),
        "holders": key.holders,
    })
}

/// Says how far a run has come: a spinner for people, lines where nobody watches.
pub(crate) struct Steps {
    bar: indicatif::ProgressBar,
    what: &'static str,
    names: Names,
    plain: bool,
}

impl Steps {
    pub(crate) fn new(out: Output, what: &'static str, names: Names) -> Self {
        let bar = out.progress(what);
        let plain = bar.is_hidden() && !out.json;
        Self { bar, what, names, plain }
    }

    /// Observer that show every step and agree to nothing.
    pub(crate) fn observer<'a>(&self) -> Observer<'a> {
        let (bar, what, plain) = (self.bar.clone(), self.what, self.plain);
        let known = self.names.clone();
        let progress = move |stage: Progress| {
            let names = |who: Vec<PartyId>| {
                who.iter().map(|who| known.short(who)).collect::<Vec<_>>().join(", ")
            };
            let text = match stage {
                Progress::WaitingFor(who) => format!("waiting for {}", names(who)),
                Progress::Round(round) => format!("{what}: round {round}"),
                Progress::Confirming(who) => {
                    format!("done; waiting for the confirmation of {}", names(who))
                }
            };
            if plain {
                tell(&text);
            }
            bar.set_message(text);
        };
        Observer { progress: Box::new(progress), ..Observer::default() }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
