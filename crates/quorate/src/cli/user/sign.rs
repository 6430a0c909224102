//! user sign: as the holder of a share, alone or through a delegate to whom it is lent.

use quorate_client::{Connection, Device, delegate_key, lend};
use quorate_ports::{Directory as _, ManageSessions as _};
use quorate_rpc::remote::{RemoteCoordinator, RemoteRouter};
use quorate_types::*;

use super::folder::Folder;
use super::seat;
use crate::cli::Answer;
use crate::cli::ask::{lines, signed};
use crate::cli::client::finish;
use crate::cli::creator::CreatorArgs;
use crate::cli::input::InputArgs;
use crate::cli::output::{Output, tell};
use crate::cli::peers::PeersFile;
use crate::cli::request::record;
use crate::cli::values::{select_key, value};

#[derive(clap::Args)]
pub(super) struct SignArgs {
    #[command(flatten)]
    creator: CreatorArgs,
    #[command(flatten)]
    peers: PeersFile,
    /// The router's gRPC address
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50052",
        env = "QUORATE_ROUTER"
    )]
    router: String,
    /// Lend the share to this delegate for this one request, instead of taking part. Its identity
    /// must be recorded: see `quorate peers`
    #[arg(long, value_name = "DELEGATE", requires = "initiator_key", value_parser = value::<PartyId>)]
    through: Option<PartyId>,
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    #[arg(short = 'k', long)]
    key: String,
    #[command(flatten)]
    signed: InputArgs,
}

/// Signs as the holder.
pub(super) async fn run(user: &Folder, args: SignArgs, out: Output) -> Result<Answer> {
    let creator = &args.creator;
    let coordinator = creator.client.coordinator()?;
    let (key, scheme) = select_key(&coordinator, &args.key).await?;
    let record = record(&coordinator, &key).await?;
    let key_id = record.key_id;
    if !user.keys()?.contains(&key_id) {
        let why = format!(
            "no share of key {key_id} is in this folder; fetch it with `quorate user fetch`"
        );
        return Err(Error::new(ErrorCode::NotFound, why).with_field("key"));
    }
    let input = args.signed.input(scheme)?;
    let mut signers = vec![user.name().clone()];
    signers.extend(creator.participants.clone());
    // Where the others are left to the coordinator, the request lets any holder sign.
    let named = if signers.len() > 1 { signers.as_slice() } else { &[] };
    let authorization =
        creator.authorize(async |signing, file| signing.signature(file, &record, &input, named));
    let authorization = authorization.await?;
    let ceremony = CeremonyRequest::Sign { key, threshold: None, input };
    let request = creator.request(ceremony, authorization);
    let ended = match &args.through {
        Some(delegate) => through(user, &args, &coordinator, key_id, delegate, request, out).await,
        None => alone(user, &args, &coordinator, key_id, request, out).await,
    };
    let value = signed(&ended?)?;
    out.show(&value, || lines(&value));
    Ok(Answer::Yes)
}

fn tell_session(session: SessionId, out: Output) {
    if !out.json {
        tell(&format!("signing: session {session}"));
    }
}

/// Takes part itself.
async fn alone(
    user: &Folder,
    args: &SignArgs,
    coordinator: &RemoteCoordinator,
    key: KeyId,
    mut request: CreateSession,
    out: Output,
) -> Result<SessionView> {
    request.participants.insert(0, seat(user.name(), None));
    let created = coordinator.create(&Caller::Open, request).await?;
    let session = created.session.session_id;
    tell_session(session, out);
    let token = created.join_tokens.get(user.name()).ok_or_else(Error::internal)?.clone();
    let link = Connection::grpc(args.creator.client.endpoint(&args.router)?);
    let keyring = user.keyring(key).await?;
    let device = DeviceInfo { device_type: "user".into(), ..DeviceInfo::default() };
    let taking_part = Device::new(keyring, link, device);
    let (ended, part) =
        tokio::join!(finish(coordinator, session), taking_part.take_part(session, token));
    if let (Ok(_), Err(error)) = (&ended, &part) {
        tracing::debug!(%error, "the session has ended all the same");
    }
    ended
}

/// Lends the share to a delegate, which takes part.
async fn through(
    user: &Folder,
    args: &SignArgs,
    coordinator: &RemoteCoordinator,
    key: KeyId,
    delegate: &PartyId,
    mut request: CreateSession,
    out: Output,
) -> Result<SessionView> {
    let CreatorArgs { client, .. } = &args.creator;
    let router = RemoteRouter::new(client.endpoint(&args.router)?);
    let registered = router.parties(&Caller::Open, Some(PartyRole::Delegate), false).await?;
    let party = registered.iter().find(|party| party.registration.party_id == *delegate);
    let party = party.ok_or_else(|| {
        let why =
            format!("no delegate {delegate} is registered with the router at {}", args.router);
        Error::new(ErrorCode::NotFound, why).with_field("through")
    })?;
    let to = delegate_key(party, &args.peers.known(&client.coordinator)?)?;
    args.peers.note_delegate_key(delegate, &to)?;
    let authorization = request.authorization.as_ref().ok_or_else(Error::internal)?;
    let keyring = user.keyring(key).await?;
    request.lent = Some(lend(&keyring, key, (delegate.clone(), to), authorization).await?);
    let created = coordinator.create(&Caller::Open, request).await?;
    let session = created.session.session_id;
    tell_session(session, out);
    finish(coordinator, session).await
}
