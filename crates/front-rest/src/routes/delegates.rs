//! What delegates hand in for their users, and how the users fetch it.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use quorate_ports::Coordinator;
use quorate_types::{FetchShare, SessionId};
use quorate_wire::*;

use crate::answer::ApiResult;
use crate::common::{MESSAGE_BODY, finish};
use crate::extract::{Body, FetchTokenHeader, Path, Who};
use crate::params::Params;

type Service = State<Arc<dyn Coordinator>>;

/// The routes of delegated shares.
pub(crate) fn routes(coordinator: Arc<dyn Coordinator>) -> Router {
    let routes = Router::new()
        .route(
            "/api/v1/sessions/{session_id}/delegate-share",
            post(submit).get(fetch).delete(confirm),
        )
        .with_state(coordinator);
    finish(routes, MESSAGE_BODY)
}

/// Submit the package that a delegate has made for its user.
///
/// Success means that it is durable. There is one package per delegated seat: repeating the call
/// changes nothing, a different package is a conflict. The keygen completes once all packages are
/// submitted.
#[utoipa::path(post, path = "/api/v1/sessions/{session_id}/delegate-share", operation_id = "submitDelegateShare", tag = "delegates",
    params(("session_id" = Uuid, Path)),
    request_body = SubmitShareJson,
    responses((status = 200, description = "Accepted.", body = ShareStepJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn submit(
    State(coordinator): Service,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    Body(body): Body<SubmitShareJson>,
) -> ApiResult<Json<ShareStepJson>> {
    coordinator.submit_share(&caller, body.into_submission(session)).await?;
    Ok(Json(ShareStepJson { success: true }))
}

/// Fetch a user's share, sealed to the user's key; repeatable until it is confirmed.
#[utoipa::path(get, path = "/api/v1/sessions/{session_id}/delegate-share", operation_id = "fetchDelegateShare", tag = "delegates",
    params(("session_id" = Uuid, Path),
        ("party_id" = String, Query, description = "the delegate, or the user"),
        ("Fetch-Token" = String, Header, description = "the fetch token from the answer that created the session")),
    responses((status = 200, description = "The share.", body = DelegatedShareJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn fetch(
    State(coordinator): Service,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    FetchTokenHeader(token): FetchTokenHeader,
    params: Params,
) -> ApiResult<Json<DelegatedShareJson>> {
    let asked = asked(session, token, params)?;
    Ok(Json(coordinator.fetch_share(&caller, asked).await?.into()))
}

/// Confirm that the user has stored its share: the server deletes the package. Idempotent.
#[utoipa::path(delete, path = "/api/v1/sessions/{session_id}/delegate-share", operation_id = "confirmDelegateShare", tag = "delegates",
    params(("session_id" = Uuid, Path),
        ("party_id" = String, Query, description = "the delegate, or the user"),
        ("Fetch-Token" = String, Header, description = "the fetch token from the answer that created the session")),
    responses((status = 200, description = "Deleted.", body = ShareStepJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn confirm(
    State(coordinator): Service,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    FetchTokenHeader(token): FetchTokenHeader,
    params: Params,
) -> ApiResult<Json<ShareStepJson>> {
    coordinator.confirm_share(&caller, asked(session, token, params)?).await?;
    Ok(Json(ShareStepJson { success: true }))
}

fn asked(
    session_id: SessionId,
    token: quorate_types::FetchToken,
    mut params: Params,
) -> quorate_types::Result<FetchShare> {
    let party_id = params.required("party_id")?;
    params.done()?;
    Ok(FetchShare { session_id, party_id, token })
}
