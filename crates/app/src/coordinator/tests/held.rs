//! A store that answers when a test lets it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use quorate_ports::store::*;
use quorate_ports::{Commit, Store, Urgency, Write};
use quorate_store::SqliteStore;
use quorate_types::*;
use tokio::sync::watch;

/// A store whose commits resolve only while it is not held.
pub(super) struct Held {
    pub(super) inner: SqliteStore,
    pub(super) held: watch::Sender<bool>,
    /// Whether the next question for an idempotency key finds nothing.
    pub(super) blind: AtomicBool,
}

impl Held {
    pub(super) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

#[async_trait]
impl Store for Held {
    fn submit(&self, writes: Vec<Write>, urgency: Urgency) -> Commit {
        let commit = self.inner.submit(writes, urgency);
        let mut held = self.held.subscribe();
        Commit::new(async move {
            held.wait_for(|held| !held).await.expect("the store outlives its commits");
            commit.await
        })
    }

    fn health(&self) -> Result<()> {
        self.inner.health()
    }

    async fn failed(&self) -> Error {
        self.inner.failed().await
    }

    async fn open_sessions(&self) -> Result<Vec<SessionRow>> {
        self.inner.open_sessions().await
    }

    async fn session(&self, id: SessionId) -> Result<Option<SessionRow>> {
        self.inner.session(id).await
    }

    async fn sessions(
        &self,
        tenant: Option<Tenant>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionRow>> {
        self.inner.sessions(tenant, before, limit).await
    }

    async fn keys(
        &self,
        tenant: Option<Tenant>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>> {
        self.inner.keys(tenant, before, limit).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>> {
        self.inner.key(id).await
    }

    async fn epochs(&self, key: KeyId) -> Result<Vec<EpochRecord>> {
        self.inner.epochs(key).await
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<ReportedBan>> {
        self.inner.bans(key).await
    }

    async fn key_by_public_key(&self, public_key: &PublicKey) -> Result<Option<KeyRecord>> {
        self.inner.key_by_public_key(public_key).await
    }

    async fn idempotency(&self, tenant: &Tenant, key: &str) -> Result<Option<IdempotencyRow>> {
        let blind = self.blind.swap(false, Ordering::SeqCst);
        if blind { Ok(None) } else { self.inner.idempotency(tenant, key).await }
    }

    async fn delegate_share(
        &self,
        session: SessionId,
        party: &PartyId,
    ) -> Result<Option<DelegateShareRow>> {
        self.inner.delegate_share(session, party).await
    }

    async fn delegate_shares(&self, tenant: &Tenant) -> Result<u64> {
        self.inner.delegate_shares(tenant).await
    }

    async fn lent_shares(&self) -> Result<Vec<LentShareRow>> {
        self.inner.lent_shares().await
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        self.inner.accounts().await
    }

    async fn pending_keys(&self) -> Result<HashMap<SessionId, AccountId>> {
        self.inner.pending_keys().await
    }

    async fn messages(&self) -> Result<Vec<RecoveredMessage>> {
        self.inner.messages().await
    }

    async fn parties(&self) -> Result<Vec<PartyRow>> {
        self.inner.parties().await
    }

    async fn waiting_notifications(&self) -> Result<Vec<Notification>> {
        self.inner.waiting_notifications().await
    }

    async fn notifications(
        &self,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>> {
        self.inner.notifications(state, before, limit).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyRow>> {
        self.inner.api_keys().await
    }
}
