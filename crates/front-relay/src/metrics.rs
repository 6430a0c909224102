//! Counters of a relay, and their text for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use quorate_core::rendezvous::Rejection;

/// Upper bounds of the latency histogram, in microseconds.
pub const LATENCY_BOUNDS: [u64; 12] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 100_000, 1_000_000, 10_000_000];

/// What a relay has done and holds, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Open connections.
    pub connections: u64,
    /// Messages that are ready for askers.
    pub stored: u64,
    /// Questions that wait.
    pub waiting: u64,
    /// Bytes charged for what is stored and waited for.
    pub held_bytes: u64,
    /// Bytes charged for what waits for slow readers.
    pub queued_bytes: u64,
    /// Bytes of messages that have not come whole.
    pub incoming_bytes: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Payload bytes written to sockets.
    pub bytes_out: u64,
    /// Messages published, those that were dropped included.
    pub publishes: u64,
    /// Requests for a message by its id.
    pub asks: u64,
    /// Messages that left for an asker.
    pub deliveries: u64,
    /// Stored messages whose time was over.
    pub expired: u64,
    /// Questions whose time was over.
    pub asks_expired: u64,
    /// Messages that came second.
    pub first_wins: u64,
    /// Messages that were too long.
    pub too_large: u64,
    /// Frames beyond what a connection or the relay may hold.
    pub over_limit: u64,
    /// Connections cut because they did not read.
    pub slow_reader: u64,
    /// Frames too short to mean anything, and text.
    pub junk: u64,
    /// Deliveries by the time from the frame that caused it to its last byte's leaving; bounds
    /// in [`LATENCY_BOUNDS`], one more bucket above them.
    pub latency: [u64; LATENCY_BOUNDS.len() + 1],
    /// Sum of those times in microseconds.
    pub latency_sum: u64,
}

macro_rules! counters {
    ($($name:ident)*) => {
        /// The counters while they are counted.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
            latency_sum: AtomicU64,
        }

        impl Counters {
            /// The counters' part of the metrics.
            pub(crate) fn read(&self) -> Metrics {
                Metrics {
                    $($name: self.$name.load(Relaxed),)*
                    latency: std::array::from_fn(|at| self.latency[at].load(Relaxed)),
                    latency_sum: self.latency_sum.load(Relaxed),
                    ..Metrics::default()
                }
            }
        }
    };
}

counters! {
    connections bytes_in bytes_out publishes asks deliveries expired asks_expired first_wins
    too_large over_limit slow_reader junk
}

/// Counts one.
pub(crate) fn one(counter: &AtomicU64) {
    add(counter, 1);
}

/// Counts some.
pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    if amount > 0 {
        counter.fetch_add(amount as u64, Relaxed);
    }
}

impl Counters {
    /// Counts a delivery and how long it took.
    pub(crate) fn delivered(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < micros);
        one(&self.deliveries);
        one(&self.latency[bucket]);
        self.latency_sum.fetch_add(micros, Relaxed);
    }

    /// Counts a refused frame.
    pub(crate) fn refused(&self, refusal: Rejection) {
        one(match refusal {
            Rejection::TooLarge => &self.too_large,
            Rejection::ConnectionBytes
            | Rejection::ConnectionIds
            | Rejection::Address
            | Rejection::Full => &self.over_limit,
        });
    }
}

impl Metrics {
    /// The metrics in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let gauges = [
            ("connections", self.connections, "Open connections."),
            ("stored_messages", self.stored, "Messages ready for askers."),
            ("waiting_asks", self.waiting, "Questions that wait."),
            ("held_bytes", self.held_bytes, "Bytes charged for messages and questions."),
            ("queued_bytes", self.queued_bytes, "Bytes that wait for readers."),
            ("incoming_bytes", self.incoming_bytes, "Bytes of messages that have not come whole."),
        ];
        for (name, value, help) in gauges {
            single(&mut text, name, "gauge", help, value);
        }
        let counters = [
            ("received_bytes_total", self.bytes_in, "Bytes read."),
            ("sent_bytes_total", self.bytes_out, "Payload bytes written."),
            ("publishes_total", self.publishes, "Messages published."),
            ("asks_total", self.asks, "Questions."),
            ("asks_expired_total", self.asks_expired, "Questions whose time was over."),
            ("deliveries_total", self.deliveries, "Messages that left for an asker."),
        ];
        for (name, value, help) in counters {
            single(&mut text, name, "counter", help, value);
        }
        self.drops(&mut text);
        self.histogram(&mut text);
        text
    }

    fn drops(&self, text: &mut String) {
        head(text, "drops_total", "counter", "Frames and connections dropped, by reason.");
        let reasons = [
            ("expired", self.expired),
            ("first_wins", self.first_wins),
            ("too_large", self.too_large),
            ("over_limit", self.over_limit),
            ("slow_reader", self.slow_reader),
            ("junk", self.junk),
        ];
        for (reason, value) in reasons {
            let _ = writeln!(text, "quorate_relay_drops_total{{reason=\"{reason}\"}} {value}");
        }
    }

    fn histogram(&self, text: &mut String) {
        let name = "handling_seconds";
        head(text, name, "histogram", "From a frame to the end of the delivery it caused.");
        let mut sum = 0;
        for (count, bound) in self.latency.iter().zip(LATENCY_BOUNDS) {
            sum += count;
            let seconds = bound as f64 / 1e6;
            let _ = writeln!(text, "quorate_relay_{name}_bucket{{le=\"{seconds}\"}} {sum}");
        }
        let all: u64 = self.latency.iter().sum();
        let seconds = self.latency_sum as f64 / 1e6;
        let _ = writeln!(text, "quorate_relay_{name}_bucket{{le=\"+Inf\"}} {all}");
        let _ = writeln!(text, "quorate_relay_{name}_sum {seconds}");
        let _ = writeln!(text, "quorate_relay_{name}_count {all}");
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP quorate_relay_{name} {help}");
    let _ = writeln!(text, "# TYPE quorate_relay_{name} {kind}");
}

fn single(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(text, name, kind, help);
    let _ = writeln!(text, "quorate_relay_{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let counters = Counters::default();
        for micros in [0, 10, 11, 10_000_000, 10_000_001] {
            counters.delivered(Duration::from_micros(micros));
        }
        let metrics = counters.read();
        assert_eq!((metrics.latency[0], metrics.latency[1]), (2, 1));
        assert_eq!((metrics.latency[11], metrics.latency[12]), (1, 1));
        let text = metrics.prometheus();
        assert!(text.contains("quorate_relay_handling_seconds_bucket{le=\"0.00001\"} 2\n"));
        assert!(text.contains("quorate_relay_handling_seconds_bucket{le=\"+Inf\"} 5\n"));
        assert!(text.contains("quorate_relay_deliveries_total 5\n"));
        assert!(text.lines().all(|line| line.starts_with(['#', 'q'])));
    }
}
