//! What a party remembers of the requests that it has allowed: one file, and a thread that writes
//! all that has come meanwhile in one transaction.
//!
//! The rows are authenticated as the vault's are. An older ledger as a whole is noticed by the
//! vault, which is told how far the ledger is: when it is opened and closed, and once a minute
//! while it is written to.

mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quorate_ports::Commit;
use quorate_ports::ledger::{Consumed, Ledger, Remembered};
use quorate_ports::vault::RowKey;
use quorate_types::*;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::SqliteVault;
use crate::database::{Blocking, Schema, failed, open_database, open_reader};
use crate::head::{Change, Found, Head, adopt, examine};

const SCHEMA: Schema = Schema {
    name: "ledger",
    steps: &[
        include_str!("migrations/0001_ledger.sql"),
        include_str!("migrations/0002_ledger.sql"),
    ],
    secure_delete: false,
};

/// Requests that may wait for the disk: twice as many as a party has sessions.
const QUEUE: usize = 8_192;

/// Requests that are written at once.
const GROUP: usize = 1_024;

/// How long the vault may not know how far the ledger is.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How soon a vault that was in use is tried again.
const NOTE_AGAIN: Duration = Duration::from_secs(1);

type Item = (Consumed, oneshot::Sender<Result<()>>);

/// A ledger in `ledger.db`. Dropping it writes what waits.
pub struct SqliteLedger {
    // In this order: the last connection to close folds the log into the database, and only the
    // writer may.
    reader: Blocking,
    writer: Thread,
}

/// The way to the writer's thread, which ends when this is dropped.
struct Thread {
    queue: Option<SyncSender<Item>>,
    handle: Option<JoinHandle<()>>,
}

impl SqliteLedger {
    /// Opens `ledger.db` in the folder of a party, whose vault is unlocked: that keeps others out.
    /// With `accept_rollback` a ledger that is lost, older or changed is taken as it is.
    ///
    /// # Errors
    /// `invalid_request` naming the file when it is missing, older than the vault knows it, or was
    /// changed by something else.
    pub async fn open(
        folder: &Path,
        vault: Arc<SqliteVault>,
        key: Arc<dyn RowKey>,
        accept_rollback: bool,
    ) -> Result<Self> {
        Self::open_noting(folder, vault, key, accept_rollback, NOTE_EVERY).await
    }

    async fn open_noting(
        folder: &Path,
        vault: Arc<SqliteVault>,
        key: Arc<dyn RowKey>,
        accept_rollback: bool,
        note_every: Duration,
    ) -> Result<Self> {
        let path = folder.join("ledger.db");
        let noted = vault.noted_ledger().await?;
        // Before a new one is made in its place.
        if noted.is_some() && !path.exists() && !accept_rollback {
            return Err(untrusted(&path, "it is missing"));
        }
        let mut connection = open_database(&path, &SCHEMA)?;
        let reader = Blocking::new(open_reader(&path)?);
        let head = unlock(&mut connection, &*key, noted, accept_rollback)
            .map_err(|error| damaged(&path, error))?
            .map_err(|how| untrusted(&path, how))?;
        let mut writer =
            Writer { connection, key, head, path, vault, noted, note_every, due: None };
        if noted != Some(head.generation) {
            writer.note();
        }
        let (queue, items) = sync_channel(QUEUE);
        let handle = std::thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || writer.run(&items))
            .map_err(|_| Error::internal())?;
        Ok(Self { reader, writer: Thread { queue: Some(queue), handle: Some(handle) } })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// Checks that the ledger is the one that was written last, or authenticates one of before.
/// Otherwise says why it cannot be trusted.
fn unlock(
    connection: &mut Connection,
    key: &dyn RowKey,
    noted: Option<u64>,
    accept_rollback: bool,
) -> rusqlite::Result<std::result::Result<Head, &'static str>> {
    let newest = noted.unwrap_or(0);
    let (reached, why) = match examine(connection, key, &rows::TABLES)? {
        Found::Intact(head) if head.generation >= newest => return Ok(Ok(head)),
        // One of before the rows had tags.
        Found::Bare if noted.is_none() => return take(connection, key, 0).map(Ok),
        Found::Intact(head) => (head.generation, "it is older than it was"),
        Found::Changed(head) => {
            (head.generation, "rows were changed, removed or put back by something else")
        }
        Found::Bare => (0, "it is not the one that this party has used"),
        Found::Foreign => (0, "it was written under another key or by another party"),
    };
    if !accept_rollback {
        return Ok(Err(why));
    }
    tracing::warn!(
        "the ledger is taken as it is, though {why}: requests that have not expired may serve a \
         second time, and counts and rates may be too low"
    );
    take(connection, key, Head::restored(reached.max(newest))).map(Ok)
}

