//! The ports over REST and WebSocket: the calls that a device needs.

mod coordinator;
mod rest;
mod router;
mod socket;

pub(crate) use coordinator::WebCoordinator;
pub(crate) use rest::Rest;
pub(crate) use router::WebRouter;
