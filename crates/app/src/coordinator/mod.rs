//! The session coordinator: one handle, one short lock, ordered writes.

mod attempts;
mod authorize;
mod create;
mod deadlines;
mod delegates;
mod find_key;
mod fingerprint;
mod freeze;
mod lending;
mod notify;
mod service;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use quorate_authority::AuthoritySecret;
use quorate_core::policy;
use quorate_core::session::{Command, Durability, Effects, Reply, Session};
use quorate_ports::store::{Overtaken, SessionRow};
use quorate_ports::{Commit, Directory, Notifier, Store, Urgency, Write};
use quorate_types::*;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::links::EventSink;
use crate::lock;
use crate::metrics::{Number, Numbers, SessionCounts};
use crate::tokens::JoinTokens;
use notify::Notifications;
use state::{OpenSessions, SessionEntry, State, remember_key};

/// Settings of the coordinator.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatorConfig {
    /// Seconds a session lives when its creator does not say.
    pub default_lifetime: u64,
    /// Longest lifetime a creator may ask for, in seconds.
    pub max_lifetime: u64,
    /// Open sessions at once; one takes about 4 KiB plus 0.5 KiB a party.
    pub max_open: usize,
    /// Keygens that one server party computes at once; the others wait for their turn. More than a
    /// machine has cores make none sooner.
    pub keygens_at_once: usize,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        // The server parties' cores are not known here; those of one machine are ours.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let keygens_at_once = cores.max(2);
        let max_lifetime = 7 * 24 * 3600;
        Self { default_lifetime: 300, max_lifetime, max_open: 100_000, keygens_at_once }
    }
}

/// The parts a coordinator is made of.
pub struct CoordinatorParts {
    /// Lifetimes and bounds.
    pub config: CoordinatorConfig,
    /// Where sessions and keys are kept.
    pub store: Arc<dyn Store>,
    /// Signs requests that come without an initiator's signature, where the operator wants that.
    pub service_initiator: Option<Arc<AuthoritySecret>>,
    /// Makes and checks join tokens under the installation's key.
    pub join_tokens: JoinTokens,
    /// Who is online.
    pub directory: Arc<dyn Directory>,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// Who tells offline parties and webhooks; without one nobody is told.
    pub notifier: Option<Arc<dyn Notifier>>,
    /// Monotonic time for deadlines, and wall time for what is stored.
    pub clock: Arc<dyn Clock>,
}

/// The coordinator's handle; clones share one state.
#[derive(Clone)]
pub struct CoordinatorApp(Arc<Inner>);

struct Inner {
    parts: CoordinatorParts,
    state: Mutex<State>,
    /// Names whose identity the operator trusts.
    reserved: Mutex<HashSet<PartyId>>,
    /// Wakes the deadline task when an earlier deadline appears.
    sooner: Notify,
    /// Ends with the process; there once the deadlines are watched.
    stop: OnceLock<CancellationToken>,
    counts: SessionCounts,
    notifications: Option<Notifications>,
}

/// How often, and how many at a time, old sessions are forgotten: four million a day, and no
/// signature waits for more than some milliseconds of it.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
const FORGOTTEN_AT_ONCE: u32 = 500;

/// What is read of the sessions when somebody asks.
const GAUGES: &[Number<OpenSessions>] = &[
    ("open_sessions", "Sessions that have not ended", |numbers| numbers.open),
    ("started_sessions", "Open sessions whose parties compute", |numbers| numbers.started),
    ("refreshing_keys", "Keys whose shares are being refreshed", |numbers| numbers.refreshing),
];

/// Where a command led.
enum Step {
    Applied(Box<Applied>),
    /// The session has just ended, which is not durable yet: nothing is said of it before.
    Ending(watch::Receiver<()>),
    /// It is not in memory.
    Gone,
}

/// A session as memory has it.
enum Look {
    Here(Box<Session>, watch::Receiver<()>),
    Ending(watch::Receiver<()>),
    Gone,
}

/// What a command led to.
struct Applied {
    reply: Result<Reply>,
    view: SessionView,
    /// Resolves when what the answer promises is durable.
    commit: Option<Commit>,
    /// To be published after the commit, in this order.
    after: Vec<EventKind>,
}

