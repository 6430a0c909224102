//! A session among devices, without a coordinator: proposals, agreement, the attempt, and the word
//! of all that they have their result.

mod agree;
mod key;
mod message;
mod run;
mod signing_request;

pub use key::{KeyType, VerifyingKey};
pub use message::{
    InstanceId, MessageKind, ProposedCeremony, SIGNATURE, SignedMessage, open, signed,
};
pub use run::{DeviceAction, DeviceInput, DeviceRun, RunParameters, Stage};
pub use signing_request::{MessageHash, SigningRequest};
