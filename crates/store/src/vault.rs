//! What a party keeps on its own machine: sealed shares, bans and pinned identities.

mod rows;
mod unlock;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use quorate_ports::Vault;
use quorate_ports::vault::{Ban, Contents, Pin, RowKey, SealedShare, ShareState, Unlock, VaultKey};
use quorate_types::*;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::columns::unsigned;
use crate::database::{Blocking, FolderLock, Schema, open_database};
use crate::head::{Change, generation};

const SCHEMA: Schema = Schema {
    name: "vault",
    steps: &[
        include_str!("migrations/0001_vault.sql"),
        include_str!("migrations/0002_vault.sql"),
        include_str!("migrations/0003_vault.sql"),
        include_str!("migrations/0004_vault.sql"),
    ],
    // A share that was replaced must not be found in the file's free pages.
    secure_delete: true,
};

/// A vault in one SQLite file. Every method returns after its change was synced.
pub struct SqliteVault {
    connection: Blocking,
    key: OnceLock<Arc<dyn VaultKey>>,
    /// The head's generation, which every handshake shows.
    generation: Arc<AtomicU64>,
    _lock: FolderLock,
}

impl SqliteVault {
    /// Opens `vault.db` in a folder, making both where they are missing.
    ///
    /// Refuses a folder that another process uses, and a database of a newer program.
    pub fn open(folder: &Path) -> Result<Self> {
        let lock = FolderLock::take(folder)?;
        let connection = open_database(&folder.join("vault.db"), &SCHEMA)?;
        clear_log(&connection);
        let connection = Blocking::new(connection);
        Ok(Self { connection, key: OnceLock::new(), generation: Arc::default(), _lock: lock })
    }

    /// Changes rows and head together; `work` may refuse, and then nothing is changed.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Change<'_>) -> rusqlite::Result<Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (key, generation) = (self.key()?, Arc::clone(&self.generation));
        self.connection
            .run(move |connection| {
                let mut change = Change::begin(connection, &*key)?;
                match work(&mut change)? {
                    Ok(done) => {
                        generation.store(change.commit()?.generation, Ordering::Release);
                        Ok(Ok(done))
                    }
                    Err(refused) => Ok(Err(refused)),
                }
            })
            .await?
    }

    /// How far the ledger was when that was last noted; `None` when there was no ledger.
    pub(crate) async fn noted_ledger(&self) -> Result<Option<u64>> {
        self.key()?;
        let sql = "SELECT generation FROM ledger";
        let read = |row: &rusqlite::Row<'_>| unsigned(row, 0);
        self.connection.run(move |connection| connection.query_row(sql, [], read).optional()).await
    }

    /// Notes how far the ledger is, and counts that as a change: a folder that is put back from
    /// before shows to the peers. Does nothing and answers `false` while the vault is in use.
    pub(crate) fn note_ledger(&self, ledger: u64) -> Result<bool> {
        let key = self.key()?;
        let noted = self.connection.try_run(|connection| {
            let mut change = Change::begin(connection, &*key)?;
            rows::note_ledger(&mut change, ledger)?;
            change.advance();
            self.generation.store(change.commit()?.generation, Ordering::Release);
            Ok(())
        });
        noted.transpose().map(|noted| noted.is_some())
    }

    async fn clear_log(&self) -> Result<()> {
        let cleared = |connection: &mut Connection| {
            clear_log(connection);
            Ok(())
        };
        self.connection.run(cleared).await
    }

    fn key(&self) -> Result<Arc<dyn VaultKey>> {
        self.key.get().cloned().ok_or_else(|| Error::unavailable("the vault is not unlocked"))
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

fn conflict<T>(why: &str) -> Result<T> {
    Err(Error::new(ErrorCode::Conflict, why))
}

fn damaged(key: KeyId) -> Error {
    Error::new(
        ErrorCode::Internal,
        format!(
            "this party's share of key {key} is damaged on the disk; restore it from an exported \
             share or the party's folder from a backup"
        ),
    )
}

/// Which of a key's shares and how many: the one that signs, or else waits to.
const CURRENT: (&str, i64) = ("state < 2", 1);
/// Which of a key's shares and how many: all that wait to follow another.
const LATER: (&str, i64) = ("state = 0 AND epoch > 0", -1);

/// Reads shares with their sealed bytes, the one that signs first and then the oldest, if their
/// tags and their hashes hold.
fn read_shares(
    connection: &Connection,
    key: &dyn RowKey,
    id: KeyId,
    (which, limit): (&str, i64),
) -> rusqlite::Result<Result<Vec<SealedShare>>> {
    let sql = format!(
        "SELECT {}, sealed FROM shares WHERE key_id = ?1 AND {which}
         ORDER BY state DESC, epoch LIMIT {limit}",
        rows::SHARE
    );
    connection
        .prepare_cached(&sql)?
        .query_map([id.0.as_bytes()], |row| {
            let sealed: Vec<u8> = row.get(10)?;
            let (hash, tag): (Option<[u8; 32]>, Option<[u8; 32]>) = (row.get(8)?, row.get(9)?);
            let encoding = rows::share_encoding(row)?;
            let known = tag == Some(key.tag("row", &encoding));
            if !known || hash != Some(rows::hash(&sealed)) {
                return Ok(Err(damaged(id)));
            }
            Ok(Ok(SealedShare { sealed, ..rows::share(row)? }))
        })?
        .collect()
}

fn insert(change: &mut Change<'_>, share: &SealedShare) -> rusqlite::Result<Result<()>> {
    let sql = "SELECT max(epoch), max(state = 1) FROM shares WHERE key_id = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, Option<u32>>(0)?, row.get::<_, Option<bool>>(1)?))
    };
    let held = change.first(sql, [share.key_id.0.as_bytes()], read)?;
    if let Some((Some(newest), active)) = held
        && (share.epoch <= newest || active != Some(true))
    {
        return Ok(conflict(
            "the vault holds a share of this key, and only one of a later epoch comes after the \
             one that signs",
        ));
    }
    rows::insert_share(change, share)?;
    change.advance();
    Ok(Ok(()))
}

