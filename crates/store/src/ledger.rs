//! What a party remembers of the requests that it has allowed: one file, and a thread that writes
//! all that has come meanwhile in one transaction.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use async_trait::async_trait;
use quorate_ports::Commit;
use quorate_ports::ledger::{Consumed, Ledger, Remembered};
use quorate_types::*;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::columns::id;
use crate::database::{Blocking, Schema, failed, open_database, open_reader};

const SCHEMA: Schema = Schema {
    name: "ledger",
    steps: &[include_str!("migrations/0001_ledger.sql")],
    secure_delete: false,
};

/// Requests that may wait for the disk: twice as many as a party has sessions.
const QUEUE: usize = 8_192;

/// Requests that are written at once.
const GROUP: usize = 1_024;

type Item = (Consumed, oneshot::Sender<Result<()>>);

/// A ledger in `ledger.db`. Dropping it writes what waits.
pub struct SqliteLedger {
    reader: Blocking,
    queue: Option<SyncSender<Item>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteLedger {
    /// Opens `ledger.db` in the folder of a party, whose vault is open: that keeps others out.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("ledger.db");
        let connection = open_database(&path, &SCHEMA)?;
        let reader = Blocking::new(open_reader(&path)?);
        let (queue, items) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || run(connection, &items))
            .map_err(|_| Error::internal())?;
        Ok(Self { reader, queue: Some(queue), thread: Some(thread) })
    }
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut connection: Connection, items: &Receiver<Item>) {
    while let Ok(first) = items.recv() {
        let mut group = vec![first];
        group.extend(items.try_iter().take(GROUP - 1));
        let written = write(&mut connection, &group).map_err(failed);
        for (_, done) in group {
            let _ = done.send(written.clone());
        }
    }
}

fn bytes(key: Option<KeyId>) -> Vec<u8> {
    key.map(|key| key.0.as_bytes().to_vec()).unwrap_or_default()
}

fn write(connection: &mut Connection, group: &[Item]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (Consumed { nonce, session, key, at, keep_until }, _) in group {
        transaction
            .prepare_cached(
                "INSERT INTO consumed (nonce, session_id, key_id, at, keep_until)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![nonce, session.0.as_bytes(), bytes(*key), at.0, keep_until.0])?;
        transaction
            .prepare_cached(
                "INSERT INTO totals (key_id, total) VALUES (?1, 1)
                 ON CONFLICT (key_id) DO UPDATE SET total = total + 1",
            )?
            .execute([bytes(*key)])?;
    }
    if let Some(now) = group.iter().map(|(consumed, _)| consumed.at).max() {
        transaction
            .prepare_cached("DELETE FROM consumed WHERE keep_until < ?1")?
            .execute([now.0])?;
    }
    transaction.commit()
}

fn key(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<KeyId>> {
    match row.get_ref(column)?.as_bytes()? {
        [] => Ok(None),
        _ => Ok(Some(KeyId(id(row, column)?))),
    }
}

fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Remembered> {
    let consumed = |row: &rusqlite::Row<'_>| {
        Ok(Consumed {
            nonce: row.get(0)?,
            session: SessionId(id(row, 1)?),
            key: key(row, 2)?,
            at: Timestamp(row.get(3)?),
            keep_until: Timestamp(row.get(4)?),
        })
    };
    let sql = "SELECT nonce, session_id, key_id, at, keep_until FROM consumed
               WHERE keep_until >= ?1 ORDER BY at";
    let consumed = connection
        .prepare_cached(sql)?
        .query_map([now.0], consumed)?
        .collect::<rusqlite::Result<_>>()?;
    let total = |row: &rusqlite::Row<'_>| Ok((key(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned()));
    let sql = "SELECT key_id, total FROM totals";
    let totals =
        connection.prepare_cached(sql)?.query_map([], total)?.collect::<rusqlite::Result<_>>()?;
    Ok(Remembered { consumed, totals })
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn load(&self, now: Timestamp) -> Result<Remembered> {
        self.reader.run(move |connection| read(connection, now)).await
    }

    fn consume(&self, consumed: Consumed) -> Commit {
        let away = || Error::unavailable("this party's ledger is closed");
        let (done, written) = oneshot::channel();
        let queued = match self.queue.as_ref().map(|queue| queue.try_send((consumed, done))) {
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
mod tests {
    use super::*;

    fn consumed(nonce: u8, at: i64, keep_until: i64, key: Option<u128>) -> Consumed {
        Consumed {
            nonce: [nonce; 16],
            session: SessionId(uuid::Uuid::from_u128(nonce.into())),
            key: key.map(|key| KeyId(uuid::Uuid::from_u128(key))),
            at: Timestamp(at),
            keep_until: Timestamp(keep_until),
        }
    }

    #[tokio::test]
    async fn what_was_allowed_is_known_after_a_restart_until_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let first = consumed(1, 10, 100, Some(7));
        let second = consumed(2, 20, 50, Some(7));
        let third = consumed(3, 30, 60, None);
        {
            let ledger = SqliteLedger::open(folder.path()).unwrap();
            assert_eq!(ledger.load(Timestamp(0)).await.unwrap(), Remembered::default());
            for consumed in [first, second] {
                ledger.consume(consumed).await.unwrap();
            }
            // Nobody waits for it, and it is written all the same.
            drop(ledger.consume(third));
        }
        let ledger = SqliteLedger::open(folder.path()).unwrap();
        let known = ledger.load(Timestamp(0)).await.unwrap();
        assert_eq!(known.consumed, [first, second, third]);
        assert_eq!(known.totals, [(None, 1), (first.key, 2)]);
        assert_eq!(ledger.load(Timestamp(55)).await.unwrap().consumed, [first, third]);
        ledger.consume(consumed(4, 55, 200, None)).await.unwrap();
        let left = ledger.load(Timestamp(0)).await.unwrap();
        assert_eq!(left.consumed.len(), 3, "the second is gone from the disk");
        assert_eq!(left.totals, [(None, 2), (first.key, 2)], "what is gone has counted");
    }
}
