//! Each write as SQL, on a connection whose transaction is open.

use quorate_ports::Write;
use quorate_ports::store::SessionRow;
use quorate_types::*;
use rusqlite::{Connection, params};
use serde::Serialize;

/// Seconds after which an idempotency key is forgotten.
const IDEMPOTENCY_SECONDS: i64 = 24 * 3600;

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("stored values are plain data")
}

pub(crate) fn forget_old_idempotency(connection: &mut Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM idempotency WHERE created_at < unixepoch() - ?1",
        [IDEMPOTENCY_SECONDS],
    )
}

/// Applies one write.
pub(crate) fn apply(connection: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Session(row) => session(connection, row),
        Write::Key(key) => connection
            .prepare_cached("INSERT OR REPLACE INTO keys VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                key.key_id.0.as_bytes(),
                key.tenant.as_str(),
                key.public_key.0,
                key.created_at.0,
                json(key)
            ])
            .map(drop),
        Write::Account(account) => connection
            .prepare_cached("INSERT OR REPLACE INTO accounts VALUES (?1, ?2, ?3)")?
            .execute(params![account.id.0.as_bytes(), account.created_at.0, json(account)])
            .map(drop),
        Write::PendingKey { session, account: Some(account) } => connection
            .prepare_cached("INSERT OR REPLACE INTO pending_keys VALUES (?1, ?2)")?
            .execute(params![session.0.as_bytes(), account.0.as_bytes()])
            .map(drop),
        Write::PendingKey { session, account: None } => connection
            .prepare_cached("DELETE FROM pending_keys WHERE session = ?1")?
            .execute([session.0.as_bytes()])
            .map(drop),
        Write::Idempotency(row) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency (tenant, key, request_hash, session)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                row.tenant.as_str(),
                row.key,
                row.request_hash,
                row.session_id.0.as_bytes()
            ])
            .map(drop),
        Write::Party(row) => connection
            .prepare_cached("INSERT OR REPLACE INTO parties VALUES (?1, ?2, ?3)")?
            .execute(params![
                row.registration.party_id.as_str(),
                row.registered_at.0,
                json(&row.registration)
            ])
            .map(drop),
        Write::Message(row) if row.is_settled() => Ok(()),
        Write::Message(row) => message(connection, row),
        Write::Acknowledged { message, party } => acknowledged(connection, *message, party),
        Write::ForgetMessages(session) => connection
            .prepare_cached("DELETE FROM messages WHERE session = ?1")?
            .execute([session.0.as_bytes()])
            .map(drop),
        Write::ApiKey(row) => connection
            .prepare_cached("INSERT OR REPLACE INTO api_keys VALUES (?1, ?2, ?3)")?
            .execute(params![
                row.id,
                json(&(&row.tenant, &row.scopes, row.created_at, row.revoked)),
                row.hash
            ])
            .map(drop),
    }
}

fn session(connection: &Connection, row: &SessionRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            row.session_id.0.as_bytes(),
            row.tenant.as_str(),
            row.is_final,
            row.created_at.0,
            row.document
        ])
        .map(drop)
}

fn message(connection: &Connection, row: &MessageRow) -> rusqlite::Result<()> {
    let message = &row.message;
    connection
        .prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            message.message_id.0.as_bytes(),
            i64::try_from(row.sequence).unwrap_or(i64::MAX),
            message.session_id.0.as_bytes(),
            message.from_party.as_str(),
            message.is_broadcast,
            message.round,
            message.message_type,
            &message.payload[..],
            message.created_at.0
        ])?;
    let mut insert = connection
        .prepare_cached("INSERT INTO deliveries (message, place, party) VALUES (?1, ?2, ?3)")?;
    for (place, party) in (0_u32..).zip(&row.recipients) {
        insert.execute(params![message.message_id.0.as_bytes(), place, party.as_str()])?;
    }
    Ok(())
}

fn acknowledged(
    connection: &Connection,
    message: MessageId,
    party: &PartyId,
) -> rusqlite::Result<()> {
    let id = message.0.as_bytes();
    connection
        .prepare_cached("UPDATE deliveries SET acknowledged = 1 WHERE message = ?1 AND party = ?2")?
        .execute(params![id, party.as_str()])?;
    connection
        .prepare_cached(
            "DELETE FROM messages WHERE id = ?1 AND NOT EXISTS
             (SELECT 1 FROM deliveries WHERE message = ?1 AND acknowledged = 0)",
        )?
        .execute([id])
        .map(drop)
}
