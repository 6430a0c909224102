//! The group relay's changes and questions, as SQL.

use quorate_ports::GroupWrite;
use quorate_ports::groups::{GroupClientRow, GroupRow, GroupSessionRow, KeptGroups};
use quorate_types::{GroupId, SessionId};
use rusqlite::{Connection, params};

use crate::columns::{id, unsigned};
use crate::reads;
use crate::rows::execute;

/// Bytes that a change makes wait in the queue.
pub(crate) fn bytes(write: &GroupWrite) -> usize {
    match write {
        GroupWrite::Group(row) => row.document.len(),
        GroupWrite::Session(row) => row.document.len(),
        _ => 0,
    }
}

/// Applies one change.
pub(crate) fn apply(connection: &Connection, write: &GroupWrite) -> rusqlite::Result<()> {
    match write {
        GroupWrite::Client(row) => execute(
            connection,
            "INSERT OR REPLACE INTO relay_clients (id, token_hash) VALUES (?1, ?2)",
            params![row.client.cast_signed(), row.token_hash],
        ),
        GroupWrite::ForgetClient(client) => {
            let sql = "DELETE FROM relay_clients WHERE id = ?1";
            execute(connection, sql, [client.cast_signed()])
        }
        GroupWrite::Group(row) => execute(
            connection,
            "INSERT OR REPLACE INTO relay_groups (id, document) VALUES (?1, ?2)",
            params![row.id.0.as_bytes(), row.document],
        ),
        GroupWrite::ForgetGroup(group) => {
            let sql = "DELETE FROM relay_sessions WHERE of_group = ?1";
            execute(connection, sql, [group.0.as_bytes()])?;
            let sql = "DELETE FROM relay_groups WHERE id = ?1";
            execute(connection, sql, [group.0.as_bytes()])
        }
        GroupWrite::Session(row) => execute(
            connection,
            "INSERT OR REPLACE INTO relay_sessions (id, of_group, document) VALUES (?1, ?2, ?3)",
            params![row.id.0.as_bytes(), row.group.0.as_bytes(), row.document],
        ),
        GroupWrite::ForgetSession(session) => {
            let sql = "DELETE FROM relay_sessions WHERE id = ?1";
            execute(connection, sql, [session.0.as_bytes()])
        }
    }
    .map(drop)
}

/// All that is kept.
pub(crate) fn all(connection: &Connection) -> rusqlite::Result<KeptGroups> {
    let client = |row: &rusqlite::Row<'_>| {
        Ok(GroupClientRow { client: unsigned(row, 0)?, token_hash: row.get(1)? })
    };
    let group =
        |row: &rusqlite::Row<'_>| Ok(GroupRow { id: GroupId(id(row, 0)?), document: row.get(1)? });
    let session = |row: &rusqlite::Row<'_>| {
        let group = GroupId(id(row, 1)?);
        Ok(GroupSessionRow { id: SessionId(id(row, 0)?), group, document: row.get(2)? })
    };
    let clients = "SELECT id, token_hash FROM relay_clients ORDER BY id";
    let groups = "SELECT id, document FROM relay_groups ORDER BY id";
    let sessions = "SELECT id, of_group, document FROM relay_sessions ORDER BY id";
    Ok(KeptGroups {
        clients: reads::all(connection, clients, [], client)?,
        groups: reads::all(connection, groups, [], group)?,
        sessions: reads::all(connection, sessions, [], session)?,
    })
}
