//! What the services need kept. One ordered queue of writes, committed in groups.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::FutureExt;
use quorate_types::*;

/// How soon a write must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for it.
    Now,
    /// Somebody waits for it, and in some milliseconds it may not be needed any more.
    Soon,
    /// Nobody waits for it: within a quarter of a second. It keeps its order among its like and
    /// behind what is to be written soon, not with what is written now: only for what no write of
    /// now replaces.
    Later,
}

/// Set when a later state of a session is submitted: the earlier one need not be written then.
#[derive(Clone, Debug, Default)]
pub struct Overtaken(Arc<AtomicBool>);

impl Overtaken {
    /// A later state is submitted.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether one was.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A session as the store keeps it: a document with the columns that are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session's id.
    pub session_id: SessionId,
    /// Who owns it.
    pub tenant: Tenant,
    /// Whether it has ended.
    pub is_final: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// The shape of the document.
    pub version: u32,
    /// The core's session as JSON.
    pub document: Vec<u8>,
}

/// A registered party as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartyRow {
    /// Whose its name is.
    pub owner: NameOwner,
    /// What it registered.
    pub registration: Registration,
    /// Wall time of the first registration.
    pub registered_at: Timestamp,
}

/// Remembers which session an idempotency key made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// The tenant of the caller.
    pub tenant: Tenant,
    /// The caller's key.
    pub key: String,
    /// How the request was hashed.
    pub version: u32,
    /// Hash of the request, to tell another request with the same key.
    pub request_hash: [u8; 32],
    /// The session it made.
    pub session_id: SessionId,
}

/// A package that waits for its user, sealed to the user's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegateShareRow {
    /// The keygen session that made the package.
    pub session_id: SessionId,
    /// The delegate that has made it.
    pub party_id: PartyId,
    /// Who owns the session.
    pub tenant: Tenant,
    /// The package, which begins with its version.
    pub package: bytes::Bytes,
}

/// A share that a user lends a delegate, sealed to the delegate's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LentShareRow {
    /// The session in which it is used.
    pub session_id: SessionId,
    /// The share. The package begins with its version.
    pub lent: LentShare,
}

/// An API key as the store keeps it: only its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRow {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// All else of it.
    pub key: ApiKey,
}

/// One write. A list of them is one transaction.
#[derive(Clone, Debug)]
pub enum Write {
    /// Inserts or replaces a session.
    Session(SessionRow),
    /// The same, unless it was overtaken by the time of the commit.
    Interim(SessionRow, Overtaken),
    /// Inserts a key, or the next epoch of one with the same public key; anything else of a key
    /// that is here changes nothing.
    Key(KeyRecord, EpochRecord),
    /// Inserts a ban; of two of one pair under one epoch the first stays.
    Ban(ReportedBan),
    /// Freezes a key, or with `None` ends that.
    Freeze(KeyId, Option<Freeze>),
    /// Inserts or replaces an account.
    Account(Account),
    /// Notes that this keygen's key belongs to that account once it is finished.
    PendingKey {
        /// The keygen session.
        session: SessionId,
        /// The account; `None` removes the note.
        account: Option<AccountId>,
    },
    /// Inserts an idempotency key; where it exists, its whole transaction is refused with
    /// `conflict`, and no other.
    Idempotency(IdempotencyRow),
    /// Inserts or replaces a registration.
    Party(PartyRow),
    /// Removes a registration.
    ForgetParty(PartyId, NameOwner),
    /// Inserts a message, unless it is settled by the time of the commit.
    Message(std::sync::Arc<MessageRow>),
    /// One recipient has acknowledged; the row goes when all have.
    Acknowledged {
        /// The id of the message.
        message: MessageId,
        /// The recipient whose delivery is meant.
        party: PartyId,
    },
    /// Removes all messages of a session that has ended.
    ForgetMessages(SessionId),
    /// Removes sessions that have ended and were created before, the oldest first, so many at the
    /// most; not those whose packages wait for their users.
    ForgetEnded(Timestamp, u32),
    /// Inserts a package; one that is here stays.
    DelegateShare(DelegateShareRow),
    /// Removes a package.
    ForgetDelegateShare(SessionId, PartyId),
    /// Removes all packages of a session.
    ForgetDelegateShares(SessionId),
    /// Inserts a lent share.
    LentShare(LentShareRow),
    /// Removes the lent share of a session.
    ForgetLentShare(SessionId),
    /// Inserts a notification, or replaces the one with its id; of two of one step to one recipient the
    /// first stays.
    Notification(Box<Notification>),
    /// Removes a notification.
    ForgetNotification(NotificationId),
    /// Removes notifications that are settled and whose sessions were created before, the oldest
    /// first, so many at the most.
    ForgetNotifications(Timestamp, u32),
    /// Inserts or replaces an API key.
    ApiKey(ApiKeyRow),
    /// Removes an API key by its id.
    ForgetApiKey(ApiKeyId),
    /// A change of the group relay.
    Group(crate::groups::GroupWrite),
}

