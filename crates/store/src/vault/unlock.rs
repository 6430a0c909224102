//! Whether a vault is the one that its party has used.

use quorate_ports::vault::{Unlock, VaultKey};
use quorate_types::{Error, Result};
use rusqlite::{Connection, params};

use super::rows;
use crate::head::{Found, Head, RESTORED, Table, adopt, examine};

const TABLES: [Table; 5] = [
    Table {
        name: "shares",
        columns: rows::SHARE,
        names: 2,
        tag: 9,
        encoding: rows::share_encoding,
    },
    Table { name: "bans", columns: rows::BAN, names: 3, tag: 6, encoding: rows::ban_encoding },
    Table { name: "pins", columns: rows::PIN, names: 2, tag: 3, encoding: rows::pin_encoding },
    Table {
        name: "witnessed",
        columns: rows::WITNESSED,
        names: 1,
        tag: 3,
        encoding: rows::witnessed_encoding,
    },
    Table {
        name: "ledger",
        columns: rows::LEDGER,
        names: 1,
        tag: 2,
        encoding: rows::ledger_encoding,
    },
];

/// Checks the head and every row, or writes both for a vault that has no head yet.
pub(super) fn unlock(
    connection: &mut Connection,
    key: &dyn VaultKey,
    how: Unlock,
) -> rusqlite::Result<Result<()>> {
    let found = examine(connection, key, &TABLES)?;
    let generation = match found {
        Found::Foreign => return Ok(Err(wrong_key())),
        Found::Intact(head) => {
            // A vault that is older as a whole shows to nobody but the peers.
            if how.accept_rollback {
                let generation = Head::restored(head.generation);
                Head { generation, ..head }.write(connection, key)?;
            }
            return Ok(Ok(()));
        }
        Found::Bare if how.known && !how.accept_rollback => {
            return Ok(Err(changed("it is not the vault that this party has used")));
        }
        Found::Bare if !opens_any(connection, key)? => return Ok(Err(wrong_key())),
        Found::Bare if how.known => RESTORED,
        Found::Bare => 0,
        Found::Changed(_) if !how.accept_rollback => {
            return Ok(Err(changed("rows were changed, removed or put back by something else")));
        }
        Found::Changed(head) => {
            tracing::warn!(
                "the vault was changed by something else and is taken as it is: refresh its keys"
            );
            Head::restored(head.generation)
        }
    };
    let transaction = connection.transaction()?;
    hash_shares(&transaction)?;
    adopt(&transaction, key, &TABLES, generation)?;
    transaction.commit().map(Ok)
}

/// Whether one of the shares opens, or there is none to try.
fn opens_any(connection: &Connection, key: &dyn VaultKey) -> rusqlite::Result<bool> {
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

/// Shares of before had no hash, which is part of what a tag is over.
fn hash_shares(connection: &Connection) -> rusqlite::Result<()> {
    let mut unhashed = Vec::new();
    {
        let mut query =
            connection.prepare("SELECT rowid, sealed FROM shares WHERE sealed_hash IS NULL")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let sealed = row.get_ref(1)?.as_bytes()?;
            unhashed.push((row.get::<_, i64>(0)?, rows::hash(sealed)));
        }
    }
    for (row, hash) in unhashed {
        connection
            .execute("UPDATE shares SET sealed_hash = ?2 WHERE rowid = ?1", params![row, hash])?;
    }
    Ok(())
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
