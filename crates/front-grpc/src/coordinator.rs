//! `mpc.coordinator.v1.SessionCoordinator`.

use std::sync::Arc;
use std::time::Duration;

use quorate_ports::{Coordinator, TakePart};
use quorate_rpc as convert;
use quorate_rpc::proto::coordinator::v1 as co;
use quorate_rpc::proto::coordinator::v1::session_coordinator_server::SessionCoordinator;
use quorate_rpc::proto::router::v1 as ro;
use quorate_rpc::status::to_status;
use quorate_types::*;
use tonic::{Request, Response, Status};

use crate::caller;

/// Entries listed when a caller does not say how many.
const DEFAULT_LIMIT: u32 = 50;
/// Longest a question may hang.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

pub(crate) struct CoordinatorService(pub(crate) Arc<dyn Coordinator>);

fn limit(asked: u32) -> u32 {
    if asked == 0 { DEFAULT_LIMIT } else { asked }
}

pub(crate) fn wait_limit(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(MAX_WAIT)
}

/// The session calls that coordinator and router share.
pub(crate) mod shared {
    use super::*;

    pub(crate) async fn join(
        coordinator: &dyn TakePart,
        caller: &Caller,
        request: ro::JoinSessionRequest,
    ) -> Result<ro::JoinSessionResponse> {
        let joined = coordinator.join(caller, convert::join_in(request)?).await?;
        Ok(convert::joined_out(&joined))
    }

    pub(crate) async fn ready(
        coordinator: &dyn TakePart,
        caller: &Caller,
        request: ro::MarkPartyReadyRequest,
    ) -> Result<ro::MarkPartyReadyResponse> {
        let (session, party) = (request.session_id.parse()?, request.party_id.parse()?);
        coordinator.ready(caller, session, &party).await.map(convert::ready_out)
    }

    pub(crate) async fn report(
        coordinator: &dyn TakePart,
        caller: &Caller,
        request: ro::ReportCompletionRequest,
    ) -> Result<ro::ReportCompletionResponse> {
        let view = coordinator.complete(caller, convert::report_in(request)?).await?;
        Ok(convert::completed_out(&view))
    }

    pub(crate) async fn submit(
        coordinator: &dyn TakePart,
        caller: &Caller,
        request: ro::SubmitDelegateShareRequest,
    ) -> Result<ro::SubmitDelegateShareResponse> {
        coordinator.submit_share(caller, convert::submitted_in(request)?).await?;
        Ok(ro::SubmitDelegateShareResponse { success: true })
    }

    pub(crate) async fn fetch(
        coordinator: &dyn TakePart,
        caller: &Caller,
        request: ro::FetchDelegateShareRequest,
    ) -> Result<ro::FetchDelegateShareResponse> {
        let share = coordinator.fetch_share(caller, convert::fetch_in(request)?).await?;
        Ok(convert::fetched_out(share))
    }

    pub(crate) async fn confirm(
        coordinator: &dyn TakePart,
        caller: &Caller,
        request: ro::ConfirmDelegateShareRequest,
    ) -> Result<ro::ConfirmDelegateShareResponse> {
        coordinator.confirm_share(caller, convert::confirm_in(request)?).await?;
        Ok(ro::ConfirmDelegateShareResponse { success: true })
    }

    pub(crate) async fn status(
        coordinator: &dyn TakePart,
        caller: &Caller,
        request: ro::GetSessionStatusRequest,
    ) -> Result<ro::GetSessionStatusResponse> {
        let wait = match request.wait_for.as_str() {
            "" => None,
            "start" => Some(WaitFor::Start),
            "end" => Some(WaitFor::End),
            _ => {
                return Err(Error::invalid_field("wait_for", "wait_for is \"start\" or \"end\""));
            }
        };
        let wait = wait.map(|wait| (wait, wait_limit(request.wait_millis)));
        let view = coordinator.status(caller, request.session_id.parse()?, wait).await?;
        Ok(convert::status_out(&view))
    }
}

type GrpcResult<T> = std::result::Result<Response<T>, Status>;

fn answer<T>(result: Result<T>) -> GrpcResult<T> {
    result.map(Response::new).map_err(to_status)
}

#[tonic::async_trait]
impl SessionCoordinator for CoordinatorService {
    async fn create_session(
        &self,
        request: Request<co::CreateSessionRequest>,
    ) -> GrpcResult<co::CreateSessionResponse> {
        let caller = caller(request.extensions())?;
        let request = convert::create_in(request.into_inner()).map_err(to_status)?;
        answer(self.0.create(&caller, request).await.map(|created| convert::created_out(&created)))
    }

