//! Counters of the relay, for Prometheus.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Upper ends of the latency buckets in microseconds; one more bucket has all that took longer.
pub const BUCKETS_MICROS: [u64; 12] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000];

/// Error codes the relay answers with.
const CODES: [i32; 8] = [-32700, -32600, -32601, -32602, -32603, -32001, -32002, -32003];

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The peer has closed the connection.
    Closed,
    /// The peer vanished or fell silent.
    Gone,
    /// The peer reads too slowly.
    Slow,
    /// A frame was too large.
    TooLarge,
    /// The peer broke the WebSocket protocol.
    Protocol,
    /// A text frame was not UTF-8.
    NotUtf8,
    /// It asked for a place in a full group.
    Full,
    /// Another connection resumed its place.
    Replaced,
    /// The relay stops.
    Stopping,
    /// The disk failed.
    Broken,
}

impl DropReason {
    const ALL: [Self; 10] = [
        Self::Closed,
        Self::Gone,
        Self::Slow,
        Self::TooLarge,
        Self::Protocol,
        Self::NotUtf8,
        Self::Full,
        Self::Replaced,
        Self::Stopping,
        Self::Broken,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Gone => "gone",
            Self::Slow => "slow",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
            Self::NotUtf8 => "not_utf8",
            Self::Full => "group_full",
            Self::Replaced => "replaced",
            Self::Stopping => "stopping",
            Self::Broken => "broken",
        }
    }

    /// The close code and reason; none when nothing is said or no code is.
    pub(crate) fn frame(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Closed | Self::Gone | Self::Full => None,
            Self::Slow => Some((1013, "too many frames wait to be read; resume, and read faster")),
            Self::TooLarge => Some((1009, "the frame is too large")),
            Self::Protocol => Some((1002, "this is not the WebSocket protocol")),
            Self::NotUtf8 => Some((1007, "a text frame is UTF-8")),
            Self::Replaced => Some((1008, "another connection has resumed this place")),
            Self::Stopping => Some((1012, "the relay stops; connect again")),
            Self::Broken => Some((1011, "the disk failed; nothing more is accepted")),
        }
    }
}

/// The relay's counters as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Number of open connections.
    pub connections: u64,
    /// Number of groups that exist.
    pub groups: u64,
    /// Number of sessions that exist.
    pub sessions: u64,
    /// Places with a token now, connected or not.
    pub tokens: u64,
    /// Bytes of text frames from clients.
    pub bytes_in: u64,
    /// Bytes of text frames to clients.
    pub bytes_out: u64,
    /// Text frames from clients.
    pub calls: u64,
    /// Events queued, once for every recipient.
    pub events: u64,
    /// Binary frames, which are ignored.
    pub ignored: u64,
    /// Connections that ended, by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// Errors answered, by code.
    pub errors: Vec<(i32, u64)>,
    /// Calls by the time from reading to answering, not cumulative: [`BUCKETS_MICROS`] and the rest.
    pub latency: Vec<u64>,
    /// Sum of these times in microseconds.
    pub latency_micros: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) ignored: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
    errors: [AtomicU64; CODES.len()],
    latency: [AtomicU64; BUCKETS_MICROS.len() + 1],
    latency_micros: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(crate) fn dropped(&self, why: DropReason) {
        if let Some(at) = DropReason::ALL.iter().position(|drop| *drop == why) {
            add(&self.drops[at], 1);
        }
    }

    pub(crate) fn error(&self, code: i32) {
        if let Some(at) = CODES.iter().position(|known| *known == code) {
            add(&self.errors[at], 1);
        }
    }

    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|end| *end < micros);
        add(&self.latency[bucket], 1);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counters; what is counted elsewhere is zero.
    pub(crate) fn read(&self) -> Metrics {
        Metrics {
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            calls: read(&self.calls),
            events: read(&self.events),
            ignored: read(&self.ignored),
            drops: DropReason::ALL
                .iter()
                .map(|drop| drop.name())
                .zip(self.drops.iter().map(read))
                .collect(),
            errors: CODES.into_iter().zip(self.errors.iter().map(read)).collect(),
            latency: self.latency.iter().map(read).collect(),
            latency_micros: read(&self.latency_micros),
            ..Metrics::default()
        }
    }
}

/// The metrics of a relay, read whenever Prometheus asks.
pub(crate) struct Reading(pub(crate) Box<dyn Fn() -> Metrics + Send + Sync>);

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = (self.0)();
        for (name, value, help) in [
            ("connections", now.connections, "Open connections"),
            ("groups", now.groups, "Groups"),
            ("sessions", now.sessions, "Sessions of all groups"),
            ("tokens", now.tokens, "Places that can be resumed"),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, value, help) in [
            ("bytes_in", now.bytes_in, "Bytes of frames from clients"),
            ("bytes_out", now.bytes_out, "Bytes of frames to clients"),
            ("calls", now.calls, "Frames from clients"),
            ("events", now.events, "Events, once per recipient"),
            ("ignored", now.ignored, "Binary frames"),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let help = "Ended connections by reason";
        let mut drops = encoder.encode_descriptor("drops", help, None, MetricType::Counter)?;
        for (reason, count) in &now.drops {
            ConstCounter::new(*count).encode(drops.encode_family(&[("reason", *reason)])?)?;
        }
        let help = "Answered errors by code";
        let mut errors = encoder.encode_descriptor("errors", help, None, MetricType::Counter)?;
        for (code, count) in &now.errors {
            ConstCounter::new(*count).encode(errors.encode_family(&[("code", *code)])?)?;
        }
        let help = "From reading a call to answering it";
        encoder
            .encode_descriptor("call_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(
                now.latency_micros as f64 / 1e6,
                now.latency.iter().sum(),
                &now.buckets(),
                None,
            )
    }
}

impl Metrics {
    /// Upper ends in seconds and counts of the latency's buckets, not cumulative.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = BUCKETS_MICROS.map(|micros| micros as f64 / 1e6);
        ends.into_iter().chain([f64::INFINITY]).zip(self.latency.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_page_has_cumulative_buckets_in_seconds() {
        let counters = Counters::default();
        counters.took(Duration::from_micros(10));
        counters.took(Duration::from_micros(11));
        counters.took(Duration::from_secs(1));
        counters.dropped(DropReason::Slow);
        counters.error(-32601);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Reading(Box::new(move || counters.read()))));
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        for line in [
            "call_seconds_bucket{le=\"0.00001\"} 1",
            "call_seconds_bucket{le=\"0.000025\"} 2",
            "call_seconds_bucket{le=\"+Inf\"} 3",
            "call_seconds_sum 1.000021",
            "call_seconds_count 3",
            "drops_total{reason=\"slow\"} 1",
            "errors_total{code=\"-32601\"} 1",
            "# TYPE call_seconds histogram",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
