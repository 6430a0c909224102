//! The questions, as SQL.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_ports::store::{ApiKeyRow, IdempotencyRow, PartyRow, RecoveredMessage, SessionRow};
use quorate_types::*;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};

use crate::columns::{id, json, name, unsigned};

fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, read).optional()
}

pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
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
    all(
        connection,
        "SELECT id, tenant, is_final, created_at, document FROM sessions
         WHERE is_final = 0 ORDER BY created_at, id",
        [],
        session_row,
    )
}

pub(crate) fn session(
    connection: &Connection,
    id: SessionId,
) -> rusqlite::Result<Option<SessionRow>> {
    one(
        connection,
        "SELECT id, tenant, is_final, created_at, document FROM sessions WHERE id = ?1",
        [id.0.as_bytes()],
        session_row,
    )
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
            "SELECT id, tenant, is_final, created_at, document FROM sessions
             WHERE tenant = ?1 AND created_at < ?2
             ORDER BY created_at DESC, id DESC LIMIT ?3",
            params![tenant.as_str(), before, limit],
            session_row,
        ),
        None => all(
            connection,
            "SELECT id, tenant, is_final, created_at, document FROM sessions
             WHERE created_at < ?1 ORDER BY created_at DESC, id DESC LIMIT ?2",
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
            "SELECT document FROM keys WHERE tenant = ?1
             ORDER BY created_at DESC, id DESC LIMIT ?2",
            params![tenant.as_str(), limit],
            read,
        ),
        None => all(
            connection,
            "SELECT document FROM keys ORDER BY created_at DESC, id DESC LIMIT ?1",
            [limit],
            read,
        ),
    }
}

pub(crate) fn key(connection: &Connection, id: KeyId) -> rusqlite::Result<Option<KeyRecord>> {
    let sql = "SELECT document FROM keys WHERE id = ?1";
    one(connection, sql, [id.0.as_bytes()], |row| json(row, 0))
}

/// The oldest: nobody takes a key over by claiming its public key again.
pub(crate) fn key_by_public_key(
    connection: &Connection,
    public_key: &PublicKey,
) -> rusqlite::Result<Option<KeyRecord>> {
    let sql = "SELECT document FROM keys WHERE public_key = ?1 ORDER BY created_at, id LIMIT 1";
    one(connection, sql, [&public_key.0], |row| json(row, 0))
}

pub(crate) fn idempotency(
    connection: &Connection,
    tenant: Tenant,
    key: String,
) -> rusqlite::Result<Option<IdempotencyRow>> {
    let found = one(
        connection,
        "SELECT request_hash, session FROM idempotency WHERE tenant = ?1 AND key = ?2",
        [tenant.as_str(), &key],
        |row| Ok((row.get(0)?, SessionId(id(row, 1)?))),
    )?;
    Ok(found.map(|(request_hash, session_id)| IdempotencyRow {
        tenant,
        key,
        request_hash,
        session_id,
    }))
}

pub(crate) fn accounts(connection: &Connection) -> rusqlite::Result<Vec<Account>> {
    let sql = "SELECT document FROM accounts ORDER BY created_at, id";
    all(connection, sql, [], |row| json(row, 0))
}

pub(crate) fn pending_keys(
    connection: &Connection,
) -> rusqlite::Result<HashMap<SessionId, AccountId>> {
    let read = |row: &Row<'_>| Ok((SessionId(id(row, 0)?), AccountId(id(row, 1)?)));
    let rows = all(connection, "SELECT session, account FROM pending_keys", [], read)?;
    Ok(rows.into_iter().collect())
}

pub(crate) fn messages(connection: &Connection) -> rusqlite::Result<Vec<RecoveredMessage>> {
    let mut deliveries = connection.prepare_cached(
        "SELECT party, acknowledged FROM deliveries WHERE message = ?1 ORDER BY place",
    )?;
    let read = |row: &Row<'_>| {
        let message = message(row)?;
        let parties: Vec<(PartyId, bool)> = deliveries
            .query_map([message.message_id.0.as_bytes()], |row| Ok((name(row, 0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let acknowledged =
            parties.iter().filter(|(_, done)| *done).map(|(party, _)| party.clone()).collect();
        let recipients = parties.into_iter().map(|(party, _)| party).collect();
        let row = Arc::new(MessageRow::new(message, unsigned(row, 8)?, recipients));
        Ok(RecoveredMessage { row, acknowledged })
    };
    let sql = "SELECT id, session, from_party, is_broadcast, round, type, payload, created_at,
               sequence FROM messages ORDER BY rowid";
    let mut found = all(connection, sql, [], read)?;
    // Here and not in SQL, which would spill the bodies to the disk to sort them.
    found.sort_by_key(|message| message.row.sequence);
    Ok(found)
}

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        message_id: MessageId(id(row, 0)?),
        session_id: SessionId(id(row, 1)?),
        from_party: name(row, 2)?,
        is_broadcast: row.get(3)?,
        round: row.get(4)?,
        message_type: row.get(5)?,
        payload: row.get::<_, Vec<u8>>(6)?.into(),
        created_at: Timestamp(row.get(7)?),
    })
}

pub(crate) fn parties(connection: &Connection) -> rusqlite::Result<Vec<PartyRow>> {
    all(connection, "SELECT document, registered_at FROM parties ORDER BY id", [], |row| {
        Ok(PartyRow { registration: json(row, 0)?, registered_at: Timestamp(row.get(1)?) })
    })
}

pub(crate) fn api_keys(connection: &Connection) -> rusqlite::Result<Vec<ApiKeyRow>> {
    all(connection, "SELECT id, hash, document FROM api_keys ORDER BY id", [], |row| {
        let (tenant, scopes, created_at, revoked) = json(row, 2)?;
        Ok(ApiKeyRow { id: row.get(0)?, hash: row.get(1)?, tenant, scopes, created_at, revoked })
    })
}