    async fn join_session(
        &self,
        request: Request<ro::JoinSessionRequest>,
    ) -> GrpcResult<ro::JoinSessionResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::join(&*self.0, &caller, request.into_inner()).await)
    }

    async fn get_session_status(
        &self,
        request: Request<ro::GetSessionStatusRequest>,
    ) -> GrpcResult<ro::GetSessionStatusResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::status(&*self.0, &caller, request.into_inner()).await)
    }

    async fn mark_party_ready(
        &self,
        request: Request<ro::MarkPartyReadyRequest>,
    ) -> GrpcResult<ro::MarkPartyReadyResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::ready(&*self.0, &caller, request.into_inner()).await)
    }

    async fn start_session(
        &self,
        request: Request<co::StartSessionRequest>,
    ) -> GrpcResult<co::StartSessionResponse> {
        let caller = caller(request.extensions())?;
        let session = request.into_inner().session_id.parse().map_err(to_status)?;
        answer(self.0.start(&caller, session).await.map(|view| co::StartSessionResponse {
            success: true,
            status: view.status.name().into(),
            detail: Some(convert::detail(&view)),
        }))
    }

    async fn report_completion(
        &self,
        request: Request<ro::ReportCompletionRequest>,
    ) -> GrpcResult<ro::ReportCompletionResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::report(&*self.0, &caller, request.into_inner()).await)
    }

    async fn submit_delegate_share(
        &self,
        request: Request<ro::SubmitDelegateShareRequest>,
    ) -> GrpcResult<ro::SubmitDelegateShareResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::submit(&*self.0, &caller, request.into_inner()).await)
    }

    async fn fetch_delegate_share(
        &self,
        request: Request<ro::FetchDelegateShareRequest>,
    ) -> GrpcResult<ro::FetchDelegateShareResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::fetch(&*self.0, &caller, request.into_inner()).await)
    }

    async fn confirm_delegate_share(
        &self,
        request: Request<ro::ConfirmDelegateShareRequest>,
    ) -> GrpcResult<ro::ConfirmDelegateShareResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::confirm(&*self.0, &caller, request.into_inner()).await)
    }

    async fn close_session(
        &self,
        request: Request<co::CloseSessionRequest>,
    ) -> GrpcResult<co::CloseSessionResponse> {
        let caller = caller(request.extensions())?;
        let session = request.into_inner().session_id.parse().map_err(to_status)?;
        answer(self.0.close(&caller, session).await.map(|view| co::CloseSessionResponse {
            success: true,
            detail: Some(convert::detail(&view)),
        }))
    }

    async fn approve_session(
        &self,
        request: Request<co::ApproveSessionRequest>,
    ) -> GrpcResult<co::ApproveSessionResponse> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let session = request.session_id.parse().map_err(to_status)?;
        let approval = convert::approval_in(request.approval.unwrap_or_default());
        let approval = approval.map_err(to_status)?;
        answer(self.0.approve(&caller, session, approval).await.map(|view| {
            let detail = Some(convert::detail(&view));
            co::ApproveSessionResponse { success: true, detail }
        }))
    }

    async fn get_timeline(
        &self,
        request: Request<co::GetTimelineRequest>,
    ) -> GrpcResult<co::GetTimelineResponse> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let session = request.session_id.parse().map_err(to_status)?;
        let seen = usize::try_from(request.seen).unwrap_or(0);
        let wait = (request.wait_millis > 0).then(|| (seen, wait_limit(request.wait_millis)));
        answer(self.0.follow(&caller, session, wait).await.map(|t| convert::timeline_out(&t)))
    }

    async fn list_sessions(
        &self,
        request: Request<co::ListSessionsRequest>,
    ) -> GrpcResult<co::ListSessionsResponse> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let moment = (request.before != 0).then_some(Timestamp(request.before));
        let before = convert::cursor_in(&request.cursor).map_err(to_status)?;
        let before = before.or(moment.map(Cursor::from));
        let page = self.0.list(&caller, before, limit(request.limit)).await;
        answer(page.map(|page| co::ListSessionsResponse {
            sessions: page.items.iter().map(convert::detail).collect(),
            next: convert::cursor_out(page.next),
        }))
    }

    async fn get_key(&self, request: Request<co::GetKeyRequest>) -> GrpcResult<co::GetKeyResponse> {
        let caller = caller(request.extensions())?;
        let key = request.into_inner().key_id.parse().map_err(to_status)?;
        answer(self.0.key(&caller, key).await.map(convert::key_view_out))
    }

    async fn freeze_key(
        &self,
        request: Request<co::FreezeKeyRequest>,
    ) -> GrpcResult<co::GetKeyResponse> {
        let caller = caller(request.extensions())?;
        let co::FreezeKeyRequest { key_id, reason } = request.into_inner();
        let key = key_id.parse().map_err(to_status)?;
        answer(self.0.freeze(&caller, key, reason).await.map(convert::key_view_out))
    }

    async fn unfreeze_key(
        &self,
        request: Request<co::UnfreezeKeyRequest>,
    ) -> GrpcResult<co::GetKeyResponse> {
        let caller = caller(request.extensions())?;
        let key = request.into_inner().key_id.parse().map_err(to_status)?;
        answer(self.0.unfreeze(&caller, key).await.map(convert::key_view_out))
    }

    async fn list_keys(
        &self,
        request: Request<co::ListKeysRequest>,
    ) -> GrpcResult<co::ListKeysResponse> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let before = convert::cursor_in(&request.cursor).map_err(to_status)?;
        let page = self.0.keys(&caller, before, limit(request.limit)).await;
        answer(page.map(|page| co::ListKeysResponse {
            keys: page.items.into_iter().map(convert::key_out).collect(),
            next: convert::cursor_out(page.next),
        }))
    }

    async fn list_notifications(
        &self,
        request: Request<co::ListNotificationsRequest>,
    ) -> GrpcResult<co::ListNotificationsResponse> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let before = convert::cursor_in(&request.cursor).map_err(to_status)?;
        let state = convert::notification_state_in(&request.state).map_err(to_status)?;
        let page = self.0.notifications(&caller, state, before, limit(request.limit)).await;
        answer(page.map(|page| co::ListNotificationsResponse {
            notifications: page.items.into_iter().map(convert::notification_out).collect(),
            next: convert::cursor_out(page.next),
        }))
    }

    async fn report_progress(
        &self,
        request: Request<co::ReportProgressRequest>,
    ) -> GrpcResult<co::ReportProgressResponse> {
        caller(request.extensions())?.may(Scope::System).map_err(to_status)?;
        let request = request.into_inner();
        let session = request.session_id.parse().map_err(to_status)?;
        let party = request.party_id.parse().map_err(to_status)?;
        self.0.progress(session, &party, request.round_number).await;
        Ok(Response::new(co::ReportProgressResponse {}))
    }
}
