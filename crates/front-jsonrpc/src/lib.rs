//! The JSON-RPC group relay: one WebSocket path on which parties find each other and talk.
//!
//! [`Relay::open`] restores what was kept, [`Relay::router`] is what a server mounts,
//! [`Relay::close`] stops. All rules are in `quorate-core`; this crate has the sockets, the queues
//! and the clock.

mod config;
mod keep;
mod metrics;
mod outbox;
mod relay;
mod routes;
mod socket;
pub mod translate;

pub use config::{Config, Limits};
pub use keep::NotKept;
pub use metrics::{BUCKETS_MICROS, Metrics};
pub use quorate_core::groups::{Compat, Limits as GroupLimits};
pub use relay::Relay;
