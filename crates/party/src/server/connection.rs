//! The server party's connection: register, subscribe, beat, and start over when it breaks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use quorate_participant::{busy, could_not, restarted};
use quorate_ports::BoxStream;
use quorate_types::*;
use tokio::sync::watch;
use tracing::Instrument;

use super::PartyServer;
use super::table::Asked;
use crate::backoff::Backoff;
use crate::seat::{Delegate, take_elsewhere};
use crate::session::{Feed, take_part};

/// Longest wait for an answer of the router before the connection counts as broken.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

impl PartyServer {
    pub(super) async fn stay_connected(self: Arc<Self>) {
        let span = tracing::info_span!("party", party = %self.party.id());
        let mut backoff = Backoff::default();
        let connecting = async {
            loop {
                let error = self.connection(&mut backoff).await;
                self.connected.send_replace(false);
                tracing::warn!(%error, "not connected; trying again");
                backoff.pause().await;
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = connecting.instrument(span) => {}
        }
        self.connected.send_replace(false);
    }

    /// One connection from registration to the error that ends it.
    async fn connection(self: &Arc<Self>, backoff: &mut Backoff) -> Error {
        let (events, messages) = match in_time(self.connect()).await {
            Ok(streams) => streams,
            Err(error) => return error,
        };
        backoff.reset();
        self.connected.send_replace(true);
        tracing::info!("connected");
        tokio::select! {
            error = self.take_events(events) => error,
            error = self.take_messages(messages) => error,
            error = self.beat() => error,
        }
    }

    async fn connect(
        &self,
    ) -> Result<(BoxStream<Result<SessionEvent>>, BoxStream<Result<Message>>)> {
        let (party, caller) = (&self.party, self.party.caller());
        let identity = party.worker.keyring.identity();
        let delegate = party.delegate.as_ref();
        let published = delegate.map(|delegate| delegate.published(party.id(), identity));
        let registration = Registration {
            party_id: party.id().clone(),
            role: self.config.role,
            version: self.config.version.clone(),
            notification: NotificationChannel::default(),
            identity: Some(identity.public()),
            delegate_key: published.transpose()?,
        };
        party.router.register(&caller, registration).await?;
        let events = party.router.subscribe_events(&caller, party.id(), Vec::new()).await?;
        // Unacknowledged messages come again, so no cursor is needed.
        let messages = party.router.subscribe(&caller, None, party.id(), Timestamp(0)).await?;
        Ok((events, messages))
    }

    async fn take_events(self: &Arc<Self>, mut events: BoxStream<Result<SessionEvent>>) -> Error {
        loop {
            match events.next().await {
                Some(Ok(event)) => self.on_event(event),
                Some(Err(error)) => return error,
                None => return Error::unavailable("the event stream has ended"),
            }
        }
    }

    async fn take_messages(&self, mut messages: BoxStream<Result<Message>>) -> Error {
        loop {
            match messages.next().await {
                Some(Ok(message)) => self.table().message(message),
                Some(Err(error)) => return error,
                None => return Error::unavailable("the message stream has ended"),
            }
        }
    }

    /// Asks how the running sessions stand, as their end may have been missed, then beats.
    async fn beat(&self) -> Error {
        let caller = self.party.caller();
        let running = self.table().sessions();
        for session in running {
            match in_time(self.party.coordinator.status(&caller, session, None)).await {
                Ok(view) => self.table().view(view),
                Err(error) => tracing::warn!(%session, %error, "how the session stands is unknown"),
            }
        }
        let start = tokio::time::Instant::now() + self.config.heartbeat;
        let mut ticks = tokio::time::interval_at(start, self.config.heartbeat);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let beat = self.party.router.heartbeat(&caller, self.party.id());
            if let Err(error) = in_time(beat).await {
                return error;
            }
        }
    }

