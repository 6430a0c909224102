//! The head of an authenticated database: a sum over all its rows under the party's key, and a count
//! of its changes.
//!
//! Each row has a tag of its own. The head holds the XOR of a second tag of every row, which is
//! never stored by itself: who can write the file but has no key can neither make a row nor take
//! one away, nor put an older one back, without the sum being wrong at the next start.

use quorate_ports::vault::RowKey;
use rusqlite::types::Value;
use rusqlite::{
    Connection, OptionalExtension as _, Params, Row, Transaction, params, params_from_iter,
};

const VERSION: u32 = 1;
/// The upper half of the generation counts restored databases, so that one exceeds all that was
/// seen of the time before.
pub(crate) const RESTORED: u64 = 1 << 32;

/// A table whose rows are authenticated.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The columns of its encoding; the first ones name a row.
    pub(crate) columns: &'static str,
    /// How many columns name a row.
    pub(crate) names: usize,
    /// Which of the columns is the tag.
    pub(crate) tag: usize,
    /// The bytes over which a row's tag is made.
    pub(crate) encoding: fn(&Row<'_>) -> rusqlite::Result<Vec<u8>>,
}

/// The bytes over which a row's tag is made: its table's name, then each column with its length.
pub(crate) fn encoded(table: &str, columns: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in std::iter::once(table.as_bytes()).chain(columns.iter().copied()) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// What the head row says.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Head {
    pub(crate) generation: u64,
    pub(crate) sum: [u8; 32],
}

impl Head {
    fn tag(&self, key: &dyn RowKey) -> [u8; 32] {
        let columns: [&[u8]; 3] =
            [&VERSION.to_be_bytes(), &self.generation.to_be_bytes(), &self.sum];
        key.tag("head", &encoded("head", &columns))
    }

    fn toggle(&mut self, key: &dyn RowKey, row: &[u8]) {
        for (sum, part) in self.sum.iter_mut().zip(key.tag("sum", row)) {
            *sum ^= part;
        }
    }

    /// Writes it as it is after a change by its owner: what it said before does not count.
    pub(crate) fn write(&self, connection: &Connection, key: &dyn RowKey) -> rusqlite::Result<()> {
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

    /// The generation of what an operator has accepted.
    pub(crate) fn restored(generation: u64) -> u64 {
        (generation / RESTORED + 1) * RESTORED
    }
}

/// Shows whether a key is the one the database was written under.
fn check(key: &dyn RowKey) -> [u8; 32] {
    key.tag("check", b"quorate")
}

/// The generation that the head says.
pub(crate) fn generation(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT generation FROM head")?
        .query_row([], |row| row.get(0).map(i64::cast_unsigned))
}

/// What a database turns out to be.
pub(crate) enum Found {
    /// It has no head: nobody has authenticated it.
    Bare,
    /// It was written under another key.
    Foreign,
    /// Head or rows are not as they were written last.
    Changed(Head),
    Intact(Head),
}

/// Checks the head and every row.
pub(crate) fn examine(
    connection: &Connection,
    key: &dyn RowKey,
    tables: &[Table],
) -> rusqlite::Result<Found> {
    let stored: Option<(Head, [u8; 32], [u8; 32])> = connection
        .query_row("SELECT generation, sum, check_tag, tag FROM head", [], |row| {
            let generation = row.get::<_, i64>(0)?.cast_unsigned();
            Ok((Head { generation, sum: row.get(1)? }, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((head, check_tag, tag)) = stored else { return Ok(Found::Bare) };
    if check_tag != check(key) {
        return Ok(Found::Foreign);
    }
    let (sum, intact) = sum(connection, key, tables)?;
    let intact = intact && tag == head.tag(key) && sum == head.sum;
    Ok(if intact { Found::Intact(head) } else { Found::Changed(head) })
}

/// The sum of all rows, and whether each has its tag.
fn sum(
    connection: &Connection,
    key: &dyn RowKey,
    tables: &[Table],
) -> rusqlite::Result<([u8; 32], bool)> {
    let (mut head, mut intact) = (Head::default(), true);
    for table in tables {
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

/// Writes tags for all rows as they are, and the head.
pub(crate) fn adopt(
    connection: &Connection,
    key: &dyn RowKey,
    tables: &[Table],
    generation: u64,
) -> rusqlite::Result<Head> {
    let mut head = Head { generation, sum: [0; 32] };
    for table in tables {
        let sql = format!("SELECT {} FROM {}", table.columns, table.name);
        let mut tags = Vec::new();
        {
            let mut query = connection.prepare(&sql)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let encoding = (table.encoding)(row)?;
                head.toggle(key, &encoding);
                let mut values = vec![Value::from(key.tag("row", &encoding).to_vec())];
                for column in 0..table.names {
                    values.push(row.get(column)?);
                }
                tags.push(values);
            }
        }
        let names = table.columns.split(", ").take(table.names).zip(2..);
        let named: Vec<_> = names.map(|(name, at)| format!("{name} = ?{at}")).collect();
        let sql = format!("UPDATE {} SET tag = ?1 WHERE {}", table.name, named.join(" AND "));
        let mut update = connection.prepare(&sql)?;
        for values in tags {
            update.execute(params_from_iter(values))?;
        }
    }
    head.write(connection, key)?;
    Ok(head)
}

/// One change: rows and head are written together or not at all.
pub(crate) struct Change<'a> {
    transaction: Transaction<'a>,
    key: &'a dyn RowKey,
    before: Head,
    head: Head,
}

impl<'a> Change<'a> {
    pub(crate) fn begin(
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

    /// The head as it was found.
    pub(crate) fn before(&self) -> Head {
        self.before
    }

    /// Counts a row in and answers with its tag.
    pub(crate) fn add(&mut self, row: &[u8]) -> [u8; 32] {
        self.head.toggle(self.key, row);
        self.key.tag("row", row)
    }

    /// Counts a row out.
    pub(crate) fn remove(&mut self, row: &[u8]) {
        self.head.toggle(self.key, row);
    }

    /// Counts this as a change that is to be noticed when it is gone.
    pub(crate) fn advance(&mut self) {
        self.head.generation += 1;
    }

    pub(crate) fn execute(&self, sql: &str, values: impl Params) -> rusqlite::Result<()> {
        self.transaction.prepare_cached(sql)?.execute(values).map(drop)
    }

    /// The first row of a query, read.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.transaction.prepare_cached(sql)?.query_row(values, read).optional()
    }

    /// All rows of a query, read.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.transaction.prepare_cached(sql)?.query_map(values, read)?.collect()
    }

    /// Answers with the head from now on. A row that was added, changed or removed shows in the
    /// sum: without one there is nothing to write.
    pub(crate) fn commit(self) -> rusqlite::Result<Head> {
        if self.head != self.before {
            self.head.write(&self.transaction, self.key)?;
            self.transaction.commit()?;
        }
        Ok(self.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_cannot_slide_into_each_other() {
        assert_ne!(encoded("t", &[b"ab", b"c"]), encoded("t", &[b"a", b"bc"]));
        assert_ne!(encoded("t", &[b"a"]), encoded("ta", &[]));
    }
}
