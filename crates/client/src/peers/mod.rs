//! Devices among themselves, without coordinator and server parties, over a relay: the binary one
//! ([`RelaySession`]) or that of JSON-RPC groups ([`GroupSession`]).
//!
//! Every letter is signed by its sender's [`MessageSigner`] for its place in the run, around the
//! engine's own signed and sealed envelopes. A run begins with an opening of each device: what it
//! wants to do, and its introduction to the protocol. It ends when all have said that they have
//! their result, so that no key is used whose share a device did not keep.

mod connect;
mod group;
mod letter;
mod link;
mod mail;
mod peer;
mod relay;
mod run;
mod session;
mod signer;
mod what;

pub use group::{GroupSession, Invitation, Made, Seat, Task};
pub use letter::InstanceId;
pub use link::DeviceLink;
pub use run::{Hooks, Stage};
pub use session::RelaySession;
pub use signer::{KeyType, MessageSigner, SoftwareSigner, VerifyingKey};
pub use what::{MessageHash, Proposal};
