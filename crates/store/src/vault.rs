//! What a party keeps on its own machine: sealed shares, bans and pinned identities.

use std::path::Path;

use async_trait::async_trait;
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, SealedShare};
use quorate_types::*;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::columns::{id, json, name, to_json};
use crate::database::{Blocking, FolderLock, Schema, failed, open_database};

const SCHEMA: Schema =
    Schema { name: "vault", steps: &[include_str!("migrations/0001_vault.sql")] };

/// A vault in one SQLite file. Every method returns after its change was synced.
pub struct SqliteVault {
    connection: Blocking,
    _lock: FolderLock,
}

impl SqliteVault {
    /// Opens `vault.db` in a folder, making both where they are missing.
    ///
    /// Refuses a folder that another process uses, and a database of a newer program.
    pub fn open(folder: &Path) -> Result<Self> {
        let lock = FolderLock::take(folder)?;
        let connection = open_database(&folder.join("vault.db"), &SCHEMA)?;
        // A share that was refreshed away must not be found in the file's free pages.
        connection.pragma_update(None, "secure_delete", true).map_err(failed)?;
        Ok(Self { connection: Blocking::new(connection), _lock: lock })
    }
}

/// Clears the log, where the old bytes of a replaced share would lie until it is reused.
fn clear_log(connection: &Connection) {
    let cleared = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = cleared {
        // The change itself is on the disk: this is made up for with the next one.
        tracing::warn!(%error, "the vault's log could not be cleared");
    }
}

fn share(row: &Row<'_>) -> rusqlite::Result<SealedShare> {
    Ok(SealedShare {
        key_id: KeyId(id(row, 0)?),
        epoch: row.get(1)?,
        share_index: ShareIndex(row.get(2)?),
        record: json(row, 3)?,
        identities: json(row, 4)?,
        sealed: row.get(5)?,
    })
}

fn put(connection: &Connection, share: &SealedShare) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "INSERT INTO shares (key_id, epoch, share_index, created_at, record, identities, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (key_id) DO UPDATE SET epoch = excluded.epoch,
         share_index = excluded.share_index, created_at = excluded.created_at,
         record = excluded.record, identities = excluded.identities, sealed = excluded.sealed
         WHERE excluded.epoch = shares.epoch + 1",
        params![
            share.key_id.0.as_bytes(),
            share.epoch,
            share.share_index.0,
            share.record.created_at.0,
            to_json(&share.record),
            to_json(&share.identities),
            share.sealed
        ],
    )?;
    clear_log(connection);
    Ok(changed == 1)
}

#[async_trait]
impl Vault for SqliteVault {
    async fn put_share(&self, share: SealedShare) -> Result<()> {
        if self.connection.run(move |connection| put(connection, &share)).await? {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::Conflict,
            "the vault holds a share of this key, and only one of the next epoch replaces it",
        ))
    }

    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>> {
        self.connection
            .run(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT key_id, epoch, share_index, record, identities, sealed
                         FROM shares WHERE key_id = ?1",
                    )?
                    .query_row([key.0.as_bytes()], share)
                    .optional()
            })
            .await
    }

    async fn shares(&self) -> Result<Vec<SealedShare>> {
        self.connection
            .run(|connection| {
                connection
                    .prepare_cached(
                        "SELECT key_id, epoch, share_index, record, identities, x''
                         FROM shares ORDER BY created_at DESC, key_id DESC",
                    )?
                    .query_map([], share)?
                    .collect()
            })
            .await
    }

    async fn ban(&self, ban: Ban) -> Result<()> {
        // Of two bans of one peer the first one tells what happened.
        let sql = "INSERT OR IGNORE INTO bans (key_id, epoch, peer, reason, at)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        self.connection
            .run(move |connection| {
                let (key, peer) = (ban.key_id.0.as_bytes(), ban.peer.as_str());
                connection.execute(sql, params![key, ban.epoch, peer, ban.reason, ban.at.0])
            })
            .await
            .map(drop)
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        let sql = "SELECT epoch, peer, reason, at FROM bans WHERE key_id = ?1 ORDER BY epoch, peer";
        let read = move |row: &Row<'_>| {
            Ok(Ban {
                key_id: key,
                epoch: row.get(0)?,
                peer: name(row, 1)?,
                reason: row.get(2)?,
                at: Timestamp(row.get(3)?),
            })
        };
        self.connection
            .run(move |connection| {
                connection.prepare_cached(sql)?.query_map([key.0.as_bytes()], read)?.collect()
            })
            .await
    }

    async fn pin(&self, peer: &PartyId, identity: [u8; 32]) -> Result<[u8; 32]> {
        let peer = peer.clone();
        self.connection
            .run(move |connection| {
                connection
                    .prepare_cached("INSERT OR IGNORE INTO pins (peer, identity) VALUES (?1, ?2)")?
                    .execute(params![peer.as_str(), identity])?;
                connection
                    .prepare_cached("SELECT identity FROM pins WHERE peer = ?1")?
                    .query_row([peer.as_str()], |row| row.get(0))
            })
            .await
    }
}
