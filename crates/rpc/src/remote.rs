//! The ports over the network: another role, or a party's only link.
//!
//! A connection is made at the first call, and again whenever it breaks; a call made while it is
//! away fails with `unavailable`, which is retryable.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use quorate_ports::{
    Announce, BoxStream, Deliver, Directory, ManageSessions, NoteProgress, ReadMessages,
    ReadNotifications, ReadSession, TakePart,
};
use quorate_types::*;
use tonic::Request;
use tonic::metadata::MetadataValue;

use crate::authorized::Authorized;
use crate::behalf::{ON_BEHALF_OF, behalf_out};
use crate::call_stream::{CallStream, misunderstood};
use crate::endpoint::Endpoint;
use crate::proto::coordinator::v1 as co;
use crate::proto::coordinator::v1::session_coordinator_client::SessionCoordinatorClient;
use crate::proto::router::v1 as ro;
use crate::proto::router::v1::link_answer::Answer;
use crate::proto::router::v1::link_call::Call;
use crate::proto::router::v1::message_router_client::MessageRouterClient;
use crate::status::to_error;
use crate::unreachable::{COORDINATOR, ROUTER};
use crate::{MAX_MESSAGE, convert};

/// A client, and whether its calls say for whom they are made.
#[derive(Clone)]
struct Peer<C> {
    client: C,
    forwards: bool,
}

impl<C> Peer<C> {
    fn request<T>(&self, caller: &Caller, body: T) -> Result<Request<T>> {
        let mut request = Request::new(body);
        if self.forwards {
            let value =
                MetadataValue::try_from(behalf_out(caller)).map_err(|_| Error::internal())?;
            request.metadata_mut().insert(ON_BEHALF_OF, value);
        }
        Ok(request)
    }
}

/// One call for a caller: the answer, or the refusal as we know it.
macro_rules! call {
    ($at:expr, $caller:expr, $method:ident, $request:expr) => {
        $at.client
            .clone()
            .$method($at.request($caller, $request)?)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| to_error(&status))
    };
}

fn millis(limit: Duration) -> i64 {
    i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)
}

fn status_request(
    session: SessionId,
    wait: Option<(WaitFor, Duration)>,
) -> ro::GetSessionStatusRequest {
    let (wait_for, wait_millis) = match wait {
        None => ("", 0),
        Some((WaitFor::Start, limit)) => ("start", millis(limit)),
        Some((WaitFor::End, limit)) => ("end", millis(limit)),
    };
    ro::GetSessionStatusRequest {
        session_id: session.to_string(),
        wait_for: wait_for.into(),
        wait_millis,
    }
}

/// The coordinator in another process.
#[derive(Clone)]
pub struct RemoteCoordinator(Peer<SessionCoordinatorClient<Authorized>>);

impl RemoteCoordinator {
    /// The coordinator at this address.
    pub fn new(endpoint: Endpoint) -> Self {
        let forwards = endpoint.forwards;
        let client = SessionCoordinatorClient::new(endpoint.service().expect(COORDINATOR))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self(Peer { client, forwards })
    }
}

#[async_trait]
impl ReadSession for RemoteCoordinator {
    async fn status(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        let request = status_request(session, wait);
        convert::view(call!(self.0, caller, get_session_status, request)?.detail)
    }
}

#[async_trait]
impl TakePart for RemoteCoordinator {
    async fn join(&self, caller: &Caller, request: JoinSession) -> Result<JoinedSession> {
        convert::joined_in(call!(self.0, caller, join_session, convert::join_out(request))?)
    }

    async fn ready(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
    ) -> Result<ReadyCount> {
        let (session_id, party_id) = (session.to_string(), party.to_string());
        let request = ro::MarkPartyReadyRequest { session_id, party_id };
        Ok(convert::ready_in(&call!(self.0, caller, mark_party_ready, request)?))
    }

    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView> {
        let request = convert::report_out(report);
        convert::view(call!(self.0, caller, report_completion, request)?.detail)
    }

    async fn submit_share(&self, caller: &Caller, submitted: SubmitShare) -> Result<()> {
        let request = convert::submitted_out(submitted);
        call!(self.0, caller, submit_delegate_share, request).map(drop)
    }

