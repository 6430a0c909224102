//! group: devices that meet over the JSON-RPC group relay.

use quorate_client::peers::{
    GroupCeremony, GroupOutcome, GroupSession, Invitation, Observer, Participation, SigningRequest,
};
use quorate_types::{GroupId, PartyId, Result, Scheme, Threshold};
use serde_json::json;

use super::ask::lines;
use super::device::folder::Folder;
use super::device::names::Names;
use super::device::refresh::agree_to_refresh;
use super::device::sign::{What, asked, declined_here};
use super::device::{FolderArgs, RunArgs, Steps, described, qr};
use super::output::Output;
use super::values::{key_among, value};

/// Arguments of `group`.
#[derive(clap::Args)]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    at: FolderArgs,
    /// Address of the group relay
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "ws://127.0.0.1:3030/mpc",
        env = "QUORATE_GROUP_RELAY"
    )]
    url: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Create a group and make a key in it; shows an invitation for the others
    #[command(visible_alias = "keygen")]
    Create(CreateArgs),
    /// Accept an invitation to make a key, sign or refresh
    Join(JoinArgs),
    /// Start a signature; shows an invitation for the others
    Sign(SignArgs),
    /// Start a refresh, which gives all holders of a key new shares; shows an invitation for the
    /// others
    Refresh(RefreshArgs),
}

#[derive(clap::Args)]
struct CreateArgs {
    /// Number of signers needed
    #[arg(short, long, default_value_t = 2)]
    threshold: u16,
    /// Devices that hold a share
    #[arg(short = 'n', long, default_value_t = 3)]
    parties: u16,
    /// The signature scheme: ecdsa-secp256k1 or ed25519
    #[arg(long, default_value_t = Scheme::default(), value_parser = value::<Scheme>)]
    scheme: Scheme,
    /// The group's name
    #[arg(long, default_value = "quorate")]
    label: String,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Args)]
struct JoinArgs {
    /// The invitation, GROUP/SESSION
    #[arg(value_parser = value::<Invitation>)]
    invitation: Invitation,
    /// Approve without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Args)]
struct SignArgs {
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    #[arg(short, long)]
    key: String,
    #[command(flatten)]
    what: What,
    /// An existing group to use instead of a new one
    #[arg(long, value_parser = value::<GroupId>)]
    group: Option<GroupId>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Args)]
struct RefreshArgs {
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    #[arg(short, long)]
    key: String,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs a group command.
pub(crate) async fn run(args: GroupArgs, out: Output) -> Result<()> {
    let folder = Folder::open(&args.at.folder)?;
    let limit = match &args.command {
        Command::Create(CreateArgs { run, .. })
        | Command::Join(JoinArgs { run, .. })
        | Command::Sign(SignArgs { run, .. })
        | Command::Refresh(RefreshArgs { run, .. }) => run.limit(),
    };
    let keyring = folder.keyring().await?;
    let session = GroupSession::new(&args.url, folder.signer(), keyring.clone())?;
    let session = session.with_limit(limit);
    match args.command {
        Command::Create(args) => {
            let threshold = Threshold::new(args.threshold.into(), args.parties.into())?;
            let participation = session.keygen(&args.label, args.scheme, threshold).await?;
            invite(&participation, out);
            finish(&session, participation, "making a key", false, out).await
        }
        Command::Join(args) => {
            let participation = session.join(args.invitation).await?;
            let what = match participation.ceremony() {
                GroupCeremony::Keygen { .. } => "making a key",
                GroupCeremony::Sign(..) => "signing",
                GroupCeremony::Refresh(key) => {
                    let record = session.key(*key).await?;
                    agree_to_refresh(&record, &Names::default(), args.yes)?;
                    "refreshing a key"
                }
            };
            finish(&session, participation, what, args.yes, out).await
        }
        Command::Sign(args) => {
            let key = key_among(keyring.keys().await?, &args.key)?;
            let request = args.what.request(key.scheme)?;
            let participation = session.sign(args.group, key.key_id, request).await?;
            invite(&participation, out);
            finish(&session, participation, "signing", false, out).await
        }
        Command::Refresh(args) => {
            let key = key_among(keyring.keys().await?, &args.key)?;
            let participation = session.refresh(key.key_id).await?;
            invite(&participation, out);
            finish(&session, participation, "refreshing a key", false, out).await
        }
    }
}

fn invite(participation: &Participation<'_>, out: Output) {
    let invitation = participation.invitation().to_string();
    out.show(&json!({ "invitation": invitation }), || {
        format!(
            "{}{invitation}\n\nthe others take part with `group join INVITATION`",
            qr::code(&invitation)
        )
    });
}

async fn finish(
    session: &GroupSession,
    participation: Participation<'_>,
    what: &'static str,
    yes: bool,
    out: Output,
) -> Result<()> {
    let task = participation.ceremony().clone();
    let record = match &task {
        GroupCeremony::Sign(key, _) => Some(session.key(*key).await?),
        GroupCeremony::Keygen { .. } | GroupCeremony::Refresh(_) => None,
    };
    let mut seen = None;
    let steps = Steps::new(out, what, Names::default());
    let mut declined = false;
    let approve = |proposer: &PartyId, request: &SigningRequest| {
        seen = Some(request.clone());
        steps.finish();
        let ask = |record| asked(proposer.as_str(), record, request);
        let agreed = yes || record.as_ref().is_some_and(ask);
        declined = !agreed;
        agreed
    };
    let mut observer = Observer { approve: Box::new(approve), ..steps.observer() };
    let made = participation.run(&mut observer).await;
    drop(observer);
    steps.finish();
    if declined {
        return Err(declined_here());
    }
    let value = match (made?, record, task) {
        (GroupOutcome::Key(record), ..) => described(&record),
        (GroupOutcome::Signature(signature), Some(record), GroupCeremony::Sign(_, proposed)) => {
            // What the others' messages proposed counts, where we did not propose it ourselves.
            let request = seen.unwrap_or(proposed);
            json!({
                "key_id": record.key_id,
                "public_key": hex::encode(&record.public_key.0),
                "ethereum_address":
                    quorate_schemes::ethereum_address(record.scheme, &record.public_key),
                "message_hash": request.input().digest().map(|digest| hex::encode(digest.0)),
                "signature": hex::encode(signature.bytes()),
                "recovery_id": signature.recovery_id(),
            })
        }
        _ => return Err(quorate_types::Error::internal()),
    };
    out.show(&value, || lines(&value));
    Ok(())
}