fn take(connection: &mut Connection, key: &dyn RowKey, generation: u64) -> rusqlite::Result<Head> {
    let transaction = connection.transaction()?;
    let head = adopt(&transaction, key, &rows::TABLES, generation)?;
    transaction.commit()?;
    Ok(head)
}

fn untrusted(path: &Path, how: &str) -> Error {
    Error::invalid(format!(
        "its ledger {} cannot be trusted: {how}; put the newest one back, or start once with \
         --accept-rollback to go on with what is there: requests that have not expired may serve a \
         second time, and counts and rates may be too low",
        path.display()
    ))
}

/// An error as a caller may see it; of a damaged row, naming the file.
fn damaged(path: &Path, error: rusqlite::Error) -> Error {
    if !crate::columns::is_damage(&error) {
        return failed(error);
    }
    tracing::error!(%error, "{} is damaged", path.display());
    Error::invalid(format!(
        "its ledger {} has a damaged row; put the newest one back, or move it away and start once \
         with --accept-rollback to go on without it: requests that have not expired may serve a \
         second time, and all counts begin anew",
        path.display()
    ))
}

struct Writer {
    connection: Connection,
    key: Arc<dyn RowKey>,
    /// What was written last: the file must say the same.
    head: Head,
    path: PathBuf,
    vault: Arc<SqliteVault>,
    /// The generation that the vault knows.
    noted: Option<u64>,
    note_every: Duration,
    /// When the vault is to be told; `None` when it knows.
    due: Option<Instant>,
}

impl Writer {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            let first = match self.due {
                None => items.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => items.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(first) => {
                    let mut group = vec![first];
                    group.extend(items.try_iter().take(GROUP - 1));
                    let written = self.write(&group);
                    for (_, done) in group {
                        let _ = done.send(written.clone());
                    }
                    self.due = self.due.or(Some(Instant::now() + self.note_every));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.due.is_some_and(|due| due <= Instant::now()) {
                self.note();
            }
        }
        if self.due.is_some() {
            self.note();
        }
    }

    fn write(&mut self, group: &[Item]) -> Result<()> {
        let mut write = || {
            let mut change = Change::begin(&mut self.connection, &*self.key)?;
            if change.before() != self.head {
                return Ok(None);
            }
            if !rows::write(&mut change, &*self.key, group.iter().map(|(consumed, _)| consumed))? {
                return Ok(None);
            }
            change.advance();
            change.commit().map(Some)
        };
        match write() {
            Ok(Some(head)) => {
                self.head = head;
                Ok(())
            }
            Ok(None) => {
                let path = self.path.display();
                tracing::error!("{path} was changed by something else: this party signs nothing");
                Err(Error::unavailable(format!(
                    "this party's ledger {path} was changed by something else while it ran: stop \
                     the party and put the newest one back, or start it once with --accept-rollback"
                )))
            }
            Err(error) => Err(damaged(&self.path, error)),
        }
    }

    /// Tells the vault how far the ledger is.
    fn note(&mut self) {
        let generation = self.head.generation;
        if self.noted == Some(generation) {
            self.due = None;
            return;
        }
        match self.vault.note_ledger(generation) {
            Ok(true) => (self.noted, self.due) = (Some(generation), None),
            Ok(false) => self.due = Some(Instant::now() + NOTE_AGAIN),
            Err(error) => {
                tracing::error!(%error, "the vault cannot note how far the ledger is");
                self.due = Some(Instant::now() + NOTE_EVERY);
            }
        }
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn load(&self, now: Timestamp) -> Result<Remembered> {
        self.reader.run(move |connection| rows::read(connection, now)).await
    }

    fn consume(&self, consumed: Consumed) -> Commit {
        let away = || Error::unavailable("this party's ledger is closed");
        let (done, written) = oneshot::channel();
        let queue = self.writer.queue.as_ref();
        let queued = match queue.map(|queue| queue.try_send((consumed, done))) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => {
                Err(Error::unavailable("too many requests wait for this party's disk"))
            }
            Some(Err(TrySendError::Disconnected(_))) | None => Err(away()),
        };
        match queued {
            Ok(()) => Commit::new(async move { written.await.unwrap_or_else(|_| Err(away())) }),
            Err(error) => Commit::new(std::future::ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests;
