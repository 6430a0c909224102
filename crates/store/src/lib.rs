//! SQLite behind the ports: one writer thread with group commit, one reading connection.
//!
//! WAL and `synchronous=FULL`: a resolved [`Commit`] has been synced to the
//! disk. One process owns a data folder; a second one is refused.

mod checkpoints;
mod columns;
mod database;
mod generation;
mod groups;
mod head;
mod ledger;
mod notifications;
mod queue;
mod reads;
mod rows;
mod vault;
mod writer;

use std::collections::HashMap;
use std::path::Path;

use async_trait::async_trait;
pub use ledger::SqliteLedger;
use quorate_ports::groups::KeptGroups;
use quorate_ports::store::{
    ApiKeyRow, DelegateShareRow, IdempotencyRow, LentShareRow, PartyRow, RecoveredMessage,
    SessionRow,
};
use quorate_ports::{Commit, GroupStore, GroupWrite, Store, Urgency, Write};
use quorate_types::*;
pub use vault::SqliteVault;

use crate::checkpoints::Checkpoints;
use crate::database::{Blocking, FolderLock, Schema, failed, open_database, open_reader};
use crate::generation::Generation;
use crate::writer::Writer;

const SCHEMA: Schema = Schema {
    name: "store",
    steps: &[
        include_str!("migrations/0001_store.sql"),
        include_str!("migrations/0002_groups.sql"),
        include_str!("migrations/0003_pages.sql"),
        include_str!("migrations/0004_generation.sql"),
        include_str!("migrations/0005_bans.sql"),
        include_str!("migrations/0006_epochs.sql"),
        include_str!("migrations/0007_delegate_shares.sql"),
        include_str!("migrations/0008_freezes.sql"),
        include_str!("migrations/0009_lent_shares.sql"),
        include_str!("migrations/0010_notifications.sql"),
    ],
    secure_delete: false,
};

/// The store of the coordinator, the router and the account service.
///
/// Dropping it commits what is queued, and waits for that.
pub struct SqliteStore {
    // In this order: the last connection to close folds the log into the database, and only the
    // writer may; the lock goes when both are closed.
    reader: Blocking,
    writer: Writer,
    _lock: FolderLock,
}

impl SqliteStore {
    /// Opens `quorate.db` in a folder, making both where they are missing.
    ///
    /// Refuses a folder that another process uses, a database of a newer program, and one that is
    /// missing or older than it was.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, false)
    }

    /// Opens a folder as [`SqliteStore::open`] does, also when its database is missing or older
    /// than it was and `accept_loss` says to go on with what there is.
    pub fn open_with(folder: &Path, accept_loss: bool) -> Result<Self> {
        let lock = FolderLock::take(folder)?;
        let path = folder.join("quorate.db");
        if !accept_loss {
            generation::refuse_missing(folder, &path)?;
        }
        let connection = open_database(&path, &SCHEMA)?;
        // The writer folds the log in itself, so that it knows what is in which file.
        connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
        let generation = Generation::open(folder, &connection, accept_loss)?;
        let reader = Blocking::new(open_reader(&path)?);
        let log = folder.join("quorate.db-wal");
        let writer = Writer::start(connection, Some(Checkpoints::new(generation, log)))?;
        Ok(Self { reader, writer, _lock: lock })
    }

    /// Commits so far, each of which synced the disk once.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
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

    async fn failed(&self) -> Error {
        self.writer.failed().await
    }

    async fn open_sessions(&self) -> Result<Vec<SessionRow>> {
        self.reader.run(|c| reads::open_sessions(c)).await
    }

    async fn session(&self, id: SessionId) -> Result<Option<SessionRow>> {
        self.reader.run(move |c| reads::session(c, id)).await
    }

    async fn sessions(
        &self,
        tenant: Option<Tenant>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionRow>> {
        self.reader.run(move |c| reads::sessions(c, tenant.as_ref(), before, limit)).await
    }

    async fn keys(
        &self,
        tenant: Option<Tenant>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>> {
        self.reader.run(move |c| reads::keys(c, tenant.as_ref(), before, limit)).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>> {
        self.reader.run(move |c| reads::key(c, id)).await
    }

    async fn epochs(&self, key: KeyId) -> Result<Vec<EpochRecord>> {
        self.reader.run(move |c| reads::epochs(c, key)).await
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<ReportedBan>> {
        self.reader.run(move |c| reads::bans(c, key)).await
    }

    async fn key_by_public_key(&self, public_key: &PublicKey) -> Result<Option<KeyRecord>> {
        let public_key = public_key.clone();
        self.reader.run(move |c| reads::key_by_public_key(c, &public_key)).await
    }

    async fn idempotency(&self, tenant: &Tenant, key: &str) -> Result<Option<IdempotencyRow>> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        self.reader.run(move |c| reads::idempotency(c, tenant, key)).await
    }

    async fn delegate_share(
        &self,
        session: SessionId,
        party: &PartyId,
    ) -> Result<Option<DelegateShareRow>> {
        let party = party.clone();
        self.reader.run(move |c| reads::delegate_share(c, session, party)).await
    }

    async fn delegate_shares(&self, tenant: &Tenant) -> Result<u64> {
        let tenant = tenant.clone();
        self.reader.run(move |c| reads::delegate_shares(c, &tenant)).await
    }

    async fn lent_shares(&self) -> Result<Vec<LentShareRow>> {
        self.reader.run(|c| reads::lent_shares(c)).await
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        self.reader.run(|c| reads::accounts(c)).await
    }

    async fn pending_keys(&self) -> Result<HashMap<SessionId, AccountId>> {
        self.reader.run(|c| reads::pending_keys(c)).await
    }

    async fn messages(&self) -> Result<Vec<RecoveredMessage>> {
        self.reader.run(|c| reads::messages(c)).await
    }

    async fn parties(&self) -> Result<Vec<PartyRow>> {
        self.reader.run(|c| reads::parties(c)).await
    }

    async fn waiting_notifications(&self) -> Result<Vec<Notification>> {
        self.reader.run(|c| notifications::waiting(c)).await
    }

    async fn notifications(
        &self,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>> {
        self.reader.run(move |c| notifications::page(c, state, before, limit)).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyRow>> {
        self.reader.run(|c| reads::api_keys(c)).await
    }
}

#[async_trait]
impl GroupStore for SqliteStore {
    fn submit_groups(&self, writes: Vec<GroupWrite>) -> Commit {
        self.writer.submit(writes.into_iter().map(Write::Group).collect(), Urgency::Now)
    }

    async fn groups(&self) -> Result<KeptGroups> {
        self.reader.run(|c| groups::all(c)).await
    }
}