/// Takes a share's row out of the sum and off the disk; answers with it as it was.
fn take(change: &mut Change<'_>, key: KeyId, epoch: u32) -> rusqlite::Result<Option<SealedShare>> {
    let sql =
        format!("SELECT {}, sealed FROM shares WHERE key_id = ?1 AND epoch = ?2", rows::SHARE);
    let taken = change.first(&sql, params![key.0.as_bytes(), epoch], |row| {
        Ok((rows::share_encoding(row)?, SealedShare { sealed: row.get(10)?, ..rows::share(row)? }))
    })?;
    let Some((encoding, share)) = taken else { return Ok(None) };
    change.remove(&encoding);
    let sql = "DELETE FROM shares WHERE key_id = ?1 AND epoch = ?2";
    change.execute(sql, params![key.0.as_bytes(), epoch])?;
    Ok(Some(share))
}

fn activate(
    change: &mut Change<'_>,
    key: KeyId,
    epoch: u32,
    confirmations: Vec<u8>,
) -> rusqlite::Result<Result<()>> {
    let sql = "SELECT state FROM shares WHERE key_id = ?1 AND epoch = ?2";
    let state = change.first(sql, params![key.0.as_bytes(), epoch], |row| row.get::<_, u8>(0))?;
    match state.map(rows::state) {
        None => return Ok(conflict("there is no such share to activate")),
        Some(ShareState::Retired) => {
            return Ok(conflict("the share belongs to an epoch that has ended"));
        }
        Some(ShareState::Active) => return Ok(Ok(())),
        Some(ShareState::Pending) => {}
    }
    let share = take(change, key, epoch)?.expect("it was there in this transaction");
    rows::insert_share(change, &SealedShare { state: ShareState::Active, confirmations, ..share })?;
    let sql = "SELECT max(epoch) FROM shares WHERE key_id = ?1 AND epoch < ?2 AND state < 2";
    let of = params![key.0.as_bytes(), epoch];
    while let Some(Some(before)) = change.first(sql, of, |row| row.get::<_, Option<u32>>(0))? {
        if let Some(old) = take(change, key, before)? {
            let retired = SealedShare { state: ShareState::Retired, sealed: Vec::new(), ..old };
            rows::insert_share(change, &retired)?;
        }
    }
    change.advance();
    Ok(Ok(()))
}

