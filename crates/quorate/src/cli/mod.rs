//! The command line: what can be said, and where it goes.

mod api_keys;
mod ask;
mod client;
mod creator;
mod credential;
mod demo;
mod device;
mod group;
mod input;
mod keys;
mod notifications;
mod output;
mod party;
mod peers;
mod refresh;
mod relay;
mod request;
mod roles;
mod up;
mod user;
pub(crate) mod values;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use quorate_types::{Blame, Error, ErrorCode};

pub(crate) use output::tell;

/// What scripts may rely on; `docs/errors.md` says the same.
const EXIT_CODES: &str = "Exit codes:
  0  done
  1  the answer is no: a signature is not valid, a session failed or expired, a key is locked or frozen
  2  wrong usage: an option, an argument or a file
  3  not found
  4  not allowed: no or wrong credentials, a missing right, or a party's policy
  5  unavailable now: no connection, starting, stopping or too many requests; try again
  6  internal error";

/// Threshold signing you can run: several parties make a key that never exists in one place, and
/// sign with it when enough of them agree.
#[derive(Parser)]
#[command(
    name = "quorate",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    /// Output JSON
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
    /// Run everything in one process: coordinator, router, accounts and three server parties
    Up(up::UpArgs),
    /// Make a 2-of-3 key with three server parties and sign a message with it, from nothing
    Demo(demo::DemoArgs),
    /// Make a key
    Keygen(ask::KeygenArgs),
    /// Sign a message or digest with a key
    Sign(ask::SignArgs),
    /// Verify a signature, without any server
    Verify(verify::VerifyArgs),
    /// List keys; show, verify, refresh, freeze or unfreeze one
    Keys(keys::KeysArgs),
    /// Record the identities of parties, against which keys are verified
    Peers(peers::PeersArgs),
    /// List sessions, newest first
    Sessions(ask::ListArgs),
    /// End a session without a result
    Close(ask::CloseArgs),
    /// Sign requests now and send them later, for parties that check their initiators
    Request(request::RequestArgs),
    /// Approve the signed request of a waiting session, or one in a file
    Approve(request::ApproveArgs),
    /// Check the policy of a server party
    Policy(request::PolicyArgs),
    /// Follow one session live: joins, rounds and the parties it is waiting for
    Watch(watch::WatchArgs),
    /// List notifications of offline parties and webhooks, or check the file that configures them
    Notifications(notifications::NotificationsArgs),
    /// Run the session coordinator separately
    Coordinator(roles::CoordinatorArgs),
    /// Run the message router separately
    Router(roles::RouterArgs),
    /// Run the account service separately
    Accounts(roles::AccountsArgs),
    /// Run one server party separately
    Party(party::PartyArgs),
    /// Run the relays for devices and browsers, or one of them
    Relay(relay::RelayArgs),
    /// Device commands: make keys and sign with other devices over the binary relay
    Device(device::DeviceArgs),
    /// User commands: have a delegate make a share, fetch it, and sign with it
    User(user::UserArgs),
    /// Group commands: make keys and sign with devices over the JSON-RPC group relay
    Group(group::GroupArgs),
    /// Manage API keys, for servers that require them
    ApiKeys(api_keys::ApiKeysArgs),
    /// Take one seat of a delegate: started by a delegate, which says which
    #[command(hide = true)]
    Seat,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether the command shows a coordinator the caller's API key.
    fn asks_a_server(&self) -> bool {
        matches!(
            self,
            Self::Keygen(_)
                | Self::Sign(_)
                | Self::Keys(_)
                | Self::Sessions(_)
                | Self::Close(_)
                | Self::Request(_)
                | Self::Approve(_)
                | Self::User(_)
                | Self::Watch(_)
        ) || matches!(self, Self::Notifications(args) if args.asks_a_server())
    }
}

/// Names the options where a server wants another API key, or any.
fn about_keys(mut error: Error) -> Error {
    let none = quorate_front_grpc::no_credentials();
    if error.message == none.message {
        error.message =
            "this server requires an API key: give --api-key-file or set QUORATE_API_KEY".into();
    } else if error.code == ErrorCode::Unauthorized {
        error.message = format!("{}: see --api-key-file and QUORATE_API_KEY", error.message);
    }
    error
}

