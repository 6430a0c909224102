//! The message router: inboxes, streams, presence and session events.

mod events;
mod service;
mod streams;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use quorate_core::inbox::{InboxLimits, Inboxes};
use quorate_core::policy;
use quorate_core::presence::Presence;
use quorate_core::strangers::Strangers;
use quorate_core::subscriptions::Subscriptions;
use quorate_ports::store::{PartyRow, RecoveredMessage};
use quorate_ports::{Store, Urgency, Write};
use quorate_types::*;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::links::{EventSink, ProgressSink};
use crate::lock;
use crate::metrics::{Number, Numbers, RouterCounts};
use events::EventLog;

/// Settings of the router.
#[derive(Clone, Debug, Default)]
pub struct RouterConfig {
    /// Bounds of messages, sessions and the whole.
    pub limits: InboxLimits,
}

/// The parts a router is made of.
pub struct RouterParts {
    /// How much is kept for recipients.
    pub config: RouterConfig,
    /// Where messages and registrations are kept.
    pub store: Arc<dyn Store>,
    /// Where rounds are noted.
    pub progress: Arc<dyn ProgressSink>,
    /// Monotonic time for deadlines, and wall time for what is stored.
    pub clock: Arc<dyn Clock>,
}

/// The router's handle; clones share one state.
#[derive(Clone)]
pub struct RouterApp(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    progress: Arc<dyn ProgressSink>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    counts: RouterCounts,
}

/// How much there is of everything.
#[derive(Default)]
struct Load {
    online: u64,
    waiting_bytes: u64,
    streams: u64,
}

/// What is read when somebody asks.
const GAUGES: &[Number<Load>] = &[
    ("parties_online", "Registered parties that are online", |numbers| numbers.online),
    ("waiting_bytes", "Bytes of messages that wait to be acknowledged", |n| n.waiting_bytes),
    ("message_streams", "Parties with an open stream of messages", |numbers| numbers.streams),
];

struct State {
    inboxes: Inboxes,
    presence: Presence,
    log: EventLog,
    subscriptions: Subscriptions,
    /// Names whose identity the operator trusts.
    reserved: HashSet<PartyId>,
    /// Sessions that callers of an open router have announced.
    strangers: Strangers,
    /// Wakes the streams of a party; an entry exists while one is open.
    wakers: HashMap<PartyId, watch::Sender<()>>,
    /// Senders that wait until all recipients have acknowledged.
    settling: HashMap<MessageId, oneshot::Sender<()>>,
    /// Messages found at start whose session the coordinator has not named yet.
    unclaimed: HashMap<SessionId, Vec<RecoveredMessage>>,
}

impl State {
    fn act_as(&self, caller: &Caller, party: &PartyId) -> Result<()> {
        policy::act_as(caller, party, self.reserved.contains(party))
    }

    /// Refuses a session of another tenant, or of others than a proven party, as if it did not
    /// exist.
    fn visible(&self, caller: &Caller, session: SessionId) -> Result<()> {
        let owner = self.inboxes.owner(session);
        let seen = match caller {
            Caller::Party(party) => self.inboxes.has_member(session, party),
            _ => owner.is_some_and(|owner| policy::sees(caller, owner)),
        };
        if seen { Ok(()) } else { Err(Error::not_found("session", session)) }
    }
}

impl RouterApp {
    /// Loads registrations and unacknowledged messages. The messages are delivered once the
    /// coordinator publishes their sessions.
    pub async fn open(parts: RouterParts) -> Result<Self> {
        let mut presence = Presence::default();
        for PartyRow { owner, registration, registered_at } in parts.store.parties().await? {
            presence.restore(owner, registration, registered_at);
        }
        let mut unclaimed: HashMap<_, Vec<_>> = HashMap::new();
        let mut inboxes = Inboxes::new(parts.config.limits);
        for found in parts.store.messages().await? {
            inboxes.continue_after(found.row.sequence);
            unclaimed.entry(found.row.message.session_id).or_default().push(found);
        }
        let state = Mutex::new(State {
            inboxes,
            presence,
            log: EventLog::default(),
            subscriptions: Subscriptions::default(),
            reserved: HashSet::new(),
            strangers: Strangers::default(),
            wakers: HashMap::new(),
            settling: HashMap::new(),
            unclaimed,
        });
        let RouterParts { store, progress, clock, .. } = parts;
        let counts = RouterCounts::default();
        Ok(Self(Arc::new(Inner { store, progress, clock, state, counts })))
    }

