//! Sessions end at their deadline, to the millisecond, without polling.

use std::time::Duration;

use quorate_core::session::Command;
use tokio_util::sync::CancellationToken;

use super::CoordinatorApp;
use crate::lock;

impl CoordinatorApp {
    /// Expires sessions as their deadlines pass, until `stop`.
    pub async fn watch_deadlines(&self, stop: CancellationToken) {
        loop {
            let next = lock(&self.0.state).deadlines.first().map(|(at, _)| *at);
            let now = self.0.parts.clock.now();
            let wait = next.map_or(Duration::MAX, |at| Duration::from_millis(at.millis_since(now)));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.sooner.notified() => continue,
                () = pause(wait) => self.expire_due().await,
            }
        }
    }

    /// Expires every session whose deadline has passed.
    pub async fn expire_due(&self) {
        loop {
            let now = self.0.parts.clock.now();
            let due = lock(&self.0.state).deadlines.first().copied().filter(|(at, _)| *at <= now);
            let Some((_, id)) = due else { return };
            if let Err(error) = self.execute(id, Command::Expire).await {
                tracing::error!(%error, session = %id, "a session could not be expired");
                return;
            }
        }
    }
}

async fn pause(wait: Duration) {
    if wait == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(wait).await;
}
