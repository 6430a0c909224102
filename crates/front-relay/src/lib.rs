//! The binary message relay: one WebSocket per client, frames by id, nothing on disk.
//!
//! One task serves a connection. It reads, takes the steps of its frames in the rendezvous, and
//! writes what others left in its send_queue. The rendezvous is in parts, each behind a lock that is
//! held for one step. WebSocket frames are read and written here and not by a library, because an
//! idle connection must not keep buffers, a body must not be copied for each of its receivers, and
//! what waits must leave in one write.

mod bind;
mod config;
mod connection;
mod handshake;
mod metrics;
mod relay;
mod send_queue;
pub mod websocket;

pub use bind::{DEFAULT_ADDRESS, bind_all};
pub use config::Config;
pub use metrics::{LATENCY_BOUNDS, Metrics};
pub use relay::Relay;
