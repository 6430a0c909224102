//! `mpc.router.v1.MessageRouter`.

use std::sync::Arc;

use quorate_ports::{Router, TakePart};
use quorate_rpc as convert;
use quorate_rpc::proto::router::v1 as ro;
use quorate_rpc::proto::router::v1::message_router_server::MessageRouter;
use quorate_rpc::status::to_status;
use quorate_types::*;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::coordinator::shared;
use crate::{Outgoing, caller, link, outgoing};

#[derive(Clone)]
pub(crate) struct RouterService {
    pub(crate) router: Arc<dyn Router>,
    pub(crate) coordinator: Arc<dyn TakePart>,
    /// Ends the streams of calls.
    pub(crate) stop: CancellationToken,
}

type GrpcResult<T> = std::result::Result<Response<T>, Status>;

fn answer<T>(result: Result<T>) -> GrpcResult<T> {
    result.map(Response::new).map_err(to_status)
}

fn optional<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

impl RouterService {
    pub(crate) async fn route(
        &self,
        caller: &Caller,
        request: RouteRequest,
    ) -> Result<ro::RouteMessageResponse> {
        let id = self.router.route(caller, request).await?;
        Ok(ro::RouteMessageResponse { success: true, message_id: id.to_string() })
    }

    async fn subscribe(
        &self,
        caller: &Caller,
        request: ro::SubscribeMessagesRequest,
    ) -> Result<Outgoing<ro::MpcMessage>> {
        let (session, party) = (optional(&request.session_id)?, request.party_id.parse()?);
        let after = Timestamp(request.after_timestamp);
        let stream = self.router.subscribe(caller, session, &party, after).await?;
        Ok(outgoing(stream, convert::message_out, &self.stop))
    }

    async fn pending(
        &self,
        caller: &Caller,
        request: ro::GetPendingMessagesRequest,
    ) -> Result<ro::GetPendingMessagesResponse> {
        let (session, party) = (request.session_id.parse()?, request.party_id.parse()?);
        let after = Timestamp(request.after_timestamp);
        let messages = self.router.pending(caller, session, &party, after).await?;
        let messages = messages.into_iter().map(convert::message_out).collect();
        Ok(ro::GetPendingMessagesResponse { messages })
    }

    pub(crate) async fn acknowledge(
        &self,
        caller: &Caller,
        request: ro::AcknowledgeMessageRequest,
    ) -> Result<ro::AcknowledgeMessageResponse> {
        let ack = Acknowledge {
            message_id: request.message_id.parse()?,
            party_id: request.party_id.parse()?,
            session_id: request.session_id.parse()?,
            success: request.success,
        };
        if !request.error_message.is_empty() {
            // Control characters of a stranger do not belong in a log.
            tracing::info!(message = %ack.message_id, party = %ack.party_id,
                error = ?request.error_message, "a party could not use a message");
        }
        self.router.acknowledge(caller, ack).await?;
        Ok(ro::AcknowledgeMessageResponse { success: true, message: "acknowledged".into() })
    }

    async fn status(
        &self,
        caller: &Caller,
        request: ro::GetMessageStatusRequest,
    ) -> Result<ro::GetMessageStatusResponse> {
        let (session, message) = (request.session_id.parse()?, request.message_id.parse()?);
        let deliveries = self.router.message_status(caller, session, message).await?;
        let done = |d: &Delivery| d.state == DeliveryState::Acknowledged;
        Ok(ro::GetMessageStatusResponse {
            message_id: request.message_id,
            session_id: request.session_id,
            all_acknowledged: deliveries.iter().all(done),
            deliveries: deliveries.into_iter().map(convert::delivery_out).collect(),
        })
    }

    async fn register(
        &self,
        caller: &Caller,
        request: ro::RegisterPartyRequest,
    ) -> Result<ro::RegisterPartyResponse> {
        let registration = convert::registration_in(request)?;
        let message = format!("{} is registered", registration.party_id);
        let registered_at = self.router.register(caller, registration).await?.0;
        Ok(ro::RegisterPartyResponse { success: true, message, registered_at })
    }

