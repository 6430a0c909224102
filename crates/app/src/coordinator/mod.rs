//! The session coordinator: one handle, one short lock, ordered writes.

mod create;
mod deadlines;
mod service;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use quorate_core::session::{Command, Durability, Effects, Reply, Session};
use quorate_ports::store::SessionRow;
use quorate_ports::{Commit, Router, Store, Urgency, Write};
use quorate_types::*;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::links::EventSink;
use crate::tokens::TokenMint;
use crate::{ENDED_KEPT, lock};

/// Settings of the coordinator.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatorConfig {
    /// Seconds a session lives when its creator does not say.
    pub default_lifetime: u64,
    /// Longest lifetime a creator may ask for, in seconds.
    pub max_lifetime: u64,
    /// Open sessions at once; one takes about 4 KiB plus 0.5 KiB a party.
    pub max_open: usize,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self { default_lifetime: 300, max_lifetime: 7 * 24 * 3600, max_open: 100_000 }
    }
}

/// Keys kept in memory for signing; about 0.5 KiB each. When full, the cache starts afresh.
const KEYS_CACHED: usize = 10_000;

struct Slot {
    session: Session,
    changed: watch::Sender<()>,
    /// The end is decided and not yet durable: nobody is told before it is.
    ending: bool,
    idempotency: Option<(Tenant, String)>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, Slot>,
    open: usize,
    ended: VecDeque<SessionId>,
    deadlines: BTreeSet<(Timestamp, SessionId)>,
    idempotency: HashMap<(Tenant, String), ([u8; 32], SessionId)>,
    keys: HashMap<KeyId, Arc<KeyRecord>>,
}

/// The parts a coordinator is made of.
pub struct CoordinatorParts {
    /// Settings.
    pub config: CoordinatorConfig,
    /// Where sessions and keys are kept.
    pub store: Arc<dyn Store>,
    /// Join tokens.
    pub mint: TokenMint,
    /// Who is online.
    pub directory: Arc<dyn Router>,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The coordinator's handle; clones share one state.
#[derive(Clone)]
pub struct CoordinatorApp(Arc<Inner>);

struct Inner {
    parts: CoordinatorParts,
    state: Mutex<State>,
    /// Wakes the deadline task when an earlier deadline appears.
    sooner: Notify,
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
        let app = Self(Arc::new(Inner { parts, state: Mutex::default(), sooner: Notify::new() }));
        {
            let mut state = lock(&app.0.state);
            for row in rows {
                app.insert(&mut state, decode(&row)?, None);
            }
        }
        app.republish();
        Ok(app)
    }

    /// Publishes the last event of every open session again, for a router that has forgotten them.
    pub fn republish(&self) {
        let state = lock(&self.0.state);
        for slot in state.sessions.values().filter(|slot| !slot.session.status().is_final()) {
            let started = slot.session.status() == SessionStatus::InProgress;
            let kind = if started { EventKind::SessionStarted } else { EventKind::SessionCreated };
            self.publish(&slot.session.view(), kind);
        }
    }

    fn insert(&self, state: &mut State, session: Session, idempotency: Option<(Tenant, String)>) {
        state.deadlines.insert((session.expires_at(), session.id()));
        state.open += 1;
        let slot = Slot { changed: watch::Sender::new(()), ending: false, idempotency, session };
        state.sessions.insert(slot.session.id(), slot);
        self.0.sooner.notify_one();
    }

    fn publish(&self, view: &SessionView, kind: EventKind) {
        let mut join_tokens = std::collections::BTreeMap::new();
        if kind == EventKind::SessionCreated {
            for party in view.participants.iter().map(|p| &p.party_id) {
                let token = self.0.parts.mint.token(view.session_id, party);
                join_tokens.insert(party.clone(), token);
            }
        }
        self.0.parts.events.publish(SessionEvent {
            event_id: EventId(uuid::Uuid::new_v4()),
            kind,
            session: view.clone(),
            join_tokens,
            created_at: self.0.parts.clock.now(),
        });
    }

    /// Applies a command to an open session. Events of a session that goes on are published at
    /// once; those of its end only after they are durable.
    fn apply(&self, id: SessionId, command: Command) -> Result<Applied> {
        self.0.parts.store.health()?;
        let now = self.0.parts.clock.now();
        let mut state = lock(&self.0.state);
        let slot = state.sessions.get_mut(&id).ok_or_else(|| Error::not_found("session", id))?;
        let mut effects = Effects::default();
        let reply = slot.session.apply(now, command, &mut effects);
        let view = slot.session.view();
        let commit = self.persist(&slot.session, &effects);
        slot.ending |= effects.ended;
        if !effects.events.is_empty() && !slot.ending {
            slot.changed.send_replace(());
        }
        let mut after = effects.events;
        if effects.ended {
            if let Some(key) = effects.key {
                remember_key(&mut state.keys, Arc::new(key));
            }
            self.retire(&mut state, id);
        } else {
            for kind in after.drain(..) {
                self.publish(&view, kind);
            }
        }
        Ok(Applied { reply, view, commit, after })
    }

