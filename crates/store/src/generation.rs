//! Notices a database that is missing or older than it was.
//!
//! Beside the database lies a small file with the store's id and a number. After each checkpoint the
//! number in the database is raised, in the log alone, and then the file. A database without its
//! log, or from an older copy, is therefore behind the file: it is refused at start, since it would
//! forget what was acknowledged. What is rolled back together with the file is not noticed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use quorate_types::{Error, Result};
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use crate::database::failed;

/// The file beside the database.
const MARKER: &str = "quorate.generation";
/// A file that each coordinator makes once its store is open: a folder that has it had a database.
const OLD_SIGN: &str = "join-tokens.key";

/// A store and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    store: Uuid,
    number: u64,
}

/// The number of one open store, in its database and beside it.
pub(crate) struct Generation {
    state: State,
    marker: PathBuf,
}

impl Generation {
    /// Compares the database with the file beside it, and raises both.
    ///
    /// # Errors
    /// When the database is missing or older than it was, unless `accept_loss`.
    pub(crate) fn open(folder: &Path, database: &Connection, accept_loss: bool) -> Result<Self> {
        let marker = folder.join(MARKER);
        let beside = read_marker(&marker)?;
        let inside = read_row(database).map_err(failed)?;
        let is_behind = match (beside, inside) {
            (Some(beside), Some(inside)) => {
                inside.store != beside.store || inside.number < beside.number
            }
            (Some(_), None) => true,
            // A folder of before had no number. If it was used and its database is empty, the
            // database is another one than it was.
            (None, None) => folder.join(OLD_SIGN).exists() && is_empty(database).map_err(failed)?,
            (None, Some(_)) => false,
        };
        if is_behind && !accept_loss {
            return Err(behind(folder));
        }
        let mut state = inside.or(beside).unwrap_or(State { store: Uuid::new_v4(), number: 0 });
        if is_behind {
            tracing::warn!("going on with a database that is missing or older than it was");
            state.store = Uuid::new_v4();
        }
        let mut generation = Self { state, marker };
        generation.raise(database)?;
        Ok(generation)
    }

    /// Folds the log into the database and raises the number behind it.
    pub(crate) fn checkpoint(&mut self, database: &Connection) -> Result<()> {
        // A reader may keep it from folding all: the rest comes the next time.
        database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(failed)?;
        self.raise(database)
    }

    /// First the database, then the file: a crash between leaves the database ahead.
    fn raise(&mut self, database: &Connection) -> Result<()> {
        self.state.number += 1;
        let number = i64::try_from(self.state.number).map_err(|_| Error::internal())?;
        database
            .execute(
                "INSERT OR REPLACE INTO generation (only_row, store, number) VALUES (1, ?1, ?2)",
                params![self.state.store.as_bytes(), number],
            )
            .map_err(failed)?;
        self.write_marker().map_err(|error| {
            tracing::error!(%error, "{} cannot be written", self.marker.display());
            Error::unavailable(format!(
                "{} cannot be written: {error}; free space or make it writable, then restart",
                self.marker.display()
            ))
        })
    }

    fn write_marker(&self) -> std::io::Result<()> {
        let part = self.marker.with_extension("part");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        writeln!(file, "{} {}", self.state.store, self.state.number)?;
        file.sync_all()?;
        fs::rename(&part, &self.marker)?;
        match self.marker.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Refuses a folder whose database is gone, before a new one is made in its place.
pub(crate) fn refuse_missing(folder: &Path, database: &Path) -> Result<()> {
    let known = folder.join(MARKER).exists();
    if known && !database.exists() { Err(behind(folder)) } else { Ok(()) }
}

fn behind(folder: &Path) -> Error {
    Error::invalid(format!(
        "the database in {0} is missing or older than it was: quorate.db or its log quorate.db-wal \
         was removed or replaced. Put both back, or restore the whole folder from a backup; to go on \
         without what is missing, start with --accept-loss",
        folder.display()
    ))
}

fn read_marker(path: &Path) -> Result<Option<State>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::invalid(format!("{} cannot be read: {error}", path.display())));
        }
    };
    let parsed = text.trim().split_once(' ').and_then(|(store, number)| {
        Some(State { store: Uuid::parse_str(store).ok()?, number: number.parse().ok()? })
    });
    parsed.map(Some).ok_or_else(|| {
        Error::invalid(format!(
            "{} is damaged: restore it, or remove it if you trust the database beside it",
            path.display()
        ))
    })
}

fn read_row(database: &Connection) -> rusqlite::Result<Option<State>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(State { store: crate::columns::id(row, 0)?, number: crate::columns::unsigned(row, 1)? })
    };
    database.query_row("SELECT store, number FROM generation", [], read).optional()
}

fn is_empty(database: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM sessions) AND NOT EXISTS (SELECT 1 FROM keys)
               AND NOT EXISTS (SELECT 1 FROM parties) AND NOT EXISTS (SELECT 1 FROM accounts)";
    database.query_row(sql, [], |row| row.get(0))
}