    pub(crate) async fn heartbeat(
        &self,
        caller: &Caller,
        party: &str,
    ) -> Result<ro::HeartbeatResponse> {
        let pulse = self.router.heartbeat(caller, &party.parse()?).await?;
        Ok(ro::HeartbeatResponse {
            success: true,
            server_timestamp: pulse.server_time.0,
            pending_messages: i32::try_from(pulse.pending_messages).unwrap_or(i32::MAX),
        })
    }

    async fn events(
        &self,
        caller: &Caller,
        request: ro::SubscribeSessionEventsRequest,
    ) -> Result<Outgoing<ro::SessionEvent>> {
        let party = request.party_id.parse()?;
        let kinds = convert::parse_all(&request.event_types)?;
        let stream = self.router.subscribe_events(caller, &party, kinds).await?;
        Ok(outgoing(stream, convert::event_out, &self.stop))
    }

    async fn publish(
        &self,
        caller: &Caller,
        request: ro::PublishSessionEventRequest,
    ) -> Result<ro::PublishSessionEventResponse> {
        let event =
            request.event.ok_or_else(|| Error::invalid_field("event", "event is missing"))?;
        let reached = self.router.publish_event(caller, convert::event_in(event)?).await?;
        let subscriber_count = i32::try_from(reached).unwrap_or(i32::MAX);
        Ok(ro::PublishSessionEventResponse { success: true, subscriber_count })
    }

