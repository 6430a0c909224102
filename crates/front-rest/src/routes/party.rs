//! A server party's own routes.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use quorate_types::{Caller, KeyId, Scope};
use quorate_wire::{ErrorJson, HeldKeyJson, KeyJson, KeysJson};

use crate::answer::ApiResult;
use crate::common::{SMALL_BODY, common, finish};
use crate::extract::{Path, Who};
use crate::openapi::Service;
use crate::params::Params;
use crate::readiness::{Readiness, Reasons};

/// What a party says of itself.
#[async_trait]
pub trait PartyInfo: Send + Sync + 'static {
    /// The keys it holds a share of that this caller may know, newest first.
    async fn keys(&self, caller: &Caller) -> quorate_types::Result<Vec<KeyJson>>;

    /// One key that it holds a share of.
    ///
    /// # Errors
    /// `not_found` where the caller may not know it.
    async fn key(&self, caller: &Caller, key: KeyId) -> quorate_types::Result<HeldKeyJson>;

    /// Why it cannot compute now, one sentence each. Must not block.
    fn unready(&self) -> Reasons;
}

/// A party's whole address: its keys and what [`common`] adds, which need not be merged again.
pub fn party_routes(name: &str, started: Instant, info: Arc<dyn PartyInfo>) -> Router {
    let routes = Router::new()
        .route("/api/v1/keys", get(keys))
        .route("/api/v1/keys/{key_id}", get(key))
        .with_state(info.clone());
    let readiness = Readiness::at_once(move || info.unready());
    finish(routes, SMALL_BODY).merge(common(name, &[Service::Party], started, readiness))
}

/// List the keys this party holds a share of.
#[utoipa::path(get, path = "/api/v1/keys", operation_id = "listShares", tag = "keys",
    responses((status = 200, description = "The keys.", body = KeysJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn keys(
    State(info): State<Arc<dyn PartyInfo>>,
    Who(caller): Who,
    params: Params,
) -> ApiResult<Json<KeysJson>> {
    params.done()?;
    caller.may(Scope::Read)?;
    Ok(Json(KeysJson { keys: info.keys(&caller).await?, next: None }))
}

/// Read a key this party holds a share of, with its bans.
#[utoipa::path(get, path = "/api/v1/keys/{key_id}", operation_id = "getShare", tag = "keys",
    params(("key_id" = Uuid, Path)),
    responses((status = 200, description = "The key.", body = HeldKeyJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn key(
    State(info): State<Arc<dyn PartyInfo>>,
    Who(caller): Who,
    Path(key): Path<KeyId>,
) -> ApiResult<Json<HeldKeyJson>> {
    caller.may(Scope::Read)?;
    Ok(Json(info.key(&caller, key).await?))
}
