//! The writer thread: all that is queued becomes one transaction, synced once.
//!
//! A message that was acknowledged by all its recipients while it waited is never written. After a
//! failed commit nothing is accepted any more: what is in memory may be ahead of the disk, and only
//! a restart brings them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use quorate_ports::{Commit, Urgency, Write};
use quorate_types::{Error, ErrorCode, Result};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::checkpoints::Checkpoints;
use crate::database;
use crate::queue::{Full, Item, Queue};
use crate::rows;

#[derive(Default)]
struct Shared {
    queue: Queue,
    failed: watch::Sender<bool>,
    commits: AtomicU64,
}

impl Shared {
    fn fail(&self) {
        self.failed.send_replace(true);
    }

    fn health(&self) -> Result<()> {
        if *self.failed.borrow() { Err(broken()) } else { Ok(()) }
    }
}

/// A handle on the writer thread. Dropping it commits what is queued.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn broken() -> Error {
    database::until_restarted(
        "the disk failed and nothing is accepted any more; free space or repair it, then restart",
    )
}

impl Writer {
    /// Starts the thread on a database, which it folds its log into where it has `checkpoints`.
    pub(crate) fn start(connection: Connection, checkpoints: Option<Checkpoints>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(connection, checkpoints, &on_thread))
            .map_err(|error| {
                tracing::error!(%error, "the writer thread cannot be started");
                Error::internal()
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn submit(&self, writes: Vec<Write>, urgency: Urgency) -> Commit {
        let (done, result) = oneshot::channel();
        let item = Item { writes, urgency, done };
        let push = |()| self.shared.queue.push(item).map_err(|full| self.overrun(full));
        match self.health().and_then(push) {
            Ok(()) => Commit::new(async { result.await.unwrap_or_else(|_| Err(broken())) }),
            Err(error) => Commit::new(std::future::ready(Err(error))),
        }
    }

    fn overrun(&self, full: Full) -> Error {
        match full {
            Full::Messages => {
                tracing::warn!("the disk is slower than the load: messages are refused");
                Error::unavailable("too many messages wait for the disk; send it again in a second")
            }
            Full::Everything => {
                tracing::error!("the disk is too slow: the write queue has overrun");
                self.shared.fail();
                broken()
            }
            Full::Closed => broken(),
        }
    }

    pub(crate) fn health(&self) -> Result<()> {
        self.shared.health()
    }

    pub(crate) async fn failed(&self) -> Error {
        // The sender lives as long as `self`.
        let _ = self.shared.failed.subscribe().wait_for(|failed| *failed).await;
        broken()
    }

    pub(crate) fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer thread panicked");
        }
    }
}

/// However the thread ends, nothing is accepted after it, and whoever waits is told.
struct LastWord<'a>(&'a Shared);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        self.0.fail();
        self.0.queue.close();
        while self.0.queue.next_group(None).is_some() {}
    }
}

fn run(mut connection: Connection, mut checkpoints: Option<Checkpoints>, shared: &Shared) {
    let _last_word = LastWord(shared);
    loop {
        let due = checkpoints.as_ref().and_then(Checkpoints::due);
        let Some(group) = shared.queue.next_group(due) else { return };
        let committed = !group.is_empty();
        let outcome = shared.health().and_then(|()| {
            // Empty when only a checkpoint is due.
            if group.is_empty() {
                return Ok(Vec::new());
            }
            commit(&mut connection, &group).map_err(|error| {
                shared.fail();
                database::failed(error)
            })
        });
        shared.commits.fetch_add(u64::from(committed && outcome.is_ok()), Ordering::Relaxed);
        let mut outcomes = outcome.map(Vec::into_iter);
        for item in group {
            let stands = outcomes.as_mut().map(|stands| stands.next() != Some(false));
            let result = match stands {
                Ok(true) => Ok(()),
                Ok(false) => Err(taken()),
                Err(error) => Err(error.clone()),
            };
            // Nobody may be waiting, which changes nothing.
            let _ = item.done.send(result);
        }
        if let Some(checkpoints) = &mut checkpoints
            && shared.health().is_ok()
        {
            if committed {
                checkpoints.committed(Instant::now());
            }
            if checkpoints.keep(Instant::now(), &connection).is_err() {
                shared.fail();
            }
        }
    }
}

fn taken() -> Error {
    Error::new(ErrorCode::Conflict, "this idempotency key was used in the meantime; ask again")
}

/// Commits a group as one; answers for each of its transactions whether it stands. Dropping the
/// transaction on an error rolls it back.
fn commit(connection: &mut Connection, group: &[Item]) -> rusqlite::Result<Vec<bool>> {
    let mut transaction = connection.transaction()?;
    let mut outcomes = Vec::with_capacity(group.len());
    for item in group {
        let refusable = item.writes.iter().any(|write| matches!(write, Write::Idempotency(_)));
        outcomes.push(if refusable {
            let savepoint = transaction.savepoint()?;
            let stands = all_apply(&savepoint, &item.writes)?;
            if stands {
                savepoint.commit()?;
            }
            stands
        } else {
            all_apply(&transaction, &item.writes)?
        });
    }
    transaction.commit()?;
    Ok(outcomes)
}

