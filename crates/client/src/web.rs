//! The ports over REST and WebSocket: the calls that a device needs.

mod coordinator;
mod rest;
mod router;
mod socket;

pub(crate) use coordinator::WebCoordinator;
pub(crate) use rest::Rest;
pub(crate) use router::WebRouter;

use quorate_types::{Error, ErrorCode, Result};

/// The answer to a call that devices have no use for.
fn not_for_devices<T>() -> Result<T> {
    Err(Error::new(
        ErrorCode::Unimplemented,
        "this link carries what a device needs; use the REST interface itself for this call",
    ))
}
