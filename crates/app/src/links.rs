//! How the coordinator and the router tell each other things they need not wait for.
//!
//! In one process these are plain calls. Between processes they are ordered, bounded queues with
//! one sending task each; when the router comes back, the coordinator publishes its open sessions
//! again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use quorate_ports::{Announce, NoteProgress};
use quorate_types::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Takes session events in the order they happened. Never blocks.
pub trait EventSink: Send + Sync + 'static {
    /// Passes an event on.
    fn publish(&self, event: SessionEvent);
}

/// Takes note of a party's progress. Never blocks; may drop.
pub trait ProgressSink: Send + Sync + 'static {
    /// A party has sent its first message of a round.
    fn progress(&self, session: SessionId, party: &PartyId, round: i32);
}

/// Events that wait for a router that is away: the open sessions are published anew when it
/// returns, so older ones may be dropped. 4 096 is an hour of busy signing for a small router.
const EVENT_QUEUE: usize = 4_096;
/// Progress notes are for the timeline only and dropped when the coordinator is slow.
const PROGRESS_QUEUE: usize = 1_024;

/// Pauses between attempts to reach the other role.
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter()
}

/// Sends events to a router in another process.
pub struct RemoteEvents {
    queue: mpsc::Sender<SessionEvent>,
}

impl RemoteEvents {
    /// Starts the sending task, which ends with `stop`.
    pub fn start(router: Arc<dyn Announce>, stop: CancellationToken) -> Self {
        let (queue, mut events) = mpsc::channel::<SessionEvent>(EVENT_QUEUE);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    event = events.recv() => match event {
                        Some(event) => send(&*router, event, &stop).await,
                        None => return,
                    },
                }
            }
        });
        Self { queue }
    }
}

/// Sends one event, again and again while the router is away.
async fn send(router: &dyn Announce, event: SessionEvent, stop: &CancellationToken) {
    let mut pauses = pauses().build();
    while let Err(error) = router.publish_event(&Caller::System, event.clone()).await {
        let pause = pauses.next().filter(|_| error.code.row().retryable);
        let Some(pause) = pause else {
            tracing::warn!(%error, session = %event.session.session_id, "the router refused an event");
            return;
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

impl EventSink for RemoteEvents {
    fn publish(&self, event: SessionEvent) {
        if self.queue.try_send(event).is_err() {
            tracing::warn!(
                "the router is away for long: an event was dropped and will be republished"
            );
        }
    }
}

/// Sends progress notes to a coordinator in another process.
pub struct RemoteProgress {
    queue: mpsc::Sender<(SessionId, PartyId, i32)>,
}

impl RemoteProgress {
    /// Starts the sending task, which ends with `stop`.
    pub fn start(coordinator: Arc<dyn NoteProgress>, stop: CancellationToken) -> Self {
        let (queue, mut notes) = mpsc::channel::<(SessionId, PartyId, i32)>(PROGRESS_QUEUE);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    note = notes.recv() => match note {
                        Some((session, party, round)) => coordinator.progress(session, &party, round).await,
                        None => return,
                    },
                }
            }
        });
        Self { queue }
    }
}

impl ProgressSink for RemoteProgress {
    fn progress(&self, session: SessionId, party: &PartyId, round: i32) {
        let _ = self.queue.try_send((session, party.clone(), round));
    }
}

/// A sink that is known only after both ends exist: the coordinator and the router of one process
/// hold each other, one of them weakly.
#[derive(Default)]
pub struct LateProgress(std::sync::OnceLock<Weak<dyn ProgressSink>>);

impl LateProgress {
    /// Connects the other end. Later calls change nothing.
    pub fn connect(&self, sink: Weak<dyn ProgressSink>) {
        let _ = self.0.set(sink);
    }
}

impl ProgressSink for LateProgress {
    fn progress(&self, session: SessionId, party: &PartyId, round: i32) {
        if let Some(sink) = self.0.get().and_then(Weak::upgrade) {
            sink.progress(session, party, round);
        }
    }
}
