//! The writer thread: all that is queued becomes one transaction, synced once.
//!
//! A lazy write lingers a little for company; a message that was acknowledged by all its
//! recipients meanwhile is never written. After a failed commit nothing is accepted any more: what
//! is in memory may be ahead of the disk, and only a restart brings them together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_ports::{Commit, Urgency, Write};
use quorate_types::{Error, ErrorCode, Result};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::database::failed;
use crate::rows;

/// Transactions that may wait: a second of the fastest load measured.
const QUEUE: usize = 32_768;
/// Transactions in one commit; more would make the first ones wait too long.
const GROUP: usize = 4_096;
/// How long a lazy write waits for company.
const LINGER: Duration = Duration::from_millis(5);

struct Item {
    writes: Vec<Write>,
    urgency: Urgency,
    done: oneshot::Sender<Result<()>>,
}

#[derive(Default)]
struct Shared {
    failed: AtomicBool,
    commits: AtomicU64,
}

/// A handle on the writer thread. Dropping it commits what is queued.
pub(crate) struct Writer {
    queue: Mutex<Option<SyncSender<Item>>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn broken() -> Error {
    Error::unavailable(
        "the disk has failed and nothing is accepted any more; free space or repair it, then restart",
    )
}

impl Writer {
    pub(crate) fn start(connection: Connection) -> Result<Self> {
        let (queue, items) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(connection, &items, &state))
            .map_err(|_| Error::internal())?;
        Ok(Self { queue: Mutex::new(Some(queue)), shared, thread: Some(thread) })
    }

    pub(crate) fn submit(&self, writes: Vec<Write>, urgency: Urgency) -> Commit {
        if let Err(error) = self.health() {
            return Commit::new(std::future::ready(Err(error)));
        }
        let (done, result) = oneshot::channel();
        let item = Item { writes, urgency, done };
        let sent = match self.queue.lock() {
            Ok(queue) => queue.as_ref().map(|queue| queue.try_send(item)),
            Err(_) => None,
        };
        match sent {
            Some(Ok(())) => Commit::new(async { result.await.unwrap_or_else(|_| Err(broken())) }),
            Some(Err(TrySendError::Full(_))) => {
                // What memory already holds can no longer be made durable in order.
                self.shared.failed.store(true, Ordering::Release);
                tracing::error!("the disk is too slow: the write queue is full");
                let full = Error::new(ErrorCode::Unavailable, "the disk is too slow for the load");
                Commit::new(std::future::ready(Err(full)))
            }
            _ => Commit::new(std::future::ready(Err(broken()))),
        }
    }

    pub(crate) fn health(&self) -> Result<()> {
        if self.shared.failed.load(Ordering::Acquire) { Err(broken()) } else { Ok(()) }
    }

    pub(crate) fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Ok(mut queue) = self.queue.lock() {
            queue.take();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut connection: Connection, items: &Receiver<Item>, shared: &Shared) {
    while let Ok(first) = items.recv() {
        let group = gather(first, items);
        let result = if shared.failed.load(Ordering::Acquire) {
            Err(broken())
        } else {
            commit(&mut connection, &group).map_err(|error| {
                shared.failed.store(true, Ordering::Release);
                failed(error)
            })
        };
        shared.commits.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
        for item in group {
            let _ = item.done.send(result.clone());
        }
    }
}

/// The first item and all that is queued behind it; a lazy start waits a little for more.
fn gather(first: Item, items: &Receiver<Item>) -> Vec<Item> {
    let deadline = Instant::now() + LINGER;
    let mut urgent = first.urgency == Urgency::Now;
    let mut group = vec![first];
    while group.len() < GROUP {
        let next = if urgent {
            items.try_recv().ok()
        } else {
            match items.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(item) => Some(item),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
            }
        };
        let Some(item) = next else { break };
        urgent |= item.urgency == Urgency::Now;
        group.push(item);
    }
    group
}

fn commit(connection: &mut Connection, group: &[Item]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for write in group.iter().flat_map(|item| &item.writes) {
        rows::apply(&transaction, write)?;
    }
    transaction.commit()
}
