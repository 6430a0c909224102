//! The long-running server party: always connected, one task per session it is chosen for.

mod connection;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_ports::{Deliver, TakePart};
use quorate_schemes::PackageSecret;
use quorate_types::*;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Authority;
use crate::compute::Compute;
use crate::keyring::Keyring;
use crate::seat::Delegate;
use crate::session::{Party, Worker};
use table::Table;

/// Sessions at once whose coordinator is being told that this party has no place for them.
const REFUSALS: usize = 256;

/// How a server party shows itself and how patient it is.
#[derive(Clone)]
pub struct PartyConfig {
    /// Its role; only persistent parties are chosen to fill sessions, and a delegate takes seats for
    /// users, none of its own.
    pub role: PartyRole,
    /// Its software's version, free text.
    pub version: String,
    /// What it says about its machine.
    pub device: DeviceInfo,
    /// Time between signs of life. The router takes a party for offline after 30 s.
    pub heartbeat: Duration,
    /// How long a shutdown waits for running sessions.
    pub grace: Duration,
    /// Decides about sessions before they are joined. Without one it takes part in all.
    pub authority: Option<Arc<Authority>>,
    /// A delegate's key, and where it takes its users' seats. A delegate without one takes them here,
    /// with a key that goes with the process.
    pub delegate: Option<Delegate>,
}

impl Default for PartyConfig {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            role: PartyRole::Persistent,
            device: DeviceInfo {
                device_type: "server".to_owned(),
                platform: std::env::consts::OS.to_owned(),
                app_version: version.clone(),
                ..DeviceInfo::default()
            },
            version,
            heartbeat: Duration::from_secs(10),
            grace: Duration::from_secs(20),
            authority: None,
            delegate: None,
        }
    }
}

/// What a server party is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartyStatus {
    /// Whether it is registered and subscribed: it can be chosen for sessions.
    pub connected: bool,
    /// Sessions it has a task for.
    pub running_sessions: usize,
    /// Those of them that have started: all have joined.
    pub started_sessions: usize,
}

/// A server party. [`PartyServer::start`] is the only way to one.
pub struct PartyServer {
    config: PartyConfig,
    party: Party,
    table: Mutex<Table>,
    connected: watch::Sender<bool>,
    /// Tasks of sessions.
    tasks: TaskTracker,
    /// Places for telling the coordinator that there is none.
    refusals: Arc<Semaphore>,
    /// No new sessions.
    drain: CancellationToken,
    /// No more sessions at all.
    stop: CancellationToken,
}

impl PartyServer {
    /// Starts the party's tasks on the current runtime: registers, subscribes, and takes part in
    /// every session it is chosen for until the handle is shut down or dropped.
    ///
    /// It connects in the background and again whenever the connection breaks.
    pub fn start(
        config: PartyConfig,
        router: Arc<dyn Deliver>,
        coordinator: Arc<dyn TakePart>,
        keyring: Arc<Keyring>,
        compute: Compute,
    ) -> PartyHandle {
        let (device, authority) = (config.device.clone(), config.authority.clone());
        let delegate = (config.role == PartyRole::Delegate).then(|| {
            let here = || {
                let key = Arc::new(PackageSecret::generate(Kem::X25519));
                Delegate { key, seats: None, bans: None }
            };
            config.delegate.clone().unwrap_or_else(here)
        });
        let server = Arc::new(Self {
            config,
            party: Party {
                worker: Worker { keyring, compute },
                router,
                coordinator,
                device,
                authority,
                delegate,
                allowed: None,
            },
            table: Mutex::default(),
            connected: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let task = tokio::spawn(Arc::clone(&server).stay_connected());
        PartyHandle { server, task: Some(task) }
    }

    fn status(&self) -> PartyStatus {
        let connected = *self.connected.borrow();
        let table = self.table();
        PartyStatus {
            connected,
            running_sessions: table.running(),
            started_sessions: table.started(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server party. Dropping it stops the party at once; [`PartyHandle::shutdown`] lets it
/// finish its sessions.
pub struct PartyHandle {
    server: Arc<PartyServer>,
    task: Option<JoinHandle<()>>,
}

impl PartyHandle {
    /// What the party is doing now.
    pub fn status(&self) -> PartyStatus {
        self.server.status()
    }

    /// Says at any time what the party is doing; nothing once it is gone.
    pub fn reading(&self) -> impl Fn() -> PartyStatus + Send + Sync + 'static {
        let server = Arc::downgrade(&self.server);
        move || server.upgrade().map(|server| server.status()).unwrap_or_default()
    }

    /// Waits until the party is registered and subscribed.
    pub async fn connected(&self) {
        // The sender lives in the server, which this handle holds.
        let _ = self.server.connected.subscribe().wait_for(|connected| *connected).await;
    }

    /// Whether the party is connected, now and from now on.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.server.connected.subscribe()
    }

    /// The party's keyring: its keys for a listing, its identity for a greeting.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.server.party.worker.keyring
    }

    /// Takes no new sessions, leaves those that have not started, waits for the others for the
    /// configured grace time, then stops what is left. Answers with whether all had finished.
    pub async fn shutdown(mut self) -> bool {
        let server = Arc::clone(&self.server);
        server.drain.cancel();
        server.tasks.close();
        let finished = tokio::time::timeout(server.config.grace, server.tasks.wait()).await;
        let left = server.table().running();
        if finished.is_err() {
            tracing::warn!(sessions = left, "stopping in the middle of sessions");
        }
        server.stop.cancel();
        server.tasks.wait().await;
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
        server.party.worker.keyring.settled().await;
        finished.is_ok()
    }
}

impl Drop for PartyHandle {
    fn drop(&mut self) {
        self.server.stop.cancel();
    }
}
