//! Device SDK: a phone, a laptop or a service that takes part in a session now and then.
//!
//! A [`Device`] has a [`Keyring`] (its identity and sealed shares, in whatever
//! [`Vault`](quorate_ports::Vault) the caller gives) and a [`Connection`] to the router and coordinator.
//! It takes part in a session by the same code as a server party: join, compute, keep the share,
//! report, learn the end.
//!
//! ```no_run
//! use std::sync::Arc;
//! use quorate_client::{Device, Endpoint, Keyring, Connection, MemoryVault, SealSource};
//! use quorate_types::{DeviceInfo, JoinToken, Result, SessionId};
//!
//! # async fn device(session: SessionId, token: JoinToken) -> Result<()> {
//! let vault = Arc::new(MemoryVault::default());
//! let seal = SealSource::KeyFile("device/seal.key".into());
//! let identity = "device/identity.key".as_ref();
//! let keyring = Keyring::open("alice-phone".parse()?, identity, seal, vault, false).await?;
//! let connection = Connection::grpc(Endpoint::new("http://127.0.0.1:50052", None)?);
//! let device = Device::new(Arc::new(keyring), connection, DeviceInfo::default());
//! let ended = device.take_part(session, token).await?;
//! println!("{}", ended.status.name());
//! # Ok(())
//! # }
//! ```

mod attestation;
mod connection;
mod credentials;
mod device;
mod lending;
pub mod peers;
mod web;

pub use attestation::{KnownPeers, Verdict, Wanted, verify_key, verify_new_key};
pub use connection::Connection;
pub use credentials::{PARTY_SCHEME, PartyCredentials};
pub use device::Device;
pub use lending::{delegate_key, lend};
pub use quorate_party::{Compute, Keyring, MemoryVault, SealSource};
pub use quorate_rpc::endpoint::{ApiKey, Call, Credentials, Endpoint, NONCE};