#[async_trait]
impl Vault for SqliteVault {
    async fn contents(&self) -> Result<Contents> {
        self.connection
            .run(|connection| {
                let count = connection
                    .query_row("SELECT count(*) FROM shares", [], |row| row.get::<_, i64>(0))?;
                Ok(Contents { shares: count.cast_unsigned() })
            })
            .await
    }

    async fn unlock(&self, key: Arc<dyn VaultKey>, how: Unlock) -> Result<()> {
        let (unlocking, current) = (key.clone(), Arc::clone(&self.generation));
        self.connection
            .run(move |connection| {
                let unlocked = unlock::unlock(connection, &*unlocking, how)?;
                if unlocked.is_ok() {
                    current.store(generation(connection)?, Ordering::Release);
                }
                clear_log(connection);
                Ok(unlocked)
            })
            .await??;
        self.key.set(key).map_err(|_| Error::internal())
    }

    async fn generation(&self) -> Result<u64> {
        self.key()?;
        Ok(self.generation.load(Ordering::Acquire))
    }

    async fn insert(&self, share: SealedShare) -> Result<()> {
        self.change(move |change| insert(change, &share)).await
    }

    async fn activate(&self, key: KeyId, epoch: u32, confirmations: Vec<u8>) -> Result<()> {
        self.change(move |change| activate(change, key, epoch, confirmations)).await?;
        self.clear_log().await
    }

    async fn discard(&self, key: KeyId, epoch: u32) -> Result<bool> {
        let discarded = self
            .change(move |change| {
                let found = take(change, key, epoch)?.is_some();
                if found {
                    change.advance();
                }
                Ok(Ok(found))
            })
            .await?;
        self.clear_log().await?;
        Ok(discarded)
    }

    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>> {
        let row_key = self.key()?;
        let shares =
            self.connection.run(move |c| read_shares(c, &*row_key, key, CURRENT)).await??;
        Ok(shares.into_iter().next())
    }

    async fn later_shares(&self, key: KeyId) -> Result<Vec<SealedShare>> {
        let row_key = self.key()?;
        self.connection.run(move |c| read_shares(c, &*row_key, key, LATER)).await?
    }

    async fn shares(&self) -> Result<Vec<SealedShare>> {
        self.connection
            .run(|connection| {
                let sql = format!(
                    "SELECT {} FROM shares WHERE state < 2
                     ORDER BY created_at DESC, key_id DESC, epoch DESC",
                    rows::SHARE
                );
                connection.prepare_cached(&sql)?.query_map([], rows::share)?.collect()
            })
            .await
    }

    async fn pending(&self, tenant: &Tenant) -> Result<u64> {
        let tenant = tenant.clone();
        let sql = "SELECT count(*) FROM shares WHERE state = 0 AND tenant = ?1";
        self.connection
            .run(move |connection| {
                let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
                connection.prepare_cached(sql)?.query_row([tenant.as_str()], count)
            })
            .await
            .map(i64::cast_unsigned)
    }

