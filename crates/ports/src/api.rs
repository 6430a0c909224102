//! The three services as traits. The application implements them; the gRPC client implements them
//! again for a role that runs in another process. Fronts know only these.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use quorate_types::*;

/// A boxed stream that a front can forward.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// The session coordinator.
#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// Creates a session, or returns the one that the same idempotency key created before.
    async fn create(&self, caller: &Caller, request: CreateSession) -> Result<CreatedSession>;

    /// Joins with a token. The same party with the same token again gets the same place.
    async fn join(&self, caller: &Caller, request: JoinSession) -> Result<JoinedSession>;

    /// Marks a joined party ready; the last one starts the session.
    async fn ready(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
    ) -> Result<ReadyCount>;

    /// Confirms that the session runs. Idempotent; refused while parties are not ready.
    async fn start(&self, caller: &Caller, session: SessionId) -> Result<SessionView>;

    /// The session now, or as soon as `wait` is fulfilled, at the latest after `limit`.
    async fn status(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView>;

    /// Takes a party's result, verifies it and answers with the session after it.
    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView>;

    /// Closes a session that has not ended. Idempotent.
    async fn close(&self, caller: &Caller, session: SessionId) -> Result<SessionView>;

    /// What happened so far.
    async fn timeline(&self, caller: &Caller, session: SessionId) -> Result<Timeline>;

    /// What happened so far, as soon as there are more than `wait.0` entries or the session has
    /// ended, at the latest after `wait.1`. An implementation that cannot wait answers at once.
    async fn follow(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(usize, Duration)>,
    ) -> Result<Timeline> {
        let _ = wait;
        self.timeline(caller, session).await
    }

    /// The caller's sessions, newest first, at most `limit` of those that come after `before`.
    async fn list(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionView>>;

    /// The caller's keys, newest first, at most `limit` of those that come after `before`.
    async fn keys(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>>;

    /// Takes note that a party has sent its first message of `round`: the router's word for the
    /// timeline, never for a decision.
    async fn progress(&self, session: SessionId, party: &PartyId, round: i32);
}

/// The message router.
#[async_trait]
pub trait Router: Send + Sync + 'static {
    /// Registers a party, or renews its registration; answers with the time of the first.
    async fn register(&self, caller: &Caller, registration: Registration) -> Result<Timestamp>;

    /// A sign of life.
    async fn heartbeat(&self, caller: &Caller, party: &PartyId) -> Result<Pulse>;

    /// Accepts a message. The answer means: durable, or acknowledged by every recipient.
    async fn route(&self, caller: &Caller, request: RouteRequest) -> Result<MessageId>;

    /// Unacknowledged messages first, then live ones, in order, none twice in one stream.
    ///
    /// `session` = `None` follows all sessions of the party. `after` skips what was accepted at or
    /// before that moment. The stream ends with an error when the router stops or the session ends.
    async fn subscribe(
        &self,
        caller: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>>;

    /// Unacknowledged messages accepted after `after`. Takes nothing away.
    async fn pending(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<Vec<Message>>;

    /// Acknowledges a message: it is not delivered to that party again. Idempotent.
    async fn acknowledge(&self, caller: &Caller, ack: Acknowledge) -> Result<()>;

    /// Where each recipient's copy of a message is.
    async fn message_status(
        &self,
        caller: &Caller,
        session: SessionId,
        message: MessageId,
    ) -> Result<Vec<Delivery>>;

    /// Events of the party's sessions: first the last one of each open session, then live.
    async fn subscribe_events(
        &self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>>;

    /// Takes an event from the coordinator; answers with the number of subscribers it reached.
    async fn publish_event(&self, caller: &Caller, event: SessionEvent) -> Result<u32>;

    /// Registered parties.
    async fn parties(
        &self,
        caller: &Caller,
        role: Option<PartyRole>,
        only_online: bool,
    ) -> Result<Vec<PartyView>>;
}

/// The account service.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Creates an account; a taken username or email → `conflict` naming the field.
    async fn create(&self, caller: &Caller, new: NewAccount) -> Result<Account>;

    /// One account.
    async fn get(&self, caller: &Caller, id: AccountId) -> Result<Account>;

    /// Accounts, oldest first, after `after`, at most `limit`.
    async fn list(
        &self,
        caller: &Caller,
        after: Option<AccountId>,
        limit: u32,
    ) -> Result<Vec<Account>>;

    /// Changes an account.
    async fn update(
        &self,
        caller: &Caller,
        id: AccountId,
        change: AccountChange,
    ) -> Result<Account>;

    /// Starts a keygen; with an account, the finished key is attached to it.
    async fn keygen(
        &self,
        caller: &Caller,
        account: Option<AccountId>,
        request: CreateSession,
    ) -> Result<CreatedSession>;

    /// Starts a signature with the account's key.
    async fn sign(
        &self,
        caller: &Caller,
        account: AccountId,
        request: CreateSession,
    ) -> Result<CreatedSession>;

    /// The session as the coordinator has it.
    async fn session(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView>;
}
