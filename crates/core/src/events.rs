//! Session events on their way to their parties: one log, and a cursor for each subscriber.
//!
//! An event is stored once, however many subscribers it has, and until the last of them has read
//! it. A subscriber that reads nothing therefore costs its entry here and no more. When the log is
//! full its oldest events go, and who had not read them is told to subscribe again: then it learns
//! where each open session stands, so nothing is lost.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use quorate_types::*;

use crate::policy;
use crate::tally::Tally;

/// Bytes of unread events of all sessions: a minute of the fastest load.
pub const LOG_BYTES: usize = 64 << 20;
/// What an event takes beside its participants, in bytes.
const EVENT_COST: usize = 1_024;
/// What a participant takes beside its texts: names, places in maps, a join token.
const PARTICIPANT_COST: usize = 320;

/// Names a subscriber for as long as it is subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriberId(u64);

/// A subscriber had not read events that have left the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged;

struct Subscriber {
    caller: Caller,
    party: PartyId,
    kinds: Vec<EventKind>,
    /// The sequence of the last event it has seen or skipped.
    cursor: u64,
    /// Sessions that were open when it came are shown first: those opened after the first of these
    /// sequences and until the second.
    catch_up: (u64, u64),
}

impl Subscriber {
    fn wants(&self, event: &SessionEvent) -> bool {
        let asked = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        asked && policy::sees(&self.caller, &event.session.tenant)
    }
}

struct Logged {
    event: Arc<SessionEvent>,
    cost: usize,
    /// Parties whose subscribers have not all read it.
    awaited_by: usize,
}

/// The events that a party which comes late must see, with their sequences.
struct OpenSession {
    opened: u64,
    created: (u64, Arc<SessionEvent>),
    started: Option<(u64, Arc<SessionEvent>)>,
}

#[derive(Default)]
struct PartyEvents {
    /// Open sessions by the sequence of the event that opened them.
    open: BTreeMap<u64, SessionId>,
    /// Sequences of events that not all subscribers have read, rising.
    unread: VecDeque<u64>,
    subscribers: Vec<SubscriberId>,
    /// How many subscribers stand at each sequence.
    cursors: Tally<u64>,
}

/// All session events that somebody has yet to read, and the open sessions of each party.
pub struct Events {
    limit: usize,
    bytes: usize,
    last: u64,
    log: BTreeMap<u64, Logged>,
    parties: HashMap<PartyId, PartyEvents>,
    open: HashMap<SessionId, OpenSession>,
    subscribers: HashMap<SubscriberId, Subscriber>,
    last_id: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self::new(LOG_BYTES)
    }
}

