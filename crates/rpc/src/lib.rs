//! gRPC: generated stubs, conversions to the shared words, errors as statuses, and the ports over
//! the network for a role or a party that runs in another process.

mod authorized;
mod behalf;
mod call_stream;
mod convert;
pub mod endpoint;
pub mod operator;
pub mod remote;
pub mod status;
mod unreachable;

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
    pub mod operator {
        pub mod v1 {
            tonic::include_proto!("quorate.operator.v1");
        }
    }
}

/// The descriptors of all services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest gRPC message, both ways: a keygen message of 16 parties is below 1 MiB.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Whether this is the path of a call that streams requests. Its body cannot be read ahead.
pub fn streams_calls(path: &str) -> bool {
    path == "/mpc.router.v1.MessageRouter/Link"
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_calls_that_stream_are_those_of_the_protos() {
        let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut calls = 0;
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert_eq!(streams_calls(&path), method.client_streaming(), "{path}");
                    calls += 1;
                }
            }
        }
        assert!(calls > 20, "the protos name their calls");
    }
}
