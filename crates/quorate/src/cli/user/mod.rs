//! user: whose share a delegate makes, who fetches it, and who signs with it.

mod folder;
mod link;
mod offline;
mod sign;

use std::path::PathBuf;

use clap::Subcommand;
use quorate_client::{Verdict, verify_key};
use quorate_ports::{ManageSessions as _, ReadSession as _, TakePart as _};
use quorate_rpc::remote::RemoteCoordinator;
use quorate_types::*;
use serde_json::json;

use super::Answer;
use super::ask::lines;
use super::client::{ClientArgs, finish};
use super::creator::CreatorArgs;
use super::keys::told;
use super::output::{Output, tell};
use super::peers::PeersFile;
use super::values::value;
use folder::{Folder, Pending};
use offline::{JoinArgs, RegisterArgs};
use sign::SignArgs;

/// Arguments of `user`.
#[derive(clap::Args)]
pub(crate) struct UserArgs {
    /// The user's folder
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "./quorate-user",
        env = "QUORATE_USER"
    )]
    folder: PathBuf,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Create a user: a name, and a key to which delegates seal its shares
    Init(InitArgs),
    /// Make a key in which a delegate takes the user's seat
    Keygen(KeygenArgs),
    /// Fetch and store the shares that delegates have made, then delete them on the server
    Fetch(FetchArgs),
    /// Sign with a fetched share: directly, or through a delegate
    Sign(SignArgs),
    /// Register a mail address, telephone number or push token: this user is notified of sessions that
    /// wait for it, and need not be online
    Register(RegisterArgs),
    /// Take part in a session by the link in a notification
    Join(JoinArgs),
}

#[derive(clap::Args)]
struct InitArgs {
    /// The user's name among the holders of its keys: one that no other party has
    #[arg(long, value_parser = value::<PartyId>)]
    name: PartyId,
    /// The type of its seal key: x25519 or p256
    #[arg(long, default_value_t = Kem::X25519, value_parser = value::<Kem>)]
    kem: Kem,
}

#[derive(clap::Args)]
struct KeygenArgs {
    #[command(flatten)]
    creator: CreatorArgs,
    #[command(flatten)]
    peers: PeersFile,
    /// The delegate that takes the user's seat
    #[arg(long, value_parser = value::<PartyId>)]
    delegate: PartyId,
    /// Number of signers needed
    #[arg(short = 't', long, default_value_t = 2)]
    threshold: u16,
    /// Parties that hold a share, including the user
    #[arg(short = 'n', long, default_value_t = 3)]
    parties: u16,
    /// The signature scheme: ecdsa-secp256k1 or ed25519
    #[arg(long, default_value_t = Scheme::default(), value_parser = value::<Scheme>)]
    scheme: Scheme,
    /// The key's label: 1 to 64 letters, digits or -_.:@+
    #[arg(long, value_parser = value::<KeyLabel>)]
    label: Option<KeyLabel>,
}

#[derive(clap::Args)]
struct FetchArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    peers: PeersFile,
}

/// Runs a command of a user.
pub(crate) async fn run(args: UserArgs, out: Output) -> Result<Answer> {
    let UserArgs { folder, command } = args;
    match command {
        UserCommand::Init(args) => {
            let user = Folder::init(&folder, args.name, args.kem)?;
            let key = user.seal_key()?;
            let value = json!({
                "user_id": user.name(),
                "seal_key": { "kem": key.kem().name(), "key": hex::encode(key.bytes()) },
            });
            out.show(&value, || {
                format!(
                    "user      {}\nseal key  {} {}",
                    user.name(),
                    key.kem(),
                    hex::encode(key.bytes())
                )
            });
            Ok(Answer::Yes)
        }
        UserCommand::Keygen(args) => keygen(&Folder::open(&folder)?, args, out).await,
        UserCommand::Fetch(args) => fetch(&Folder::open(&folder)?, args, out).await,
        UserCommand::Sign(args) => sign::run(&Folder::open(&folder)?, args, out).await,
        UserCommand::Register(args) => offline::register(&Folder::open(&folder)?, args, out).await,
        UserCommand::Join(args) => offline::join(&Folder::open(&folder)?, args, out).await,
    }
}

fn seat(party: &PartyId, on_behalf_of: Option<OnBehalfOf>) -> NewParticipant {
    NewParticipant { party_id: party.clone(), device: DeviceInfo::default(), on_behalf_of }
}

