//! Sessions through the account service.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use quorate_types::SessionId;
use quorate_wire::*;

use super::accounts::AccountsState;
use crate::answer::ApiResult;
use crate::extract::{Body, IdempotencyKey, Path, Who};
use crate::params::Params;

/// Start a keygen; with an account, the finished key is attached to it.
#[utoipa::path(post, path = "/api/v1/mpc/keygen", operation_id = "startKeygen", tag = "mpc",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters")),
    request_body = MpcKeygenJson,
    responses((status = 201, description = "Started.", body = MpcCreatedJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn keygen(
    State(accounts): AccountsState,
    Who(caller): Who,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<MpcKeygenJson>,
) -> ApiResult<(StatusCode, Json<MpcCreatedJson>)> {
    let (account, request) = body.into_request(key)?;
    let created = accounts.keygen(&caller, account, request).await?;
    Ok((StatusCode::CREATED, Json(MpcCreatedJson::new(account, created))))
}

/// Start a signature with an account's key.
#[utoipa::path(post, path = "/api/v1/mpc/sign", operation_id = "startSign", tag = "mpc",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters")),
    request_body = MpcSignJson,
    responses((status = 201, description = "Started.", body = MpcCreatedJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn sign(
    State(accounts): AccountsState,
    Who(caller): Who,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<MpcSignJson>,
) -> ApiResult<(StatusCode, Json<MpcCreatedJson>)> {
    let (account, request) = body.into_request(key)?;
    let created = accounts.sign(&caller, account, request).await?;
    Ok((StatusCode::CREATED, Json(MpcCreatedJson::new(Some(account), created))))
}

/// Read a session, optionally waiting until it starts or ends.
#[utoipa::path(get, path = "/api/v1/mpc/sessions/{session_id}", operation_id = "getMpcSession", tag = "mpc",
    params(("session_id" = Uuid, Path),
        ("wait" = Option<String>, Query, description = "`start`: until it has started or ended; `end`: until it has ended"),
        ("wait_seconds" = Option<u32>, Query, description = "longest wait; at most 60, default 30")),
    responses((status = 200, description = "The session.", body = MpcSessionJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn session(
    State(accounts): AccountsState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    mut params: Params,
) -> ApiResult<Json<MpcSessionJson>> {
    let wait = params.wait()?;
    params.done()?;
    Ok(Json(accounts.session(&caller, session, wait).await?.into()))
}