    /// Queues what must be kept. Joins and readies are not: a session that has not started is
    /// joined again after a restart; that it has started is written, and nobody waits for it.
    fn persist(&self, session: &Session, effects: &Effects) -> Option<Commit> {
        let awaited = effects.persist == Durability::Now;
        let started = effects.events.contains(&EventKind::SessionStarted);
        if !awaited && !started {
            return None;
        }
        let mut writes = vec![Write::Session(encode(session))];
        writes.extend(effects.key.clone().map(Write::Key));
        let commit = self.0.parts.store.submit(writes, Urgency::Now);
        awaited.then_some(commit)
    }

    /// Waits for durability and then tells the parties how a session ended.
    async fn settle(&self, applied: Applied) -> Result<(Reply, SessionView)> {
        let durable = match applied.commit {
            Some(commit) => commit.await,
            None => Ok(()),
        };
        if durable.is_err() {
            // A result that is not on the disk is told to nobody: whoever waits, for this session
            // or another, hears of the disk.
            for slot in lock(&self.0.state).sessions.values() {
                slot.changed.send_replace(());
            }
        } else if !applied.after.is_empty()
            && let Some(slot) = lock(&self.0.state).sessions.get_mut(&applied.view.session_id)
        {
            slot.ending = false;
            slot.changed.send_replace(());
        }
        durable?;
        for kind in applied.after {
            self.publish(&applied.view, kind);
        }
        Ok((applied.reply?, applied.view))
    }

    async fn execute(&self, id: SessionId, command: Command) -> Result<(Reply, SessionView)> {
        let applied = self.apply(id, command)?;
        if applied.commit.is_none() {
            return self.settle(applied).await;
        }
        // A caller that hangs up must not keep the parties from hearing of the end.
        let app = self.clone();
        tokio::spawn(async move { app.settle(applied).await })
            .await
            .map_err(|_| Error::internal())?
    }

    /// Takes an ended session off the open ones and forgets the oldest ended ones.
    fn retire(&self, state: &mut State, id: SessionId) {
        let Some(slot) = state.sessions.get(&id) else {
            return;
        };
        if !state.deadlines.remove(&(slot.session.expires_at(), id)) {
            return;
        }
        state.open -= 1;
        state.ended.push_back(id);
        while state.ended.len() > ENDED_KEPT {
            let oldest = state.ended.pop_front().expect("longer than the bound");
            if let Some(key) = state.sessions.remove(&oldest).and_then(|slot| slot.idempotency) {
                state.idempotency.remove(&key);
            }
        }
    }

    /// The session from memory, or from the store when it ended long ago.
    async fn find(&self, id: SessionId) -> Result<Session> {
        loop {
            let mut changed = match lock(&self.0.state).sessions.get(&id) {
                Some(slot) => {
                    let changed = slot.changed.subscribe();
                    self.0.parts.store.health()?;
                    if !slot.ending {
                        return Ok(slot.session.clone());
                    }
                    changed
                }
                None => break,
            };
            let _ = changed.changed().await;
        }
        let row = self.0.parts.store.session(id).await?;
        decode(&row.ok_or_else(|| Error::not_found("session", id))?)
    }

    /// Refuses a session that this caller must not know of, as if it did not exist.
    fn visible(session: &Session, caller: &Caller) -> Result<()> {
        let seen = match caller {
            Caller::Party(party) => session.is_participant(party),
            _ => caller.tenant().is_none_or(|tenant| tenant == *session.tenant()),
        };
        if seen { Ok(()) } else { Err(Error::not_found("session", session.id())) }
    }
}

fn remember_key(keys: &mut HashMap<KeyId, Arc<KeyRecord>>, record: Arc<KeyRecord>) {
    if keys.len() >= KEYS_CACHED {
        keys.clear();
    }
    keys.insert(record.key_id, record);
}

fn encode(session: &Session) -> SessionRow {
    SessionRow {
        session_id: session.id(),
        tenant: session.tenant().clone(),
        is_final: session.status().is_final(),
        created_at: session.view().created_at,
        document: serde_json::to_vec(session).expect("a session is plain data"),
    }
}

fn decode(row: &SessionRow) -> Result<Session> {
    serde_json::from_slice(&row.document).map_err(|error| {
        tracing::error!(%error, session = %row.session_id, "a stored session cannot be read");
        Error::internal()
    })
}
