//! The JSON-RPC group relay: one WebSocket path on which parties find each other and talk.
//!
//! [`Relay::open`] restores what was kept, [`Relay::router`] is what a server mounts,
//! [`Relay::close`] stops. All rules are in `quorate-core`; this crate has the sockets, the queues
//! and the clock.

mod config;
mod keep;
mod metrics;
mod relay;
mod routes;
mod send_queue;
mod socket;
pub mod translate;

pub use config::{Config, RelayLimits};
pub use keep::NotKept;
pub use metrics::{BUCKETS_MICROS, Metrics};
pub use quorate_core::groups::{Compat, GroupLimits};
pub use relay::Relay;