fn all_apply(connection: &Connection, writes: &[Write]) -> rusqlite::Result<bool> {
    for write in writes {
        if !rows::apply(connection, write)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use quorate_ports::store::{IdempotencyRow, Overtaken, SessionRow};
    use quorate_types::{SessionId, Tenant, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::database::open_database;

    fn database(folder: &tempfile::TempDir) -> Connection {
        open_database(&folder.path().join("x.db"), &crate::SCHEMA).unwrap()
    }

    fn session(n: u128, bytes: usize) -> Vec<Write> {
        vec![Write::Session(SessionRow {
            session_id: SessionId(Uuid::from_u128(n)),
            tenant: Tenant::default(),
            is_final: false,
            created_at: Timestamp(0),
            version: 1,
            document: vec![0; bytes],
        })]
    }

    fn stored(folder: &tempfile::TempDir) -> Vec<u128> {
        let connection = database(folder);
        let mut found = connection.prepare("SELECT id FROM sessions ORDER BY id").unwrap();
        let read = |row: &rusqlite::Row<'_>| crate::columns::id(row, 0);
        found.query_map([], read).unwrap().map(|id| id.unwrap().as_u128()).collect()
    }

    /// A writer whose disk has room for `pages` more pages.
    fn nearly_full(folder: &tempfile::TempDir, pages: u32) -> Writer {
        let connection = database(folder);
        let used: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", used + pages).unwrap();
        Writer::start(connection, None).unwrap()
    }

    #[tokio::test]
    async fn a_full_disk_acknowledges_nothing_and_stays_failed() {
        let folder = tempfile::tempdir().unwrap();
        let writer = nearly_full(&folder, 2);
        writer.submit(session(1, 10), Urgency::Now).await.unwrap();
        assert!(writer.health().is_ok());
        assert!(writer.failed().now_or_never().is_none());
        let error = writer.submit(session(2, 1 << 20), Urgency::Now).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains("free space"), "{error}");
        assert_eq!(error.details.retry_after, Some(60), "somebody has to restart it first");
        assert_eq!(writer.health().unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(writer.failed().await.code, ErrorCode::Unavailable);
        // It would fit, but what is in memory may rest on what was lost.
        assert!(writer.submit(session(3, 10), Urgency::Now).await.is_err());
        assert_eq!(writer.commits(), 1);
        drop(writer);
        assert_eq!(stored(&folder), [1]);
    }

    #[tokio::test]
    async fn a_group_with_one_failure_is_rolled_back_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let writer = nearly_full(&folder, 2);
        let small = writer.submit(session(1, 10), Urgency::Soon);
        let large = writer.submit(session(2, 1 << 20), Urgency::Soon);
        let (small, large) = (small.await, large.await);
        drop(writer);
        assert!(large.is_err());
        // Both in one group, or the small one alone in an earlier one.
        assert_eq!(stored(&folder).contains(&1), small.is_ok());
    }

    #[tokio::test]
    async fn one_transaction_is_kept_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let writer = nearly_full(&folder, 2);
        let both = [session(1, 10), session(2, 1 << 20)].concat();
        assert!(writer.submit(both, Urgency::Now).await.is_err());
        drop(writer);
        assert!(stored(&folder).is_empty());
    }

    #[tokio::test]
    async fn a_taken_idempotency_key_refuses_its_transaction_alone() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(database(&folder), None).unwrap();
        let claim = |n| {
            let row = IdempotencyRow {
                tenant: Tenant::default(),
                key: "once".to_owned(),
                version: 2,
                request_hash: [1; 32],
                session_id: SessionId(Uuid::from_u128(n)),
            };
            [session(n, 10), vec![Write::Idempotency(row)]].concat()
        };
        writer.submit(claim(1), Urgency::Now).await.unwrap();
        let refused = writer.submit(claim(2), Urgency::Soon);
        let beside = writer.submit(session(3, 10), Urgency::Soon);
        assert_eq!(refused.await.unwrap_err().code, ErrorCode::Conflict);
        beside.await.unwrap();
        assert!(writer.health().is_ok(), "the store has not failed");
        drop(writer);
        assert_eq!(stored(&folder), [1, 3]);
    }

    #[tokio::test]
    async fn a_state_that_was_overtaken_while_it_lingered_is_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(database(&folder), None).unwrap();
        let row = |document: &str, is_final| SessionRow {
            session_id: SessionId(Uuid::from_u128(1)),
            tenant: Tenant::default(),
            is_final,
            created_at: Timestamp(0),
            version: 1,
            document: document.into(),
        };
        let overtaken = Overtaken::default();
        let interim = vec![Write::Interim(row("started", false), overtaken.clone())];
        let interim = writer.submit(interim, Urgency::Later);
        overtaken.set();
        writer.submit(vec![Write::Session(row("ended", true))], Urgency::Now).await.unwrap();
        interim.await.unwrap();
        drop(writer);
        let document = "SELECT document FROM sessions WHERE is_final = 1";
        let kept = database(&folder).query_row(document, [], |row| row.get::<_, Vec<u8>>(0));
        assert_eq!(kept.unwrap(), b"ended");
    }

    #[test]
    fn an_overrun_queue_refuses_everything_until_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(database(&folder), None).unwrap();
        let refusal = writer.overrun(Full::Messages);
        assert_eq!((refusal.code, refusal.details.retry_after), (ErrorCode::Unavailable, Some(1)));
        assert!(writer.health().is_ok(), "a refused message is no failure");
        writer.overrun(Full::Everything);
        assert!(writer.health().is_err());
        let refused = writer.submit(session(1, 10), Urgency::Now);
        assert!(refused.now_or_never().unwrap().is_err());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_thread_that_is_gone() {
        let shared = Shared::default();
        let (done, result) = oneshot::channel();
        let urgency = Urgency::Now;
        shared.queue.push(Item { writes: vec![], urgency, done }).unwrap();
        drop(LastWord(&shared));
        assert!(result.await.is_err());
        assert!(shared.health().is_err());
    }

    #[tokio::test]
    async fn a_dropped_commit_is_written_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(database(&folder), None).unwrap();
        for n in 1..=50 {
            drop(writer.submit(session(n, 10), Urgency::Soon));
        }
        drop(writer);
        assert_eq!(stored(&folder), (1..=50).collect::<Vec<_>>());
    }
}
