//! The party runtime: one session at a time from join to report, and the long-running server party.
//!
//! [`take_part`] is the whole of a party's work in one session, the same for servers and devices.
//! [`PartyServer`] keeps a server party connected and calls it for every session it is chosen for.
//! Nothing here trusts the router or the coordinator with more than delivery.

mod authority;
mod backoff;
mod clock;
mod compute;
mod drive;
mod follow;
mod keyring;
mod ledger;
mod memory;
mod outbox;
mod seat;
mod server;
mod session;
mod transport;

pub use authority::{Authority, AuthorityParts, NoCallback, Rules};
pub use backoff::Backoff;
pub use compute::Compute;
pub use drive::Driver;
pub use follow::{Following, follow};
pub use keyring::{Keyring, SealSource, make_secret_file, secret_file, secret_seed};
pub use ledger::MemoryLedger;
pub use memory::MemoryVault;
pub use quorate_participant::OpenKey;
pub use seat::{Delegate, Errand, KeepBan, SeatHost};
pub use server::{PartyConfig, PartyHandle, PartyServer, PartyStatus};
pub use session::{Feed, INBOX_LEN, Party, Worker, take_part};
