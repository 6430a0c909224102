//! Accounts: the account service's routes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use quorate_ports::Accounts;
use quorate_types::{AccountChange, AccountId, AccountStatus};
use quorate_wire::*;

use super::mpc;
use crate::answer::ApiResult;
use crate::common::{SMALL_BODY, finish};
use crate::extract::{Body, Path, Who};
use crate::params::Params;

/// Most accounts of one page.
const MAX_ACCOUNTS: u32 = 200;

pub(crate) type AccountsState = State<Arc<dyn Accounts>>;

/// The account service's routes.
pub fn accounts_routes(accounts: Arc<dyn Accounts>) -> Router {
    let routes = Router::new()
        .route("/api/v1/accounts", post(create).get(list))
        .route("/api/v1/accounts/{account_id}", get(read).put(replace).patch(update).delete(remove))
        .route("/api/v1/accounts/{account_id}/disable", post(disable))
        .route("/api/v1/mpc/keygen", post(mpc::keygen))
        .route("/api/v1/mpc/sign", post(mpc::sign))
        .route("/api/v1/mpc/sessions/{session_id}", get(mpc::session))
        .with_state(accounts);
    finish(routes, SMALL_BODY)
}

/// Create an account.
#[utoipa::path(post, path = "/api/v1/accounts", operation_id = "createAccount", tag = "accounts",
    request_body = NewAccountJson,
    responses((status = 201, description = "Created.", body = AccountJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn create(
    State(accounts): AccountsState,
    Who(caller): Who,
    Body(body): Body<NewAccountJson>,
) -> ApiResult<(StatusCode, Json<AccountJson>)> {
    let account = accounts.create(&caller, body.into()).await?;
    Ok((StatusCode::CREATED, Json(account.into())))
}

/// List accounts, oldest first.
#[utoipa::path(get, path = "/api/v1/accounts", operation_id = "listAccounts", tag = "accounts",
    params(("limit" = Option<u32>, Query, description = "1 to 200, default 50"),
        ("after" = Option<Uuid>, Query, description = "`next` of the previous page")),
    responses((status = 200, description = "One page.", body = AccountsJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn list(
    State(accounts): AccountsState,
    Who(caller): Who,
    mut params: Params,
) -> ApiResult<Json<AccountsJson>> {
    let limit = params.limit(MAX_ACCOUNTS)?;
    let after = params.optional("after")?;
    params.done()?;
    let page = accounts.list(&caller, after, limit).await?;
    let full = page.len() >= limit as usize;
    let next = page.last().filter(|_| full).map(|account| account.id);
    Ok(Json(AccountsJson { accounts: page.into_iter().map(Into::into).collect(), next }))
}

/// Read an account.
#[utoipa::path(get, path = "/api/v1/accounts/{account_id}", operation_id = "getAccount", tag = "accounts",
    params(("account_id" = Uuid, Path)),
    responses((status = 200, description = "The account.", body = AccountJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn read(
    State(accounts): AccountsState,
    Who(caller): Who,
    Path(id): Path<AccountId>,
) -> ApiResult<Json<AccountJson>> {
    Ok(Json(accounts.get(&caller, id).await?.into()))
}

/// Change an account; omitted fields stay as they are.
#[utoipa::path(patch, path = "/api/v1/accounts/{account_id}", operation_id = "updateAccount", tag = "accounts",
    params(("account_id" = Uuid, Path)),
    request_body = AccountChangeJson,
    responses((status = 200, description = "Changed.", body = AccountJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn update(
    State(accounts): AccountsState,
    Who(caller): Who,
    Path(id): Path<AccountId>,
    Body(body): Body<AccountChangeJson>,
) -> ApiResult<Json<AccountJson>> {
    Ok(Json(accounts.update(&caller, id, body.into()).await?.into()))
}

/// Change an account, as PATCH does.
#[utoipa::path(put, path = "/api/v1/accounts/{account_id}", operation_id = "replaceAccount", tag = "accounts",
    params(("account_id" = Uuid, Path)),
    request_body = AccountChangeJson,
    responses((status = 200, description = "Changed.", body = AccountJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn replace(
    service: AccountsState,
    who: Who,
    id: Path<AccountId>,
    body: Body<AccountChangeJson>,
) -> ApiResult<Json<AccountJson>> {
    update(service, who, id, body).await
}

/// Disable an account: it cannot start a signature.
#[utoipa::path(post, path = "/api/v1/accounts/{account_id}/disable", operation_id = "disableAccount", tag = "accounts",
    params(("account_id" = Uuid, Path)),
    responses((status = 200, description = "Disabled.", body = AccountJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn disable(
    State(accounts): AccountsState,
    Who(caller): Who,
    Path(id): Path<AccountId>,
) -> ApiResult<Json<AccountJson>> {
    let change =
        AccountChange { status: Some(AccountStatus::Disabled), ..AccountChange::default() };
    Ok(Json(accounts.update(&caller, id, change).await?.into()))
}

/// Disable an account, as `disable` does: accounts are never deleted.
#[utoipa::path(delete, path = "/api/v1/accounts/{account_id}", operation_id = "deleteAccount", tag = "accounts",
    params(("account_id" = Uuid, Path)),
    responses((status = 200, description = "Disabled.", body = AccountJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn remove(
    service: AccountsState,
    who: Who,
    id: Path<AccountId>,
) -> ApiResult<Json<AccountJson>> {
    disable(service, who, id).await
}
