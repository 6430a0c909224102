//! Threshold protocols as machines that are polled, and the envelopes their messages travel in.
//!
//! No IO, no clock, no tasks. [`Run`] is one party's attempt at one session: it takes payloads,
//! computes when told to, and gives payloads to send. Everything is authenticated before a
//! protocol library sees a byte of it. Which protocol runs is decided by the scheme, inside.
//!
//! The libraries below have not been audited in the versions used: see `docs/security.md`.

// The helpers of the integration tests serve the unit tests too.
#[cfg(test)]
extern crate self as quorate_engine;

mod channel;
mod confirmation;
mod dkls;
mod echo;
mod envelope;
mod execution;
mod fault;
mod frost;
mod handshake;
mod identity;
#[cfg(test)]
mod lockstep;
mod machine;
mod package;
mod proof;
mod registry;
mod run;
mod seal;
mod share;
mod task;
mod trial;

pub use fault::{Fault, FaultCode, Severity};
pub use handshake::{
    HandshakeSecret, HandshakeView, Pending, Shown, claimed, make_handshake, read_handshake,
    standing,
};
pub use identity::Identity;
pub use package::{Holding, Package};
pub use proof::{Nonce, PartyProof, ProvenCall};
pub use run::{Member, Outgoing, Run, Step};
pub use seal::{RowKey, SealContext, SealKey};
pub use share::Share;
pub use task::{Expected, Output, Task};
