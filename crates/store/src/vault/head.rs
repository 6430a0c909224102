//! The vault's head: a sum over all rows under the party's key, and a count of its changes.
//!
//! Each row has a tag of its own. The head holds the XOR of a second tag of every row, which is
//! never stored by itself: who can write the file but has no key can neither make a row nor take
//! one away, nor put an older one back, without the sum being wrong at the next start.

use std::sync::Arc;

use quorate_ports::vault::{RowKey, Unlock};
use quorate_types::{Error, Result};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, params};

use super::rows;

const VERSION: u32 = 1;
/// The upper half of the generation counts restored vaults, so that one exceeds all that peers
/// have seen of the time before.
const RESTORED: u64 = 1 << 32;

/// What the head row says.
#[derive(Clone, Copy, Default, PartialEq)]
struct Head {
    generation: u64,
    sum: [u8; 32],
}

impl Head {
    fn tag(&self, key: &dyn RowKey) -> [u8; 32] {
        let columns: [&[u8]; 3] =
            [&VERSION.to_be_bytes(), &self.generation.to_be_bytes(), &self.sum];
        key.tag("head", &rows::encoded("head", &columns))
    }

    fn toggle(&mut self, key: &dyn RowKey, row: &[u8]) {
        for (sum, part) in self.sum.iter_mut().zip(key.tag("sum", row)) {
            *sum ^= part;
        }
    }

    fn write(&self, connection: &Connection, key: &dyn RowKey) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO head (id, version, generation, sum, check_tag, tag)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                VERSION,
                self.generation.cast_signed(),
                self.sum,
                check(key),
                self.tag(key)
            ])
            .map(drop)
    }
}

/// Shows whether a key is the one the vault was written under.
fn check(key: &dyn RowKey) -> [u8; 32] {
    key.tag("check", b"quorate")
}

/// The generation that the head says.
pub(super) fn generation(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT generation FROM head")?
        .query_row([], |row| row.get(0).map(i64::cast_unsigned))
}

/// One change of the vault: rows and head are written together or not at all.
pub(super) struct Change<'a> {
    transaction: Transaction<'a>,
    key: &'a dyn RowKey,
    before: Head,
    head: Head,
}

impl<'a> Change<'a> {
    pub(super) fn begin(
        connection: &'a mut Connection,
        key: &'a dyn RowKey,
    ) -> rusqlite::Result<Self> {
        let transaction = connection.transaction()?;
        let head = transaction
            .prepare_cached("SELECT generation, sum FROM head")?
            .query_row([], |row| {
                Ok(Head { generation: row.get::<_, i64>(0)?.cast_unsigned(), sum: row.get(1)? })
            })?;
        Ok(Self { transaction, key, before: head, head })
    }

    /// Counts a row in and answers with its tag.
    pub(super) fn add(&mut self, row: &[u8]) -> [u8; 32] {
        self.head.toggle(self.key, row);
        self.key.tag("row", row)
    }

    /// Counts a row out.
    pub(super) fn remove(&mut self, row: &[u8]) {
        self.head.toggle(self.key, row);
    }

    /// Counts this as a change of shares or bans.
    pub(super) fn advance(&mut self) {
        self.head.generation += 1;
    }

    pub(super) fn execute(&self, sql: &str, values: impl Params) -> rusqlite::Result<()> {
        self.transaction.prepare_cached(sql)?.execute(values).map(drop)
    }

    /// The first row of a query, read.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.transaction.prepare_cached(sql)?.query_row(values, read).optional()
    }

    /// Answers with the generation from now on. A row that was added, changed or removed shows in
    /// the sum: without one there is nothing to write.
    pub(super) fn commit(self) -> rusqlite::Result<u64> {
        if self.head != self.before {
            self.head.write(&self.transaction, self.key)?;
            self.transaction.commit()?;
        }
        Ok(self.head.generation)
    }
}