    async fn parties(
        &self,
        caller: &Caller,
        request: ro::GetRegisteredPartiesRequest,
    ) -> Result<ro::GetRegisteredPartiesResponse> {
        let role = optional(&request.role_filter)?;
        let parties = self.router.parties(caller, role, request.only_online).await?;
        let total_count = i32::try_from(parties.len()).unwrap_or(i32::MAX);
        let (parties, next) = parties_page(parties, optional(&request.after)?.as_ref());
        Ok(ro::GetRegisteredPartiesResponse {
            total_count,
            parties: parties.into_iter().map(convert::registered_out).collect(),
            next: next.map(|party| party.to_string()).unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl MessageRouter for RouterService {
    type SubscribeMessagesStream = Outgoing<ro::MpcMessage>;
    type SubscribeSessionEventsStream = Outgoing<ro::SessionEvent>;
    type LinkStream = Outgoing<ro::LinkAnswer>;

    async fn route_message(
        &self,
        request: Request<ro::RouteMessageRequest>,
    ) -> GrpcResult<ro::RouteMessageResponse> {
        let caller = caller(request.extensions())?;
        let request = convert::route_in(request.into_inner()).map_err(to_status)?;
        answer(self.route(&caller, request).await)
    }

    async fn subscribe_messages(
        &self,
        request: Request<ro::SubscribeMessagesRequest>,
    ) -> GrpcResult<Self::SubscribeMessagesStream> {
        let caller = caller(request.extensions())?;
        answer(self.subscribe(&caller, request.into_inner()).await)
    }

    async fn get_pending_messages(
        &self,
        request: Request<ro::GetPendingMessagesRequest>,
    ) -> GrpcResult<ro::GetPendingMessagesResponse> {
        let caller = caller(request.extensions())?;
        answer(self.pending(&caller, request.into_inner()).await)
    }

    async fn acknowledge_message(
        &self,
        request: Request<ro::AcknowledgeMessageRequest>,
    ) -> GrpcResult<ro::AcknowledgeMessageResponse> {
        let caller = caller(request.extensions())?;
        answer(self.acknowledge(&caller, request.into_inner()).await)
    }

    async fn get_message_status(
        &self,
        request: Request<ro::GetMessageStatusRequest>,
    ) -> GrpcResult<ro::GetMessageStatusResponse> {
        let caller = caller(request.extensions())?;
        answer(self.status(&caller, request.into_inner()).await)
    }

    async fn register_party(
        &self,
        request: Request<ro::RegisterPartyRequest>,
    ) -> GrpcResult<ro::RegisterPartyResponse> {
        let caller = caller(request.extensions())?;
        answer(self.register(&caller, request.into_inner()).await)
    }

    async fn heartbeat(
        &self,
        request: Request<ro::HeartbeatRequest>,
    ) -> GrpcResult<ro::HeartbeatResponse> {
        let caller = caller(request.extensions())?;
        answer(RouterService::heartbeat(self, &caller, &request.get_ref().party_id).await)
    }

    async fn subscribe_session_events(
        &self,
        request: Request<ro::SubscribeSessionEventsRequest>,
    ) -> GrpcResult<Self::SubscribeSessionEventsStream> {
        let caller = caller(request.extensions())?;
        answer(self.events(&caller, request.into_inner()).await)
    }

    async fn publish_session_event(
        &self,
        request: Request<ro::PublishSessionEventRequest>,
    ) -> GrpcResult<ro::PublishSessionEventResponse> {
        let caller = caller(request.extensions())?;
        answer(self.publish(&caller, request.into_inner()).await)
    }

    async fn get_registered_parties(
        &self,
        request: Request<ro::GetRegisteredPartiesRequest>,
    ) -> GrpcResult<ro::GetRegisteredPartiesResponse> {
        let caller = caller(request.extensions())?;
        answer(self.parties(&caller, request.into_inner()).await)
    }

    async fn get_contacts(
        &self,
        request: Request<ro::GetContactsRequest>,
    ) -> GrpcResult<ro::GetContactsResponse> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let tenant = request.tenant.parse().map_err(to_status)?;
        let parties: Vec<PartyId> = convert::parse_all(&request.party_ids).map_err(to_status)?;
        answer(self.router.contacts(&caller, &tenant, &parties).await.map(|contacts| {
            let contacts = contacts.into_iter().map(convert::contact_out).collect();
            ro::GetContactsResponse { contacts }
        }))
    }

    async fn join_session(
        &self,
        request: Request<ro::JoinSessionRequest>,
    ) -> GrpcResult<ro::JoinSessionResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::join(&*self.coordinator, &caller, request.into_inner()).await)
    }

    async fn mark_party_ready(
        &self,
        request: Request<ro::MarkPartyReadyRequest>,
    ) -> GrpcResult<ro::MarkPartyReadyResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::ready(&*self.coordinator, &caller, request.into_inner()).await)
    }

    async fn report_completion(
        &self,
        request: Request<ro::ReportCompletionRequest>,
    ) -> GrpcResult<ro::ReportCompletionResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::report(&*self.coordinator, &caller, request.into_inner()).await)
    }

    async fn get_session_status(
        &self,
        request: Request<ro::GetSessionStatusRequest>,
    ) -> GrpcResult<ro::GetSessionStatusResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::status(&*self.coordinator, &caller, request.into_inner()).await)
    }

    async fn link(
        &self,
        request: Request<Streaming<ro::LinkCall>>,
    ) -> GrpcResult<Self::LinkStream> {
        let caller = caller(request.extensions())?;
        let stop = self.stop.clone();
        Ok(Response::new(link::answers(self.clone(), caller, request.into_inner(), stop)))
    }

    async fn submit_delegate_share(
        &self,
        request: Request<ro::SubmitDelegateShareRequest>,
    ) -> GrpcResult<ro::SubmitDelegateShareResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::submit(&*self.coordinator, &caller, request.into_inner()).await)
    }

    async fn fetch_delegate_share(
        &self,
        request: Request<ro::FetchDelegateShareRequest>,
    ) -> GrpcResult<ro::FetchDelegateShareResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::fetch(&*self.coordinator, &caller, request.into_inner()).await)
    }

    async fn confirm_delegate_share(
        &self,
        request: Request<ro::ConfirmDelegateShareRequest>,
    ) -> GrpcResult<ro::ConfirmDelegateShareResponse> {
        let caller = caller(request.extensions())?;
        answer(shared::confirm(&*self.coordinator, &caller, request.into_inner()).await)
    }
}