/// Where the data of this host lies.
#[derive(clap::Args, Clone)]
pub(crate) struct DataArgs {
    /// Folder for the database, keys and sealed shares
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "./quorate-data",
        env = "QUORATE_DATA"
    )]
    pub(crate) data: PathBuf,
}

/// Why a command failed: a refusal with its code, or a sentence.
pub(crate) struct Failure {
    error: Error,
    json: bool,
}

impl Failure {
    /// Prints the failure on standard error; the exit code follows from the error's.
    pub(crate) fn report(self) -> ExitCode {
        if self.json {
            let error = quorate_wire::ErrorJson::from(&self.error);
            tell(&serde_json::to_string(&error).expect("plain data"));
        } else {
            tell(&format!("error: {} [{}]", self.error.message, self.error.code.name()));
            if !self.error.details.waiting_for.is_empty() {
                let names: Vec<_> =
                    self.error.details.waiting_for.iter().map(|p| p.as_str()).collect();
                tell(&format!("waiting for: {}", names.join(", ")));
            }
            if let Some(blame) = &self.error.details.blame {
                // The message may say it all.
                let Blame { party_id, reason } = blame;
                let message = &self.error.message;
                if !message.contains(reason.as_str()) {
                    tell(&format!("at fault: {party_id} ({reason})"));
                } else if !message.contains(party_id.as_str()) {
                    tell(&format!("at fault: {party_id}"));
                }
            }
        }
        exit_code(self.error.code)
    }
}

/// The answer of a command that asks a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::FAILURE,
        }
    }
}

fn exit_code(code: ErrorCode) -> ExitCode {
    ExitCode::from(match code {
        ErrorCode::ThresholdNotMet
        | ErrorCode::Conflict
        | ErrorCode::StaleEpoch
        | ErrorCode::SessionFull
        | ErrorCode::SessionExpired
        | ErrorCode::KeyLocked
        | ErrorCode::KeyFrozen => 1,
        ErrorCode::InvalidRequest
        | ErrorCode::MethodNotAllowed
        | ErrorCode::MessageTooLarge
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::IdempotencyMismatch
        | ErrorCode::Unimplemented => 2,
        ErrorCode::NotFound => 3,
        ErrorCode::Unauthorized | ErrorCode::Forbidden | ErrorCode::PolicyDenied => 4,
        ErrorCode::RateLimited | ErrorCode::Unavailable => 5,
        ErrorCode::Internal => 6,
    })
}

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let json = cli.json;
    let out = output::Output { json };
    let asks = cli.command.asks_a_server();
    let failed = |error| Failure { error: if asks { about_keys(error) } else { error }, json };
    let answered =
        |answer: quorate_types::Result<Answer>| answer.map(ExitCode::from).map_err(failed);
    let done = match cli.command {
        Command::Verify(args) => return answered(verify::run(&args, out)),
        Command::Policy(args) => return answered(request::policy(&args, out)),
        Command::Watch(args) => return answered(watch::run(args, out).await),
        Command::Keygen(args) => return answered(ask::keygen(args, out).await),
        Command::Keys(args) => return answered(keys::run(args, out).await),
        Command::User(args) => return answered(user::run(args, out).await),
        Command::Up(args) => up::run(args, out).await,
        Command::Demo(args) => demo::run(args, out).await,
        Command::Sign(args) => ask::sign(args, out).await,
        Command::Peers(args) => peers::run(args, out),
        Command::Sessions(args) => ask::sessions(args, out).await,
        Command::Close(args) => ask::close(args, out).await,
        Command::Notifications(args) => notifications::run(args, out).await,
        Command::Request(args) => request::run(args, out).await,
        Command::Approve(args) => request::approve(args, out).await,
        Command::Coordinator(args) => roles::coordinator(args, out).await,
        Command::Router(args) => roles::router(args, out).await,
        Command::Accounts(args) => roles::accounts(args, out).await,
        Command::Party(args) => party::run(args, out).await,
        Command::Relay(args) => relay::run(args, out).await,
        Command::Device(args) => device::run(args, out).await,
        Command::Group(args) => group::run(args, out).await,
        Command::ApiKeys(args) => api_keys::run(args, out).await,
        Command::Seat => {
            let taken = crate::serve::seat::run().await;
            if let Err(error) = &taken {
                let told = quorate_wire::ErrorJson::from(error);
                output::Output { json: true }.show(&told, String::new);
            }
            taken
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut script);
            output::raw(&script);
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
