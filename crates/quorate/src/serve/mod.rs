//! Putting the services together and on the network.

mod activity;
pub(crate) mod auth;
pub(crate) mod authority;
mod bodies;
mod callback;
pub(crate) mod compose;
pub(crate) mod connections;
pub(crate) mod data;
pub(crate) mod edge;
pub(crate) mod endpoints;
mod handshake;
mod lapse;
pub(crate) mod link;
pub(crate) mod listener;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod net;
pub(crate) mod nonces;
pub(crate) mod options;
pub(crate) mod party;
pub(crate) mod peers;
pub(crate) mod process;
mod proxies;
mod readiness;
pub(crate) mod relays;
pub(crate) mod seat;
pub(crate) mod tickets;
