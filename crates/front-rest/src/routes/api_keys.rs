//! API keys of this server, for its operator.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, post};
use axum::{Json, Router};
use quorate_ports::ManageApiKeys;
use quorate_types::{API_KEYS_PAGE, ApiKeyId};
use quorate_wire::{ApiKeyJson, ApiKeyPageJson, ErrorJson, MadeApiKeyJson, NewApiKeyJson};

use crate::answer::ApiResult;
use crate::common::{SMALL_BODY, finish};
use crate::extract::{Body, Path, Who};
use crate::params::Params;

type Service = State<Arc<dyn ManageApiKeys>>;

/// The routes of a server that asks for API keys.
pub fn api_key_routes(keys: Arc<dyn ManageApiKeys>) -> Router {
    let routes = Router::new()
        .route("/api/v1/api-keys", post(create).get(list))
        .route("/api/v1/api-keys/{id}", delete(revoke))
        .with_state(keys);
    finish(routes, SMALL_BODY)
}

/// Make an API key.
///
/// Its secret is in this answer and in no other. It works at this server: roles in processes of
/// their own have keys of their own.
#[utoipa::path(post, path = "/api/v1/api-keys", operation_id = "createApiKey", tag = "api keys",
    request_body = NewApiKeyJson,
    responses((status = 201, description = "The key.", body = MadeApiKeyJson),
        (status = "default", description = "Refused.", body = ErrorJson)))]
pub(crate) async fn create(
    State(keys): Service,
    Who(caller): Who,
    Body(body): Body<NewApiKeyJson>,
) -> ApiResult<(StatusCode, Json<MadeApiKeyJson>)> {
    let made = keys.create_api_key(&caller, body.into()).await?;
    let made = MadeApiKeyJson { secret: made.secret.expose().clone(), key: made.key.into() };
    Ok((StatusCode::CREATED, Json(made)))
}

/// List API keys, without their secrets.
#[utoipa::path(get, path = "/api/v1/api-keys", operation_id = "listApiKeys", tag = "api keys",
    params(("after" = Option<String>, Query, description = "the `next` of the page before")),
    responses((status = 200, description = "A page of keys.", body = ApiKeyPageJson),
        (status = "default", description = "Refused.", body = ErrorJson)))]
pub(crate) async fn list(
    State(keys): Service,
    Who(caller): Who,
    mut params: Params,
) -> ApiResult<Json<ApiKeyPageJson>> {
    let after: Option<ApiKeyId> = params.optional("after")?;
    params.done()?;
    let page = keys.api_keys(&caller, after).await?;
    let next = page.get(API_KEYS_PAGE - 1).map(|last| last.id);
    let api_keys = page.into_iter().map(Into::into).collect();
    Ok(Json(ApiKeyPageJson { api_keys, next }))
}

/// Revoke an API key for good.
///
/// Nothing is served for it any more, and its streams and WebSockets end. Idempotent.
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", operation_id = "revokeApiKey", tag = "api keys",
    params(("id" = String, Path, description = "qk_ and 16 hex digits")),
    responses((status = 200, description = "Revoked.", body = ApiKeyJson),
        (status = "default", description = "Refused.", body = ErrorJson)))]
pub(crate) async fn revoke(
    State(keys): Service,
    Who(caller): Who,
    Path(id): Path<ApiKeyId>,
) -> ApiResult<Json<ApiKeyJson>> {
    Ok(Json(keys.revoke_api_key(&caller, id).await?.into()))
}
