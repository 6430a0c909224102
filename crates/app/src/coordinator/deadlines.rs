//! Sessions end at their deadline, to the millisecond, and silent parties are replaced, without
//! polling.

use std::time::Duration;

use quorate_core::session::Command;
use quorate_types::Result;
use tokio_util::sync::CancellationToken;

use super::CoordinatorApp;
use crate::lock;

/// Pause after a session could not be expired although the store works.
const RETRY: Duration = Duration::from_secs(1);

impl CoordinatorApp {
    /// Expires sessions as their deadlines pass, until `stop` or until the store has failed: then
    /// nothing can end any more before a restart, and nothing is tried again.
    pub async fn watch_deadlines(&self, stop: CancellationToken) {
        let _ = self.0.stop.set(stop.clone());
        loop {
            let next = lock(&self.0.state).next_due();
            let now = self.0.parts.clock.monotonic();
            let wait = next.map_or(Duration::MAX, |at| at.saturating_sub(now));
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.0.parts.store.failed() => return,
                () = self.0.sooner.notified() => continue,
                () = pause(wait) => if self.expire_due().await.is_err() {
                    tokio::time::sleep(RETRY).await;
                } else if let Err(error) = self.replace_silent().await {
                    tracing::error!(%error, "a silent party could not be replaced");
                    tokio::time::sleep(RETRY).await;
                },
            }
        }
    }

    /// Returns when the process stops.
    pub(super) async fn stopping(&self) {
        match self.0.stop.get() {
            Some(stop) => stop.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Expires every session whose deadline has passed.
    ///
    /// # Errors
    /// What kept the first one from it; it is logged.
    pub async fn expire_due(&self) -> Result<()> {
        loop {
            let now = self.0.parts.clock.monotonic();
            let due = lock(&self.0.state).deadlines.first().copied().filter(|(at, _)| *at <= now);
            let Some((_, id)) = due else { return Ok(()) };
            if let Err(error) = self.execute(id, Command::Expire).await {
                tracing::error!(%error, session = %id, "a session could not be expired");
                return Err(error);
            }
        }
    }
}

pub(super) async fn pause(wait: Duration) {
    if wait == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(wait).await;
}
