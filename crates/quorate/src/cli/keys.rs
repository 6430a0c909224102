//! keys: what keys there are, and whether one signs.

use clap::Subcommand;
use quorate_types::*;
use quorate_wire::{KeyDetailJson, KeyJson};

use super::ask::{ListArgs, paged};
use super::client::ClientArgs;
use super::output::{Output, table};

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
    /// Show one key: who holds it, and which holders do not sign together any more
    Show {
        /// The key's id
        key: KeyId,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Lists keys, or shows one.
pub(crate) async fn run(args: KeysArgs, out: Output) -> Result<()> {
    match args.command {
        None => list(args.list, out).await,
        Some(KeysCommand::Show { key, client }) => show(key, &client, out).await,
    }
}

async fn list(args: ListArgs, out: Output) -> Result<()> {
    let coordinator = args.client.connect()?;
    let page = async |before, limit| coordinator.keys(&Caller::Open, before, limit).await;
    let keys = paged(args.limit, page).await?;
    if out.json {
        let rows: Vec<_> = keys.into_iter().map(KeyJson::from).collect();
        out.show(&rows, String::new);
        return Ok(());
    }
    let row = |key: &KeyRecord| {
        vec![
            key.key_id.to_string(),
            key.scheme.name().to_owned(),
            format!("{} of {}", key.threshold.signers(), key.threshold.parties()),
            quorate_schemes::ethereum_address(key.scheme, &key.public_key).unwrap_or_default(),
            key.holders.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(","),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    println!("{}", table(&["KEY", "SCHEME", "SIGNERS", "ADDRESS", "HOLDERS"], &rows));
    Ok(())
}

async fn show(key: KeyId, client: &ClientArgs, out: Output) -> Result<()> {
    let view = client.connect()?.key(&Caller::Open, key).await?;
    out.show(&KeyDetailJson::from(view.clone()), || described(&view));
    Ok(())
}

fn described(view: &KeyView) -> String {
    let KeyView { record, bans } = view;
    let holders: Vec<_> = record.holders.iter().map(|holder| holder.as_str()).collect();
    let signers = format!("{} of {}", record.threshold.signers(), record.threshold.parties());
    let address = quorate_schemes::ethereum_address(record.scheme, &record.public_key);
    let mut lines = vec![
        ("key", record.key_id.to_string()),
        ("scheme", record.scheme.name().to_owned()),
        ("signers", signers),
        ("holders", holders.join(", ")),
        ("public key", hex::encode(&record.public_key.0)),
    ];
    lines.extend(address.map(|address| ("address", address)));
    lines.extend(bans.iter().map(|ban| {
        let ReportedBan { reporter, peer, reason, session_id, .. } = ban;
        ("banned", format!("{reporter} does not sign with {peer}: {reason} (session {session_id})"))
    }));
    let lines = lines.into_iter().map(|(name, value)| format!("{:<12}{value}", format!("{name}:")));
    lines.collect::<Vec<_>>().join("\n")
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
    }
}