    /// Registers what Prometheus may know of messages and parties.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.0.counts.register(registry);
        let app = Arc::downgrade(&self.0);
        registry.register_collector(Numbers::gauges(GAUGES, move || {
            let Some(app) = app.upgrade() else { return Load::default() };
            let (now, state) = (app.clock.moment(), lock(&app.state));
            Load {
                online: state.presence.list(now, |_| true, None, true).len() as u64,
                waiting_bytes: state.inboxes.held_bytes() as u64,
                streams: state.wakers.len() as u64,
            }
        }));
    }

    /// Lets nobody but its own proof act as this party.
    pub fn reserve(&self, party: &PartyId) {
        lock(&self.0.state).reserved.insert(party.clone());
    }

    /// Refuses a caller that may not act as `party`.
    fn act_as(&self, caller: &Caller, party: &PartyId) -> Result<()> {
        lock(&self.0.state).act_as(caller, party)
    }

    /// Refuses a caller that may not act as `party`, and a session of another tenant.
    fn act_in(&self, caller: &Caller, party: &PartyId, session: SessionId) -> Result<()> {
        let state = lock(&self.0.state);
        state.act_as(caller, party)?;
        state.visible(caller, session)
    }

    /// Drops messages of sessions that the coordinator does not know any more. To be called when
    /// it has published all its open ones.
    pub fn forget_unclaimed(&self) {
        let unclaimed = std::mem::take(&mut lock(&self.0.state).unclaimed);
        for session in unclaimed.into_keys() {
            drop(self.0.store.submit(vec![Write::ForgetMessages(session)], Urgency::Later));
        }
    }

    /// Takes an event of the installation's own coordinator in.
    fn take_event(&self, event: SessionEvent) -> u32 {
        let mut guard = lock(&self.0.state);
        let state = &mut *guard;
        let session = event.session.session_id;
        self.0.counts.events.inc();
        if state.strangers.displace(session) {
            self.end_session(state, session);
            state.inboxes.forget_session(session);
            state.log.forget(session);
        }
        self.post(state, event)
    }

    /// Accepts what a caller announces that nobody checked: sessions of another coordinator.
    fn take_strangers_event(&self, mut event: SessionEvent) -> Result<u32> {
        let mut guard = lock(&self.0.state);
        let state = &mut *guard;
        let session = event.session.session_id;
        let known =
            state.inboxes.owner(session).is_some() || state.unclaimed.contains_key(&session);
        let lends = event.lent.is_some();
        state.strangers.admit(session, known, event.session.status.is_final(), lends)?;
        event.session.tenant = Tenant::default();
        Ok(self.post(state, event))
    }

    /// Opens or closes the inboxes of an event's session, and tells the subscribers.
    fn post(&self, state: &mut State, event: SessionEvent) -> u32 {
        let session = event.session.session_id;
        if event.session.status.is_final() {
            self.end_session(state, session);
        } else {
            let members: Vec<_> = event.session.parties().cloned().collect();
            let SessionView { tenant, attempt, .. } = &event.session;
            let gone = state.inboxes.open_session(session, tenant, *attempt, &members);
            if !gone.is_empty() {
                for message in gone {
                    state.settling.remove(&message);
                }
                drop(self.0.store.submit(vec![Write::ForgetMessages(session)], Urgency::Later));
            }
            for found in state.unclaimed.remove(&session).unwrap_or_default() {
                state.inboxes.restore(found.row, &found.acknowledged);
            }
        }
        let guests: Vec<_> = match event.session.status.is_final() {
            true => event.audience().cloned().collect(),
            false => Vec::new(),
        };
        let owner = NameOwner::Tenant(event.session.tenant.clone());
        let reached = state.log.post(event);
        self.end_temporary(state, &guests, owner);
        reached
    }

    /// Forgets those parties of a session that has ended which had registered for it alone.
    fn end_temporary(&self, state: &mut State, parties: &[PartyId], owner: NameOwner) {
        for party in parties {
            if state.log.takes_part(party) {
                continue;
            }
            for owner in [owner.clone(), NameOwner::Operator] {
                if state.presence.end_temporary(party, &owner) {
                    let forget = Write::ForgetParty(party.clone(), owner);
                    drop(self.0.store.submit(vec![forget], Urgency::Now));
                }
            }
        }
    }

    fn end_session(&self, state: &mut State, session: SessionId) {
        for message in state.inboxes.close_session(session) {
            state.settling.remove(&message);
        }
        state.unclaimed.remove(&session);
        drop(self.0.store.submit(vec![Write::ForgetMessages(session)], Urgency::Later));
        // Streams of this session alone end now.
        for waker in state.wakers.values() {
            waker.send_replace(());
        }
    }
}

impl EventSink for RouterApp {
    fn publish(&self, event: SessionEvent) {
        self.take_event(event);
    }
}
