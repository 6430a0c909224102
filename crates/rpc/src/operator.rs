//! What an operator asks of a running server.

use async_trait::async_trait;
use quorate_ports::ManageApiKeys;
use quorate_types::*;

use crate::authorized::Authorized;
use crate::convert;
use crate::endpoint::Endpoint;
use crate::proto::operator::v1 as op;
use crate::proto::operator::v1::api_keys_client::ApiKeysClient;
use crate::status::to_error;
use crate::unreachable::SERVER;

/// The API keys of a server in another process. Its caller is whoever the endpoint's credential
/// stands for.
pub struct RemoteApiKeys(ApiKeysClient<Authorized>);

impl RemoteApiKeys {
    /// The server at this address.
    pub fn new(endpoint: Endpoint) -> Self {
        Self(ApiKeysClient::new(endpoint.service().expect(SERVER)))
    }
}

#[async_trait]
impl ManageApiKeys for RemoteApiKeys {
    async fn create_api_key(&self, _: &Caller, new: NewApiKey) -> Result<MadeApiKey> {
        let request = convert::new_api_key_out(&new);
        let made = self.0.clone().create_api_key(request).await.map_err(|s| to_error(&s))?;
        let op::CreateApiKeyResponse { secret, api_key } = made.into_inner();
        Ok(MadeApiKey { secret: Secret::new(secret), key: convert::api_key_in(api_key)? })
    }

    async fn api_keys(&self, _: &Caller, after: Option<ApiKeyId>) -> Result<Vec<ApiKey>> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let request = op::ListApiKeysRequest { after };
        let page = self.0.clone().list_api_keys(request).await.map_err(|s| to_error(&s))?;
        page.into_inner().api_keys.into_iter().map(|key| convert::api_key_in(Some(key))).collect()
    }

    async fn revoke_api_key(&self, _: &Caller, id: ApiKeyId) -> Result<ApiKey> {
        let request = op::RevokeApiKeyRequest { id: id.to_string() };
        let revoked = self.0.clone().revoke_api_key(request).await.map_err(|s| to_error(&s))?;
        convert::api_key_in(revoked.into_inner().api_key)
    }
}
