//! The ledger's rows: how each is read and written, and the bytes over which its tag is made.

use quorate_ports::ledger::{Consumed, Remembered};
use quorate_ports::vault::RowKey;
use quorate_types::*;
use rusqlite::{Connection, Row, params};

use crate::columns::{id, unsigned};
use crate::head::{Change, Table, encoded};

const CONSUMED: &str = "nonce, session_id, key_id, at, keep_until, tag";
const TOTAL: &str = "key_id, total, tag";

pub(super) const TABLES: [Table; 2] = [
    Table { name: "consumed", columns: CONSUMED, names: 1, tag: 5, encoding: consumed_encoding },
    Table { name: "totals", columns: TOTAL, names: 1, tag: 2, encoding: total_encoding },
];

fn consumed_encoding(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let (at, keep_until): (i64, i64) = (row.get(3)?, row.get(4)?);
    Ok(encoded(
        "consumed",
        &[
            row.get_ref(0)?.as_bytes()?,
            row.get_ref(1)?.as_bytes()?,
            row.get_ref(2)?.as_bytes()?,
            &at.to_be_bytes(),
            &keep_until.to_be_bytes(),
        ],
    ))
}

fn total_encoding(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    Ok(encoded_total(row.get_ref(0)?.as_bytes()?, row.get(1)?))
}

fn encoded_total(key: &[u8], total: i64) -> Vec<u8> {
    encoded("totals", &[key, &total.to_be_bytes()])
}

fn bytes(key: Option<KeyId>) -> Vec<u8> {
    key.map(|key| key.0.as_bytes().to_vec()).unwrap_or_default()
}

/// Writes and counts requests, and drops those whose time is over. `false` when a count is not as
/// it was written.
pub(super) fn write<'a>(
    change: &mut Change<'_>,
    row_key: &dyn RowKey,
    group: impl Iterator<Item = &'a Consumed>,
) -> rusqlite::Result<bool> {
    let mut now = Timestamp(i64::MIN);
    for Consumed { nonce, session, key, at, keep_until } in group {
        now = now.max(*at);
        let (session, key) = (session.0.as_bytes(), bytes(*key));
        let (from, until) = (at.0.to_be_bytes(), keep_until.0.to_be_bytes());
        let tag = change.add(&encoded("consumed", &[nonce, session, &key, &from, &until]));
        let sql = "INSERT INTO consumed (nonce, session_id, key_id, at, keep_until, tag)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        change.execute(sql, params![nonce, session, key, at.0, keep_until.0, tag])?;
        if !count(change, row_key, &key)? {
            return Ok(false);
        }
    }
    let over = format!("SELECT {CONSUMED} FROM consumed WHERE keep_until < ?1");
    for row in change.all(&over, [now.0], consumed_encoding)? {
        change.remove(&row);
    }
    change.execute("DELETE FROM consumed WHERE keep_until < ?1", [now.0])?;
    Ok(true)
}

/// Counts a use of a key. A count that somebody has changed is not carried on.
fn count(change: &mut Change<'_>, row_key: &dyn RowKey, key: &[u8]) -> rusqlite::Result<bool> {
    let sql = format!("SELECT {TOTAL} FROM totals WHERE key_id = ?1");
    let before = change.first(&sql, [key], |row| {
        Ok((total_encoding(row)?, row.get::<_, i64>(1)?, row.get::<_, Option<[u8; 32]>>(2)?))
    })?;
    let total = match before {
        None => 1,
        Some((row, total, tag)) => {
            if tag != Some(row_key.tag("row", &row)) {
                return Ok(false);
            }
            change.remove(&row);
            total + 1
        }
    };
    let tag = change.add(&encoded_total(key, total));
    let sql = "INSERT OR REPLACE INTO totals (key_id, total, tag) VALUES (?1, ?2, ?3)";
    change.execute(sql, params![key, total, tag])?;
    Ok(true)
}

fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<KeyId>> {
    match row.get_ref(column)?.as_bytes()? {
        [] => Ok(None),
        _ => Ok(Some(KeyId(id(row, column)?))),
    }
}

/// Reads what has to be remembered after `now`.
pub(super) fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Remembered> {
    let consumed = |row: &Row<'_>| {
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
    let total = |row: &Row<'_>| Ok((key(row, 0)?, unsigned(row, 1)?));
    let sql = "SELECT key_id, total FROM totals";
    let totals =
        connection.prepare_cached(sql)?.query_map([], total)?.collect::<rusqlite::Result<_>>()?;
    Ok(Remembered { consumed, totals })
}
