//! The relay: its parts of the rendezvous, who is connected, and the one timer that drops what is due.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use bytes::Bytes;
use prometheus_client::registry::Registry;
use quorate_core::budget::Over;
use quorate_core::budget::shared::{Share, Shares};
use quorate_core::rendezvous::*;
use quorate_types::{ClientAddress, RelayId};
use quorate_wire::relay::Header;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::cors::CorsLayer;

use crate::config::Config;
use crate::handshake;
use crate::metrics::{Counters, Metrics, Reading, add, one};
use crate::send_queue::{Cut, Handle, SendQueue};

/// What is due within this time is dropped together. Nobody can tell: what is due has no effect.
const EXPIRE_TOGETHER: Duration = Duration::from_millis(10);

/// Dropped while the lock of a part is held once.
const EXPIRE_AT_ONCE: usize = 256;

/// Freed memory is pushed out this long after it was used: allocators keep what they got back for
/// a while, and look at it again only when they are called.
const TIDY_AFTER: Duration = Duration::from_secs(2);

/// A block that an allocator does not serve from its small classes.
const TIDY_BLOCK: usize = 1 << 20;

/// Frames from this length on leave enough behind to cleanup up.
const LONG_FRAME: usize = 4 << 10;

/// A deadline that never comes.
const NEVER: u64 = u64::MAX;

/// A binary message relay. Clones are handles of the same one.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

impl Relay {
    /// An empty relay. It drops what is due only while [`Relay::run`] runs.
    pub fn new(config: Config) -> Self {
        Self { shared: Arc::new(Shared::new(config)) }
    }

    /// `GET /v1/msg-relay` for WebSockets and `GET /`, which answers `ok`; any origin may call.
    ///
    /// A request's [`ClientAddress`] is its extension; those without one count as one address.
    pub fn router(&self) -> Router {
        let shared = self.shared.clone();
        let upgrade = move |request: Request| {
            let shared = shared.clone();
            async move { handshake::upgrade(&shared, request) }
        };
        Router::new()
            .route("/v1/msg-relay", get(upgrade))
            .route("/", get(|| async { "ok" }))
            .layer(CorsLayer::permissive())
    }

    /// Drops what is due until `stop`, then closes, and returns when the connections are gone or
    /// the grace time is over.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.shared.expire() => {}
        }
        self.close();
        let _ = timeout(self.shared.config.grace, self.shared.tasks.wait()).await;
    }

    /// Ends every connection with close code 1012, after what waits for it, and takes no new one.
    pub fn close(&self) {
        self.shared.close();
    }

    /// What the relay has done and holds.
    pub fn metrics(&self) -> Metrics {
        let Shared { ledger, queued, counters, incoming, .. } = &*self.shared;
        Metrics {
            stored: ledger.stored() as u64,
            waiting: ledger.asks() as u64,
            held_bytes: ledger.held_bytes() as u64,
            queued_bytes: queued.used() as u64,
            incoming_bytes: incoming.used() as u64,
            ..counters.read()
        }
    }

    /// Lets Prometheus read the counters.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let relay = self.clone();
        let reading = Reading(Box::new(move || relay.metrics()));
        registry.sub_registry_with_prefix("relay").register_collector(Box::new(reading));
    }
}

#[derive(Default)]
struct Connections {
    closed: bool,
    last_number: u64,
    taken: HashMap<u64, Arc<SendQueue>>,
}

/// What all connections share.
pub(crate) struct Shared {
    config: Config,
    ledger: Arc<Ledger>,
    /// Bytes that wait for readers.
    queued: Shares<ClientAddress>,
    parts: Box<[Mutex<Rendezvous<Handle>>]>,
    connections: Mutex<Connections>,
    counters: Counters,
    /// Bytes of messages that have not come whole.
    incoming: Shares<ClientAddress>,
    tasks: TaskTracker,
    start: Instant,
    /// Microseconds since the start at which the timer wakes up by itself.
    alarm: AtomicU64,
    earlier: Notify,
    /// Microseconds since the start at which memory is pushed out.
    cleanup: AtomicU64,
    /// Memory was used since that was planned.
    untidy: AtomicBool,
}

