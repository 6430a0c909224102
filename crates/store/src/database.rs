//! Opening a database file: permissions, settings, migrations, and one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use quorate_types::{Error, Result};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Mutex;

use crate::columns::is_damage;

/// The steps that bring a database from any older version to this one.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    pub(crate) steps: &'static [&'static str],
    /// Overwrite what is deleted, also by the steps.
    pub(crate) secure_delete: bool,
}

/// Keeps other processes out of a data folder for as long as it lives.
pub(crate) struct FolderLock(#[expect(dead_code, reason = "held, not read")] File);

impl FolderLock {
    /// Locks a folder, making it where it is missing.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let unusable = |error: std::io::Error| {
            Error::invalid(format!(
                "the data folder {} cannot be used: {error}; make it writable, or choose another",
                folder.display()
            ))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let file = private_file(&folder.join("lock")).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::unavailable(format!(
                "another quorate process uses the data folder {}; stop it, or choose another folder",
                folder.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

/// Opens a file for writing that only its owner can read, also when it was there before.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Opens a database that only its owner can read, and brings it up to date.
///
/// SQLite gives its journal files the permissions of the database file.
pub(crate) fn open_database(path: &Path, schema: &Schema) -> Result<Connection> {
    private_file(path).map_err(|error| {
        Error::invalid(format!(
            "{} cannot be written: {error}; make it writable for this user",
            path.display()
        ))
    })?;
    let unusable = |error: rusqlite::Error| {
        Error::invalid(format!(
            "{} cannot be opened: {error}; free space, or restore it from a backup",
            path.display()
        ))
    };
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(unusable)?;
    connection.pragma_update(None, "secure_delete", schema.secure_delete).map_err(unusable)?;
    let version: u32 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unusable)?;
    let Some(missing) = schema.steps.get(version as usize..) else {
        return Err(Error::invalid(format!(
            "the {} in this folder has version {version} and this program knows {}: \
             use a newer program",
            schema.name,
            schema.steps.len()
        )));
    };
    for (next, sql) in (version + 1..).zip(missing) {
        migrate(&mut connection, next, sql).map_err(unusable)?;
    }
    Ok(connection)
}

/// A second connection to a database that is open already, for reading only.
pub(crate) fn open_reader(path: &Path) -> Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Without the URI flag a folder may be called anything.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // The log is folded into the database at 16 MiB (4000 pages) and pages are cached up to as
    // much: a tenth more commits than with SQLite's defaults. A log that a burst has blown up is
    // cut back to 64 MiB when it starts over.
    connection.execute_batch(
        "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA cache_size = -16384; PRAGMA journal_size_limit = 67108864;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// One step, whole or not at all.
fn migrate(connection: &mut Connection, version: u32, sql: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(sql)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

/// A database error as a caller may see it; the cause goes to the log.
pub(crate) fn failed(error: rusqlite::Error) -> Error {
    if is_damage(&error) {
        tracing::error!(%error, "a row in the database is damaged");
        return Error::damaged("this record");
    }
    tracing::error!(%error, "the database failed");
    until_restarted(
        "the disk failed; the log names the cause: free space or repair it, then restart",
    )
}

/// A failure that lasts until somebody restarts the server: clients need not ask each second.
pub(crate) fn until_restarted(message: &str) -> Error {
    let mut error = Error::unavailable(message);
    error.details.retry_after = Some(60);
    error
}

/// A connection for async callers: each piece of work runs on a thread that may block, and waits
/// for its turn without one.
pub(crate) struct Blocking(Arc<Mutex<Connection>>);

impl Blocking {
    pub(crate) fn new(connection: Connection) -> Self {
        Self(Arc::new(Mutex::new(connection)))
    }

    /// Runs `work` alone on the connection. It goes on when the returned future is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.0.clone();
        let turn = async move {
            let mut connection = connection.lock_owned().await;
            let work = move || work(&mut connection).map_err(failed);
            tokio::task::spawn_blocking(work).await.map_err(|_| Error::internal())?
        };
        tokio::spawn(turn).await.map_err(|_| Error::internal())?
    }

    /// Runs `work` on this thread, unless the connection is in use: then `None`.
    pub(crate) fn try_run<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Option<Result<T>> {
        let mut connection = self.0.try_lock().ok()?;
        Some(work(&mut connection).map_err(failed))
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ErrorCode;

    use super::*;

    const FIRST: &str = "CREATE TABLE t (a)";
    const SECOND: &str = "ALTER TABLE t ADD COLUMN b; INSERT INTO t VALUES (1, 2)";

    const BROKEN: &str = "CREATE TABLE u (a); SELECT nonsense FROM nowhere";

    fn open(path: &Path, steps: &'static [&'static str]) -> Result<Connection> {
        open_database(path, &Schema { name: "store", steps, secure_delete: false })
    }

    fn version(connection: &Connection) -> u32 {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_database_gets_only_the_missing_steps_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let connection = open(&path, &[FIRST]).unwrap();
        connection.execute("INSERT INTO t VALUES (7)", []).unwrap();
        drop(connection);
        let connection = open(&path, &[FIRST, SECOND]).unwrap();
        assert_eq!(version(&connection), 2);
        let rows: u32 =
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let error = open(&path, &[FIRST, BROKEN]).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
        let connection = open(&path, &[FIRST]).unwrap();
        assert_eq!(version(&connection), 1);
        assert!(connection.prepare("SELECT * FROM u").is_err());
    }

    #[test]
    fn a_newer_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        drop(open(&path, &[FIRST, SECOND]).unwrap());
        let error = open(&path, &[FIRST]).unwrap_err();
        assert!(error.message.contains("use a newer program"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        fs::write(&path, "not a database, but long enough to be looked at ".repeat(40)).unwrap();
        let error = open(&path, &[FIRST]).unwrap_err();
        assert!(error.message.contains("x.db cannot be opened"), "{error}");
    }

    #[test]
    fn every_connection_syncs_each_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let connection = open(&path, &[FIRST]).unwrap();
        let text = |name| connection.query_row(name, [], |row| row.get::<_, String>(0)).unwrap();
        let number = |name| connection.query_row(name, [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!(text("PRAGMA journal_mode"), "wal");
        assert_eq!(number("PRAGMA synchronous"), 2);
        assert_eq!(number("PRAGMA foreign_keys"), 1);
    }

    #[test]
    fn a_reader_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let _writer = open(&path, &[FIRST]).unwrap();
        let reader = open_reader(&path).unwrap();
        assert!(reader.execute("INSERT INTO t VALUES (1)", []).is_err());
    }

    #[test]
    fn folder_and_files_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("deep/data");
        let _lock = FolderLock::take(&data).unwrap();
        let path = data.join("x.db");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let connection = open(&path, &[FIRST]).unwrap();
        connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        for name in ["lock", "x.db", "x.db-wal", "x.db-shm"] {
            assert_eq!(mode(&data.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_lock_ends_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).err().unwrap();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains("another quorate process"), "{error}");
        drop(lock);
        assert!(FolderLock::take(folder.path()).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = FolderLock::take(&file.join("data")).err().unwrap();
        assert!(error.message.contains("file/data cannot be used"), "{error}");
    }

    #[test]
    fn whoever_waits_for_the_connection_takes_no_thread() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(2).build().unwrap();
        runtime.block_on(async {
            let connection = Arc::new(Blocking::new(Connection::open_in_memory().unwrap()));
            let (release, released) = std::sync::mpsc::channel::<()>();
            let first = connection.clone();
            let mut runs =
                vec![tokio::spawn(
                    async move { first.run(move |_| Ok(released.recv().is_ok())).await },
                )];
            for _ in 0..10 {
                let next = connection.clone();
                runs.push(tokio::spawn(async move { next.run(|_| Ok(true)).await }));
            }
            // All have asked for their turn before the second thread is.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(tokio::task::spawn_blocking(|| 7).await.unwrap(), 7);
            release.send(()).unwrap();
            for run in runs {
                assert!(run.await.unwrap().unwrap());
            }
        });
    }
}
