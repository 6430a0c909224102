//! Devices among themselves, without coordinator and server parties, over a relay: the binary one
//! ([`RelaySession`]) or that of JSON-RPC groups ([`GroupSession`]).
//!
//! Every message is signed by its sender's [`MessageSigner`] for its place in the run, around the
//! engine's own signed and sealed envelopes. A run begins with a proposal of each device: what it
//! wants to do, and its handshake. It ends when all have said that they have
//! their result, so that no key is used whose share a device did not keep.

mod channel;
mod connect;
mod group;
mod link;
mod message;
mod peer;
mod run;
mod session;
mod signer;
mod transport;

pub use connect::relay_url;
pub use group::{GroupCeremony, GroupOutcome, GroupSession, Invitation, Participation};
pub use link::{DeviceLink, DeviceName};
pub use quorate_participant::devices::{
    InstanceId, KeyType, MessageHash, SigningRequest, VerifyingKey,
};
pub use run::{Approve, Observer, Progress};
pub use session::RelaySession;
pub use signer::{MessageSigner, SoftwareSigner};
