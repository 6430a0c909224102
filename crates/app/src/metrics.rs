//! What the coordinator and the router count, for Prometheus.
//!
//! Labels are kinds, schemes and outcomes, never a tenant, a party, a key or a session: their number
//! is fixed, and whoever reads them learns nothing of anybody.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use quorate_core::session::Session;
use quorate_types::*;

/// Upper ends of the buckets in seconds: a signature takes milliseconds, a keygen seconds, and what
/// waits for people minutes.
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
    scheme: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    scheme: &'static str,
    outcome: &'static str,
}

/// Counts of sessions.
pub(crate) struct SessionCounts {
    created: Family<Kind, Counter>,
    ended: Family<Ended, Counter>,
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    attempts: Counter,
    rounds: Counter,
}

impl Default for SessionCounts {
    fn default() -> Self {
        Self {
            created: Family::default(),
            ended: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            attempts: Counter::default(),
            rounds: Counter::default(),
        }
    }
}

fn kind(session: &Session) -> Kind {
    Kind { kind: session.kind().name(), scheme: session.ceremony().scheme().name() }
}

impl SessionCounts {
    pub(crate) fn created(&self, session: &Session) {
        self.created.get_or_create(&kind(session)).inc();
    }

    pub(crate) fn round(&self) {
        self.rounds.inc();
    }

    /// A session has ended, after so long.
    pub(crate) fn ended(&self, session: &Session, took: Duration) {
        let Kind { kind, scheme } = kind(session);
        let outcome = session.status().name();
        self.ended.get_or_create(&Ended { kind, scheme, outcome }).inc();
        self.attempts.inc_by(u64::from(session.attempt()) + 1);
        if session.status() == SessionStatus::Completed {
            self.seconds.get_or_create(&Kind { kind, scheme }).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let Self { created, ended, seconds, attempts, rounds } = self;
        registry.register("sessions_created", "Sessions created", created.clone());
        registry.register("sessions_ended", "Sessions ended, by outcome", ended.clone());
        let help = "From the creation of a session to its completion";
        registry.register("session_duration_seconds", help, seconds.clone());
        registry.register("session_attempts", "Attempts of ended sessions", attempts.clone());
        registry.register("rounds", "Rounds that parties have begun", rounds.clone());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    channel: &'static str,
    outcome: &'static str,
}

/// Counts of notifications.
#[derive(Default)]
pub(crate) struct NotificationCounts(Family<Told, Counter>);

impl NotificationCounts {
    /// An attempt has led to this state.
    pub(crate) fn changed(&self, channel: Medium, state: NotificationState) {
        let outcome = match state {
            NotificationState::Waiting => "failed",
            NotificationState::Sent => "sent",
            NotificationState::Dead => "dead",
        };
        self.0.get_or_create(&Told { channel: channel.name(), outcome }).inc();
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Attempts to notify: sent, failed and tried again, or given up";
        registry.register("notifications", help, self.0.clone());
    }
}

/// Counts of the router.
#[derive(Default)]
pub(crate) struct RouterCounts {
    pub(crate) messages: Counter,
    pub(crate) bytes: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) events: Counter,
}

impl RouterCounts {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let Self { messages, bytes, acknowledged, heartbeats, events } = self;
        registry.register("messages", "Messages accepted", messages.clone());
        registry.register("message_bytes", "Payload bytes of these messages", bytes.clone());
        let help = "Acknowledgements, one of each recipient";
        registry.register("message_acknowledgements", help, acknowledged.clone());
        registry.register("heartbeats", "Heartbeats of parties", heartbeats.clone());
        registry.register("session_events", "Session events taken in", events.clone());
    }
}

/// A number that is read when somebody asks: its name, what it is, and how to read it.
pub type Number<T> = (&'static str, &'static str, fn(&T) -> u64);

/// Numbers of one thing, read together.
pub struct Numbers<T: 'static> {
    of: Arc<dyn Fn() -> T + Send + Sync>,
    numbers: &'static [Number<T>],
    /// Whether they only ever grow.
    grow: bool,
}

impl<T> Numbers<T> {
    /// What rises and falls, of what `of` gives.
    pub fn gauges(
        numbers: &'static [Number<T>],
        of: impl Fn() -> T + Send + Sync + 'static,
    ) -> Box<Self> {
        Box::new(Self { of: Arc::new(of), numbers, grow: false })
    }

    /// What only ever grows, of what `of` gives.
    pub fn counters(
        numbers: &'static [Number<T>],
        of: impl Fn() -> T + Send + Sync + 'static,
    ) -> Box<Self> {
        Box::new(Self { of: Arc::new(of), numbers, grow: true })
    }
}

impl<T> fmt::Debug for Numbers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.numbers.iter().map(|(name, ..)| name)).finish()
    }
}

impl<T> Collector for Numbers<T> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = (self.of)();
        for (name, help, read) in self.numbers {
            let (gauge, counter) = (ConstGauge::new(read(&now)), ConstCounter::new(read(&now)));
            let metric: &dyn EncodeMetric = if self.grow { &counter } else { &gauge };
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}
