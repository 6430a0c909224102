//! API keys over gRPC.

use std::sync::Arc;

use quorate_ports::ManageApiKeys;
use quorate_rpc::proto::operator::v1::api_keys_server::ApiKeys;
use quorate_rpc::proto::operator::v1::*;
use quorate_rpc::status::to_status;
use quorate_rpc::{api_key_out, new_api_key_in};
use quorate_types::API_KEYS_PAGE;
use tonic::{Request, Response, Status};

use crate::caller;

pub(crate) struct ApiKeysService(pub(crate) Arc<dyn ManageApiKeys>);

#[tonic::async_trait]
impl ApiKeys for ApiKeysService {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let caller = caller(request.extensions())?;
        let new = new_api_key_in(request.into_inner()).map_err(to_status)?;
        let made = self.0.create_api_key(&caller, new).await.map_err(to_status)?;
        let (secret, api_key) = (made.secret.expose().clone(), Some(api_key_out(made.key)));
        Ok(Response::new(CreateApiKeyResponse { secret, api_key }))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        let caller = caller(request.extensions())?;
        let after = request.into_inner().after;
        let after = (!after.is_empty()).then(|| after.parse()).transpose().map_err(to_status)?;
        let keys = self.0.api_keys(&caller, after).await.map_err(to_status)?;
        let next = keys.get(API_KEYS_PAGE - 1).map(|last| last.id.to_string()).unwrap_or_default();
        let api_keys = keys.into_iter().map(api_key_out).collect();
        Ok(Response::new(ListApiKeysResponse { api_keys, next }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        let caller = caller(request.extensions())?;
        let id = request.into_inner().id.parse().map_err(to_status)?;
        let key = self.0.revoke_api_key(&caller, id).await.map_err(to_status)?;
        Ok(Response::new(RevokeApiKeyResponse { api_key: Some(api_key_out(key)) }))
    }
}
