//! The event socket: what happens to a party's sessions.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures_util::{FutureExt, StreamExt};
use quorate_ports::Router;
use quorate_types::{Error, EventKind, PartyId, Result};
use quorate_wire::{ErrorJson, EventJson};

use super::{Upgrade, refuse, run, text};
use crate::answer::ApiResult;
use crate::extract::Who;
use crate::params::Params;

/// Follow the events of a party's sessions (WebSocket).
///
/// The last event of each open session comes first, then live events, one JSON text frame each. An
/// event carries the subscriber's own join token and no other party's. Frames from the client are
/// ignored.
#[utoipa::path(get, path = "/api/v1/events/subscribe", operation_id = "subscribeEvents", tag = "events",
    params(("party_id" = String, Query, description = "the subscriber"),
        ("event_types" = Option<String>, Query, description = "only these types, separated by commas"),
        ("ticket" = Option<String>, Query, description = "instead of an Authorization header")),
    responses((status = 101, description = "Text frames.", body = EventJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn subscribe(
    State(router): State<Arc<dyn Router>>,
    Who(caller): Who,
    mut params: Params,
    upgrade: Upgrade,
) -> ApiResult<Response> {
    let party: PartyId = params.required("party_id")?;
    let kinds = kinds(params.optional::<String>("event_types")?.as_deref().unwrap_or_default())?;
    params.done()?;
    Ok(upgrade.accept(move |socket| async move {
        let events = match router.subscribe_events(&caller, &party, kinds).await {
            Ok(events) => events,
            Err(error) => return refuse(socket, error).await,
        };
        // The router has cut the tokens; a token of another must not leave even if it has not.
        let own =
            move |event: quorate_types::SessionEvent| EventJson::from(event.for_party(&party));
        let frames = events.map(move |item| item.map(|event| text(&own(event)))).boxed();
        run(socket, frames, |_| std::future::ready(None).boxed()).await;
    }))
}

fn kinds(list: &str) -> Result<Vec<EventKind>> {
    let named = |word: &str| word.parse().map_err(|error: Error| error.with_field("event_types"));
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(named).collect()
}