/// A table whose rows the head covers.
struct Table {
    name: &'static str,
    columns: &'static str,
    /// The tag's place among them.
    tag: usize,
    encoding: fn(&Row<'_>) -> rusqlite::Result<Vec<u8>>,
}

const TABLES: [Table; 4] = [
    Table { name: "shares", columns: rows::SHARE, tag: 9, encoding: rows::share_encoding },
    Table { name: "bans", columns: rows::BAN, tag: 6, encoding: rows::ban_encoding },
    Table { name: "pins", columns: rows::PIN, tag: 3, encoding: rows::pin_encoding },
    Table {
        name: "witnessed",
        columns: rows::WITNESSED,
        tag: 3,
        encoding: rows::witnessed_encoding,
    },
];

/// Checks the head and every row, or writes both for a vault that has no head yet.
pub(super) fn unlock(
    connection: &mut Connection,
    key: &Arc<dyn RowKey>,
    how: Unlock,
) -> rusqlite::Result<Result<()>> {
    let stored = stored_head(connection)?;
    let Some((head, check_tag, tag)) = stored else {
        if how.known && !how.accept_rollback {
            return Ok(Err(changed("it is not the vault that this party has used")));
        }
        if !opens_any(connection, &**key)? {
            return Ok(Err(wrong_key()));
        }
        let generation = if how.known { RESTORED } else { 0 };
        return adopt(connection, &**key, generation).map(Ok);
    };
    if check_tag != check(&**key) {
        return Ok(Err(wrong_key()));
    }
    let (sum, intact) = sum(connection, &**key)?;
    let next = (head.generation / RESTORED + 1) * RESTORED;
    if intact && tag == head.tag(&**key) && sum == head.sum {
        // A vault that is older as a whole shows to nobody but the peers.
        if how.accept_rollback {
            Head { generation: next, ..head }.write(connection, &**key)?;
        }
        return Ok(Ok(()));
    }
    if !how.accept_rollback {
        return Ok(Err(changed("rows were changed, removed or put back by something else")));
    }
    tracing::warn!(
        "the vault was changed by something else and is taken as it is: refresh its keys"
    );
    adopt(connection, &**key, next).map(Ok)
}

type Stored = (Head, [u8; 32], [u8; 32]);

fn stored_head(connection: &Connection) -> rusqlite::Result<Option<Stored>> {
    connection
        .query_row("SELECT generation, sum, check_tag, tag FROM head", [], |row| {
            let generation = row.get::<_, i64>(0)?.cast_unsigned();
            Ok((Head { generation, sum: row.get(1)? }, row.get(2)?, row.get(3)?))
        })
        .optional()
}

/// The sum of all rows, and whether each has its tag.
fn sum(connection: &Connection, key: &dyn RowKey) -> rusqlite::Result<([u8; 32], bool)> {
    let (mut head, mut intact) = (Head::default(), true);
    for table in &TABLES {
        let sql = format!("SELECT {} FROM {}", table.columns, table.name);
        let mut query = connection.prepare(&sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            // A column of another type is a change like any other.
            let Ok(encoding) = (table.encoding)(row) else {
                intact = false;
                continue;
            };
            let tag: Option<[u8; 32]> = row.get(table.tag).unwrap_or(None);
            intact &= tag == Some(key.tag("row", &encoding));
            head.toggle(key, &encoding);
        }
    }
    Ok((head.sum, intact))
}

/// Whether one of the shares opens, or there is none to try.
fn opens_any(connection: &Connection, key: &dyn RowKey) -> rusqlite::Result<bool> {
    let sql = format!("SELECT {}, sealed FROM shares WHERE state < 2", rows::SHARE);
    let mut query = connection.prepare(&sql)?;
    let mut shares = query.query([])?;
    let mut tried = false;
    while let Some(row) = shares.next()? {
        let mut share = rows::share(row)?;
        share.sealed = row.get(10)?;
        if key.opens(&share) {
            return Ok(true);
        }
        tried = true;
    }
    Ok(!tried)
}

/// Writes tags for all rows as they are, and the head.
fn adopt(connection: &mut Connection, key: &dyn RowKey, generation: u64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut unhashed = Vec::new();
    {
        let mut query =
            transaction.prepare("SELECT rowid, sealed FROM shares WHERE sealed_hash IS NULL")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let sealed = row.get_ref(1)?.as_bytes()?;
            unhashed.push((row.get::<_, i64>(0)?, rows::hash(sealed)));
        }
    }
    for (row, hash) in unhashed {
        transaction
            .execute("UPDATE shares SET sealed_hash = ?2 WHERE rowid = ?1", params![row, hash])?;
    }
    let mut head = Head { generation, sum: [0; 32] };
    for table in &TABLES {
        let sql = format!("SELECT {} FROM {}", table.columns, table.name);
        let mut tags = Vec::new();
        {
            let mut query = transaction.prepare(&sql)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let encoding = (table.encoding)(row)?;
                head.toggle(key, &encoding);
                let keys: (rusqlite::types::Value, rusqlite::types::Value, rusqlite::types::Value) =
                    (row.get(0)?, row.get(1)?, row.get(2)?);
                tags.push((keys, key.tag("row", &encoding)));
            }
        }
        // The first three columns name a row of every table.
        let names: Vec<_> = table.columns.split(", ").take(3).collect();
        let sql = format!(
            "UPDATE {} SET tag = ?4 WHERE {} = ?1 AND {} = ?2 AND {} = ?3",
            table.name, names[0], names[1], names[2]
        );
        for ((a, b, c), tag) in tags {
            transaction.execute(&sql, params![a, b, c, tag])?;
        }
    }
    head.write(&transaction, key)?;
    transaction.commit()
}

fn wrong_key() -> Error {
    Error::invalid(
        "the seal key or passphrase does not open this party's vault; start with the one it was \
         made with",
    )
}

fn changed(how: &str) -> Error {
    Error::invalid(format!(
        "this party's vault cannot be trusted: {how}; restore the party's whole folder from its \
         last backup, or start once with --accept-rollback to use the vault as it is: bans may be \
         missing, so refresh its keys"
    ))
}
