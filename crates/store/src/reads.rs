//! The questions, as SQL.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_ports::store::{
    ApiKeyRow, DelegateShareRow, IdempotencyRow, LentShareRow, PartyRow, RecoveredMessage,
    SessionRow,
};
use quorate_types::*;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};
use uuid::Uuid;

use crate::columns::{document, id, is_damage, name, unsigned};
use crate::rows::name_owner;

fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, read).optional()
}

/// All rows that can be read. One that cannot is reported and left out: it stops neither a list nor
/// the start.
pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(value) => found.push(value),
            Err(error) if is_damage(&error) => {
                tracing::error!(%error, sql, "a damaged row is left out; restore it from a backup");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// A page of rows that begin with their id and their time, among those of one kind, or all.
pub(crate) fn page<T>(
    connection: &Connection,
    sql: &str,
    (among, before, limit): (Option<&str>, Option<Cursor>, u32),
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Page<T>> {
    let before = before.unwrap_or(Cursor { at: Timestamp(i64::MAX), id: Uuid::max() });
    let params = params![among, before.at.0, before.id.as_bytes(), limit];
    let (mut rows, mut last) = (0, None);
    let items = all(connection, sql, params, |row| {
        rows += 1;
        last = None;
        last = Some(Cursor { id: id(row, 0)?, at: Timestamp(row.get(1)?) });
        read(row)
    })?;
    Ok(Page { items, next: last.filter(|_| rows == limit) })
}

fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        session_id: SessionId(id(row, 0)?),
        created_at: Timestamp(row.get(1)?),
        tenant: name(row, 2)?,
        is_final: row.get(3)?,
        version: row.get(4)?,
        document: row.get(5)?,
    })
}

pub(crate) fn open_sessions(connection: &Connection) -> rusqlite::Result<Vec<SessionRow>> {
    all(connection, OPEN_SESSIONS, [], session_row)
}

/// By name, since the planner would rather walk all sessions in their order.
pub(crate) const OPEN_SESSIONS: &str = "SELECT id, created_at, tenant, is_final, version, document
    FROM sessions INDEXED BY sessions_open_by_time WHERE is_final = 0 ORDER BY created_at, id";

pub(crate) fn session(
    connection: &Connection,
    id: SessionId,
) -> rusqlite::Result<Option<SessionRow>> {
    one(
        connection,
        "SELECT id, created_at, tenant, is_final, version, document FROM sessions WHERE id = ?1",
        [id.0.as_bytes()],
        session_row,
    )
}

pub(crate) fn sessions(
    connection: &Connection,
    tenant: Option<&Tenant>,
    before: Option<Cursor>,
    limit: u32,
) -> rusqlite::Result<Page<SessionRow>> {
    let sql = match tenant {
        Some(_) => {
            "SELECT id, created_at, tenant, is_final, version, document FROM sessions
             WHERE tenant = ?1 AND (created_at, id) < (?2, ?3)
             ORDER BY created_at DESC, id DESC LIMIT ?4"
        }
        None => {
            "SELECT id, created_at, tenant, is_final, version, document FROM sessions
             WHERE ?1 IS NULL AND (created_at, id) < (?2, ?3)
             ORDER BY created_at DESC, id DESC LIMIT ?4"
        }
    };
    page(connection, sql, (tenant.map(Tenant::as_str), before, limit), session_row)
}

/// Keys with what is said of a freeze; a condition comes behind.
macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "SELECT id, created_at, keys.version, keys.document, frozen.version, frozen.document
             FROM keys LEFT JOIN frozen_keys AS frozen ON frozen.key_id = keys.id ",
            $rest
        )
    };
}

pub(crate) fn keys(
    connection: &Connection,
    tenant: Option<&Tenant>,
    before: Option<Cursor>,
    limit: u32,
) -> rusqlite::Result<Page<KeyRecord>> {
    let sql = match tenant {
        Some(_) => select_keys!(
            "WHERE tenant = ?1 AND (created_at, id) < (?2, ?3)
             ORDER BY created_at DESC, id DESC LIMIT ?4"
        ),
        None => select_keys!(
            "WHERE ?1 IS NULL AND (created_at, id) < (?2, ?3)
             ORDER BY created_at DESC, id DESC LIMIT ?4"
        ),
    };
    page(connection, sql, (tenant.map(Tenant::as_str), before, limit), key_record)
}

/// A key was created when its first epoch was, whatever its document says of a later one.
fn key_record(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let record: KeyRecord = document(row, 2)?;
    let frozen = row.get::<_, Option<u32>>(4)?.map(|_| document(row, 4)).transpose()?;
    Ok(KeyRecord { created_at: Timestamp(row.get(1)?), frozen, ..record })
}

pub(crate) fn key(connection: &Connection, id: KeyId) -> rusqlite::Result<Option<KeyRecord>> {
    one(connection, select_keys!("WHERE id = ?1"), [id.0.as_bytes()], key_record)
}

