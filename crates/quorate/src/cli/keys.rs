//! keys: what keys there are, and what can be done to one.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use quorate_app::{HeldKey, restore_keys};
use quorate_client::{Verdict, verify_key};
use quorate_ports::vault::ShareState;
use quorate_types::*;
use quorate_wire::{AttestationJson, KeyDetailJson, KeyJson, Rfc3339};
use serde::Deserialize;
use serde_json::json;

use super::ask::{ListArgs, lines, paged};
use super::client::ClientArgs;
use super::output::{Output, table, tell};
use super::peers::PeersFile;
use super::values::find_key;
use super::{Answer, DataArgs, refresh};
use crate::serve::compose::open_store;

/// Arguments of `keys`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: Option<KeysCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// List keys, newest first: the same as `quorate keys`
    List(ListArgs),
    /// Show one key: its holders, state, epochs and bans
    Show {
        /// The key: its id, public key or Ethereum address, or enough of its beginning
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Verify that all holders have signed a key, against the recorded identities
    Verify {
        /// The key: its id, public key or Ethereum address, or enough of its beginning
        key: String,
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        peers: PeersFile,
    },
    /// Replace all shares of a key; the public key stays the same and bans end
    Refresh(refresh::RefreshArgs),
    /// Freeze a key: end its open sessions and refuse signatures and refreshes
    Freeze {
        /// The key: its id, public key or Ethereum address, or enough of its beginning
        key: String,
        /// Reason, shown in every refusal
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Unfreeze a key: allow signatures and refreshes again
    Unfreeze {
        /// The key: its id, public key or Ethereum address, or enough of its beginning
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Restore lost keys and attestations in a stopped coordinator's database from its parties' lists
    #[command(visible_alias = "attest")]
    Restore {
        #[command(flatten)]
        data: DataArgs,
        /// A holder's output of `quorate party shares list --json`
        #[arg(required = true, value_name = "FILE")]
        lists: Vec<PathBuf>,
    },
}

/// Lists keys, shows, verifies or refreshes one, or brings back what was lost.
pub(crate) async fn run(args: KeysArgs, out: Output) -> Result<Answer> {
    match args.command {
        None => list(args.list, out).await?,
        Some(KeysCommand::List(args)) => list(args, out).await?,
        Some(KeysCommand::Show { key, client }) => show(&key, &client, out).await?,
        Some(KeysCommand::Verify { key, client, peers }) => {
            return verify(&key, &client, &peers, out).await;
        }
        Some(KeysCommand::Freeze { key, reason, client }) => {
            let coordinator = client.connect()?;
            let id = find_key(&*coordinator, &key).await?;
            let view = coordinator.freeze(&Caller::Open, id, reason).await?;
            out.show(&KeyDetailJson::from(view.clone()), || described(&view));
        }
        Some(KeysCommand::Unfreeze { key, client }) => {
            let coordinator = client.connect()?;
            let id = find_key(&*coordinator, &key).await?;
            let view = coordinator.unfreeze(&Caller::Open, id).await?;
            out.show(&KeyDetailJson::from(view.clone()), || described(&view));
        }
        Some(KeysCommand::Refresh(args)) => return refresh::run(args, out).await,
        Some(KeysCommand::Restore { data, lists }) => restore(&data.data, &lists, out).await?,
    }
    Ok(Answer::Yes)
}

async fn verify(key: &str, client: &ClientArgs, peers: &PeersFile, out: Output) -> Result<Answer> {
    let peers = peers.known(&client.coordinator)?;
    let coordinator = client.connect()?;
    let id = find_key(&*coordinator, key).await?;
    let view = coordinator.key(&Caller::Open, id).await?;
    let verdict = verify_key(&view, &peers);
    let reason = match &verdict {
        Verdict::Verified => None,
        Verdict::Unverified { reason, .. } | Verdict::False(reason) => Some(reason.as_str()),
    };
    let name = match &verdict {
        Verdict::Verified => "verified",
        Verdict::Unverified { .. } => "unverified",
        Verdict::False(_) => "false",
    };
    let value = json!({
        "key_id": id,
        "epoch": view.record.epoch,
        "public_key": hex::encode(&view.record.public_key.0),
        "holders": view.record.holders,
        "verdict": name,
        "reason": reason,
    });
    out.show(&value, || lines(&value));
    Ok(told(&verdict, id, out))
}

/// Tells people what is to be done about a key that is not verified.
pub(super) fn told(verdict: &Verdict, key: KeyId, out: Output) -> Answer {
    match verdict {
        Verdict::Unverified { .. } | Verdict::False(_) if out.json => {}
        Verdict::Verified => return Answer::Yes,
        Verdict::False(reason) => tell(&format!("do not use key {key}: {reason}")),
        Verdict::Unverified { reason, unknown } if unknown.is_empty() => {
            tell(&format!("key {key} is unverified: {reason}"));
        }
        Verdict::Unverified { reason, .. } => tell(&format!(
            "key {key} is unverified: {reason}; ask its operator for the line that `quorate party \
             --print-identity` prints there, give it to `quorate peers add`, then run `quorate \
             keys verify {key}`"
        )),
    }
    Answer::No
}

async fn list(args: ListArgs, out: Output) -> Result<()> {
    let coordinator = args.client.connect()?;
    let page = async |before, limit| coordinator.keys(&Caller::Open, before, limit).await;
    let keys = paged(args.limit, page).await?;
    let row = |key: &KeyRecord| {
        vec![
            key.key_id.to_string(),
            key.label.as_ref().map(ToString::to_string).unwrap_or_default(),
            key.scheme.name().to_owned(),
            if key.frozen.is_some() { KeyState::Frozen.name().to_owned() } else { String::new() },
            format!("{} of {}", key.threshold.signers(), key.threshold.parties()),
            quorate_schemes::ethereum_address(key.scheme, &key.public_key).unwrap_or_default(),
            key.holders.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(","),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    let keys: Vec<_> = keys.into_iter().map(KeyJson::from).collect();
    out.show(&keys, || {
        table(&["KEY", "LABEL", "SCHEME", "STATE", "SIGNERS", "ADDRESS", "HOLDERS"], &rows)
    });
    Ok(())
}

async fn show(key: &str, client: &ClientArgs, out: Output) -> Result<()> {
    let coordinator = client.connect()?;
    let id = find_key(&*coordinator, key).await?;
    let view = coordinator.key(&Caller::Open, id).await?;
    out.show(&KeyDetailJson::from(view.clone()), || described(&view));
    Ok(())
}

fn described(view: &KeyView) -> String {
    let KeyView { record, state, epochs, bans } = view;
    let holders: Vec<_> = record.holders.iter().map(|holder| holder.as_str()).collect();
    let signers = format!("{} of {}", record.threshold.signers(), record.threshold.parties());
    let address = quorate_schemes::ethereum_address(record.scheme, &record.public_key);
    let mut lines = vec![
        ("key", record.key_id.to_string()),
        ("scheme", record.scheme.name().to_owned()),
        ("signers", signers),
        ("holders", holders.join(", ")),
        ("public key", hex::encode(&record.public_key.0)),
        ("state", state.name().to_owned()),
        ("epoch", record.epoch.to_string()),
    ];
    lines.extend(record.label.as_ref().map(|label| ("label", label.to_string())));
    lines.extend(record.frozen.as_ref().map(|Freeze { by, at, reason }| {
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        ("frozen", format!("by {by} at {}{why}", Rfc3339(*at)))
    }));
    let attested = epochs.last().is_some_and(|epoch| epoch.attestation.is_some());
    let signed = if attested { "by all holders; check with `quorate keys verify`" } else { "no" };
    lines.push(("attested", signed.to_owned()));
    lines.extend(address.map(|address| ("address", address)));
    lines.extend(bans.iter().map(|ban| {
        let ReportedBan { reporter, peer, reason, session_id, epoch, .. } = ban;
        let until = if *epoch < record.epoch { ", ended by a refresh" } else { "" };
        let what =
            format!("{reporter} does not sign with {peer}: {reason} (session {session_id}{until})");
        ("banned", what)
    }));
    let lines = lines.into_iter().map(|(name, value)| format!("{:<12}{value}", format!("{name}:")));
    lines.collect::<Vec<_>>().join("\n")
}

async fn restore(data: &Path, lists: &[PathBuf], out: Output) -> Result<()> {
    let mut held = Vec::new();
    for path in lists {
        let told = |why: String| Error::invalid(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
        held.extend(active(&text).map_err(told)?);
    }
    let (store, _) = open_store(data)?;
    let restored: Vec<_> =
        restore_keys(&*store, held).await?.iter().map(|key| key.key_id).collect();
    out.show(&json!({ "restored": restored }), || {
        let count = restored.len();
        restored
            .iter()
            .fold(format!("{count} keys registered again"), |text, id| format!("{text}\n{id}"))
    });
    Ok(())
}

/// A share as its party lists it.
#[derive(Deserialize)]
struct ListedShare {
    #[serde(flatten)]
    key: KeyJson,
    tenant: Tenant,
    state: String,
    #[serde(default)]
    attestation: Option<AttestationJson>,
}

/// The keys of the shares that sign.
fn active(list: &str) -> std::result::Result<Vec<HeldKey>, String> {
    let shares: Vec<ListedShare> = serde_json::from_str(list).map_err(|error| {
        format!("not the output of `quorate party shares list --json`: {error}")
    })?;
    let active = shares.into_iter().filter(|share| share.state == ShareState::Active.name());
    let keys = active.map(|share| {
        Ok((share.key.into_record(share.tenant)?, share.attestation.map(Attestation::from)))
    });
    keys.collect::<Result<_>>().map_err(|error| error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_shown_names_the_pairs_that_do_not_sign() {
        let key = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let text = described(&quorate_testkit::key_view(key));
        assert!(text.contains("signers:    2 of 2"), "{text}");
        assert!(text.contains("a does not sign with b: ot_check_failed"), "{text}");
        let frozen = quorate_testkit::frozen(quorate_testkit::key_view(key), "lost phone".into());
        let text = described(&frozen);
        assert!(text.contains("state:      frozen"), "{text}");
        assert!(text.contains("lost phone"), "{text}");
    }
}
