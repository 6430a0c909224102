//! keys refresh: new shares for a key, whose public key stays.

use std::path::PathBuf;

use quorate_client::{KnownPeers, Verdict, verify_key};
use quorate_types::*;
use serde_json::json;

use super::Answer;
use super::ask::{lines, plain, run_session};
use super::client::ClientArgs;
use super::keys::told;
use super::output::Output;
use super::peers::PeersFile;
use super::request::SigningArgs;
use super::values::{find_key, value};

/// Arguments of `keys refresh`.
#[derive(clap::Args)]
pub(crate) struct RefreshArgs {
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    key: String,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    peers: PeersFile,
    /// File with an initiator's private key, PEM or JWK: signs the request, for server parties that
    /// do not know the coordinator's service initiator. The holders' identities must be known here:
    /// see `quorate peers`
    #[arg(long, value_name = "FILE")]
    initiator_key: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
    /// A device that holds a share; server parties take part by themselves
    #[arg(short = 'p', long = "party", value_name = "PARTY", value_parser = value::<PartyId>)]
    participants: Vec<PartyId>,
    /// Seconds until the session gives up
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u64>,
}

/// Refreshes a key, and says whether its holders have signed that they keep the new epoch.
pub(crate) async fn run(args: RefreshArgs, out: Output) -> Result<Answer> {
    let coordinator = args.client.connect()?;
    let peers = args.peers.known(&args.client.coordinator)?;
    let key_id = find_key(&*coordinator, &args.key).await?;
    let authorization = match &args.initiator_key {
        Some(file) => {
            let shown = coordinator.key(&Caller::Open, key_id).await?.record;
            Some(args.signing.refresh(file, &shown.key, &peers)?)
        }
        None => None,
    };
    let request = CreateSession {
        ceremony: CeremonyRequest::Refresh { key: KeySelector::Id(key_id), threshold: None },
        participants: plain(&args.participants),
        expires_in_seconds: args.expires_in,
        idempotency_key: None,
        authorization,
        label: None,
        replace: false,
    };
    let view = run_session(&*coordinator, request, "refreshing a key", out).await?;
    let refreshed = view.ceremony.key().ok_or_else(Error::internal)?;
    let key = coordinator.key(&Caller::Open, refreshed.key_id).await?;
    let verdict = verdict(refreshed, &key, &peers);
    let value = json!({
        "session_id": view.session_id,
        "key_id": key.record.key_id,
        "epoch": key.record.epoch,
        "public_key": hex::encode(&key.record.public_key.0),
        "parties": view.parties().map(PartyId::as_str).collect::<Vec<_>>(),
        "verified": verdict == Verdict::Verified,
    });
    out.show(&value, || lines(&value));
    Ok(told(&verdict, key.record.key_id, out))
}

/// Whether a key is the next epoch of the one that was refreshed, and signed by its holders.
fn verdict(refreshed: &KeyEpoch, key: &KeyView, peers: &KnownPeers) -> Verdict {
    let KeyEpoch { key_id, public_key, threshold, holders, .. } = &*key.record.key;
    let same = *key_id == refreshed.key_id
        && *public_key == refreshed.public_key
        && *threshold == refreshed.threshold
        && *holders == refreshed.holders;
    match same && key.record.epoch > refreshed.epoch {
        true => verify_key(key, peers),
        false => Verdict::False("the coordinator shows another key than was refreshed".to_owned()),
    }
}