impl CoordinatorApp {
    /// Loads the open sessions and publishes where each of them stands.
    pub async fn open(parts: CoordinatorParts) -> Result<Self> {
        let rows = parts.store.open_sessions().await?;
        let lent = parts.store.lent_shares().await?.into_iter();
        let mut lent: HashMap<_, _> = lent.map(|row| (row.session_id, row.lent)).collect();
        let config = parts.config;
        let notifications = match &parts.notifier {
            Some(notifier) => {
                let waiting = parts.store.waiting_notifications().await?;
                Some(Notifications::new(notifier.clone(), parts.clock.moment(), waiting))
            }
            None => None,
        };
        let state = Mutex::new(State::new(config.max_open, config.keygens_at_once));
        let app = Self(Arc::new(Inner {
            parts,
            state,
            reserved: Mutex::default(),
            sooner: Notify::new(),
            stop: OnceLock::new(),
            counts: SessionCounts::default(),
            notifications,
        }));
        {
            let mut state = lock(&app.0.state);
            let clock = &app.0.parts.clock;
            let (now, monotonic) = (clock.now(), clock.monotonic());
            // What cannot be read is in the log; the rest serves.
            for session in rows.iter().filter_map(|row| decode(row).ok()) {
                let lent = lent.remove(&session.id());
                state.insert(SessionEntry::restored(session, lent, now, monotonic), monotonic);
            }
        }
        app.republish();
        Ok(app)
    }

