//! `MessageRouter.Link`: many calls on one stream.

use futures_util::StreamExt as _;
use quorate_rpc as convert;
use quorate_rpc::proto::router::v1::link_answer::Answer;
use quorate_rpc::proto::router::v1::link_call::Call;
use quorate_rpc::proto::router::v1::{LinkAnswer, LinkCall};
use quorate_rpc::status::to_refusal;
use quorate_types::*;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::Outgoing;
use crate::coordinator::shared;
use crate::router::RouterService;

/// Calls of one stream under way at once. Further ones stay in the transport's window: a server
/// party in 64 sessions has about four of each, a message for a quarter of a second at the most.
const UNDER_WAY: usize = 1_024;

/// Answers a stream's calls until it ends or the server stops; those under way are still answered.
pub(crate) fn answers(
    service: RouterService,
    caller: Caller,
    calls: Streaming<LinkCall>,
    stop: CancellationToken,
) -> Outgoing<LinkAnswer> {
    let answers = calls
        .take_until(stop.cancelled_owned())
        .map(move |call| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                let LinkCall { id, call } = call?;
                let answer = answer(&service, &caller, call).await;
                let answer = answer.unwrap_or_else(|error| Answer::Refusal(to_refusal(error)));
                Ok(LinkAnswer { id, answer: Some(answer) })
            }
        })
        .buffer_unordered(UNDER_WAY);
    Box::pin(answers)
}

async fn answer(service: &RouterService, caller: &Caller, call: Option<Call>) -> Result<Answer> {
    let coordinator = &*service.coordinator;
    Ok(match call {
        Some(Call::Route(request)) => {
            // Who waits for the answer of one call makes the next one all the same.
            let request = RouteRequest { patient: true, ..convert::route_in(request)? };
            Answer::Route(service.route(caller, request).await?)
        }
        Some(Call::Acknowledge(request)) => {
            Answer::Acknowledge(service.acknowledge(caller, request).await?)
        }
        Some(Call::Heartbeat(request)) => {
            Answer::Heartbeat(service.heartbeat(caller, &request.party_id).await?)
        }
        Some(Call::Join(request)) => {
            Answer::Join(shared::join(coordinator, caller, request).await?)
        }
        Some(Call::Ready(request)) => {
            Answer::Ready(shared::ready(coordinator, caller, request).await?)
        }
        Some(Call::Report(request)) => {
            Answer::Report(shared::report(coordinator, caller, request).await?)
        }
        None => return Err(Error::invalid_field("call", "the call is missing or not known here")),
    })
}