impl Shared {
    fn new(config: Config) -> Self {
        let part = |_| Mutex::new(Rendezvous::default());
        Self {
            ledger: Ledger::new(config.limits),
            queued: Shares::new(config.queue_total_bytes),
            parts: (0..config.parts.max(1)).map(part).collect(),
            connections: Mutex::default(),
            counters: Counters::default(),
            incoming: Shares::new(config.limits.total_bytes),
            tasks: TaskTracker::new(),
            start: Instant::now(),
            alarm: AtomicU64::new(NEVER),
            earlier: Notify::new(),
            cleanup: AtomicU64::new(NEVER),
            untidy: AtomicBool::new(false),
            config,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Time since the relay started.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A connection asks. Answers with the message when it is ready.
    pub(crate) fn ask(
        self: &Arc<Self>,
        now: Duration,
        header: Header,
        send_queue: &Arc<SendQueue>,
    ) -> Result<Option<Bytes>, Rejection> {
        one(&self.counters.asks);
        let ttl = header.ttl.duration();
        let receiver = Handle(send_queue.clone());
        let asked = self.part(header.id).ask(now, header.id, ttl, &receiver)?;
        Ok(match asked {
            Asked::Ready(frame) => Some(frame),
            Asked::Nothing => None,
            Asked::Waits => {
                self.due(now + ttl);
                None
            }
        })
    }

    /// A connection publishes.
    pub(crate) fn publish(
        &self,
        now: Duration,
        header: Header,
        frame: Bytes,
        send_queue: &Arc<SendQueue>,
    ) -> Result<(), Rejection> {
        one(&self.counters.publishes);
        let ttl = header.ttl.duration().min(send_queue.account().longest_ttl());
        if frame.len() >= LONG_FRAME {
            self.tidy_later(now);
        }
        let message = Publish { id: header.id, ttl, one_receiver: header.one_receiver(), frame };
        let deliver =
            |to: &Handle, frame: &Bytes| to.0.deliver(frame, now, Arc::ptr_eq(&to.0, send_queue));
        let published =
            self.part(header.id).publish(now, message, send_queue.account(), deliver)?;
        match published {
            Published::Stored(_) => self.due(now + ttl),
            Published::Delivered(_) => {}
            Published::Ignored => one(&self.counters.first_wins),
        }
        Ok(())
    }

    /// The part of an id. Ids are hashes, but nothing forces a client to make them so.
    fn part(&self, id: RelayId) -> MutexGuard<'_, Rendezvous<Handle>> {
        let (words, _) = id.0.as_chunks::<8>();
        let mixed = words.iter().fold(0, |mixed: u64, word| {
            (mixed ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        let at = mixed as usize % self.parts.len();
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is due then: the timer must not sleep longer.
    fn due(&self, at: Duration) {
        let at = micros(at);
        if at < self.alarm.load(SeqCst) && self.alarm.fetch_min(at, SeqCst) > at {
            self.earlier.notify_one();
        }
    }

    /// Drops what is due, until the process ends.
    async fn expire(&self) {
        loop {
            // First the alarm is off, then the parts are looked at: what comes after that look
            // finds the alarm off, sets it and notifies.
            self.alarm.store(NEVER, SeqCst);
            let mut next = self.cleanup();
            for part in &self.parts {
                next = next.into_iter().chain(self.expire_part(part).await).min();
            }
            let sleep = async {
                match next {
                    Some(next) => {
                        self.alarm.fetch_min(micros(next), SeqCst);
                        sleep_until(self.start + next + EXPIRE_TOGETHER).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Memory was used, or is free now.
    fn tidy_later(&self, now: Duration) {
        if self.cleanup.load(Relaxed) == NEVER {
            let at = now + TIDY_AFTER;
            self.cleanup.store(micros(at), SeqCst);
            self.due(at);
        } else if !self.untidy.load(Relaxed) {
            self.untidy.store(true, SeqCst);
        }
    }

    /// Makes the allocator look at what it keeps, when it is time; else when that will be.
    fn cleanup(&self) -> Option<Duration> {
        let at = self.cleanup.load(SeqCst);
        if at > micros(self.now()) {
            return (at != NEVER).then(|| Duration::from_micros(at));
        }
        drop(std::hint::black_box(Vec::<u8>::with_capacity(TIDY_BLOCK)));
        // What came after it was planned is too young; it gets another one.
        let again = self.untidy.swap(false, SeqCst).then(|| self.now() + TIDY_AFTER);
        self.cleanup.store(again.map_or(NEVER, micros), SeqCst);
        again
    }

    /// Drops what is due in a part; when the next of it is due. Others get their turn in between.
    async fn expire_part(&self, part: &Mutex<Rendezvous<Handle>>) -> Option<Duration> {
        loop {
            let (expired, next) = {
                let mut rendezvous = part.lock().unwrap_or_else(PoisonError::into_inner);
                (rendezvous.expire(self.now(), EXPIRE_AT_ONCE), rendezvous.next_deadline())
            };
            add(&self.counters.expired, expired.stored);
            add(&self.counters.asks_expired, expired.asks);
            if expired.stored > 0 {
                self.tidy_later(self.now());
            }
            if expired.stored + expired.asks < EXPIRE_AT_ONCE {
                return next;
            }
            tokio::task::yield_now().await;
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the relay takes no connections any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.connections().closed
    }

    fn close(&self) {
        let mut connections = self.connections();
        connections.closed = true;
        self.tasks.close();
        for send_queue in connections.taken.values() {
            send_queue.cut(Cut::Stopping);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER)
}

/// A connection's place in the relay, given up on drop.
pub(crate) struct ConnectionGuard {
    relay: Arc<Shared>,
    send_queue: Arc<SendQueue>,
    address: ClientAddress,
}

impl ConnectionGuard {
    /// A new one.
    pub(crate) fn take(relay: &Arc<Shared>, address: ClientAddress) -> Self {
        let mut connections = relay.connections();
        connections.last_number += 1;
        let number = connections.last_number;
        let account = Account::new(&relay.ledger, number, address);
        let send_queue = SendQueue::new(account, &relay.config, relay.queued.of(address));
        if connections.closed {
            send_queue.cut(Cut::Stopping);
        }
        connections.taken.insert(number, send_queue.clone());
        drop(connections);
        relay.counters.connections.fetch_add(1, Relaxed);
        Self { relay: relay.clone(), send_queue, address }
    }

    /// The bytes of its message that has not come whole: none yet.
    pub(crate) fn incoming(&self) -> Incomplete {
        Incomplete { share: self.relay.incoming.of(self.address), bytes: 0 }
    }

    pub(crate) fn relay(&self) -> &Arc<Shared> {
        &self.relay
    }

    pub(crate) fn send_queue(&self) -> &Arc<SendQueue> {
        &self.send_queue
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let number = self.send_queue.account().number();
        for part in &self.relay.parts {
            part.lock().unwrap_or_else(PoisonError::into_inner).leave(number);
        }
        self.relay.connections().taken.remove(&number);
        self.relay.counters.connections.fetch_sub(1, Relaxed);
    }
}

/// The bytes of one connection's message that has not come whole, given back on drop. Nobody
/// else knows of them, so they have a bound of their own: the same as for what is stored.
pub(crate) struct Incomplete {
    share: Arc<Share>,
    bytes: usize,
}

impl Incomplete {
    /// How many there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes how many there are now.
    ///
    /// # Errors
    /// When that is beyond a bound; then it is not noted.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Over> {
        self.share.take(bytes.saturating_sub(self.bytes))?;
        self.share.give_back(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use quorate_wire::relay::Ttl;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_pushed_out_until_nothing_has_used_it_since() {
        let shared = Shared::new(Config::default());
        assert_eq!(shared.cleanup(), None);
        shared.tidy_later(shared.now());
        let first = shared.cleanup();
        assert_eq!(first, Some(TIDY_AFTER));
        assert_eq!(shared.alarm.load(SeqCst), micros(TIDY_AFTER), "the timer knows");
        tokio::time::advance(Duration::from_secs(1)).await;
        shared.tidy_later(shared.now());
        assert_eq!(shared.cleanup(), first, "planned once");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(shared.cleanup(), Some(TIDY_AFTER * 2), "once more for what came since");
        tokio::time::advance(TIDY_AFTER).await;
        assert_eq!(shared.cleanup(), None);
        assert_eq!(shared.cleanup(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_leaves_newcomers_no_room_goes_after_five_minutes() {
        let mut config = Config::default();
        config.limits.total_bytes = 10 * (ID_COST + 37);
        let shared = Arc::new(Shared::new(config));
        let connections =
            [1, 2].map(|n| ConnectionGuard::take(&shared, ClientAddress::of([10, 0, 0, n].into())));
        let publish = |id: u8, guard: &ConnectionGuard| {
            let id = RelayId([id; 32]);
            let frame = quorate_wire::relay::publish(id, Ttl::MAX, 0, b"x");
            let (header, _) = Header::parse(&frame).unwrap();
            shared.publish(shared.now(), header, frame, guard.send_queue())
        };
        for id in 0..4 {
            assert_eq!(publish(id, &connections[0]), Ok(()));
            assert_eq!(publish(10 + id, &connections[1]), Ok(()));
        }
        // More than a third is held by each, so that a third one would find too little.
        assert_eq!(publish(4, &connections[0]), Ok(()));
        let stored = async || {
            for part in &shared.parts {
                shared.expire_part(part).await;
            }
            shared.ledger.stored()
        };
        tokio::time::advance(PRESSED_TTL - Duration::from_millis(1)).await;
        assert_eq!(stored().await, 9);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(stored().await, 8, "what came before stays for its own ttl");
        assert_eq!(shared.alarm.load(SeqCst), micros(PRESSED_TTL), "the timer knew");
    }
}
