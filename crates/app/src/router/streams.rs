//! Streams that pull: the inbox is the queue, a waker says when to look again.
//!
//! A stream holds a cursor and takes the next batch when its socket has room. A slow reader
//! therefore costs nothing beyond its inbox, whose bounds hold for every party.

use std::collections::VecDeque;

use futures_util::stream;
use quorate_core::policy;
use quorate_core::subscriptions::Account;
use quorate_ports::BoxStream;
use quorate_types::*;
use tokio::sync::watch;

use super::RouterApp;
use crate::lock;

/// Messages taken from a inbox under one lock.
const BATCH: usize = 64;

/// Says that a party is connected, and holds its stream's place, for as long as it lives.
pub(super) struct Connected {
    pub(super) router: RouterApp,
    pub(super) party: PartyId,
    owner: NameOwner,
    account: Account,
}

impl Connected {
    /// # Errors
    /// `rate_limited` when this caller, or all, have as many streams as they may.
    pub(super) fn new(router: &RouterApp, caller: &Caller, party: &PartyId) -> Result<Self> {
        let now = router.0.clock.moment();
        let mut state = lock(&router.0.state);
        let account = state.subscriptions.open(caller, party)?;
        let owner = NameOwner::of(caller);
        state.presence.connected(now, &owner, party);
        drop(state);
        Ok(Self { router: router.clone(), party: party.clone(), owner, account })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let now = self.router.0.clock.moment();
        let mut state = lock(&self.router.0.state);
        state.presence.disconnected(now, &self.owner, &self.party);
        state.subscriptions.close(&self.account, &self.party);
        // The last stream takes its party's waker with it.
        if state.wakers.get(&self.party).is_some_and(|waker| waker.receiver_count() == 0) {
            state.wakers.remove(&self.party);
        }
    }
}

struct MessageStream {
    caller: Caller,
    waker: watch::Receiver<()>,
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
            self.waker.mark_unchanged();
            {
                let router = &self.connected.router.0;
                let now = router.clock.now();
                let mut state = lock(&router.state);
                let party = &self.connected.party;
                let sees = |owner: &Tenant| policy::sees(&self.caller, owner);
                let from = (self.session, self.cursor, self.after);
                let next = state.inboxes.next(now, party, from, sees, BATCH);
                self.batch.extend(next);
                let over = self.session.is_some_and(|id| !state.inboxes.is_open(id));
                if self.batch.is_empty() && over {
                    return None;
                }
            }
            if self.batch.is_empty() && self.waker.changed().await.is_err() {
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
    ) -> Result<BoxStream<Result<Message>>> {
        let connected = Connected::new(self, caller, party)?;
        let waker = lock(&self.0.state).wakers.entry(party.clone()).or_default().subscribe();
        let (caller, batch) = (caller.clone(), VecDeque::new());
        let stream = MessageStream { caller, waker, session, after, cursor: 0, batch, connected };
        Ok(Box::pin(stream::unfold(stream, MessageStream::next)))
    }
}
