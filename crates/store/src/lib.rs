//! SQLite behind the ports: one writer thread with group commit, one reading connection.
//!
//! WAL and `synchronous=FULL`: a resolved [`Commit`](quorate_ports::Commit) has been synced to the
//! disk. One process owns a data folder; a second one is refused.

mod database;
mod reads;
mod rows;
mod vault;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use quorate_ports::store::{
    ApiKeyRow, IdempotencyRow, PartyRow, RecoveredMessage, SessionRow,
};
use quorate_ports::{Commit, Store, Urgency, Write};
use quorate_types::*;
use rusqlite::Connection;
pub use vault::SqliteVault;

use crate::database::{FolderLock, Schema, failed, open_database};
use crate::writer::Writer;

const SCHEMA: Schema = Schema { name: "store", steps: &[include_str!("migrations/0001_store.sql")] };

/// The store of the coordinator, the router and the account service.
pub struct SqliteStore {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
    _lock: FolderLock,
}

impl SqliteStore {
    /// Opens `quorate.db` in a folder, making both where they are missing.
    pub fn open(folder: &Path) -> Result<Self> {
        let lock = FolderLock::take(folder)?;
        let path = folder.join("quorate.db");
        let mut connection = open_database(&path, &SCHEMA)?;
        // A request repeated after a day is a new one.
        rows::forget_old_idempotency(&mut connection).map_err(failed)?;
        let writer = Writer::start(connection)?;
        let reader = Connection::open(&path).map_err(failed)?;
        database::set_up(&reader).map_err(failed)?;
        Ok(Self { writer, reader: Arc::new(Mutex::new(reader)), _lock: lock })
    }

    /// Commits so far, each of which synced the disk once.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let reader = self.reader.clone();
        let read = move || {
            let connection = reader.lock().map_err(|_| Error::internal())?;
            query(&connection).map_err(failed)
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Error::internal())?
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn submit(&self, writes: Vec<Write>, urgency: Urgency) -> Commit {
        self.writer.submit(writes, urgency)
    }

    fn health(&self) -> Result<()> {
        self.writer.health()
    }

    async fn open_sessions(&self) -> Result<Vec<SessionRow>> {
        self.read(reads::open_sessions).await
    }

    async fn session(&self, id: SessionId) -> Result<Option<SessionRow>> {
        self.read(move |c| reads::session(c, id)).await
    }

    async fn sessions(
        &self,
        tenant: Option<Tenant>,
        before: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<SessionRow>> {
        self.read(move |c| reads::sessions(c, tenant.as_ref(), before, limit)).await
    }

    async fn keys(&self, tenant: Option<Tenant>, limit: u32) -> Result<Vec<KeyRecord>> {
        self.read(move |c| reads::keys(c, tenant.as_ref(), limit)).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>> {
        self.read(move |c| reads::key(c, id)).await
    }

    async fn key_by_public_key(&self, public_key: &PublicKey) -> Result<Option<KeyRecord>> {
        let public_key = public_key.clone();
        self.read(move |c| reads::key_by_public_key(c, &public_key)).await
    }

    async fn idempotency(&self, tenant: &Tenant, key: &str) -> Result<Option<IdempotencyRow>> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        self.read(move |c| reads::idempotency(c, tenant, key)).await
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        self.read(reads::accounts).await
    }

    async fn pending_keys(&self) -> Result<std::collections::HashMap<SessionId, AccountId>> {
        self.read(reads::pending_keys).await
    }

    async fn messages(&self) -> Result<Vec<RecoveredMessage>> {
        self.read(reads::messages).await
    }

    async fn parties(&self) -> Result<Vec<PartyRow>> {
        self.read(reads::parties).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyRow>> {
        self.read(reads::api_keys).await
    }
}
