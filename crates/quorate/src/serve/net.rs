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
use super::connections::Connections;
use super::listener::{Bounds, serve, tls};
use super::options::ServeOptions;
use super::process::{keep_memory_private, raise_open_files, survive_file_size_limit};

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
                connections: Some(Connections::new(raise_open_files())),
                bodies: Bodies::new(),
            },
        })
    }

    /// Serves a router on a listener; answers with its address.
    pub(crate) fn serve(
        &self,
        listener: TcpListener,
        router: Router,
    ) -> std::io::Result<SocketAddr> {
        self.serve_with(self.tls.clone(), self.bounds.clone(), listener, router)
    }

    /// The same in clear, whatever the options say: for this process itself.
    pub(crate) fn serve_inside(
        &self,
        listener: TcpListener,
        router: Router,
    ) -> std::io::Result<SocketAddr> {
        // Strangers on this machine must not take what the process's own parties need.
        let bounds = Bounds { connections: None, bodies: Bodies::new() };
        self.serve_with(None, bounds, listener, router)
    }

    fn serve_with(
        &self,
        tls: Option<TlsAcceptor>,
        bounds: Bounds,
        listener: TcpListener,
        router: Router,
    ) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let (tracker, stop) = (self.tracker.clone(), self.stop.clone());
        self.tracker.spawn(serve(listener, tls, router, bounds, tracker, stop));
        Ok(address)
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
