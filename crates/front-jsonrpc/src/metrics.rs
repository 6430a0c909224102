//! Counters of the relay.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    /// Connections now.
    pub connections: u64,
    /// Groups now.
    pub groups: u64,
    /// Sessions now.
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

impl Metrics {
    /// The counters as Prometheus text.
    pub fn prometheus(&self) -> String {
        let mut page = Page(String::new());
        page.plain("connections", "gauge", "Open connections.", self.connections);
        page.plain("groups", "gauge", "Groups.", self.groups);
        page.plain("sessions", "gauge", "Sessions of all groups.", self.sessions);
        page.plain("tokens", "gauge", "Places that can be resumed.", self.tokens);
        page.plain("bytes_in_total", "counter", "Bytes of frames from clients.", self.bytes_in);
        page.plain("bytes_out_total", "counter", "Bytes of frames to clients.", self.bytes_out);
        page.plain("calls_total", "counter", "Frames from clients.", self.calls);
        page.plain("events_total", "counter", "Events, once per recipient.", self.events);
        page.plain("ignored_total", "counter", "Binary frames.", self.ignored);
        page.head("drops_total", "counter", "Ended connections by reason.");
        for (reason, count) in &self.drops {
            page.line(&format!("drops_total{{reason=\"{reason}\"}}"), *count);
        }
        page.head("errors_total", "counter", "Answered errors by code.");
        for (code, count) in &self.errors {
            page.line(&format!("errors_total{{code=\"{code}\"}}"), *count);
        }
        self.histogram(&mut page);
        page.0
    }

    fn histogram(&self, page: &mut Page) {
        page.head("call_seconds", "histogram", "From reading a call to answering it.");
        let mut sum = 0;
        for (at, count) in self.latency.iter().enumerate() {
            sum += count;
            let end = BUCKETS_MICROS.get(at).map_or("+Inf".to_owned(), |end| seconds(*end));
            page.line(&format!("call_seconds_bucket{{le=\"{end}\"}}"), sum);
        }
        page.line("call_seconds_sum", seconds(self.latency_micros));
        page.line("call_seconds_count", sum);
    }
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP quorate_jsonrpc_{name} {help}");
        let _ = writeln!(self.0, "# TYPE quorate_jsonrpc_{name} {kind}");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "quorate_jsonrpc_{name} {value}");
    }

    fn plain(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_cumulative_buckets_in_seconds() {
        let counters = Counters::default();
        counters.took(Duration::from_micros(10));
        counters.took(Duration::from_micros(11));
        counters.took(Duration::from_secs(1));
        counters.dropped(DropReason::Slow);
        counters.error(-32601);
        let page = counters.read().prometheus();
        for line in [
            "quorate_jsonrpc_call_seconds_bucket{le=\"0.000010\"} 1",
            "quorate_jsonrpc_call_seconds_bucket{le=\"0.000025\"} 2",
            "quorate_jsonrpc_call_seconds_bucket{le=\"+Inf\"} 3",
            "quorate_jsonrpc_call_seconds_sum 1.000021",
            "quorate_jsonrpc_call_seconds_count 3",
            "quorate_jsonrpc_drops_total{reason=\"slow\"} 1",
            "quorate_jsonrpc_errors_total{code=\"-32601\"} 1",
            "# TYPE quorate_jsonrpc_call_seconds histogram",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
