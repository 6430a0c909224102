//! One place at the relay, and the events its client may have missed.

use std::collections::VecDeque;

use quorate_types::{ClientAddress, GroupId, Timestamp};

use super::model::*;
use crate::budget::Budget;

pub(super) struct Client {
    /// What is kept for it counts for this address.
    pub(super) address: ClientAddress,
    /// The connection that has the place now.
    pub(super) connection: Option<ConnectionId>,
    pub(super) token: Option<TokenHash>,
    pub(super) groups: Vec<GroupId>,
    /// When its place is given up; only without a connection.
    pub(super) until: Timestamp,
    pub(super) log: Log,
}

impl Client {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            address: peer.address,
            connection: Some(peer.connection),
            token: None,
            groups: Vec::new(),
            until: Timestamp::default(),
            log: Log::default(),
        }
    }

    /// Notes an event for this client and says where it goes; nowhere while it is away.
    pub(super) fn tell(
        &mut self,
        event: &Event,
        limits: &GroupLimits,
        missed: &mut Missed,
    ) -> Option<Recipient> {
        let number = match self.token {
            Some(_) => self.log.push(event, limits, &self.address, missed),
            None => 0,
        };
        self.connection.map(|connection| (connection, number))
    }

    /// Its peer has everything up to the event with this number.
    pub(super) fn arrived(&mut self, until: u64, missed: &mut Missed) {
        let freed = self.log.arrived(until);
        missed.give_back(&self.address, freed);
    }

    /// It comes from another address now; what is kept for it counts there.
    pub(super) fn moves(&mut self, to: ClientAddress, missed: &mut Missed) {
        missed.give_back(&self.address, self.log.bytes);
        missed.add(&to, self.log.bytes);
        self.address = to;
    }
}

/// Bytes of the events kept for all clients.
type Missed = Budget<ClientAddress>;

/// The last events of a client that may resume. Events are counted from 1.
#[derive(Default)]
pub(super) struct Log {
    /// Events that were dropped from the front: the first kept one has the next number.
    dropped: u64,
    /// Events that a connection has written.
    pub(super) written: u64,
    bytes: usize,
    events: VecDeque<Event>,
    /// It was found in the store, which does not know how far the count had come.
    uncounted: bool,
}

impl Log {
    /// A log that goes on after a restart.
    pub(super) fn uncounted() -> Self {
        Self { uncounted: true, ..Self::default() }
    }

    /// Events so far.
    pub(super) fn total(&self) -> u64 {
        self.dropped.saturating_add(self.events.len() as u64)
    }

    /// After a restart only the client knows its count: what is here came after that.
    pub(super) fn count_from(&mut self, seen: u64) {
        if std::mem::take(&mut self.uncounted) {
            self.dropped = self.dropped.saturating_add(seen);
            self.written = seen;
        }
    }

    /// Keeps an event and numbers it. The oldest go when there is no room.
    fn push(
        &mut self,
        event: &Event,
        limits: &GroupLimits,
        address: &ClientAddress,
        missed: &mut Missed,
    ) -> u64 {
        self.bytes += event.bytes();
        missed.add(address, event.bytes());
        self.events.push_back(event.clone());
        while self.events.len() > limits.missed_events
            || self.bytes > limits.missed_bytes
            || missed.check(address, 0).is_err() && !self.events.is_empty()
        {
            missed.give_back(address, self.pop());
        }
        self.total()
    }

    /// Drops the oldest event; how many bytes it had.
    fn pop(&mut self) -> usize {
        let Some(event) = self.events.pop_front() else {
            return 0;
        };
        self.dropped = self.dropped.saturating_add(1);
        self.bytes -= event.bytes();
        event.bytes()
    }

    /// Forgets what has arrived; how many bytes that were. Memory goes back when nothing is left.
    fn arrived(&mut self, until: u64) -> usize {
        let mut freed = 0;
        while self.dropped < until && !self.events.is_empty() {
            freed += self.pop();
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        freed
    }

    /// The events after the first `seen`, `None` when some of them are gone.
    pub(super) fn after(&self, seen: u64) -> Option<Vec<(u64, Event)>> {
        let skip = usize::try_from(seen.checked_sub(self.dropped)?).ok()?;
        let numbered = (seen.saturating_add(1)..).zip(self.events.iter().skip(skip).cloned());
        Some(numbered.collect())
    }
}
