//! The relay: one core behind a lock, its connections, its clock and its store.
//!
//! The lock is held for one command: apply it, hand its changes to the store, queue its frames. No
//! await and no socket comes near it. Frames that tell of a change wait in their queues, in order,
//! until the store says that it is durable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use prometheus_client::registry::Registry;
use quorate_core::budget::shared::Shares;
use quorate_core::budget::{Budget, Over};
use quorate_core::groups::{Command, ConnectionId, Effects, Event, Groups, Peer, TokenHash};
use quorate_ports::{Commit, GroupStore};
use quorate_types::{ClientAddress, Result, Timestamp};
use quorate_wire::jsonrpc::{RpcError, RpcRequest};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::metrics::{Counters, DropReason, Metrics, Reading, add};
use crate::send_queue::{Entry, Gate, SendQueue};
use crate::{keep, translate};

/// How long connections may take to end when the relay stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Commits that may wait for the disk. Calls that might add one are refused then: the store's queue
/// must not overrun, and keeps room for connections that end.
const MAX_WAITING: usize = 32_768;

/// The JSON-RPC group relay. Clones are handles on the same relay.
#[derive(Clone)]
pub struct Relay(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) tasks: TaskTracker,
    store: Arc<dyn GroupStore>,
    started: Instant,
    state: Mutex<State>,
    /// Bytes that wait in all queues.
    queued: Shares<ClientAddress>,
    /// Commits under way.
    waiting: AtomicUsize,
    /// The next expiry has moved forward.
    sooner: Notify,
    stop: CancellationToken,
}

struct State {
    core: Groups,
    send_queues: HashMap<ConnectionId, Arc<SendQueue>>,
    /// The connections, by where they come from.
    places: Budget<ClientAddress>,
    last_connection: ConnectionId,
    /// When the timer will look.
    armed: Option<Timestamp>,
    stopping: bool,
}

/// What a commit holds back.
struct Held {
    gate: Arc<Gate>,
    wakers: Wakers,
    /// Whose call it was.
    waits: Option<Arc<SendQueue>>,
    started: Option<Instant>,
}

impl State {
    /// Tells the core how far the connection got that still has this token's place.
    fn note_written(&mut self, token: &TokenHash) {
        let old = self.core.connection_of(token);
        if let Some((id, send_queue)) = old.and_then(|id| Some((id, self.send_queues.get(&id)?))) {
            self.core.wrote(id, send_queue.written());
        }
    }
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoPlace {
    /// There are too many, of this address or in all.
    Taken(Over),
    /// The relay stops.
    Stopping,
}

/// Connections to wake once the lock is free.
type Wakers = Vec<Arc<SendQueue>>;

impl Relay {
    /// Restores what the store has, and starts the relay's clock.
    ///
    /// Must be called inside a Tokio runtime. Fails when the store does.
    pub async fn open(config: Config, store: Arc<dyn GroupStore>) -> Result<Self> {
        let kept = keep::read(store.groups().await?);
        let mut core = Groups::new(config.rules());
        let mut effects = Effects::default();
        core.restore(Timestamp(0), kept, &mut effects);
        let state = State {
            last_connection: core.last_client(),
            core,
            send_queues: HashMap::new(),
            places: Budget::new(config.limits.connections),
            armed: None,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            queued: Shares::new(config.limits.queue_total_bytes),
            config,
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            store,
            started: Instant::now(),
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            sooner: Notify::new(),
            stop: CancellationToken::new(),
        });
        if !effects.changes.is_empty() {
            let changes = std::mem::take(&mut effects.changes);
            shared.store.submit_groups(changes.into_iter().map(keep::write).collect()).await?;
        }
        shared.tasks.spawn(shared.clone().keep_time());
        Ok(Self(shared))
    }