impl Events {
    /// An empty log that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            last: 0,
            log: BTreeMap::new(),
            parties: HashMap::new(),
            open: HashMap::new(),
            subscribers: HashMap::new(),
            last_id: 0,
        }
    }

    /// Posts an event; answers with the number of subscribers that are to see it.
    pub fn post(&mut self, event: &Arc<SessionEvent>) -> u32 {
        self.last += 1;
        self.remember(event);
        let mut reached = 0;
        let mut awaited_by = 0;
        for party in event.audience() {
            let Some(party) = self.parties.get_mut(party) else {
                continue;
            };
            let wants = |id: &&SubscriberId| {
                self.subscribers.get(*id).is_some_and(|subscriber| subscriber.wants(event))
            };
            let waiting = party.subscribers.iter().filter(wants).count();
            if waiting > 0 && party.unread.back() != Some(&self.last) {
                party.unread.push_back(self.last);
                awaited_by += 1;
                reached += u32::try_from(waiting).unwrap_or(u32::MAX);
            }
        }
        if awaited_by > 0 {
            let cost = cost(event);
            self.bytes += cost;
            self.log.insert(self.last, Logged { event: event.clone(), cost, awaited_by });
            self.shrink();
        }
        reached
    }

    /// Drops the oldest events until the log fits, and cuts those who have not read them.
    fn shrink(&mut self) {
        while self.bytes > self.limit {
            let Some((sequence, logged)) = self.log.pop_first() else {
                return;
            };
            self.bytes -= logged.cost;
            for name in logged.event.audience() {
                let Some(party) = self.parties.get_mut(name) else {
                    continue;
                };
                if party.unread.front() == Some(&sequence) {
                    party.unread.pop_front();
                    self.cut(name, sequence);
                }
            }
        }
    }

    /// Ends the subscriptions of a party that have not read up to a sequence.
    fn cut(&mut self, party: &PartyId, sequence: u64) {
        let Some(events) = self.parties.get(party) else {
            return;
        };
        let behind = |id: &&SubscriberId| {
            self.subscribers.get(*id).is_some_and(|subscriber| subscriber.cursor < sequence)
        };
        let behind: Vec<_> = events.subscribers.iter().filter(behind).copied().collect();
        for id in behind {
            self.unsubscribe(id);
        }
    }

    fn remember(&mut self, event: &Arc<SessionEvent>) {
        let session = event.session.session_id;
        if event.session.status.is_final() {
            return self.forget(session);
        }
        let others = |known: &OpenSession| {
            let before = &known.created.1.session;
            let names = |view: &SessionView| -> Vec<_> { view.parties().cloned().collect() };
            before.attempt != event.session.attempt || names(before) != names(&event.session)
        };
        // Others take part, or the same once more: what was known is over for all of them.
        if event.kind == EventKind::SessionCreated && self.open.get(&session).is_some_and(others) {
            self.forget(session);
        }
        let entry = (self.last, event.clone());
        let known = self.open.entry(session).or_insert_with(|| {
            for participant in &event.session.participants {
                let party = self.parties.entry(participant.party_id.clone()).or_default();
                party.open.insert(self.last, session);
            }
            OpenSession { opened: self.last, created: entry.clone(), started: None }
        });
        match event.kind {
            EventKind::SessionCreated => known.created = entry,
            EventKind::SessionStarted => known.started = Some(entry),
            _ => {}
        }
    }

    /// Forgets where a session stands: who subscribes from now on is not told of it.
    pub fn forget(&mut self, session: SessionId) {
        let Some(ended) = self.open.remove(&session) else {
            return;
        };
        for participant in &ended.created.1.session.participants {
            if let Some(party) = self.parties.get_mut(&participant.party_id) {
                party.open.remove(&ended.opened);
                self.forget_if_idle(&participant.party_id);
            }
        }
    }

    /// Whether a party takes part in a session that has not ended.
    pub fn takes_part(&self, party: &PartyId) -> bool {
        self.parties.get(party).is_some_and(|events| !events.open.is_empty())
    }

    fn forget_if_idle(&mut self, party: &PartyId) {
        if self.parties.get(party).is_some_and(|p| p.open.is_empty() && p.subscribers.is_empty()) {
            self.parties.remove(party);
        }
    }

    /// Adds a subscriber. It reads first where each open session of `party` stands, then what
    /// happens from now on.
    pub fn subscribe(
        &mut self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> SubscriberId {
        self.last_id += 1;
        let id = SubscriberId(self.last_id);
        let events = self.parties.entry(party.clone()).or_default();
        events.subscribers.push(id);
        events.cursors.add(self.last);
        let subscriber = Subscriber {
            caller: caller.clone(),
            party: party.clone(),
            kinds,
            cursor: self.last,
            catch_up: (0, self.last),
        };
        self.subscribers.insert(id, subscriber);
        id
    }

    /// Removes a subscriber that went away.
    pub fn unsubscribe(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.remove(&id) else {
            return;
        };
        if let Some(events) = self.parties.get_mut(&subscriber.party) {
            events.subscribers.retain(|other| *other != id);
            events.cursors.remove(&subscriber.cursor);
            self.release(&subscriber.party);
            self.forget_if_idle(&subscriber.party);
        }
    }

    /// The next events of a subscriber, at most `max`; none when it has read all. Join tokens of
    /// others are still in them.
    ///
    /// # Errors
    /// When events that it had not read have left the log: its subscription has ended.
    pub fn read(&mut self, id: SubscriberId, max: usize) -> Result<Vec<Arc<SessionEvent>>, Lagged> {
        let subscriber = self.subscribers.get_mut(&id).ok_or(Lagged)?;
        let events = self.parties.get_mut(&subscriber.party).ok_or(Lagged)?;
        let mut found = Vec::new();
        let (after, until) = subscriber.catch_up;
        for (opened, session) in
            events.open.range((Bound::Excluded(after), Bound::Included(until.max(after))))
        {
            if found.len() >= max {
                return Ok(found);
            }
            subscriber.catch_up.0 = *opened;
            let Some(open) = self.open.get(session) else {
                continue;
            };
            // What changed since it came stands in the log.
            let stands = [open.started.as_ref(), Some(&open.created)];
            let stands = stands.into_iter().flatten().find(|(sequence, _)| *sequence <= until);
            if let Some((_, event)) = stands.filter(|(_, event)| subscriber.wants(event)) {
                found.push(event.clone());
            }
        }
        subscriber.catch_up.0 = until.max(after);
        let from = events.unread.partition_point(|sequence| *sequence <= subscriber.cursor);
        let mut cursor = subscriber.cursor;
        for sequence in events.unread.range(from..) {
            if found.len() >= max {
                break;
            }
            cursor = *sequence;
            if let Some(logged) = self.log.get(sequence)
                && subscriber.wants(&logged.event)
            {
                found.push(logged.event.clone());
            }
        }
        if found.len() < max {
            // It has seen all there is.
            cursor = self.last;
        }
        events.cursors.remove(&subscriber.cursor);
        events.cursors.add(cursor);
        subscriber.cursor = cursor;
        let party = subscriber.party.clone();
        self.release(&party);
        Ok(found)
    }

    /// Drops what all subscribers of a party have read.
    fn release(&mut self, party: &PartyId) {
        let Some(events) = self.parties.get_mut(party) else {
            return;
        };
        let slowest = events.cursors.first().copied().unwrap_or(u64::MAX);
        while let Some(sequence) = events.unread.front().copied().filter(|next| *next <= slowest) {
            events.unread.pop_front();
            if let Some(logged) = self.log.get_mut(&sequence) {
                logged.awaited_by -= 1;
                if logged.awaited_by == 0 {
                    self.bytes -= logged.cost;
                    self.log.remove(&sequence);
                }
            }
        }
    }

    /// Bytes of events that somebody has yet to read.
    pub fn held_bytes(&self) -> usize {
        self.bytes
    }
}

/// About what an event takes in memory, in bytes.
fn cost(event: &SessionEvent) -> usize {
    let texts = |p: &ParticipantView| {
        let device = &p.device;
        device.device_type.len()
            + device.device_id.len()
            + device.platform.len()
            + device.app_version.len()
            + p.handshake.as_ref().map_or(0, |handshake| handshake.len())
    };
    let participants = event.session.participants.iter();
    let lent = event.lent.as_ref().map_or(0, |lent| lent.package.len());
    EVENT_COST + lent + participants.map(|p| PARTICIPANT_COST + texts(p)).sum::<usize>()
}
