//! What a party keeps on its own machine: sealed shares, bans and pinned identities.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, SealedShare};
use quorate_types::*;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use crate::database::{FolderLock, Schema, failed, open_database};
use crate::rows::json;

const SCHEMA: Schema = Schema { name: "vault", steps: &[include_str!("migrations/0001_vault.sql")] };

/// A vault in one SQLite file. Every method returns after its change was synced.
pub struct SqliteVault {
    connection: Arc<Mutex<Connection>>,
    _lock: FolderLock,
}

impl SqliteVault {
    /// Opens `vault.db` in a folder, making both where they are missing.
    pub fn open(folder: &Path) -> Result<Self> {
        let lock = FolderLock::take(folder)?;
        let connection = open_database(&folder.join("vault.db"), &SCHEMA)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), _lock: lock })
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.connection.clone();
        let work = move || {
            let connection = connection.lock().map_err(|_| Error::internal())?;
            work(&connection).map_err(failed)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::internal())?
    }
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}

fn share(row: &Row<'_>) -> rusqlite::Result<SealedShare> {
    let key: Vec<u8> = row.get(0)?;
    let record: Vec<u8> = row.get(3)?;
    let identities: Vec<u8> = row.get(4)?;
    Ok(SealedShare {
        key_id: KeyId(Uuid::from_slice(&key).map_err(damaged)?),
        epoch: row.get(1)?,
        share_index: ShareIndex(row.get(2)?),
        record: serde_json::from_slice(&record).map_err(damaged)?,
        identities: serde_json::from_slice(&identities).map_err(damaged)?,
        sealed: row.get(5)?,
    })
}

#[async_trait]
impl Vault for SqliteVault {
    async fn put_share(&self, share: SealedShare) -> Result<()> {
        let changed = self
            .with(move |connection| {
                connection.execute(
                    "INSERT INTO shares VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (key_id) DO UPDATE SET epoch = ?2, share_index = ?3,
                     created_at = ?4, record = ?5, identities = ?6, sealed = ?7 WHERE epoch <= ?2",
                    params![
                        share.key_id.0.as_bytes(),
                        share.epoch,
                        share.share_index.0,
                        share.record.created_at.0,
                        json(&share.record),
                        json(&share.identities),
                        share.sealed
                    ],
                )
            })
            .await?;
        if changed == 1 {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Conflict, "a share of a later epoch of this key is in the vault"))
    }

    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>> {
        self.with(move |connection| {
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
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT key_id, epoch, share_index, record, identities, x''
                     FROM shares ORDER BY created_at DESC",
                )?
                .query_map([], share)?
                .collect()
        })
        .await
    }

    async fn remove_share(&self, key: KeyId) -> Result<()> {
        self.with(move |connection| {
            connection.execute("DELETE FROM shares WHERE key_id = ?1", [key.0.as_bytes()])
        })
        .await
        .map(drop)
    }

    async fn ban(&self, ban: Ban) -> Result<()> {
        self.with(move |connection| {
            connection.execute(
                "INSERT OR IGNORE INTO bans VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    ban.key_id.0.as_bytes(),
                    ban.epoch,
                    ban.peer.as_str(),
                    ban.reason,
                    ban.at.0
                ],
            )
        })
        .await
        .map(drop)
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        self.with(move |connection| {
            connection
                .prepare_cached("SELECT epoch, peer, reason, at FROM bans WHERE key_id = ?1")?
                .query_map([key.0.as_bytes()], |row| {
                    let peer: String = row.get(1)?;
                    Ok(Ban {
                        key_id: key,
                        epoch: row.get(0)?,
                        peer: peer.parse().map_err(|error: Error| damaged(error))?,
                        reason: row.get(2)?,
                        at: Timestamp(row.get(3)?),
                    })
                })?
                .collect()
        })
        .await
    }

    async fn pin(&self, peer: &PartyId, identity: [u8; 32]) -> Result<[u8; 32]> {
        let peer = peer.clone();
        self.with(move |connection| {
            connection
                .prepare_cached("INSERT OR IGNORE INTO pins VALUES (?1, ?2)")?
                .execute(params![peer.as_str(), identity])?;
            connection
                .prepare_cached("SELECT identity FROM pins WHERE peer = ?1")?
                .query_row([peer.as_str()], |row| row.get(0))
        })
        .await
    }
}
