//! gRPC: generated stubs, conversions to the shared words, errors as statuses, and the ports over
//! the network for a role or a party that runs in another process.

mod behalf;
mod convert;
mod link;
pub mod remote;
pub mod status;

pub use behalf::{ON_BEHALF_OF, behalf_in};
pub use convert::*;

/// What the protos say.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the protos carry the documentation"
)]
pub mod proto {
    pub mod router {
        pub mod v1 {
            tonic::include_proto!("mpc.router.v1");
        }
    }
    pub mod coordinator {
        pub mod v1 {
            tonic::include_proto!("mpc.coordinator.v1");
        }
    }
}

/// The descriptors of all services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest gRPC message, both ways: a keygen message of 16 parties is below 1 MiB.
pub const MAX_MESSAGE: usize = 4 << 20;
