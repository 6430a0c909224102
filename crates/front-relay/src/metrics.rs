//! Counters of a relay, for Prometheus.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use quorate_core::rendezvous::Rejection;

/// Upper bounds of the latency histogram, in microseconds.
pub const LATENCY_BOUNDS: [u64; 12] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 100_000, 1_000_000, 10_000_000];

/// What a relay has done and holds, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Number of open connections.
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

/// Adds 1 to a counter.
pub(crate) fn one(counter: &AtomicU64) {
    add(counter, 1);
}

/// Adds an amount to a counter.
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
            ("stored_messages", now.stored, "Messages ready for askers"),
            ("waiting_asks", now.waiting, "Questions that wait"),
            ("held_bytes", now.held_bytes, "Bytes charged for messages and questions"),
            ("queued_bytes", now.queued_bytes, "Bytes that wait for readers"),
            ("incoming_bytes", now.incoming_bytes, "Bytes of messages that have not come whole"),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, value, help) in [
            ("received_bytes", now.bytes_in, "Bytes read"),
            ("sent_bytes", now.bytes_out, "Payload bytes written"),
            ("publishes", now.publishes, "Messages published"),
            ("asks", now.asks, "Questions"),
            ("asks_expired", now.asks_expired, "Questions whose time was over"),
            ("deliveries", now.deliveries, "Messages that left for an asker"),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let help = "Frames and connections dropped, by reason";
        let mut drops = encoder.encode_descriptor("drops", help, None, MetricType::Counter)?;
        for (reason, value) in [
            ("expired", now.expired),
            ("first_wins", now.first_wins),
            ("too_large", now.too_large),
            ("over_limit", now.over_limit),
            ("slow_reader", now.slow_reader),
            ("junk", now.junk),
        ] {
            ConstCounter::new(value).encode(drops.encode_family(&[("reason", reason)])?)?;
        }
        let help = "From a frame to the end of the delivery it caused";
        encoder
            .encode_descriptor("handling_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(
                now.latency_sum as f64 / 1e6,
                now.latency.iter().sum(),
                &now.buckets(),
                None,
            )
    }
}

impl Metrics {
    /// Upper ends in seconds and counts of the latency's buckets, not cumulative.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = LATENCY_BOUNDS.map(|micros| micros as f64 / 1e6);
        ends.into_iter().chain([f64::INFINITY]).zip(self.latency).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

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
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Reading(Box::new(move || metrics.clone()))));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "handling_seconds_bucket{le=\"0.00001\"} 2",
            "handling_seconds_bucket{le=\"+Inf\"} 5",
            "deliveries_total 5",
            "drops_total{reason=\"junk\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
