//! What the measurements of both relays share: servers, clients, idle connections.

pub(crate) mod client;
pub(crate) mod idle;
pub(crate) mod server;
