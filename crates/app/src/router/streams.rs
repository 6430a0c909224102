//! Streams that pull: the mailbox is the queue, a bell says when to look again.
//!
//! A stream holds a cursor and takes the next batch when its socket has room. A slow reader
//! therefore costs nothing beyond its mailbox, whose bounds hold for every party.

use std::collections::VecDeque;

use futures_util::stream;
use quorate_core::policy;
use quorate_ports::BoxStream;
use quorate_types::*;
use tokio::sync::{mpsc, watch};

use super::RouterApp;
use crate::lock;

/// Messages taken from a mailbox under one lock.
const BATCH: usize = 64;

/// Says that a party is connected for as long as it lives.
pub(super) struct Connected {
    router: RouterApp,
    party: PartyId,
    subscriber: Option<u64>,
}

impl Connected {
    pub(super) fn new(router: &RouterApp, party: &PartyId, subscriber: Option<u64>) -> Self {
        let now = router.0.clock.moment();
        lock(&router.0.state).presence.connected(now, party);
        Self { router: router.clone(), party: party.clone(), subscriber }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let now = self.router.0.clock.moment();
        let mut state = lock(&self.router.0.state);
        state.presence.disconnected(now, &self.party);
        if let Some(id) = self.subscriber {
            state.board.unsubscribe(&self.party, id);
        }
        // The last stream takes its party's bell with it.
        if state.bells.get(&self.party).is_some_and(|bell| bell.receiver_count() == 0) {
            state.bells.remove(&self.party);
        }
    }
}

struct MessageStream {
    caller: Caller,
    bell: watch::Receiver<()>,
    session: Option<SessionId>,
    after: Timestamp,
    cursor: u64,
    batch: VecDeque<(u64, Message)>,
    connected: Connected,
}

impl MessageStream {
    async fn next(mut self) -> Option<(Result<Message>, Self)> {
        loop {
            if let Some((sequence, message)) = self.batch.pop_front() {
                self.cursor = sequence;
                return Some((Ok(message), self));
            }
            self.bell.mark_unchanged();
            {
                let router = &self.connected.router.0;
                let now = router.clock.now();
                let mut state = lock(&router.state);
                let party = &self.connected.party;
                let sees = |owner: &Tenant| policy::sees(&self.caller, owner);
                let from = (self.session, self.cursor, self.after);
                let next = state.mailboxes.next(now, party, from, sees, BATCH);
                self.batch.extend(next);
                let over = self.session.is_some_and(|id| !state.mailboxes.is_open(id));
                if self.batch.is_empty() && over {
                    return None;
                }
            }
            if self.batch.is_empty() && self.bell.changed().await.is_err() {
                return None;
            }
        }
    }
}

impl RouterApp {
    pub(super) fn message_stream(
        &self,
        caller: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> BoxStream<Result<Message>> {
        let bell = lock(&self.0.state).bells.entry(party.clone()).or_default().subscribe();
        let connected = Connected::new(self, party, None);
        let (caller, batch) = (caller.clone(), VecDeque::new());
        let stream = MessageStream { caller, bell, session, after, cursor: 0, batch, connected };
        Box::pin(stream::unfold(stream, MessageStream::next))
    }

    pub(super) fn event_stream(
        &self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> BoxStream<Result<SessionEvent>> {
        let (missed, live, id) = lock(&self.0.state).board.subscribe(caller, party, kinds);
        let connected = Connected::new(self, party, Some(id));
        let state = (VecDeque::from(missed), live, connected);
        Box::pin(stream::unfold(Some(state), |state| async {
            let (mut missed, mut live, connected): (VecDeque<_>, mpsc::Receiver<_>, _) = state?;
            let next = match missed.pop_front() {
                Some(event) => Some(event),
                None => live.recv().await,
            };
            match next {
                Some(event) => Some((Ok(event), Some((missed, live, connected)))),
                None => Some((
                    Err(Error::unavailable("you fell too far behind; subscribe again")),
                    None,
                )),
            }
        }))
    }
}