    async fn fetch_share(&self, caller: &Caller, asked: FetchShare) -> Result<DelegatedShare> {
        let request = convert::fetch_out(&asked);
        convert::fetched_in(call!(self.0, caller, fetch_delegate_share, request)?)
    }

    async fn confirm_share(&self, caller: &Caller, asked: FetchShare) -> Result<()> {
        let request = convert::confirm_out(&asked);
        call!(self.0, caller, confirm_delegate_share, request).map(drop)
    }
}

#[async_trait]
impl ManageSessions for RemoteCoordinator {
    async fn create(&self, caller: &Caller, request: CreateSession) -> Result<CreatedSession> {
        convert::created_in(call!(self.0, caller, create_session, convert::create_out(request))?)
    }

    async fn start(&self, caller: &Caller, session: SessionId) -> Result<SessionView> {
        let request = co::StartSessionRequest { session_id: session.to_string() };
        convert::view(call!(self.0, caller, start_session, request)?.detail)
    }

    async fn close(&self, caller: &Caller, session: SessionId) -> Result<SessionView> {
        let request = co::CloseSessionRequest { session_id: session.to_string() };
        convert::view(call!(self.0, caller, close_session, request)?.detail)
    }

    async fn approve(
        &self,
        caller: &Caller,
        session: SessionId,
        approval: Approval,
    ) -> Result<SessionView> {
        let request = co::ApproveSessionRequest {
            session_id: session.to_string(),
            approval: Some(convert::approval_out(&approval)),
        };
        convert::view(call!(self.0, caller, approve_session, request)?.detail)
    }

    async fn timeline(&self, caller: &Caller, session: SessionId) -> Result<Timeline> {
        self.follow(caller, session, None).await
    }

    async fn follow(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(usize, Duration)>,
    ) -> Result<Timeline> {
        let (seen, limit) = wait.unwrap_or_default();
        let request = co::GetTimelineRequest {
            session_id: session.to_string(),
            seen: i32::try_from(seen).unwrap_or(i32::MAX),
            wait_millis: millis(limit),
        };
        convert::timeline_in(call!(self.0, caller, get_timeline, request)?)
    }

