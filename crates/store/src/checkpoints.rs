//! When the log is folded into the database: after the first commit, then once a minute while there
//! is something to fold, and sooner when the log has grown.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorate_types::Result;
use rusqlite::Connection;

use crate::generation::Generation;

/// Most of what a lost log takes with it.
const INTERVAL: Duration = Duration::from_secs(60);
/// The log's size from which it is folded at once: a tenth more commits than at SQLite's 4 MiB.
const MAX_LOG: u64 = 16 << 20;

/// The checkpoints of one open database.
pub(crate) struct Checkpoints {
    generation: Generation,
    log: PathBuf,
    /// The next one, while there is something to fold.
    due: Option<Instant>,
    first: bool,
}

impl Checkpoints {
    /// For the database with this log.
    pub(crate) fn new(generation: Generation, log: PathBuf) -> Self {
        Self { generation, log, due: None, first: true }
    }

    /// When to look again although nothing was committed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A group was committed.
    pub(crate) fn committed(&mut self, now: Instant) {
        let interval = if std::mem::take(&mut self.first) { Duration::ZERO } else { INTERVAL };
        self.due.get_or_insert(now + interval);
    }

    /// Folds the log in when it is time to.
    pub(crate) fn keep(&mut self, now: Instant, database: &Connection) -> Result<()> {
        let Some(due) = self.due else { return Ok(()) };
        let is_large = || std::fs::metadata(&self.log).is_ok_and(|log| log.len() > MAX_LOG);
        if due <= now || is_large() {
            self.due = None;
            self.generation.checkpoint(database)?;
        }
        Ok(())
    }
}
