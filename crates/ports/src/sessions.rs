//! Sessions and keys: the coordinator's sides, one trait for each audience.

use std::time::Duration;

use async_trait::async_trait;
use quorate_types::*;

use crate::notify::ReadNotifications;

/// What everybody who has to do with a session asks.
#[async_trait]
pub trait ReadSession: Send + Sync + 'static {
    /// The session now, or as soon as `wait` is fulfilled, at the latest after `limit`.
    async fn status(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView>;
}

/// What a party does in a session, and a user for whom a delegate has been one.
#[async_trait]
pub trait TakePart: ReadSession {
    /// Joins with a token. The same party with the same token again gets the same place.
    async fn join(&self, caller: &Caller, request: JoinSession) -> Result<JoinedSession>;

    /// Marks a joined party ready; the last one starts the session.
    async fn ready(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
    ) -> Result<ReadyCount>;

    /// Takes a party's result, verifies it and answers with the session after it.
    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView>;

    /// Takes the package of a delegate's user, which is durable when this returns. The same again
    /// changes nothing.
    async fn submit_share(&self, caller: &Caller, submitted: SubmitShare) -> Result<()>;

    /// A user's package, to whoever shows its fetch token, until it is confirmed.
    async fn fetch_share(&self, caller: &Caller, asked: FetchShare) -> Result<DelegatedShare>;

    /// Forgets a package for good: its user has it. Idempotent.
    async fn confirm_share(&self, caller: &Caller, asked: FetchShare) -> Result<()>;
}

/// What those do who have keys made and messages signed.
#[async_trait]
pub trait ManageSessions: ReadSession {
    /// Creates a session, or returns the one that the same idempotency key created before.
    async fn create(&self, caller: &Caller, request: CreateSession) -> Result<CreatedSession>;

    /// Confirms that the session runs. Idempotent; refused while parties are not ready.
    async fn start(&self, caller: &Caller, session: SessionId) -> Result<SessionView>;

    /// Closes a session that has not ended. Idempotent.
    async fn close(&self, caller: &Caller, session: SessionId) -> Result<SessionView>;

    /// Adds an approval of a session's signed request, whose signature must verify. The same
    /// approver's again changes nothing.
    async fn approve(
        &self,
        caller: &Caller,
        session: SessionId,
        approval: Approval,
    ) -> Result<SessionView>;

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

    /// One of the caller's keys.
    async fn key(&self, caller: &Caller, key: KeyId) -> Result<KeyView>;

    /// Lets nothing be made with a key, and ends its open sessions: once this has answered, none of
    /// them completes. Of a key that is frozen the first freeze stays.
    async fn freeze(&self, caller: &Caller, key: KeyId, reason: String) -> Result<KeyView>;

    /// Ends a freeze. Idempotent.
    async fn unfreeze(&self, caller: &Caller, key: KeyId) -> Result<KeyView>;

    /// The caller's keys, newest first, at most `limit` of those that come after `before`.
    async fn keys(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>>;
}

/// What the router tells of a session.
#[async_trait]
pub trait NoteProgress: Send + Sync + 'static {
    /// Takes note that a party has sent its first message of `round`: the router's word for the
    /// timeline, never for a decision.
    async fn progress(&self, session: SessionId, party: &PartyId, round: i32);
}

/// The session coordinator, whole.
pub trait Coordinator: TakePart + ManageSessions + NoteProgress + ReadNotifications {}

impl<T: TakePart + ManageSessions + NoteProgress + ReadNotifications> Coordinator for T {}
