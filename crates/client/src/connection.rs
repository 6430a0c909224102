//! How a device reaches the router and the coordinator.

use std::sync::Arc;

use quorate_ports::{Deliver, TakePart};
use quorate_rpc::endpoint::{Credentials, Endpoint, check_clear_text};
use quorate_rpc::remote::RemoteRouter;
use quorate_types::Result;

use crate::web::{Rest, WebCoordinator, WebRouter};

/// A way to the services. Cheap to clone; connects at first use and again when it breaks.
#[derive(Clone)]
pub struct Connection {
    router: Arc<dyn Deliver>,
    coordinator: Arc<dyn TakePart>,
}

impl Connection {
    /// gRPC to the router, which passes session calls on: one address, one connection. TLS and
    /// credentials are the endpoint's.
    pub fn grpc(endpoint: Endpoint) -> Self {
        let router = RemoteRouter::new(endpoint);
        let coordinator = Arc::new(router.sessions());
        Self { router: Arc::new(router), coordinator }
    }

    /// WebSocket and REST, as a browser would: the base addresses of router and coordinator.
    ///
    /// # Errors
    /// `invalid_request` when an address is none, or is `https`: for TLS use gRPC.
    pub fn websocket(router: &str, coordinator: &str) -> Result<Self> {
        Self::web(router, coordinator, None)
    }

    /// As [`Connection::websocket`], with credentials on every call.
    ///
    /// # Errors
    /// As [`Connection::websocket`], and when the credentials would leave this machine in clear text.
    pub fn websocket_as(
        router: &str,
        coordinator: &str,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Self> {
        check_clear_text(router)?;
        check_clear_text(coordinator)?;
        Self::web(router, coordinator, Some(credentials))
    }

    /// As [`Connection::websocket_as`], for a way that something else encrypts.
    ///
    /// # Errors
    /// As [`Connection::websocket`].
    pub fn websocket_in_clear_text(
        router: &str,
        coordinator: &str,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Self> {
        Self::web(router, coordinator, Some(credentials))
    }

    fn web(
        router: &str,
        coordinator: &str,
        credentials: Option<Arc<dyn Credentials>>,
    ) -> Result<Self> {
        let router = WebRouter::new(Rest::new(router, credentials.clone())?);
        let coordinator = WebCoordinator::new(Rest::new(coordinator, credentials)?);
        Ok(Self { router: Arc::new(router), coordinator: Arc::new(coordinator) })
    }

    /// Services of another kind, such as those of this process.
    pub fn new(router: Arc<dyn Deliver>, coordinator: Arc<dyn TakePart>) -> Self {
        Self { router, coordinator }
    }

    pub(crate) fn into_parts(self) -> (Arc<dyn Deliver>, Arc<dyn TakePart>) {
        (self.router, self.coordinator)
    }
}
