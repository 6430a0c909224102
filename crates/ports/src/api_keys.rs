//! API keys of one server, for its operator.

use async_trait::async_trait;
use quorate_types::*;

/// Makes, lists and revokes the API keys of a server while it runs. For the operator alone: others
/// are `forbidden`.
#[async_trait]
pub trait ManageApiKeys: Send + Sync + 'static {
    /// Makes a key, which works when this returns.
    async fn create_api_key(&self, caller: &Caller, new: NewApiKey) -> Result<MadeApiKey>;

    /// Keys in the order of their ids, after one, at most [`API_KEYS_PAGE`].
    async fn api_keys(&self, caller: &Caller, after: Option<ApiKeyId>) -> Result<Vec<ApiKey>>;

    /// Revokes a key for good: nothing is served for it when this returns, and what it follows ends.
    /// Idempotent.
    async fn revoke_api_key(&self, caller: &Caller, id: ApiKeyId) -> Result<ApiKey>;
}
