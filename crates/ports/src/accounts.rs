//! The account service.

use std::time::Duration;

use async_trait::async_trait;
use quorate_types::*;

/// The account service.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Creates an account; a taken username or email → `conflict` naming the field.
    async fn create(&self, caller: &Caller, new: NewAccount) -> Result<Account>;

    /// Reads one account of the caller's tenant; `not_found` where there is none.
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
