//! Keeps one session's feed alive over broken connections: what a device needs.

use std::sync::Arc;

use futures_util::StreamExt;
use quorate_ports::{Coordinator, Router};
use quorate_types::*;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::session::{Feed, INBOX_LEN};

/// The tasks behind a [`Feed`]; they end with this value, or when the session does.
pub struct Following {
    _messages: AbortOnDropHandle<()>,
    _views: AbortOnDropHandle<()>,
}

/// Subscribes to one session's messages and events, and subscribes again whenever a stream breaks.
///
/// A new message stream begins with all that is unacknowledged, so it needs no cursor and no clock;
/// what comes twice is dropped by the receiver. A new event stream is followed by a question for
/// the session's state, so an end that happened in between is not missed.
pub fn follow(
    router: &Arc<dyn Router>,
    coordinator: &Arc<dyn Coordinator>,
    me: &PartyId,
    session: SessionId,
) -> (Feed, Following) {
    let (view_in, views) = watch::channel(None);
    let (message_in, inbox) = mpsc::channel(INBOX_LEN);
    let messages = messages(Arc::clone(router), me.clone(), session, message_in);
    let events = events(Arc::clone(router), Arc::clone(coordinator), me.clone(), session, view_in);
    let following = Following {
        _messages: AbortOnDropHandle::new(tokio::spawn(messages)),
        _views: AbortOnDropHandle::new(tokio::spawn(events)),
    };
    (Feed { views, inbox }, following)
}

/// Replaces a view unless that would lead back.
pub(crate) fn advance(views: &watch::Sender<Option<SessionView>>, new: SessionView) {
    views.send_if_modified(|known| {
        let back = known.as_ref().is_some_and(|old| stage(old.status) > stage(new.status));
        if !back {
            *known = Some(new);
        }
        !back
    });
}

fn stage(status: SessionStatus) -> u8 {
    match status {
        SessionStatus::Created => 0,
        SessionStatus::Waiting => 1,
        SessionStatus::InProgress => 2,
        SessionStatus::Completed | SessionStatus::Failed | SessionStatus::Expired => 3,
    }
}

async fn messages(
    router: Arc<dyn Router>,
    me: PartyId,
    session: SessionId,
    inbox: mpsc::Sender<Message>,
) {
    let caller = Caller::Party(me.clone());
    let mut backoff = Backoff::default();
    loop {
        let ended = match router.subscribe(&caller, Some(session), &me, Timestamp(0)).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Some(Ok(message)) => {
                        backoff.reset();
                        if inbox.send(message).await.is_err() {
                            return;
                        }
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            },
            Err(error) => Some(error),
        };
        if let Some(error) = ended.filter(|error| !error.code.row().retryable) {
            tracing::debug!(%error, "no more messages of this session");
            // The inbox stays open: the session's end is for the events to tell.
            inbox.closed().await;
            return;
        }
        backoff.pause().await;
    }
}

async fn events(
    router: Arc<dyn Router>,
    coordinator: Arc<dyn Coordinator>,
    me: PartyId,
    session: SessionId,
    views: watch::Sender<Option<SessionView>>,
) {
    let caller = Caller::Party(me.clone());
    let mut backoff = Backoff::default();
    loop {
        let ended = async {
            let mut stream = router.subscribe_events(&caller, &me, Vec::new()).await?;
            advance(&views, coordinator.status(&caller, session, None).await?);
            while !views.borrow().as_ref().is_some_and(|view| view.status.is_final()) {
                let Some(event) = stream.next().await else { return Ok(false) };
                let event = event?;
                if event.session.session_id == session {
                    backoff.reset();
                    advance(&views, event.session);
                }
            }
            Ok::<_, Error>(true)
        };
        match ended.await {
            Ok(true) => return,
            Err(error) if !error.code.row().retryable => {
                tracing::warn!(%error, "the session cannot be followed");
                return;
            }
            _ => backoff.pause().await,
        }
    }
}
