//! Bans on their way from the process to the vault, which is asked until it takes them.

use std::sync::Arc;
use std::time::Duration;

use quorate_participant::OpenKey;
use quorate_ports::vault::Ban;
use quorate_types::*;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::Keyring;
use crate::backoff::Backoff;

/// How long a stopping process waits for bans that are on their way to the disk.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

impl Keyring {
    /// Refuses if one of `peers` is banned under this key, or if any ban under it could not be
    /// stored and would be forgotten by a restart.
    ///
    /// # Errors
    /// `key_locked`, naming the pair and the way out.
    pub fn check_bans(&self, key: &OpenKey, peers: &[PartyId]) -> Result<()> {
        self.bans.check(key, peers)
    }

    /// Tells other runs of a ban that holds already, and writes it by a task that nothing cancels.
    pub(crate) fn write_new_ban(self: &Arc<Self>, ban: Ban, runtime: &Handle) {
        self.changes.send_modify(|count| *count += 1);
        let keyring = Arc::clone(self);
        self.writes.spawn_on(async move { keyring.write_ban(ban).await }, runtime);
    }

    /// Writes a ban that holds already, trying again for as long as the vault fails. While it
    /// cannot be written, its key is locked for all holders.
    async fn write_ban(&self, ban: Ban) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.store_ban(ban.clone()).await {
            tracing::error!(%error, "a ban could not be stored: its key is locked until it is");
            backoff.pause().await;
        }
    }

    async fn store_ban(&self, ban: Ban) -> Result<()> {
        let written = self.vault.ban(ban.clone()).await;
        self.bans.written(&ban, written)
    }

    /// Writes all bans of a key that this process has made and that are not on disk.
    pub(super) async fn store_bans(&self, key: &OpenKey) -> Result<()> {
        for ban in self.bans.unwritten(&key.stored) {
            self.store_ban(ban).await?;
        }
        Ok(())
    }

    pub(crate) fn writes(&self) -> &TaskTracker {
        &self.writes
    }

    /// Waits until no run can find a fault any more and every ban is on disk, for five seconds at
    /// the most: to be called before a process ends.
    pub async fn settled(&self) {
        self.writes.close();
        if tokio::time::timeout(SETTLE_LIMIT, self.writes.wait()).await.is_err() {
            tracing::warn!("stopping while a computation or the storing of a ban goes on");
        }
        self.writes.reopen();
    }

    /// Counts the bans made by this process.
    pub(crate) fn ban_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