/// Makes a key. Its share is fetched by another command, now or later.
async fn keygen(user: &Folder, args: KeygenArgs, out: Output) -> Result<Answer> {
    let KeygenArgs { creator, peers, delegate, scheme, label, .. } = args;
    let coordinator = creator.client.coordinator()?;
    let threshold = Threshold::new(args.threshold.into(), args.parties.into())?;
    let authorization = creator.authorize(async |signing, key| {
        let others = &creator.participants;
        let peers = peers.known(&creator.client.coordinator)?;
        let (user, label) = (Some(user.name()), label.as_ref());
        signing.keygen_for(key, scheme, threshold, user, others, label, &peers)
    });
    let authorization = authorization.await?;
    let ceremony = CeremonyRequest::Keygen { scheme, threshold };
    let mut request = CreateSession { label, ..creator.request(ceremony, authorization) };
    let of = OnBehalfOf { user_id: user.name().clone(), seal_key: Some(user.seal_key()?) };
    request.participants.insert(0, seat(&delegate, Some(of)));
    let created = coordinator.create(&Caller::Open, request).await?;
    let session = created.session.session_id;
    let token = created.fetch_tokens.get(&delegate).ok_or_else(Error::internal)?;
    // Before anything is made: whoever loses the token loses the share.
    user.expect(&Pending::new(session, delegate.clone(), scheme, token))?;
    if !out.json {
        tell(&format!("making a key: session {session}"));
    }
    let view = match finish(&coordinator, session).await {
        Ok(view) => view,
        Err(error) => {
            let ended = coordinator.status(&Caller::Open, session, None).await;
            if ended.is_ok_and(|view| view.status.is_final()) {
                user.settle(session)?;
            }
            return Err(error);
        }
    };
    let public_key = view.public_key().ok_or_else(Error::internal)?;
    let value = json!({
        "key_id": view.key_id(),
        "session_id": session,
        "scheme": scheme.name(),
        "threshold_t": threshold.signers(),
        "threshold_n": threshold.parties(),
        "public_key": hex::encode(&public_key.0),
        "ethereum_address": quorate_schemes::ethereum_address(scheme, public_key),
        "delegate": delegate,
        "fetched": false,
    });
    out.show(&value, || {
        format!("{}\nthe share is ready: fetch it with `quorate user fetch`", lines(&value))
    });
    Ok(Answer::Yes)
}

/// Fetches what waits. Says of each key whether all its holders are known.
async fn fetch(user: &Folder, args: FetchArgs, out: Output) -> Result<Answer> {
    let coordinator = args.client.coordinator()?;
    let peers = args.peers.known(&args.client.coordinator)?;
    let (mut fetched, mut answer) = (Vec::new(), Answer::Yes);
    for pending in user.pending()? {
        let share = coordinator.fetch_share(&Caller::Open, pending.asked()).await;
        let share = match share {
            // A keygen that goes on, or an earlier fetch that was confirmed and broke off.
            Err(error) if error.code == ErrorCode::Conflict => {
                tell(&format!("{}: {}", pending.session_id, error.message));
                answer = Answer::No;
                continue;
            }
            Err(error)
                if error.code == ErrorCode::NotFound
                    && user.keys()?.contains(&pending.session_id.into()) =>
            {
                user.settle(pending.session_id)?;
                continue;
            }
            share => share?,
        };
        let record = user.keep(&pending, &share).await?;
        // It is on the disk: nobody else needs it any more.
        coordinator.confirm_share(&Caller::Open, pending.asked()).await?;
        user.settle(pending.session_id)?;
        let verdict = verified(user, &coordinator, &record, peers.clone()).await?;
        if let Verdict::False(reason) = &verdict {
            let why = format!("do not use key {}: {reason}", record.key_id);
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        if matches!(told(&verdict, record.key_id, out), Answer::No) {
            answer = Answer::No;
        }
        fetched.push(json!({
            "key_id": record.key_id,
            "public_key": hex::encode(&record.public_key.0),
            "holders": record.holders,
            "verified": verdict == Verdict::Verified,
        }));
    }
    out.show(&fetched, || match fetched.is_empty() {
        true => "no shares to fetch".to_owned(),
        false => fetched.iter().map(lines).collect::<Vec<_>>().join("\n\n"),
    });
    Ok(answer)
}

/// Whether a key's holders are those that are known: this user's own identity came with its share.
async fn verified(
    user: &Folder,
    coordinator: &RemoteCoordinator,
    record: &KeyRecord,
    mut peers: quorate_client::KnownPeers,
) -> Result<Verdict> {
    let keyring = user.keyring(record.key_id).await?;
    peers.add(user.name().clone(), keyring.identity().public());
    let view = coordinator.key(&Caller::Open, record.key_id).await?;
    if view.record.key != record.key {
        return Ok(Verdict::False("the coordinator shows another key than the share is of".into()));
    }
    Ok(verify_key(&view, &peers))
}
