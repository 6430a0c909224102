//! Device SDK: a party over gRPC or over WebSocket and REST.
//!
//! A [`Device`] has a [`Keyring`] (its identity and sealed shares, in whatever
//! [`Vault`](quorate_ports::Vault) the caller gives) and a [`Link`]. It takes part in a session as a
//! server party does, by the same code: join, compute, keep the share, report, learn the end.

mod rest;
mod socket;
mod websocket;

use std::sync::Arc;

pub use quorate_party::{Compute, Keyring, MemoryVault, SealSource};
use quorate_party::{Party, follow, take_part};
use quorate_ports::{Coordinator, Router};
use quorate_rpc::remote::{Endpoint, RemoteRouter};
use quorate_types::*;
pub use websocket::{WebCoordinator, WebRouter};

/// A device's way to the router and, through it or beside it, to the coordinator.
#[derive(Clone)]
pub struct Link {
    router: Arc<dyn Router>,
    coordinator: Arc<dyn Coordinator>,
}

impl Link {
    /// Over gRPC, through the router alone.
    pub fn grpc(endpoint: Endpoint) -> Self {
        let router = RemoteRouter::new(endpoint);
        let coordinator = Arc::new(router.sessions());
        Self { router: Arc::new(router), coordinator }
    }

    /// Over WebSocket and REST: messages and events through the router's sockets, joining and
    /// reporting at the coordinator. Both are URLs such as `http://127.0.0.1:8081`.
    pub fn websocket(router: &str, coordinator: &str) -> Result<Self> {
        Ok(Self {
            router: Arc::new(WebRouter::new(router)?),
            coordinator: Arc::new(WebCoordinator::new(coordinator)?),
        })
    }
}

/// A device that holds shares and takes part in sessions.
pub struct Device {
    party: Party,
}

impl Device {
    /// A device with its keys and its link. Nothing is connected before the first session.
    pub fn new(keyring: Arc<Keyring>, link: Link, device: DeviceInfo) -> Self {
        let Link { router, coordinator } = link;
        let compute = Compute::default();
        Self { party: Party { keyring, router, coordinator, compute, device } }
    }

    /// The device's name.
    pub fn id(&self) -> &PartyId {
        self.party.id()
    }

    /// Takes part in one session to its end, keygen or sign, reconnecting as often as needed.
    ///
    /// Answers with the session as it ended, also when it failed. A key's share is in the vault
    /// before the device reports it.
    pub async fn take_part(&self, session: SessionId, token: JoinToken) -> Result<SessionView> {
        let Party { router, coordinator, .. } = &self.party;
        let (feed, _following) = follow(router, coordinator, self.id(), session);
        take_part(&self.party, session, token, feed).await
    }
}
