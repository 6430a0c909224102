//! The sockets of a serving process and its way to stop.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use quorate_types::Result;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::Bodies;
use super::connections::{Connections, Peer};
use super::listener::{Bounds, Inside, serve, tls};
use super::options::ServeOptions;
use super::process::{keep_memory_private, raise_open_files, survive_file_size_limit};
use super::proxies::Proxies;

/// Serves routers until it is told to stop.
pub(crate) struct Net {
    pub(crate) stop: CancellationToken,
    tracker: TaskTracker,
    tls: Option<TlsAcceptor>,
    grace: Duration,
    bounds: Bounds,
}

impl Net {
    /// Checks the options and reads the certificate.
    pub(crate) fn open(options: &ServeOptions) -> Result<Self> {
        options.check()?;
        keep_memory_private()?;
        survive_file_size_limit()?;
        let files = raise_open_files()?;
        let tls = match (&options.tls_cert, &options.tls_key) {
            (Some(cert), Some(key)) => Some(tls(cert, key)?),
            _ => None,
        };
        Ok(Self {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            tls,
            grace: Duration::from_secs(options.grace),
            bounds: Bounds {
                connections: Connections::new(files),
                bodies: Bodies::new(),
                proxies: Proxies::new(&options.trusted_proxy),
                peers: Peer::Client,
            },
        })
    }

    /// Serves a router on a listener; answers with its address. Of its `peers` some may be known
    /// better once they have proven who they are.
    pub(crate) fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        peers: Peer,
    ) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let (tracker, stop) = (self.tracker.clone(), self.stop.clone());
        let (tls, bounds) = (self.tls.clone(), Bounds { peers, ..self.bounds.clone() });
        self.tracker.spawn(serve(listener, tls, router, bounds, tracker, stop));
        Ok(address)
    }

    /// Ways into a router for this process itself, under the address that it calls there. They need
    /// no port, so nobody else can take the connections.
    pub(crate) fn inside(&self, at: SocketAddr, router: Router) -> Inside {
        let (tracker, stop) = (self.tracker.clone(), self.stop.clone());
        Inside { at, router, bodies: Bodies::new(), tracker, stop }
    }

    /// Runs a task until the process stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Stops accepting and waits for what is open, at most the grace time.
    pub(crate) async fn drain(self) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(self.grace, self.tracker.wait()).await.is_ok()
    }
}
