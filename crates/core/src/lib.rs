//! Pure state machines of the coordinator, the router and the account service.
//!
//! No clock, no randomness, no IO, no tasks: every id, token hash and time comes in, and what must
//! happen outside goes out as a value. The same core therefore runs in a server, in a test with a
//! clock that stands still, and in a replay.

pub mod accounts;
pub mod admission;
pub mod budget;
pub mod choice;
pub mod events;
pub mod groups;
pub mod health;
pub mod inbox;
pub mod key;
pub mod links;
mod naming;
pub mod outbox;
pub mod policy;
pub mod presence;
pub mod rendezvous;
pub mod session;
pub mod strangers;
pub mod subscriptions;
pub mod tally;
