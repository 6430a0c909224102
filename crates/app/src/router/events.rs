//! Streams of session events: a cursor into the log, and a waker that says when to look again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::stream;
use quorate_core::events::{Events, SubscriberId};
use quorate_ports::BoxStream;
use quorate_types::*;
use tokio::sync::watch;

use super::RouterApp;
use super::streams::Connected;
use crate::lock;

/// Events that a stream takes from the log under one lock: what a stalled one holds on to.
const BATCH: usize = 8;

/// The log of events and the wakers of its readers.
#[derive(Default)]
pub(super) struct EventLog {
    events: Events,
    /// Wakes the streams of a party; an entry exists while one is open.
    wakers: HashMap<PartyId, watch::Sender<()>>,
}

impl EventLog {
    /// Posts an event and wakes its readers; answers with their number.
    pub(super) fn post(&mut self, event: SessionEvent) -> u32 {
        let event = Arc::new(event);
        let reached = self.events.post(&event);
        for party in event.audience() {
            if let Some(waker) = self.wakers.get(party) {
                waker.send_replace(());
            }
        }
        reached
    }

    /// Whether a party takes part in a session that has not ended.
    pub(super) fn takes_part(&self, party: &PartyId) -> bool {
        self.events.takes_part(party)
    }

    /// Forgets where a session stands.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.events.forget(session);
    }
}

/// A subscriber in the log for as long as it lives.
struct Subscribed {
    id: SubscriberId,
    connected: Connected,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let mut state = lock(&self.connected.router.0.state);
        state.log.events.unsubscribe(self.id);
        let party = &self.connected.party;
        // The last stream takes its party's waker with it; this one's receiver is gone already.
        if state.log.wakers.get(party).is_some_and(|waker| waker.receiver_count() == 0) {
            state.log.wakers.remove(party);
        }
    }
}

struct EventStream {
    // Dropped in this order: the waker is counted by what follows it.
    waker: watch::Receiver<()>,
    batch: VecDeque<Arc<SessionEvent>>,
    subscribed: Subscribed,
}

impl EventStream {
    async fn next(mut self) -> Option<(Result<SessionEvent>, Option<Self>)> {
        loop {
            if let Some(event) = self.batch.pop_front() {
                let event = event.for_party(&self.subscribed.connected.party);
                return Some((Ok(event), Some(self)));
            }
            self.waker.mark_unchanged();
            let read = {
                let mut state = lock(&self.subscribed.connected.router.0.state);
                state.log.events.read(self.subscribed.id, BATCH)
            };
            match read {
                Ok(events) => self.batch.extend(events),
                Err(_) => {
                    let behind = "you fell too far behind; subscribe again";
                    return Some((Err(Error::unavailable(behind)), None));
                }
            }
            if self.batch.is_empty() && self.waker.changed().await.is_err() {
                return None;
            }
        }
    }
}

impl RouterApp {
    pub(super) fn event_stream(
        &self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        let connected = Connected::new(self, caller, party)?;
        let (id, waker) = {
            let mut state = lock(&self.0.state);
            let id = state.log.events.subscribe(caller, party, kinds);
            (id, state.log.wakers.entry(party.clone()).or_default().subscribe())
        };
        let subscribed = Subscribed { id, connected };
        let stream = EventStream { waker, batch: VecDeque::new(), subscribed };
        Ok(Box::pin(stream::unfold(Some(stream), |stream| async { stream?.next().await })))
    }
}
