//! Opening a database file: permissions, pragmas, migrations, and one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use quorate_types::{Error, Result};
use rusqlite::Connection;

/// The steps that bring a database from any older version to this one.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    pub(crate) steps: &'static [&'static str],
}

/// Keeps other processes out of a data folder for as long as it lives.
pub(crate) struct FolderLock(#[allow(dead_code, reason = "held, not read")] File);

impl FolderLock {
    /// Locks a folder, making it where it is missing.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let unusable = |error: std::io::Error| {
            Error::invalid(format!("the data folder {} cannot be used: {error}", folder.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(folder.join("lock")).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::unavailable(format!(
                "another quorate process uses the data folder {}; stop it, or choose another with --data",
                folder.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

/// Opens a database that only its owner can read, and brings it up to date.
pub(crate) fn open_database(path: &Path, schema: &Schema) -> Result<Connection> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path).map_err(|error| {
        Error::invalid(format!("{} cannot be written: {error}", path.display()))
    })?;
    let mut connection = Connection::open(path).map_err(failed)?;
    set_up(&connection).map_err(failed)?;
    migrate(&mut connection, schema)?;
    Ok(connection)
}

/// Settings of every connection.
pub(crate) fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA busy_timeout = 5000;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(connection: &mut Connection, schema: &Schema) -> Result<()> {
    let version: u32 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let Some(missing) = schema.steps.get(version as usize..) else {
        return Err(Error::invalid(format!(
            "the {} has version {version} and this program knows {}: use a newer program",
            schema.name,
            schema.steps.len()
        )));
    };
    for (next, sql) in (version + 1..).zip(missing) {
        let apply = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", next)?;
            transaction.commit()
        };
        apply(connection).map_err(failed)?;
    }
    Ok(())
}

/// A database error as a caller may see it; the cause goes to the log.
pub(crate) fn failed(error: rusqlite::Error) -> Error {
    tracing::error!(%error, "the database failed");
    Error::unavailable(
        "the database failed; the log names the cause: free space or repair the disk, then restart",
    )
}
