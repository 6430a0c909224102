//! The command line: what can be said, and where it goes.

mod api_keys;
mod ask;
mod client;
mod credential;
mod demo;
mod device;
mod group;
mod keys;
mod output;
mod party;
mod relay;
mod roles;
mod up;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use quorate_types::Error;

/// Threshold signing you can run: several parties make a key that never exists in one place, and
/// sign with it when enough of them agree.
#[derive(Parser)]
#[command(name = "quorate", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON for machines instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write the log as JSON lines (level by RUST_LOG, default warn)
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything in one process: coordinator, router, accounts and three server parties
    Up(up::UpArgs),
    /// Make a 2-of-3 key with three server parties and sign a message with it, from nothing
    Demo(demo::DemoArgs),
    /// Make a key
    Keygen(ask::KeygenArgs),
    /// Sign a message or digest with a key
    Sign(ask::SignArgs),
    /// Check a signature, without any server
    Verify(verify::VerifyArgs),
    /// List keys, or show one
    Keys(keys::KeysArgs),
    /// List sessions
    Sessions(ask::ListArgs),
    /// Follow one session live: who joined, who is in which round, who is waited for
    Watch(watch::WatchArgs),
    /// Run the session coordinator alone
    Coordinator(roles::CoordinatorArgs),
    /// Run the message router alone
    Router(roles::RouterArgs),
    /// Run the account service alone
    Accounts(roles::AccountsArgs),
    /// Run one server party alone
    Party(party::PartyArgs),
    /// Run the two relays for devices and browsers, or one of them
    Relay(relay::RelayArgs),
    /// Be a device: make keys and sign with other devices over the binary relay
    Device(device::DeviceArgs),
    /// Be a device in a group: make keys and sign over the JSON-RPC group relay
    Group(group::GroupArgs),
    /// Manage API keys, for servers that require them
    ApiKeys(api_keys::ApiKeysArgs),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where the data of this host lies.
#[derive(clap::Args, Clone)]
pub(crate) struct DataArgs {
    /// Folder for the database, keys and sealed shares
    #[arg(long, value_name = "DIR", default_value = "./quorate-data", env = "QUORATE_DATA")]
    pub(crate) data: PathBuf,
}

/// Why a command failed: a refusal with its code, or a sentence.
pub(crate) struct Failure {
    error: Error,
    json: bool,
}

impl Failure {
    /// Prints the failure on standard error; the exit code is 2 for what the caller can mend and 1
    /// for the rest.
    pub(crate) fn report(self) -> ExitCode {
        if self.json {
            eprintln!(
                "{}",
                serde_json::to_string(&quorate_wire::ErrorJson::from(&self.error))
                    .expect("plain data")
            );
        } else {
            eprintln!("error: {} [{}]", self.error.message, self.error.code.name());
            if !self.error.details.waiting_for.is_empty() {
                let names: Vec<_> =
                    self.error.details.waiting_for.iter().map(|p| p.as_str()).collect();
                eprintln!("waiting for: {}", names.join(", "));
            }
            if let Some(blame) = &self.error.details.blame {
                eprintln!("at fault: {} ({})", blame.party_id, blame.reason);
            }
        }
        if self.error.code.row().http < 500 { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let json = cli.json;
    let out = output::Output { json };
    let done = match cli.command {
        Command::Up(args) => up::run(args, out).await,
        Command::Demo(args) => demo::run(args, out).await,
        Command::Keygen(args) => ask::keygen(args, out).await,
        Command::Sign(args) => ask::sign(args, out).await,
        Command::Verify(args) => verify::run(&args, out),
        Command::Keys(args) => keys::run(args, out).await,
        Command::Sessions(args) => ask::sessions(args, out).await,
        Command::Watch(args) => watch::run(args, out).await,
        Command::Coordinator(args) => roles::coordinator(args, out).await,
        Command::Router(args) => roles::router(args, out).await,
        Command::Accounts(args) => roles::accounts(args, out).await,
        Command::Party(args) => party::run(args, out).await,
        Command::Relay(args) => relay::run(args, out).await,
        Command::Device(args) => device::run(args, out).await,
        Command::Group(args) => group::run(args, out).await,
        Command::ApiKeys(args) => api_keys::run(args, out).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut std::io::stdout());
            Ok(())
        }
    };
    done.map_err(|error| Failure { error, json })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
