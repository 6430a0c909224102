//! The message socket: deliveries out, acknowledgements and messages in.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::Utf8Bytes;
use axum::response::Response;
use futures_util::{FutureExt, StreamExt};
use quorate_ports::Router;
use quorate_types::{Acknowledge, Caller, Error, PartyId, Result, SessionId, Timestamp};
use quorate_wire::{ClientFrame, ErrorJson, MessageJson, RoutedJson, ServerFrame, parse};

use super::{ApiResult, Upgrade, refuse, run, text};
use crate::answer;
use crate::extract::Who;
use crate::params::Params;

/// Follow a party's messages (WebSocket).
///
/// Unacknowledged messages come first, then live ones, in order; one JSON text frame each. The
/// client answers on the same socket: `{"ack":"<message_id>"}`, and may send
/// `{"route":{…}}`, answered by `{"routed":{"message_id"}}` or `{"error":{…}}`. It ends with a
/// close code and, as its reason, the error as JSON.
#[utoipa::path(get, path = "/api/v1/messages/subscribe", operation_id = "subscribeMessages", tag = "messages",
    params(("party_id" = String, Query, description = "the recipient"),
        ("session_id" = Option<Uuid>, Query, description = "only this session; default: all sessions of the party"),
        ("after" = Option<i64>, Query, description = "only messages accepted after this time, ms since 1970"),
        ("ticket" = Option<String>, Query, description = "instead of an Authorization header")),
    responses((status = 101, description = "Text frames: in `ClientFrame`, out `ServerFrame`.", body = quorate_wire::ServerFrame),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn subscribe(
    State(router): State<Arc<dyn Router>>,
    Who(caller): Who,
    mut params: Params,
    upgrade: Upgrade,
) -> answer::ApiResult<Response> {
    let session: Option<SessionId> = params.optional("session_id")?;
    let party: PartyId = params.required("party_id")?;
    let after = Timestamp(params.either("after", "after_timestamp")?.unwrap_or(0));
    params.done()?;
    Ok(upgrade.accept(move |socket| async move {
        let messages = match router.subscribe(&caller, session, &party, after).await {
            Ok(messages) => messages,
            Err(error) => return refuse(socket, error).await,
        };
        let frames =
            messages.map(|item| item.map(|message| text(&MessageJson::from(message)))).boxed();
        let desk = Arc::new(Desk { router, caller, session, party });
        run(socket, frames, move |frame| desk.clone().serve(frame)).await;
    }))
}

/// Takes the requests of one socket.
struct Desk {
    router: Arc<dyn Router>,
    caller: Caller,
    session: Option<SessionId>,
    party: PartyId,
}

impl Desk {
    fn serve(self: Arc<Self>, frame: Utf8Bytes) -> ApiResult {
        async move {
            match self.request(frame.as_bytes()).await {
                Ok(None) => None,
                Ok(Some(routed)) => Some(text(&ServerFrame::Routed { routed })),
                Err(error) => Some(text(&ServerFrame::Error { error: ErrorJson::from(&error) })),
            }
        }
        .boxed()
    }

    async fn request(&self, frame: &[u8]) -> Result<Option<RoutedJson>> {
        let ClientFrame { ack, session_id, success, route } = parse(frame)?;
        match (ack, route) {
            (Some(message_id), None) => {
                let Some(session_id) = session_id.or(self.session) else {
                    return Err(Error::invalid_field(
                        "session_id",
                        "this socket follows all sessions; add session_id to the ack",
                    ));
                };
                let party_id = self.party.clone();
                let success = success.unwrap_or(true);
                let ack = Acknowledge { message_id, party_id, session_id, success };
                self.router.acknowledge(&self.caller, ack).await?;
                Ok(None)
            }
            (None, Some(route)) => {
                if route.from_party != self.party {
                    return Err(Error::invalid_field(
                        "route.from_party",
                        format!("this socket belongs to {}; send as that party", self.party),
                    ));
                }
                let request = route.into_request(self.session)?;
                let message_id = self.router.route(&self.caller, request).await?;
                Ok(Some(RoutedJson { message_id }))
            }
            _ => Err(Error::invalid("a frame holds one of ack and route")),
        }
    }
}
