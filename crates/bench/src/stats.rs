//! Percentiles and the words around them.

use std::time::Duration;

/// Measured times, sorted.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Sorts what was measured.
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that `percent` of the measurements do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1).min(last);
        self.0.get(at).copied().unwrap_or_default()
    }

    /// `p50 8.91 ms  p95 …  p99 …`
    pub(crate) fn summary(&self) -> String {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        format!("p50 {:.2} ms  p95 {:.2} ms  p99 {:.2} ms", ms(50), ms(95), ms(99))
    }
}

/// The machine a figure was taken on.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, {}, version {}", model.unwrap_or("unknown"), env!("CARGO_PKG_VERSION"))
}

/// The median of this version against that of the other one, where there is one.
pub(crate) fn against(ours: &[Duration]) {
    if let [ours, other] = ours {
        println!("  against the other version {:.2}", ratio(*ours, *other));
    }
}

/// How many times as long `ours` takes as `theirs`.
pub(crate) fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64().max(f64::EPSILON)
}

/// The middle of the values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let times = Times::new((1..=100).map(Duration::from_millis).collect());
        assert_eq!(times.percentile(50), Duration::from_millis(50));
        assert_eq!(times.percentile(99), Duration::from_millis(99));
        assert_eq!(Times::new(vec![]).percentile(50), Duration::ZERO);
    }
}
