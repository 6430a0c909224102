//! The questions, as SQL.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_ports::store::{
    ApiKeyRow, IdempotencyRow, PartyRow, RecoveredMessage, SessionRow,
};
use quorate_types::*;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// What lies in the database was written by us: anything else is damage.
fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error))
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let bytes: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&bytes).map_err(|error| damaged(column, error))
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let bytes: Vec<u8> = row.get(column)?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(column, error))
}

fn name<T: std::str::FromStr<Err = Error>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: Error| damaged(column, error))
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 32]> {
    row.get(column)
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        session_id: SessionId(id(row, 0)?),
        tenant: name(row, 1)?,
        is_final: row.get(2)?,
        created_at: Timestamp(row.get(3)?),
        document: row.get(4)?,
    })
}

pub(crate) fn open_sessions(connection: &Connection) -> rusqlite::Result<Vec<SessionRow>> {
    all(connection, "SELECT * FROM sessions WHERE is_final = 0 ORDER BY created_at", [], session_row)
}

pub(crate) fn session(
    connection: &Connection,
    id: SessionId,
) -> rusqlite::Result<Option<SessionRow>> {
    connection
        .prepare_cached("SELECT * FROM sessions WHERE id = ?1")?
        .query_row([id.0.as_bytes()], session_row)
        .optional()
}

pub(crate) fn sessions(
    connection: &Connection,
    tenant: Option<&Tenant>,
    before: Option<Timestamp>,
    limit: u32,
) -> rusqlite::Result<Vec<SessionRow>> {
    let before = before.map_or(i64::MAX, |before| before.0);
    match tenant {
        Some(tenant) => all(
            connection,
            "SELECT * FROM sessions WHERE tenant = ?1 AND created_at < ?2
             ORDER BY created_at DESC LIMIT ?3",
            params![tenant.as_str(), before, limit],
            session_row,
        ),
        None => all(
            connection,
            "SELECT * FROM sessions WHERE created_at < ?1 ORDER BY created_at DESC LIMIT ?2",
            params![before, limit],
            session_row,
        ),
    }
}

pub(crate) fn keys(
    connection: &Connection,
    tenant: Option<&Tenant>,
    limit: u32,
) -> rusqlite::Result<Vec<KeyRecord>> {
    let read = |row: &Row<'_>| json(row, 0);
    match tenant {
        Some(tenant) => all(
            connection,
            "SELECT document FROM keys WHERE tenant = ?1 ORDER BY created_at DESC LIMIT ?2",
            params![tenant.as_str(), limit],
            read,
        ),
        None => all(
            connection,
            "SELECT document FROM keys ORDER BY created_at DESC LIMIT ?1",
            [limit],
            read,
        ),
    }
}

pub(crate) fn key(connection: &Connection, id: KeyId) -> rusqlite::Result<Option<KeyRecord>> {
    connection
        .prepare_cached("SELECT document FROM keys WHERE id = ?1")?
        .query_row([id.0.as_bytes()], |row| json(row, 0))
        .optional()
}

pub(crate) fn key_by_public_key(
    connection: &Connection,
    public_key: &PublicKey,
) -> rusqlite::Result<Option<KeyRecord>> {
    connection
        .prepare_cached("SELECT document FROM keys WHERE public_key = ?1 LIMIT 1")?
        .query_row([&public_key.0], |row| json(row, 0))
        .optional()
}

pub(crate) fn idempotency(
    connection: &Connection,
    tenant: Tenant,
    key: String,
) -> rusqlite::Result<Option<IdempotencyRow>> {
    let found = connection
        .prepare_cached("SELECT request_hash, session FROM idempotency WHERE tenant = ?1 AND key = ?2")?
        .query_row([tenant.as_str(), &key], |row| Ok((hash(row, 0)?, SessionId(id(row, 1)?))))
        .optional()?;
    Ok(found.map(|(request_hash, session_id)| IdempotencyRow { tenant, key, request_hash, session_id }))
}

pub(crate) fn accounts(connection: &Connection) -> rusqlite::Result<Vec<Account>> {
    let sql = "SELECT document FROM accounts ORDER BY created_at, id";
    all(connection, sql, [], |row| json(row, 0))
}

pub(crate) fn pending_keys(
    connection: &Connection,
) -> rusqlite::Result<HashMap<SessionId, AccountId>> {
    let read = |row: &Row<'_>| Ok((SessionId(id(row, 0)?), AccountId(id(row, 1)?)));
    Ok(all(connection, "SELECT session, account FROM pending_keys", [], read)?.into_iter().collect())
}

pub(crate) fn messages(connection: &Connection) -> rusqlite::Result<Vec<RecoveredMessage>> {
    let mut deliveries = connection
        .prepare_cached("SELECT party, acknowledged FROM deliveries WHERE message = ?1 ORDER BY place")?;
    let mut read = |row: &Row<'_>| {
        let message_id = MessageId(id(row, 0)?);
        let message = Message {
            message_id,
            session_id: SessionId(id(row, 2)?),
            from_party: name(row, 3)?,
            is_broadcast: row.get(4)?,
            round: row.get(5)?,
            message_type: row.get(6)?,
            payload: row.get::<_, Vec<u8>>(7)?.into(),
            created_at: Timestamp(row.get(8)?),
        };
        let sequence = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
        let parties: Vec<(PartyId, bool)> = deliveries
            .query_map([message_id.0.as_bytes()], |row| Ok((name(row, 0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let acknowledged = parties.iter().filter(|(_, done)| *done).map(|(p, _)| p.clone()).collect();
        let recipients = parties.into_iter().map(|(party, _)| party).collect();
        let row = Arc::new(MessageRow::new(message, sequence, recipients));
        Ok(RecoveredMessage { row, acknowledged })
    };
    all(connection, "SELECT * FROM messages ORDER BY sequence", [], &mut read)
}

pub(crate) fn parties(connection: &Connection) -> rusqlite::Result<Vec<PartyRow>> {
    all(connection, "SELECT document, registered_at FROM parties ORDER BY id", [], |row| {
        Ok(PartyRow { registration: json(row, 0)?, registered_at: Timestamp(row.get(1)?) })
    })
}

pub(crate) fn api_keys(connection: &Connection) -> rusqlite::Result<Vec<ApiKeyRow>> {
    all(connection, "SELECT id, document, hash FROM api_keys ORDER BY id", [], |row| {
        let (tenant, scopes, created_at, revoked) = json(row, 1)?;
        Ok(ApiKeyRow { id: row.get(0)?, hash: hash(row, 2)?, tenant, scopes, created_at, revoked })
    })
}