    /// Closes all connections with code 1012, and waits for them and for the store.
    ///
    /// Places with a token stay kept for a relay that is opened on the same store.
    pub async fn close(&self) {
        let open: Wakers = {
            let mut state = self.0.lock();
            state.stopping = true;
            state.send_queues.values().cloned().collect()
        };
        self.0.stop.cancel();
        for send_queue in open {
            send_queue.close(DropReason::Stopping);
            send_queue.ring();
        }
        self.0.tasks.close();
        if tokio::time::timeout(2 * CLOSE_LIMIT, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("connections were still open when the relay stopped");
        }
    }

    /// The counters now.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = self.0.counters.read();
        let state = self.0.lock();
        let counts = state.core.counts();
        metrics.connections = state.send_queues.len() as u64;
        metrics.groups = counts.groups as u64;
        metrics.sessions = counts.sessions as u64;
        metrics.tokens = counts.tokens as u64;
        metrics
    }

    /// Lets Prometheus read the counters.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let relay = self.clone();
        let reading = Reading(Box::new(move || relay.metrics()));
        registry.sub_registry_with_prefix("jsonrpc").register_collector(Box::new(reading));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay's own time: it starts at 0 and never goes back.
    fn now(&self) -> Timestamp {
        let millis = self.started.elapsed().as_millis();
        Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// A new connection, unless there are too many or the relay stops.
    pub(crate) fn connect(
        &self,
        address: ClientAddress,
    ) -> Result<(Peer, Arc<SendQueue>), NoPlace> {
        let mut state = self.lock();
        if state.stopping {
            return Err(NoPlace::Stopping);
        }
        state.places.take(&address, 1).map_err(NoPlace::Taken)?;
        state.last_connection += 1;
        let (connection, send_queue) =
            (state.last_connection, SendQueue::new(self.queued.of(address)));
        let send_queue = Arc::new(send_queue);
        state.send_queues.insert(connection, send_queue.clone());
        Ok((Peer { connection, address }, send_queue))
    }

    /// A connection has ended.
    pub(crate) fn disconnect(self: &Arc<Self>, peer: Peer) {
        let (now, id) = (self.now(), peer.connection);
        let mut state = self.lock();
        state.places.give_back(&peer.address, 1);
        let written = state.send_queues.remove(&id).map_or(0, |send_queue| send_queue.written());
        let mut effects = Effects::default();
        state.core.disconnect(now, id, written, &mut effects);
        self.carry_out(state, id, None, effects, None);
    }

    /// The peer has all events up to this number.
    pub(crate) fn arrived(&self, id: ConnectionId, event: u64) {
        self.lock().core.arrived(id, event);
    }

    /// Takes one text frame of a connection.
    pub(crate) fn call(self: &Arc<Self>, peer: Peer, send_queue: &Arc<SendQueue>, text: &str) {
        let started = Instant::now();
        add(&self.counters.bytes_in, text.len());
        add(&self.counters.calls, 1);
        let mut request = RpcRequest::parse(text);
        let call = std::mem::replace(&mut request.call, Err(RpcError::new(0, "")));
        let asked = match call.and_then(translate::command) {
            Ok(asked) => asked,
            Err(error) => return self.refuse(send_queue, &request, &error),
        };
        if self.waiting.load(Ordering::Acquire) >= MAX_WAITING && translate::writes(&asked.command)
        {
            return self.refuse(send_queue, &request, &translate::busy());
        }
        let now = self.now();
        let mut state = self.lock();
        if let Command::Resume { token, .. } = &asked.command {
            state.note_written(token);
        }
        let mut effects = Effects::default();
        let reply = match state.core.apply(now, peer, asked.command, &mut effects) {
            Ok(reply) => reply,
            Err(refusal) => {
                drop(state);
                self.refuse(send_queue, &request, &translate::error(&refusal));
                if refusal.closes() {
                    send_queue.close(DropReason::Full);
                    send_queue.ring();
                }
                return;
            }
        };
        let answer = request.answer(translate::result(&reply, asked.token).as_ref());
        self.carry_out(state, peer.connection, answer, effects, Some(started));
    }

    /// Answers with an error. The original is silent to what is no request, and so is its mode.
    fn refuse(&self, send_queue: &SendQueue, request: &RpcRequest, error: &RpcError) {
        self.counters.error(error.code);
        if error.is_no_request() && self.config.compat == quorate_core::groups::Compat::Original {
            return;
        }
        let frame = request.refuse(error).into();
        send_queue.push(Entry { frame, number: 0, gate: None, missed: false }, &self.config.limits);
        send_queue.ring();
    }

    /// Keeps the changes, queues the answer and then the events, and lets go of the lock.
    fn carry_out(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        caller: ConnectionId,
        answer: Option<String>,
        effects: Effects,
        started: Option<Instant>,
    ) {
        let writes: Vec<_> = effects.changes.into_iter().map(keep::write).collect();
        let commit = (!writes.is_empty()).then(|| self.store.submit_groups(writes));
        let waits = commit.as_ref().and_then(|_| state.send_queues.get(&caller).cloned());
        if let Some(send_queue) = &waits {
            send_queue.begin();
        }
        let gate = commit.is_some().then(Arc::<Gate>::default);
        let mut wakers = Wakers::new();
        let mut queue = |id: ConnectionId, frame: Utf8Bytes, number, missed| {
            if let Some(send_queue) = state.send_queues.get(&id) {
                let entry = Entry { frame, number, gate: gate.clone(), missed };
                send_queue.push(entry, &self.config.limits);
                wakers.push(send_queue.clone());
            }
        };
        if let Some(answer) = answer {
            queue(caller, answer.into(), 0, false);
        }
        for (number, event) in effects.missed {
            queue(caller, frame(&event), number, true);
        }
        for (event, recipients) in effects.deliveries {
            add(&self.counters.events, recipients.len());
            let frame = frame(&event);
            for (id, number) in recipients {
                queue(id, frame.clone(), number, false);
            }
        }
        for id in effects.replaced {
            if let Some(send_queue) = state.send_queues.get(&id) {
                send_queue.close(DropReason::Replaced);
                wakers.push(send_queue.clone());
            }
        }
        let sooner = arm(&mut state);
        drop(state);
        if sooner {
            self.sooner.notify_one();
        }
        match (commit, gate) {
            (Some(commit), Some(gate)) => {
                self.waiting.fetch_add(1, Ordering::AcqRel);
                let held = Held { gate, wakers, waits, started };
                self.tasks.spawn(self.clone().release(commit, held));
            }
            _ => {
                wakers.iter().for_each(|send_queue| send_queue.ring());
                self.took(started);
            }
        }
    }

    /// Opens the gate of frames when what they tell is durable.
    async fn release(self: Arc<Self>, commit: Commit, held: Held) {
        let result = commit.await;
        if let Err(error) = &result {
            tracing::error!(%error, "groups could not be kept");
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        held.gate.settle(result.is_ok());
        if let Some(send_queue) = &held.waits {
            send_queue.end();
            send_queue.ring();
        }
        held.wakers.iter().for_each(|send_queue| send_queue.ring());
        self.took(held.started);
    }

    fn took(&self, started: Option<Instant>) {
        if let Some(started) = started {
            self.counters.took(started.elapsed());
        }
    }

    /// Ends what is over, when it is over.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                state.armed = state.core.next_expiry();
                state.armed
            };
            let due = async {
                match next {
                    Some(at) => {
                        let millis = u64::try_from(at.0).unwrap_or(0);
                        let at = self.started + Duration::from_millis(millis);
                        tokio::time::sleep_until(at).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.sooner.notified() => {}
                () = due => self.expire(),
            }
        }
    }

    fn expire(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.lock();
        let mut effects = Effects::default();
        state.core.expire(now, &mut effects);
        self.carry_out(state, 0, None, effects, None);
    }
}

fn frame(event: &Event) -> Utf8Bytes {
    Utf8Bytes::try_from(translate::event(event)).expect("events are text")
}

/// Whether the timer must look sooner than it would. One that looks too early looks again.
fn arm(state: &mut State) -> bool {
    let next = state.core.next_expiry();
    let sooner = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
    if sooner {
        state.armed = next;
    }
    sooner
}
