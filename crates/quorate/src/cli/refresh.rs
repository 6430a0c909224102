//! keys refresh: new shares for a key, whose public key stays.

use quorate_types::*;
use serde_json::json;

use super::ask::{lines, plain, run_session};
use super::client::ClientArgs;
use super::output::Output;
use super::values::{find_key, value};

/// Arguments of `keys refresh`.
#[derive(clap::Args)]
pub(crate) struct RefreshArgs {
    /// The key: its id, public key or Ethereum address, or enough of its beginning
    key: String,
    #[command(flatten)]
    client: ClientArgs,
    /// A device that holds a share; server parties take part by themselves
    #[arg(short = 'p', long = "party", value_name = "PARTY", value_parser = value::<PartyId>)]
    participants: Vec<PartyId>,
    /// Wait until all holders have the new epoch, and show it
    #[arg(long)]
    wait: bool,
    /// Seconds until the session gives up
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u64>,
}

/// Starts a refresh, and waits for its end if asked to.
pub(crate) async fn run(args: RefreshArgs, out: Output) -> Result<()> {
    let coordinator = args.client.connect()?;
    let key = KeySelector::Id(find_key(&*coordinator, &args.key).await?);
    let request = CreateSession {
        ceremony: CeremonyRequest::Refresh { key, threshold: None },
        participants: plain(&args.participants),
        expires_in_seconds: args.expires_in,
        idempotency_key: None,
        authorization: None,
    };
    let view = match args.wait {
        true => run_session(&*coordinator, request, "refreshing a key", out).await?,
        false => coordinator.create(&Caller::Open, request).await?.session,
    };
    let shown = shown(&view)?;
    out.show(&shown, || match view.status.is_final() {
        true => lines(&shown),
        false => format!("{}\nfollow it with: quorate watch {}", lines(&shown), view.session_id),
    });
    Ok(())
}

/// A refresh as it is shown: the epoch is the one that it makes.
fn shown(view: &SessionView) -> Result<serde_json::Value> {
    let key = view.ceremony.key().ok_or_else(Error::internal)?;
    Ok(json!({
        "session_id": view.session_id,
        "status": view.status.name(),
        "key_id": key.key_id,
        "epoch": key.epoch.saturating_add(1),
        "public_key": hex::encode(&key.public_key.0),
        "parties": view.participants.iter().map(|p| p.party_id.as_str()).collect::<Vec<_>>(),
    }))
}