    /// Registers what Prometheus may know of the sessions.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.0.counts.register(registry);
        self.register_notifications(registry);
        let app = Arc::downgrade(&self.0);
        registry.register_collector(Numbers::gauges(GAUGES, move || {
            app.upgrade().map(|app| lock(&app.state).open_sessions()).unwrap_or_default()
        }));
    }

    /// Forgets sessions that ended and were created longer ago than `retention`, some at a time, until
    /// the process stops.
    pub async fn forget_ended(&self, retention: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(FORGET_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.forget_some(retention),
            }
        }
    }

    /// Forgets some of them.
    pub fn forget_some(&self, retention: Duration) {
        let age = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp(self.0.parts.clock.now().0.saturating_sub(age));
        let forget = vec![
            Write::ForgetEnded(before, FORGOTTEN_AT_ONCE),
            Write::ForgetNotifications(before, FORGOTTEN_AT_ONCE),
        ];
        drop(self.0.parts.store.submit(forget, Urgency::Later));
    }

    /// Publishes the last event of every open session again, for a router that has forgotten them.
    pub fn republish(&self) {
        let state = lock(&self.0.state);
        for entry in state.sessions.values().filter(|entry| !entry.session.status().is_final()) {
            let started = entry.session.status() == SessionStatus::InProgress;
            let kind = if started { EventKind::SessionStarted } else { EventKind::SessionCreated };
            self.publish(&entry.session.view(), kind, entry.lent.as_ref());
        }
    }

    fn publish(&self, view: &SessionView, kind: EventKind, lent: Option<&LentShare>) {
        let lent = lent.filter(|_| kind == EventKind::SessionCreated);
        let mut join_tokens = std::collections::BTreeMap::new();
        if kind == EventKind::SessionCreated {
            for party in view.parties() {
                let token = self.0.parts.join_tokens.token(view.session_id, party);
                join_tokens.insert(party.clone(), token);
            }
        }
        self.0.parts.events.publish(SessionEvent {
            event_id: EventId(uuid::Uuid::new_v4()),
            kind,
            session: view.clone(),
            join_tokens,
            lent: lent.cloned(),
            created_at: self.0.parts.clock.now(),
        });
    }

    /// Applies a command to an open session. Events of a session that goes on are published at
    /// once; those of its end only after they are durable.
    fn apply(&self, id: SessionId, command: &Command) -> Result<Step> {
        self.0.parts.store.health()?;
        let mut guard = lock(&self.0.state);
        let state = &mut *guard;
        let monotonic = self.0.parts.clock.monotonic();
        let Some(entry) = state.sessions.get_mut(&id) else { return Ok(Step::Gone) };
        if entry.ending {
            return Ok(Step::Ending(entry.changed.subscribe()));
        }
        let mut effects = Effects::default();
        let reply = self.act(state, id, command, monotonic, &mut effects);
        let Some(entry) = state.sessions.get_mut(&id) else { return Ok(Step::Gone) };
        let commit = self.persist(entry, &effects, package(command));
        if matches!(command, Command::Progress { .. }) && reply.is_ok() {
            self.0.counts.round();
        }
        if effects.ended {
            let took = entry.time(monotonic).millis_since(entry.session.created_at());
            self.0.counts.ended(&entry.session, Duration::from_millis(took));
        }
        entry.ending = effects.ended;
        let mut view = entry.session.view();
        let after = if effects.ended {
            if let Some(key) = effects.key {
                remember_key(&mut state.keys, Arc::new(key.0));
            }
            state.ended(id, monotonic);
            effects.events
        } else {
            self.tell(entry, &view, effects.events);
            Vec::new()
        };
        if effects.ready {
            let State { sessions, admission, .. } = state;
            if let Some(SessionEntry { session, .. }) = sessions.get(&id) {
                admission.ready(monotonic, id, session.tenant(), session.servers());
            }
        }
        if effects.ready || effects.ended {
            self.admit(state, monotonic);
            if let Some(entry) = state.sessions.get(&id) {
                view = entry.session.view();
            }
        }
        Ok(Step::Applied(Box::new(Applied { reply, view, commit, after })))
    }

    /// Tells everybody what happened to a session that goes on.
    fn tell(&self, entry: &SessionEntry, view: &SessionView, events: Vec<EventKind>) {
        if !events.is_empty() {
            entry.changed.send_replace(());
        }
        for kind in events {
            self.publish(view, kind, entry.lent.as_ref());
        }
    }

    /// Starts the keygens whose turn it is.
    fn admit(&self, state: &mut State, monotonic: Duration) {
        while let Some(id) = state.admission.admit(monotonic) {
            let mut effects = Effects::default();
            if let Some(entry) = state.sessions.get_mut(&id) {
                let now = entry.time(monotonic);
                let admitted = entry.session.apply(now, Command::Admit, &mut effects);
                if let Err(error) = admitted {
                    tracing::debug!(%error, session = %id, "not admitted");
                }
                // Nobody waits for the commit of a start.
                drop(self.persist(entry, &effects, None));
                self.tell(entry, &entry.session.view(), std::mem::take(&mut effects.events));
            }
            // A party that joined anew meanwhile is not ready: the session comes again when it is.
            if effects.persist == Durability::None {
                state.admission.leave(monotonic, id, false);
            }
        }
    }

    /// Queues what must be kept; answers with what is to be awaited.
    fn persist(
        &self,
        entry: &mut SessionEntry,
        effects: &Effects,
        package: Option<(&PartyId, &Bytes)>,
    ) -> Option<Commit> {
        if effects.persist == Durability::None {
            return None;
        }
        if let Some(earlier) = entry.interim.take() {
            earlier.set();
        }
        let row = encode(&entry.session);
        let awaited = effects.persist == Durability::Now;
        let mut writes = vec![match awaited {
            true => Write::Session(row),
            false => Write::Interim(row, entry.interim.insert(Overtaken::default()).clone()),
        }];
        writes.extend(delegates::writes(&entry.session, effects, package));
        if effects.ended && entry.lent.is_some() {
            writes.push(Write::ForgetLentShare(entry.session.id()));
        }
        writes.extend(effects.key.clone().map(|(record, epoch)| Write::Key(record, epoch)));
        writes.extend(effects.bans.iter().cloned().map(Write::Ban));
        let now = awaited || !effects.bans.is_empty();
        let urgency = if now { Urgency::Now } else { Urgency::Later };
        let store = &self.0.parts.store;
        let commit = match &self.0.notifications {
            Some(notifications) if effects.ended => {
                notifications.ended(self.0.parts.clock.moment(), &entry.session, |told| {
                    writes.extend(told);
                    store.submit(writes, urgency)
                })
            }
            _ => store.submit(writes, urgency),
        };
        awaited.then_some(commit)
    }

    /// Waits for durability and then tells everybody how a session ended.
    async fn settle(&self, applied: Applied) -> Result<(Reply, SessionView)> {
        if let Some(commit) = applied.commit {
            commit.await?;
        }
        if !applied.after.is_empty() {
            lock(&self.0.state).retire(applied.view.session_id);
            if let Some(notifications) = &self.0.notifications {
                notifications.end_written(applied.view.session_id);
            }
        }
        for kind in applied.after {
            self.publish(&applied.view, kind, None);
        }
        Ok((applied.reply?, applied.view))
    }

    /// Runs a command, through the shared state while the session is there, on a copy from the
    /// store when it has ended and left the memory (the core then only refuses or repeats).
    async fn execute(&self, id: SessionId, command: Command) -> Result<(Reply, SessionView)> {
        let applied = loop {
            match self.apply(id, &command)? {
                Step::Applied(applied) => break applied,
                Step::Ending(changed) => self.next_change(changed).await?,
                Step::Gone => {
                    let mut ended = self.find(id).await?;
                    let now = self.0.parts.clock.now();
                    let reply = ended.apply(now, command, &mut Effects::default())?;
                    return Ok((reply, ended.view()));
                }
            }
        };
        if applied.commit.is_none() {
            return self.settle(*applied).await;
        }
        // A caller that hangs up must not keep the parties from hearing of the end.
        let app = self.clone();
        tokio::spawn(async move { app.settle(*applied).await })
            .await
            .map_err(|_| Error::internal())?
    }

    /// Waits for the next change of a session, or for the store's failure: what is not on the disk
    /// is told to nobody, and whoever waits, for this session or another, hears of the disk.
    async fn next_change(&self, mut changed: watch::Receiver<()>) -> Result<()> {
        tokio::select! {
            biased;
            error = self.0.parts.store.failed() => Err(error),
            // An error means that the session has left the memory, which is a change too.
            _ = changed.changed() => Ok(()),
        }
    }

    fn look(&self, id: SessionId) -> Result<Look> {
        self.0.parts.store.health()?;
        Ok(match lock(&self.0.state).sessions.get(&id) {
            None => Look::Gone,
            Some(entry) if entry.ending => Look::Ending(entry.changed.subscribe()),
            Some(entry) => Look::Here(Box::new(entry.session.clone()), entry.changed.subscribe()),
        })
    }

    /// The session from memory, or from the store when it ended long ago.
    async fn find(&self, id: SessionId) -> Result<Session> {
        loop {
            match self.look(id)? {
                Look::Here(session, _) => return Ok(*session),
                Look::Ending(changed) => self.next_change(changed).await?,
                Look::Gone => break,
            }
        }
        let row = self.0.parts.store.session(id).await?;
        decode(&row.ok_or_else(|| Error::not_found("session", id))?)
    }

    /// Lets nobody but its own proof act as this party.
    pub fn reserve(&self, party: &PartyId) {
        lock(&self.0.reserved).insert(party.clone());
    }

    /// Refuses a caller that may not act as `party`.
    fn act_as(&self, caller: &Caller, party: &PartyId) -> Result<()> {
        policy::act_as(caller, party, lock(&self.0.reserved).contains(party))
    }

    /// Refuses a session that this caller must not know of, as if it did not exist.
    fn visible(session: &Session, caller: &Caller) -> Result<()> {
        let seen = match caller {
            Caller::Party(party) => session.is_participant(party),
            _ => policy::sees(caller, session.tenant()),
        };
        if seen { Ok(()) } else { Err(Error::not_found("session", session.id())) }
    }
}

