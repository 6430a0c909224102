//! notifications: what was sent to offline parties and webhooks, and whether the file for it is right.

use std::path::PathBuf;

use clap::Subcommand;
use quorate_ports::ReadNotifications as _;
use quorate_types::*;
use quorate_wire::NotificationStatusJson;
use serde_json::json;

use super::ask::paged;
use super::client::ClientArgs;
use super::output::{Output, table};
use super::values::value;
use crate::serve::notifications::read_settings;

/// Arguments of `notifications`.
#[derive(clap::Args)]
pub(crate) struct NotificationsArgs {
    #[command(subcommand)]
    command: NotificationsCommand,
}

#[derive(Subcommand)]
enum NotificationsCommand {
    /// List notifications, newest first: which were sent, wait or were given up, and why
    List(ListArgs),
    /// Check a file of `--notifications`: names the line of a mistake
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only those that are waiting, sent or dead
    #[arg(long, value_parser = value::<NotificationState>)]
    state: Option<NotificationState>,
    /// How many
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

impl NotificationsArgs {
    /// Whether a server is asked.
    pub(crate) fn asks_a_server(&self) -> bool {
        matches!(self.command, NotificationsCommand::List(_))
    }
}

/// Runs a command about notifications.
pub(crate) async fn run(args: NotificationsArgs, out: Output) -> Result<()> {
    match args.command {
        NotificationsCommand::List(args) => list(args, out).await,
        NotificationsCommand::Check { file } => {
            let configured = read_settings(&file)?.summary();
            let value = json!({ "valid": true, "configured": configured });
            out.show(&value, || match configured.is_empty() {
                true => "valid; nothing is configured".to_owned(),
                false => format!("valid: {}", configured.join(", ")),
            });
            Ok(())
        }
    }
}

async fn list(args: ListArgs, out: Output) -> Result<()> {
    let coordinator = args.client.coordinator()?;
    let state = args.state;
    let page =
        async |before, limit| coordinator.notifications(&Caller::Open, state, before, limit).await;
    let found = paged(args.limit, page).await?;
    let row = |one: &Notification| {
        let Recipient { party, channel, address } = &one.recipient;
        vec![
            one.session_id.to_string(),
            one.step.name().to_owned(),
            channel.name().to_owned(),
            party.as_ref().map_or(address.clone(), PartyId::to_string),
            one.state.name().to_owned(),
            one.attempts.to_string(),
            one.last_error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let found: Vec<_> = found.into_iter().map(NotificationStatusJson::from).collect();
    out.show(&found, || {
        table(&["SESSION", "STEP", "BY", "TO", "STATE", "ATTEMPTS", "LAST ERROR"], &rows)
    });
    Ok(())
}
