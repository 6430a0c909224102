//! keys refresh: new shares for a key, whose public key stays.

use std::path::Path;

use quorate_client::{KnownPeers, Verdict, verify_key};
use quorate_types::*;
use serde_json::json;

use super::Answer;
use super::ask::{lines, run_session};
use super::creator::CreatorArgs;
use super::keys::told;
use super::output::Output;
use super::peers::PeersFile;
use super::request::SigningArgs;
use super::values::find_key;

/// Arguments of `keys refresh`.
#[derive(clap::Args)]
pub(crate) struct RefreshArgs {
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    key: String,
    #[command(flatten)]
    creator: CreatorArgs,
    #[command(flatten)]
    peers: PeersFile,
}

/// Refreshes a key, and says whether its holders have signed that they keep the new epoch.
pub(crate) async fn run(args: RefreshArgs, out: Output) -> Result<Answer> {
    let creator = &args.creator;
    let coordinator = creator.client.connect()?;
    let peers = args.peers.known(&creator.client.coordinator)?;
    let key_id = find_key(&*coordinator, &args.key).await?;
    let sign = async |signing: &SigningArgs, file: &Path| {
        let shown = coordinator.key(&Caller::Open, key_id).await?.record;
        signing.refresh(file, &shown.key, &peers)
    };
    let authorization = creator.authorize(sign).await?;
    let key = KeySelector::Id(key_id);
    let request = creator.request(CeremonyRequest::Refresh { key, threshold: None }, authorization);
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
