//! Who carries notifications: the file of `--notifications`, read at start and at SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_notify::{Providers, Settings};
use quorate_types::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::data::read_secret;

/// By what offline parties and creators are told.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct NotificationOptions {
    /// File that says by what offline parties are told of their sessions, and creators of results:
    /// mail, SMS, push and webhooks, TOML; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    notifications: Option<PathBuf>,
}

/// The file and who carries by it.
pub(crate) struct Told {
    file: PathBuf,
    pub(crate) providers: Arc<Providers>,
}

/// Reads a file of notifications.
///
/// # Errors
/// `invalid_request` naming the file, the line and what is wrong there.
pub(crate) fn read_settings(file: &Path) -> Result<Settings> {
    Settings::open(file, &read_secret)
}

impl NotificationOptions {
    /// Reads the file, where there is one.
    pub(crate) fn open(&self) -> Result<Option<Told>> {
        let open = |file: &PathBuf| {
            let providers = Arc::new(Providers::new(read_settings(file)?));
            Ok(Told { file: file.clone(), providers })
        };
        self.notifications.as_ref().map(open).transpose()
    }
}

impl Told {
    /// Reads the file again at each SIGHUP, until `stop`. One with a mistake in it changes nothing.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            let problem = "SIGHUP cannot be watched: changed notifications need a restart";
            return tracing::warn!("{problem}");
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                hung_up = hangup.recv() => if hung_up.is_none() { return },
            }
            match read_settings(&self.file) {
                Ok(settings) => {
                    self.providers.replace(settings);
                    tracing::warn!("notifications were read again");
                }
                Err(error) => tracing::error!(%error, "the notifications stay as they were"),
            }
        }
    }
}
