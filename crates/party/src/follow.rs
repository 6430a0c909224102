//! Keeps one session's feed alive over broken connections: what a device needs.

use std::sync::Arc;

use futures_util::StreamExt;
use quorate_ports::{Deliver, TakePart};
use quorate_types::*;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::session::{Feed, INBOX_LEN};

/// The tasks behind a [`Feed`]; they end with this value, or when the session does.
pub struct Following {
    _messages: AbortOnDropHandle<()>,
    _views: AbortOnDropHandle<()>,
}

/// Subscribes to the messages and events of one attempt at a session, and subscribes again whenever a stream breaks.
///
/// A new message stream begins with all that is unacknowledged, so it needs no cursor and no clock;
/// what comes twice is dropped by the receiver. A new event stream is followed by a question for
/// the session's state, so an end that happened in between is not missed.
pub fn follow(
    router: &Arc<dyn Deliver>,
    coordinator: &Arc<dyn TakePart>,
    me: &PartyId,
    session: SessionId,
    attempt: u32,
) -> (Feed, Following) {
    let (view_in, views, unjoined) = Views::new(me.clone(), attempt, None);
    let (message_in, inbox) = mpsc::channel(INBOX_LEN);
    let messages = messages(Arc::clone(router), me.clone(), session, message_in);
    let events = events(Arc::clone(router), Arc::clone(coordinator), me.clone(), session, view_in);
    let following = Following {
        _messages: AbortOnDropHandle::new(tokio::spawn(messages)),
        _views: AbortOnDropHandle::new(tokio::spawn(events)),
    };
    (Feed { attempt, views, unjoined, inbox, lent: None }, following)
}

/// Shows the task of an attempt how the session stands.
pub(crate) struct Views {
    me: PartyId,
    attempt: u32,
    sender: watch::Sender<Option<SessionView>>,
    unjoined: Arc<Notify>,
}

impl Views {
    pub(crate) fn new(
        me: PartyId,
        attempt: u32,
        first: Option<SessionView>,
    ) -> (Self, watch::Receiver<Option<SessionView>>, Arc<Notify>) {
        let (sender, views) = watch::channel(first);
        let unjoined = Arc::new(Notify::new());
        (Self { me, attempt, sender, unjoined: Arc::clone(&unjoined) }, views, unjoined)
    }

    /// Whether a session that stands so goes on without this attempt or this party: then the
    /// attempt's task is to end.
    pub(crate) fn overtaken_by(&self, view: &SessionView) -> bool {
        let takes_part = view.seat(&self.me).is_some();
        !view.status.is_final() && (view.attempt > self.attempt || !takes_part)
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Notes an event.
    pub(crate) fn event(&self, event: SessionEvent) {
        // Others' joins tell of our seat as it was before ours was taken; a session is shown as
        // created when it is, and when a coordinator comes back.
        match event.kind {
            EventKind::SessionCreated => self.now(event.session),
            _ => self.advance(event.session),
        }
    }

    /// Notes how the coordinator says that the session stands.
    pub(crate) fn now(&self, view: SessionView) {
        let open = view.status.is_unstarted() && view.attempt == self.attempt;
        let seat = view.seat(&self.me);
        if open && seat.is_some_and(|seat| seat.status == ParticipantStatus::Waiting) {
            self.unjoined.notify_one();
        }
        self.advance(view);
    }

    /// Replaces the view unless that would lead back, or to another attempt.
    fn advance(&self, new: SessionView) {
        if new.attempt != self.attempt && !new.status.is_final() {
            return;
        }
        self.sender.send_if_modified(|known| {
            let back = known.as_ref().is_some_and(|old| stage(old.status) > stage(new.status));
            if !back {
                *known = Some(new);
            }
            !back
        });
    }

    /// Whether the parties compute.
    pub(crate) fn started(&self) -> bool {
        let view = self.sender.borrow();
        view.as_ref().is_some_and(|view| view.status == SessionStatus::InProgress)
    }

    fn ended(&self) -> bool {
        self.sender.borrow().as_ref().is_some_and(|view| view.status.is_final())
    }
}

fn stage(status: SessionStatus) -> u8 {
    match status {
        SessionStatus::Created => 0,
        // A party that waits for approvals joins, and another may then wait: neither leads back.
        SessionStatus::AwaitingApproval | SessionStatus::Waiting => 1,
        SessionStatus::InProgress => 2,
        SessionStatus::Completed | SessionStatus::Failed | SessionStatus::Expired => 3,
    }
}

async fn messages(
    router: Arc<dyn Deliver>,
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
        // A router in another process hears of a new session a moment after its creator.
        let later = |error: &Error| error.code.row().retryable || error.code == ErrorCode::NotFound;
        if let Some(error) = ended.filter(|error| !later(error)) {
            tracing::debug!(%error, "no more messages of this session");
            // The inbox stays open: the session's end is for the events to tell.
            inbox.closed().await;
            return;
        }
        tokio::select! {
            () = inbox.closed() => return,
            () = backoff.pause() => {}
        }
    }
}

async fn events(
    router: Arc<dyn Deliver>,
    coordinator: Arc<dyn TakePart>,
    me: PartyId,
    session: SessionId,
    views: Views,
) {
    let caller = Caller::Party(me.clone());
    let mut backoff = Backoff::default();
    loop {
        let ended = async {
            let mut stream = router.subscribe_events(&caller, &me, Vec::new()).await?;
            let now = coordinator.status(&caller, session, None).await?;
            if views.overtaken_by(&now) {
                return Ok(true);
            }
            views.now(now);
            while !views.ended() {
                let Some(event) = stream.next().await else { return Ok(false) };
                let event = event?;
                if event.session.session_id == session {
                    backoff.reset();
                    if views.overtaken_by(&event.session) {
                        return Ok(true);
                    }
                    views.event(event);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_testkit::{Fake, SESSION, message};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_are_asked_for_until_the_router_knows_the_session() {
        let session = SESSION.parse().unwrap();
        let fake = Fake::refusing(Error::not_found("session", session));
        let (inbox, mut arrived) = mpsc::channel(1);
        let router: Arc<dyn Deliver> = fake.clone();
        let follower = tokio::spawn(messages(router, "alice".parse().unwrap(), session, inbox));
        assert!(tokio::time::timeout(Duration::from_secs(1), arrived.recv()).await.is_err());
        *fake.messages.lock().unwrap() = vec![Ok(message(1))];
        *fake.refusal.lock().unwrap() = None;
        assert_eq!(arrived.recv().await.unwrap().round, 1);
        drop(arrived);
        follower.await.unwrap();
    }
}