    async fn list(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionView>> {
        let cursor = convert::cursor_out(before);
        let request = co::ListSessionsRequest { before: 0, limit, cursor };
        let answer = call!(self.0, caller, list_sessions, request)?;
        let sessions = answer.sessions.into_iter().map(|detail| convert::view(Some(detail)));
        let next = convert::cursor_in(&answer.next)?;
        Ok(Page { items: sessions.collect::<Result<_>>()?, next })
    }

    async fn key(&self, caller: &Caller, key: KeyId) -> Result<KeyView> {
        let request = co::GetKeyRequest { key_id: key.to_string() };
        convert::key_view_in(call!(self.0, caller, get_key, request)?)
    }

    async fn freeze(&self, caller: &Caller, key: KeyId, reason: String) -> Result<KeyView> {
        let request = co::FreezeKeyRequest { key_id: key.to_string(), reason };
        convert::key_view_in(call!(self.0, caller, freeze_key, request)?)
    }

    async fn unfreeze(&self, caller: &Caller, key: KeyId) -> Result<KeyView> {
        let request = co::UnfreezeKeyRequest { key_id: key.to_string() };
        convert::key_view_in(call!(self.0, caller, unfreeze_key, request)?)
    }

    async fn keys(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>> {
        let cursor = convert::cursor_out(before);
        let answer = call!(self.0, caller, list_keys, co::ListKeysRequest { limit, cursor })?;
        let keys = answer.keys.into_iter().map(convert::key_in);
        let next = convert::cursor_in(&answer.next)?;
        Ok(Page { items: keys.collect::<Result<_>>()?, next })
    }
}

#[async_trait]
impl ReadNotifications for RemoteCoordinator {
    async fn notifications(
        &self,
        caller: &Caller,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>> {
        let state = state.map_or("", NotificationState::name).to_owned();
        let cursor = convert::cursor_out(before);
        let request = co::ListNotificationsRequest { limit, cursor, state };
        let answer = call!(self.0, caller, list_notifications, request)?;
        let items = answer.notifications.into_iter().map(convert::notification_in);
        let next = convert::cursor_in(&answer.next)?;
        Ok(Page { items: items.collect::<Result<_>>()?, next })
    }
}

#[async_trait]
impl NoteProgress for RemoteCoordinator {
    async fn progress(&self, session: SessionId, party: &PartyId, round: i32) {
        let request = co::ReportProgressRequest {
            session_id: session.to_string(),
            party_id: party.to_string(),
            round_number: round,
        };
        let noted = async { call!(self.0, &Caller::System, report_progress, request) };
        // A note for the timeline: its loss is no error.
        let _: Result<_> = noted.await;
    }
}

pub(crate) type RouterClient = MessageRouterClient<Authorized>;

/// One call on the router's link, whose answer is of the same kind.
macro_rules! linked {
    ($link:expr, $kind:ident, $request:expr) => {
        match $link.call(Call::$kind($request)).await? {
            Answer::$kind(answer) => Ok::<_, Error>(answer),
            _ => Err(misunderstood()),
        }
    };
}

/// The router in another process.
#[derive(Clone)]
pub struct RemoteRouter {
    at: Peer<RouterClient>,
    calls: CallStream,
}

impl RemoteRouter {
    /// The router at this address.
    pub fn new(endpoint: Endpoint) -> Self {
        let forwards = endpoint.forwards;
        let client = MessageRouterClient::new(endpoint.service().expect(ROUTER))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { calls: CallStream::new(client.clone()), at: Peer { client, forwards } }
    }

    /// The stream of calls, which is its opener's own: calls for others go one by one.
    fn calls(&self) -> Result<&CallStream> {
        if self.at.forwards {
            return Err(Error::internal());
        }
        Ok(&self.calls)
    }

    /// The session calls that this router passes on to its coordinator.
    pub fn sessions(&self) -> ProxiedCoordinator {
        ProxiedCoordinator(self.clone())
    }
}

#[async_trait]
impl Deliver for RemoteRouter {
    async fn register(&self, caller: &Caller, registration: Registration) -> Result<Timestamp> {
        let request = convert::registration_out(registration);
        Ok(Timestamp(call!(self.at, caller, register_party, request)?.registered_at))
    }

    async fn heartbeat(&self, _: &Caller, party: &PartyId) -> Result<Pulse> {
        let request = ro::HeartbeatRequest { party_id: party.to_string(), timestamp: 0 };
        let answer = linked!(self.calls()?, Heartbeat, request)?;
        Ok(Pulse {
            server_time: Timestamp(answer.server_timestamp),
            pending_messages: u32::try_from(answer.pending_messages).unwrap_or(0),
        })
    }

    async fn route(&self, _: &Caller, request: RouteRequest) -> Result<MessageId> {
        linked!(self.calls()?, Route, convert::route_out(request))?.message_id.parse()
    }

    async fn subscribe(
        &self,
        caller: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>> {
        let request = ro::SubscribeMessagesRequest {
            session_id: session.map(|id| id.to_string()).unwrap_or_default(),
            party_id: party.to_string(),
            after_timestamp: after.0,
        };
        let stream = call!(self.at, caller, subscribe_messages, request)?;
        Ok(Box::pin(stream.map(|item| match item {
            Ok(message) => convert::message_in(message),
            Err(status) => Err(to_error(&status)),
        })))
    }

    async fn acknowledge(&self, _: &Caller, ack: Acknowledge) -> Result<()> {
        let request = ro::AcknowledgeMessageRequest {
            message_id: ack.message_id.to_string(),
            party_id: ack.party_id.to_string(),
            session_id: ack.session_id.to_string(),
            success: ack.success,
            error_message: String::new(),
        };
        linked!(self.calls()?, Acknowledge, request).map(drop)
    }

    async fn subscribe_events(
        &self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        let request = ro::SubscribeSessionEventsRequest {
            party_id: party.to_string(),
            event_types: kinds.into_iter().map(|kind| kind.name().into()).collect(),
        };
        let stream = call!(self.at, caller, subscribe_session_events, request)?;
        Ok(Box::pin(stream.map(|item| match item {
            Ok(event) => convert::event_in(event),
            Err(status) => Err(to_error(&status)),
        })))
    }
}

#[async_trait]
impl ReadMessages for RemoteRouter {
    async fn pending(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<Vec<Message>> {
        let request = ro::GetPendingMessagesRequest {
            session_id: session.to_string(),
            party_id: party.to_string(),
            after_timestamp: after.0,
        };
        let answer = call!(self.at, caller, get_pending_messages, request)?;
        answer.messages.into_iter().map(convert::message_in).collect()
    }

    async fn message_status(
        &self,
        caller: &Caller,
        session: SessionId,
        message: MessageId,
    ) -> Result<Vec<Delivery>> {
        let request = ro::GetMessageStatusRequest {
            message_id: message.to_string(),
            session_id: session.to_string(),
        };
        let answer = call!(self.at, caller, get_message_status, request)?;
        answer.deliveries.into_iter().map(convert::delivery_in).collect()
    }
}

#[async_trait]
impl Directory for RemoteRouter {
    async fn parties(
        &self,
        caller: &Caller,
        role: Option<PartyRole>,
        only_online: bool,
    ) -> Result<Vec<PartyView>> {
        let (mut parties, mut after) = (Vec::new(), String::new());
        loop {
            let request = ro::GetRegisteredPartiesRequest {
                role_filter: role.map(|role| role.name().into()).unwrap_or_default(),
                only_online,
                after: after.clone(),
            };
            let answer = call!(self.at, caller, get_registered_parties, request)?;
            for party in answer.parties {
                parties.push(convert::registered_in(party)?);
            }
            // A router that leads back would be asked endlessly.
            if answer.next <= after {
                return Ok(parties);
            }
            after = answer.next;
        }
    }

    async fn contacts(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        parties: &[PartyId],
    ) -> Result<Vec<Contact>> {
        let request = convert::contacts_request(tenant, parties);
        let answer = call!(self.at, caller, get_contacts, request)?;
        answer.contacts.into_iter().map(convert::contact_in).collect()
    }
}

#[async_trait]
impl Announce for RemoteRouter {
    async fn publish_event(&self, caller: &Caller, event: SessionEvent) -> Result<u32> {
        let request = ro::PublishSessionEventRequest { event: Some(convert::event_out(event)) };
        let answer = call!(self.at, caller, publish_session_event, request)?;
        Ok(u32::try_from(answer.subscriber_count).unwrap_or(0))
    }
}

/// The coordinator as a party reaches it: through the router, with the calls a party needs.
#[derive(Clone)]
pub struct ProxiedCoordinator(RemoteRouter);

#[async_trait]
impl ReadSession for ProxiedCoordinator {
    async fn status(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        let request = status_request(session, wait);
        convert::view(call!(self.0.at, caller, get_session_status, request)?.detail)
    }
}

#[async_trait]
impl TakePart for ProxiedCoordinator {
    async fn join(&self, _: &Caller, request: JoinSession) -> Result<JoinedSession> {
        convert::joined_in(linked!(self.0.calls()?, Join, convert::join_out(request))?)
    }

    async fn ready(&self, _: &Caller, session: SessionId, party: &PartyId) -> Result<ReadyCount> {
        let (session_id, party_id) = (session.to_string(), party.to_string());
        let request = ro::MarkPartyReadyRequest { session_id, party_id };
        Ok(convert::ready_in(&linked!(self.0.calls()?, Ready, request)?))
    }

    async fn complete(&self, _: &Caller, report: Report) -> Result<SessionView> {
        let request = convert::report_out(report);
        convert::view(linked!(self.0.calls()?, Report, request)?.detail)
    }

    async fn submit_share(&self, caller: &Caller, submitted: SubmitShare) -> Result<()> {
        let request = convert::submitted_out(submitted);
        call!(self.0.at, caller, submit_delegate_share, request).map(drop)
    }

    async fn fetch_share(&self, caller: &Caller, asked: FetchShare) -> Result<DelegatedShare> {
        let request = convert::fetch_out(&asked);
        convert::fetched_in(call!(self.0.at, caller, fetch_delegate_share, request)?)
    }

    async fn confirm_share(&self, caller: &Caller, asked: FetchShare) -> Result<()> {
        let request = convert::confirm_out(&asked);
        call!(self.0.at, caller, confirm_delegate_share, request).map(drop)
    }
}