pub(crate) fn epochs(connection: &Connection, key: KeyId) -> rusqlite::Result<Vec<EpochRecord>> {
    let sql = "SELECT version, document FROM key_epochs WHERE key_id = ?1 ORDER BY epoch";
    all(connection, sql, [key.0.as_bytes()], |row| document(row, 0))
}

pub(crate) fn bans(connection: &Connection, key: KeyId) -> rusqlite::Result<Vec<ReportedBan>> {
    let sql = "SELECT reporter, peer, reason, session, at, epoch FROM bans WHERE key_id = ?1
               ORDER BY epoch, at, reporter, peer";
    let ban = |row: &Row<'_>| {
        Ok(ReportedBan {
            key_id: key,
            epoch: row.get(5)?,
            reporter: name(row, 0)?,
            peer: name(row, 1)?,
            reason: row.get(2)?,
            session_id: SessionId(id(row, 3)?),
            at: Timestamp(row.get(4)?),
        })
    };
    connection.prepare_cached(sql)?.query_map([key.0.as_bytes()], ban)?.collect()
}

/// The oldest: nobody takes a key over by claiming its public key again.
pub(crate) fn key_by_public_key(
    connection: &Connection,
    public_key: &PublicKey,
) -> rusqlite::Result<Option<KeyRecord>> {
    let sql = select_keys!("WHERE public_key = ?1 ORDER BY created_at, id LIMIT 1");
    one(connection, sql, [&public_key.0], key_record)
}

pub(crate) fn idempotency(
    connection: &Connection,
    tenant: Tenant,
    key: String,
) -> rusqlite::Result<Option<IdempotencyRow>> {
    let found = one(
        connection,
        "SELECT request_hash, session, version FROM idempotency WHERE tenant = ?1 AND key = ?2",
        [tenant.as_str(), &key],
        |row| Ok((row.get(0)?, SessionId(id(row, 1)?), row.get(2)?)),
    )?;
    Ok(found.map(|(request_hash, session_id, version)| IdempotencyRow {
        tenant,
        key,
        version,
        request_hash,
        session_id,
    }))
}

pub(crate) fn delegate_share(
    connection: &Connection,
    session_id: SessionId,
    party_id: PartyId,
) -> rusqlite::Result<Option<DelegateShareRow>> {
    let found = one(
        connection,
        "SELECT tenant, package FROM delegate_shares WHERE session = ?1 AND party = ?2",
        params![session_id.0.as_bytes(), party_id.as_str()],
        |row| Ok((name(row, 0)?, row.get::<_, Vec<u8>>(1)?)),
    )?;
    Ok(found.map(|(tenant, package)| {
        let package = package.into();
        DelegateShareRow { session_id, party_id, tenant, package }
    }))
}

pub(crate) fn delegate_shares(connection: &Connection, tenant: &Tenant) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM delegate_shares WHERE tenant = ?1";
    connection.prepare_cached(sql)?.query_row([tenant.as_str()], |row| unsigned(row, 0))
}

pub(crate) fn lent_shares(connection: &Connection) -> rusqlite::Result<Vec<LentShareRow>> {
    let sql = "SELECT session, delegate, holder_index, package FROM lent_shares";
    all(connection, sql, [], |row| {
        let lent = LentShare {
            delegate: name(row, 1)?,
            holder_index: PartyIndex(row.get(2)?),
            package: row.get::<_, Vec<u8>>(3)?.into(),
        };
        Ok(LentShareRow { session_id: SessionId(id(row, 0)?), lent })
    })
}

pub(crate) fn accounts(connection: &Connection) -> rusqlite::Result<Vec<Account>> {
    let sql = "SELECT version, document FROM accounts ORDER BY created_at, id";
    all(connection, sql, [], |row| document(row, 0))
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
    let sql = "SELECT version, document, registered_at, id FROM parties ORDER BY id";
    all(connection, sql, [], |row| {
        let (owner, registered_at) = (name_owner(&row.get::<_, String>(3)?), row.get(2)?);
        let registered_at = Timestamp(registered_at);
        Ok(PartyRow { owner, registration: document(row, 0)?, registered_at })
    })
}

/// A key's document, and its shape before version 3.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum ApiKeyDocument {
    Now(ApiKey),
    Before(Tenant, Vec<Scope>, Timestamp, bool),
}

pub(crate) fn api_keys(connection: &Connection) -> rusqlite::Result<Vec<ApiKeyRow>> {
    all(connection, "SELECT id, hash, version, document FROM api_keys ORDER BY id", [], |row| {
        let key = match document(row, 2)? {
            ApiKeyDocument::Now(key) => key,
            ApiKeyDocument::Before(tenant, scopes, created_at, revoked) => ApiKey {
                id: name(row, 0)?,
                label: None,
                tenant,
                scopes,
                created_at,
                expires_at: None,
                last_used_at: None,
                revoked,
            },
        };
        Ok(ApiKeyRow { hash: row.get(1)?, key })
    })
}