/// The package that a command brings.
fn package(command: &Command) -> Option<(&PartyId, &Bytes)> {
    match command {
        Command::Submit(submission) => Some((&submission.party, &submission.package)),
        _ => None,
    }
}

/// The shape of a session's document. The second has an authorization, the third its bytes in
/// Base64, and delegated seats.
const SESSION_VERSION: u32 = 3;

fn encode(session: &Session) -> SessionRow {
    let is_final = session.status().is_final();
    let document = match is_final {
        true => serde_json::to_vec(&session.for_archive()),
        false => serde_json::to_vec(session),
    };
    SessionRow {
        session_id: session.id(),
        tenant: session.tenant().clone(),
        is_final,
        created_at: session.created_at(),
        version: SESSION_VERSION,
        document: document.expect("a session is plain data"),
    }
}

/// A stored session; a signature in it still verifies.
fn decode(row: &SessionRow) -> Result<Session> {
    let id = row.session_id;
    let damaged = |cause: &dyn std::fmt::Display| {
        tracing::error!(session = %id, "a stored session is damaged: {cause}");
        Error::damaged(format!("session {id}"))
    };
    if row.version > SESSION_VERSION {
        return Err(damaged(&format!("version {} is of a newer program", row.version)));
    }
    let session: Session =
        serde_json::from_slice(&row.document).map_err(|error| damaged(&error))?;
    if session.id() != id {
        return Err(damaged(&format!("it says that it is {}", session.id())));
    }
    session.verify().map_err(|error| damaged(&error))?;
    Ok(session)
}
