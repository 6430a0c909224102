//! What a party remembers of the requests that it has allowed, and whom its policy asks.

use async_trait::async_trait;
use quorate_types::*;

use crate::store::Commit;

/// A request that has been allowed: its nonce serves for no other session, and it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// Names the initiator and its nonce: the beginning of a hash over both.
    pub nonce: [u8; 16],
    /// The session that it serves for.
    pub session: SessionId,
    /// The key whose use is counted; `None` for keys that are made.
    pub key: Option<KeyId>,
    /// When it was allowed.
    pub at: Timestamp,
    /// Until when it has to be remembered.
    pub keep_until: Timestamp,
}

/// What a ledger holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// In the order in which they were allowed.
    pub consumed: Vec<Consumed>,
    /// How many have ever been allowed, by key.
    pub totals: Vec<(Option<KeyId>, u64)>,
}

/// A party's durable memory of what it has allowed.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// All that has to be remembered after `now`; the rest is dropped.
    async fn load(&self, now: Timestamp) -> Result<Remembered>;

    /// Remembers a request and counts it. The write is under way when this returns.
    fn consume(&self, consumed: Consumed) -> Commit;
}

/// What a policy's callback answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackAnswer {
    /// `APPROVE`: the request is allowed.
    Approve,
    /// `REJECT`: the request is refused.
    Reject,
    /// `RETRY`: it has not decided.
    Retry,
}

/// Asks an operator's own service.
#[async_trait]
pub trait AskCallback: Send + Sync + 'static {
    /// Posts `body` with the header `Quorate-Signature: signature` and reads the answer. It may never
    /// answer: the caller gives up by dropping the future.
    ///
    /// # Errors
    /// `unavailable` when there is no answer, or none that can be read.
    async fn ask(&self, url: &str, body: Vec<u8>, signature: &str) -> Result<CallbackAnswer>;
}