/// The outcome of a submitted transaction. Dropping it changes nothing: the write goes on.
pub struct Commit(Pin<Box<dyn Future<Output = Result<()>> + Send>>);

impl Commit {
    /// Wraps a store's own future.
    pub fn new(future: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self(future.boxed())
    }
}

impl Future for Commit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx)
    }
}

/// A message as it was found at start.
#[derive(Clone, Debug)]
pub struct RecoveredMessage {
    /// The message with its sender, recipients and payload.
    pub row: std::sync::Arc<MessageRow>,
    /// Recipients that had acknowledged.
    pub acknowledged: Vec<PartyId>,
}

/// Durable state of the coordinator, the router and the account service.
///
/// Writes of one urgency are applied in the order of [`Store::submit`], which never blocks: it fails with
/// `unavailable` when the queue is full or an earlier write failed (fail closed until restart).
///
/// A row that cannot be read is reported in the log and left out of lists; asked for by its id it is
/// `internal_error`, with words.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Queues one transaction, ordered with all others of its urgency.
    fn submit(&self, writes: Vec<Write>, urgency: Urgency) -> Commit;

    /// An error once the disk has failed us; then nothing is accepted any more.
    fn health(&self) -> Result<()>;

    /// Resolves with the error of [`Store::health`] as soon as there is one.
    async fn failed(&self) -> Error;

    /// Sessions that have not ended, oldest first.
    async fn open_sessions(&self) -> Result<Vec<SessionRow>>;

    /// Reads one session; `None` where there is none.
    async fn session(&self, id: SessionId) -> Result<Option<SessionRow>>;

    /// Newest first, those after `before` in that order; `None` = every tenant.
    async fn sessions(
        &self,
        tenant: Option<Tenant>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionRow>>;

    /// Newest first, those after `before` in that order; `None` = every tenant.
    async fn keys(
        &self,
        tenant: Option<Tenant>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>>;

    /// Reads one key; `None` where there is none.
    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>>;

    /// The epochs of a key, oldest first; none for a key of an earlier version.
    async fn epochs(&self, key: KeyId) -> Result<Vec<EpochRecord>>;

    /// What holders of a key have reported of each other, by epoch, oldest first.
    async fn bans(&self, key: KeyId) -> Result<Vec<ReportedBan>>;

    /// The key with this verifying key.
    async fn key_by_public_key(&self, public_key: &PublicKey) -> Result<Option<KeyRecord>>;

    /// What an idempotency key made.
    async fn idempotency(&self, tenant: &Tenant, key: &str) -> Result<Option<IdempotencyRow>>;

    /// The package that a delegate has handed in and whose user has not confirmed it.
    async fn delegate_share(
        &self,
        session: SessionId,
        party: &PartyId,
    ) -> Result<Option<DelegateShareRow>>;

    /// How many packages of a tenant's sessions wait for their users.
    async fn delegate_shares(&self, tenant: &Tenant) -> Result<u64>;

    /// The shares that are lent in open sessions.
    async fn lent_shares(&self) -> Result<Vec<LentShareRow>>;

    /// All accounts, oldest first (creation time, then id).
    async fn accounts(&self) -> Result<Vec<Account>>;

    /// Keygens whose key is to be attached to an account.
    async fn pending_keys(&self) -> Result<HashMap<SessionId, AccountId>>;

    /// Unacknowledged messages in the router's order.
    async fn messages(&self) -> Result<Vec<RecoveredMessage>>;

    /// Reads all registered parties.
    async fn parties(&self) -> Result<Vec<PartyRow>>;

    /// Notifications that wait, oldest first.
    async fn waiting_notifications(&self) -> Result<Vec<Notification>>;

    /// Notifications in a state, or all, newest first, those after `before` in that order.
    async fn notifications(
        &self,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>>;

    /// API keys, revoked ones included.
    async fn api_keys(&self) -> Result<Vec<ApiKeyRow>>;
}