    fn on_event(self: &Arc<Self>, event: SessionEvent) {
        let (session, me) = (event.session.session_id, self.party.id());
        tracing::trace!(%session, kind = event.kind.name(), "event");
        let asked = self.table().event(me, event, self.drain.is_cancelled());
        let span = tracing::info_span!("session", %session, party = %me);
        match asked {
            Asked::Nothing => {}
            Asked::TakePart { feed, token } => self.begin(session, token, feed),
            Asked::Busy(attempt) => match Arc::clone(&self.refusals).try_acquire_owned() {
                Ok(refusal) => {
                    let party = Arc::clone(self);
                    let task = async move {
                        party.fail((session, attempt), busy(party.party.id())).await;
                        drop(refusal);
                    };
                    self.tasks.spawn(task.instrument(span));
                }
                Err(_) => tracing::warn!(%session, "no place, and too many to tell so"),
            },
            Asked::Disown(attempt) => {
                let task = Arc::clone(self).disown((session, attempt));
                self.tasks.spawn(task.instrument(span));
            }
        }
    }

    fn begin(self: &Arc<Self>, session: SessionId, token: JoinToken, feed: Feed) {
        let span = tracing::info_span!("session", %session, party = %self.party.id());
        let party = Arc::clone(self);
        let task = async move {
            Arc::clone(&party).session(session, token, feed).await;
            let draining = party.drain.is_cancelled() || party.stop.is_cancelled();
            let next = party.table().take_up(party.party.id(), draining);
            if let Some((session, token, feed)) = next {
                party.begin(session, token, feed);
            }
        };
        self.tasks.spawn(task.instrument(span));
    }

    async fn session(self: Arc<Self>, session: SessionId, token: JoinToken, feed: Feed) {
        let attempt = feed.attempt;
        let _leave = Leave { server: &self, session, attempt };
        let views = feed.views.clone();
        let part = async {
            match &self.party.delegate {
                Some(Delegate { seats: Some(host), .. }) => {
                    take_elsewhere(&self.party, &**host, session, token, feed).await
                }
                _ => take_part(&self.party, session, token, feed).await,
            }
        };
        let part = AssertUnwindSafe(part).catch_unwind();
        let ended = tokio::select! {
            () = self.stop.cancelled() => return,
            () = self.drained_before_start(session, views) => return,
            ended = part => ended,
        };
        match ended {
            Ok(Ok(view)) => tracing::info!(status = view.status.name(), "the session has ended"),
            Ok(Err(_)) if !self.table().runs(session, attempt) => {
                tracing::debug!(attempt, "the session goes on without this attempt");
            }
            Ok(Err(error)) => tracing::warn!(%error, "left the session"),
            Err(_) => {
                tracing::error!("the session's task panicked");
                let me = self.party.id();
                let failure = could_not(me, format!("{me} met a bug of its own; its log names it"));
                self.fail((session, attempt), failure).await;
            }
        }
    }

    /// Returns when the party drains and the session has not started: it waits for others, and may
    /// do so longer than any grace. A restarted party joins it again.
    async fn drained_before_start(
        &self,
        session: SessionId,
        views: watch::Receiver<Option<SessionView>>,
    ) {
        let started = |view: &SessionView| view.status == SessionStatus::InProgress;
        self.drain.cancelled().await;
        let mut holds = views.borrow().as_ref().is_some_and(started);
        if !holds {
            // That it has started may be on its way here.
            let caller = self.party.caller();
            let asked = in_time(self.party.coordinator.status(&caller, session, None)).await;
            holds = asked.is_ok_and(|view| started(&view));
        }
        if holds {
            std::future::pending().await
        }
    }

    async fn disown(self: Arc<Self>, session: (SessionId, u32)) {
        self.fail(session, restarted(self.party.id())).await;
    }

    async fn fail(&self, session: (SessionId, u32), failure: Failure) {
        let report = self.party.report(session, PartyOutcome::Failure(failure));
        tokio::select! {
            () = self.stop.cancelled() => {}
            reported = in_time(report) => match reported {
                Ok(_) => tracing::warn!("reported that this party cannot finish the session"),
                Err(error) => tracing::warn!(%error, "a failure could not be reported"),
            },
        }
    }
}

/// Takes a session out of the table however its task ends.
struct Leave<'a> {
    server: &'a PartyServer,
    session: SessionId,
    attempt: u32,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.server.table().ended(self.session, self.attempt);
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Err(Error::unavailable("there was no answer in time"));
    tokio::time::timeout(ANSWER_LIMIT, call).await.unwrap_or_else(late)
}
