//! Session events to their parties: where each open session stands first, then live.

use std::collections::HashMap;

use quorate_core::policy;
use quorate_types::*;
use tokio::sync::mpsc;

/// Events a subscriber may be behind. One that is further behind is cut off; when it subscribes
/// again it is told where each open session stands, so nothing is lost.
pub(super) const EVENT_QUEUE: usize = 4_096;

struct Subscriber {
    id: u64,
    caller: Caller,
    kinds: Vec<EventKind>,
    queue: mpsc::Sender<SessionEvent>,
}

impl Subscriber {
    fn wants(&self, event: &SessionEvent) -> bool {
        let asked = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        asked && policy::sees(&self.caller, &event.session.tenant)
    }
}

/// Who listens, and the open sessions of each party.
#[derive(Default)]
pub(super) struct EventBoard {
    next_id: u64,
    subscribers: HashMap<PartyId, Vec<Subscriber>>,
    open: HashMap<SessionId, OpenSession>,
    sessions_of: HashMap<PartyId, Vec<SessionId>>,
}

/// The events that a party which comes late must see.
struct OpenSession {
    created: SessionEvent,
    started: Option<SessionEvent>,
}

impl EventBoard {
    /// Posts an event; answers with the number of subscribers it reached.
    pub(super) fn post(&mut self, event: SessionEvent) -> u32 {
        self.remember(&event);
        let mut reached = 0;
        for participant in &event.session.participants {
            let party = &participant.party_id;
            let Some(subscribers) = self.subscribers.get_mut(party) else {
                continue;
            };
            subscribers.retain(|subscriber| {
                if !subscriber.wants(&event) {
                    return true;
                }
                let sent = subscriber.queue.try_send(event.for_party(party)).is_ok();
                reached += u32::from(sent);
                sent
            });
            if subscribers.is_empty() {
                self.subscribers.remove(party);
            }
        }
        reached
    }

    fn remember(&mut self, event: &SessionEvent) {
        let session = event.session.session_id;
        let parties = event.session.participants.iter().map(|p| &p.party_id);
        if event.session.status.is_final() {
            self.open.remove(&session);
            for party in parties {
                if let Some(sessions) = self.sessions_of.get_mut(party) {
                    sessions.retain(|id| *id != session);
                    if sessions.is_empty() {
                        self.sessions_of.remove(party);
                    }
                }
            }
            return;
        }
        let known = self.open.entry(session).or_insert_with(|| {
            for party in parties {
                self.sessions_of.entry(party.clone()).or_default().push(session);
            }
            OpenSession { created: event.clone(), started: None }
        });
        match event.kind {
            EventKind::SessionCreated => known.created = event.clone(),
            EventKind::SessionStarted => known.started = Some(event.clone()),
            _ => {}
        }
    }

    /// Adds a subscriber: the events it has to catch up with, its live queue and its id.
    pub(super) fn subscribe(
        &mut self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> (Vec<SessionEvent>, mpsc::Receiver<SessionEvent>, u64) {
        let (queue, receiver) = mpsc::channel(EVENT_QUEUE);
        self.next_id += 1;
        let subscriber = Subscriber { id: self.next_id, caller: caller.clone(), kinds, queue };
        let mut missed = Vec::new();
        for session in self.sessions_of.get(party).into_iter().flatten() {
            let Some(open) = self.open.get(session) else {
                continue;
            };
            let event = open.started.as_ref().unwrap_or(&open.created);
            if subscriber.wants(event) {
                missed.push(event.for_party(party));
            }
        }
        self.subscribers.entry(party.clone()).or_default().push(subscriber);
        (missed, receiver, self.next_id)
    }

    /// Removes a subscriber that went away.
    pub(super) fn unsubscribe(&mut self, party: &PartyId, id: u64) {
        if let Some(subscribers) = self.subscribers.get_mut(party) {
            subscribers.retain(|subscriber| subscriber.id != id);
            if subscribers.is_empty() {
                self.subscribers.remove(party);
            }
        }
    }
}