    async fn ban(&self, ban: Ban) -> Result<()> {
        self.change(move |change| {
            let sql = "SELECT 1 FROM bans WHERE key_id = ?1 AND epoch = ?2 AND peer = ?3";
            let of = params![ban.key_id.0.as_bytes(), ban.epoch, ban.peer.as_str()];
            // Of two bans of one peer the first one tells what happened.
            if change.first(sql, of, |_| Ok(()))?.is_none() {
                rows::insert_ban(change, &ban)?;
                change.advance();
            }
            Ok(Ok(()))
        })
        .await
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        let sql = format!("SELECT {} FROM bans WHERE key_id = ?1 ORDER BY epoch, peer", rows::BAN);
        self.connection
            .run(move |connection| {
                connection.prepare_cached(&sql)?.query_map([key.0.as_bytes()], rows::ban)?.collect()
            })
            .await
    }

    async fn pinned(&self, tenant: &Tenant, peer: &PartyId) -> Result<Option<[u8; 32]>> {
        let (tenant, peer) = (tenant.clone(), peer.clone());
        let sql = "SELECT identity FROM pins WHERE tenant IN ('', ?1) AND peer = ?2
                   ORDER BY tenant LIMIT 1";
        self.connection
            .run(move |connection| {
                connection
                    .prepare_cached(sql)?
                    .query_row([tenant.as_str(), peer.as_str()], |row| row.get(0))
                    .optional()
            })
            .await
    }

    async fn pin(&self, pin: Pin) -> Result<[u8; 32]> {
        self.change(move |change| {
            let sql = "SELECT identity FROM pins WHERE tenant = ?1 AND peer = ?2";
            let of = [rows::place(pin.tenant.as_ref()), pin.peer.as_str()];
            let known = change.first(sql, of, |row| row.get(0))?;
            if known.is_none() {
                rows::insert_pin(change, &pin)?;
            }
            Ok(Ok(known.unwrap_or(pin.identity)))
        })
        .await
    }

    async fn pins(&self) -> Result<Vec<Pin>> {
        let sql = format!("SELECT {} FROM pins ORDER BY tenant, peer", rows::PIN);
        self.connection
            .run(move |connection| {
                connection.prepare_cached(&sql)?.query_map([], rows::pin)?.collect()
            })
            .await
    }

    async fn unpin(&self, tenant: Option<&Tenant>, peer: &PartyId) -> Result<bool> {
        let (place, peer) = (rows::place(tenant).to_owned(), peer.clone());
        self.change(move |change| {
            let sql = format!("SELECT {} FROM pins WHERE tenant = ?1 AND peer = ?2", rows::PIN);
            let of = [place.as_str(), peer.as_str()];
            let Some(encoding) = change.first(&sql, of, rows::pin_encoding)? else {
                return Ok(Ok(false));
            };
            change.remove(&encoding);
            change.execute("DELETE FROM pins WHERE tenant = ?1 AND peer = ?2", of)?;
            Ok(Ok(true))
        })
        .await
    }

    async fn witnessed(&self, identity: &[u8; 32]) -> Result<Option<(u64, Bytes)>> {
        let identity = *identity;
        let sql = "SELECT generation, handshake FROM witnessed WHERE identity = ?1";
        self.connection
            .run(move |connection| {
                connection
                    .prepare_cached(sql)?
                    .query_row([identity], |row| {
                        let generation = row.get::<_, i64>(0)?.cast_unsigned();
                        Ok((generation, Bytes::from(row.get::<_, Vec<u8>>(1)?)))
                    })
                    .optional()
            })
            .await
    }

    async fn witness(&self, identity: [u8; 32], generation: u64, handshake: Bytes) -> Result<()> {
        self.change(move |change| {
            let sql = format!("SELECT {} FROM witnessed WHERE identity = ?1", rows::WITNESSED);
            let known = change.first(&sql, [identity], |row| {
                Ok((row.get::<_, i64>(1)?.cast_unsigned(), rows::witnessed_encoding(row)?))
            })?;
            if let Some((newest, encoding)) = known {
                if newest >= generation {
                    return Ok(Ok(()));
                }
                change.remove(&encoding);
                change.execute("DELETE FROM witnessed WHERE identity = ?1", [identity])?;
            }
            rows::insert_witnessed(change, &identity, generation, &handshake)?;
            Ok(Ok(()))
        })
        .await
    }
}
