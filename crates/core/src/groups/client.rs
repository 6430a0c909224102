//! One place at the relay, and the events its client may have missed.

use std::collections::VecDeque;

use quorate_types::{GroupId, Timestamp};

use super::model::*;

pub(super) struct Client {
    /// The connection that has the place now.
    pub(super) connection: Option<ConnectionId>,
    pub(super) token: Option<TokenHash>,
    pub(super) groups: Vec<GroupId>,
    /// When its place is given up; only without a connection.
    pub(super) until: Timestamp,
    pub(super) log: Log,
}

impl Client {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self {
            connection: Some(connection),
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
        limits: &Limits,
        total: &mut usize,
    ) -> Option<Recipient> {
        let number = match self.token {
            Some(_) => self.log.push(event, limits, total),
            None => 0,
        };
        self.connection.map(|connection| (connection, number))
    }
}

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

    /// Keeps an event and numbers it. The oldest go when there is no room. `total` is the weight
    /// of all logs.
    fn push(&mut self, event: &Event, limits: &Limits, total: &mut usize) -> u64 {
        self.bytes += event.bytes();
        *total += event.bytes();
        self.events.push_back(event.clone());
        while self.events.len() > limits.missed_events
            || self.bytes > limits.missed_bytes
            || *total > limits.missed_total_bytes && !self.events.is_empty()
        {
            self.pop(total);
        }
        self.total()
    }

    fn pop(&mut self, total: &mut usize) {
        if let Some(event) = self.events.pop_front() {
            self.dropped = self.dropped.saturating_add(1);
            self.bytes -= event.bytes();
            *total -= event.bytes();
        }
    }

    /// Forgets what has arrived. Memory goes back when nothing is left.
    pub(super) fn arrived(&mut self, until: u64, total: &mut usize) {
        while self.dropped < until && !self.events.is_empty() {
            self.pop(total);
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// The events after the first `seen`, `None` when some of them are gone.
    pub(super) fn after(&self, seen: u64) -> Option<Vec<(u64, Event)>> {
        let skip = usize::try_from(seen.checked_sub(self.dropped)?).ok()?;
        let numbered = (seen.saturating_add(1)..).zip(self.events.iter().skip(skip).cloned());
        Some(numbered.collect())
    }
}
