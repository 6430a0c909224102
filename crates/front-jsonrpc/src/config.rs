//! How a relay behaves, and its bounds.

use std::path::PathBuf;
use std::time::Duration;

use quorate_core::groups::{Compat, GroupLimits, Rules};

/// Bounds of the relay. Of what is bounded in all, one address may have half.
#[derive(Clone, Copy, Debug)]
pub struct RelayLimits {
    /// Bounds of groups, sessions and what is kept for broken connections.
    pub groups: GroupLimits,
    /// Connections at once: file descriptors.
    pub connections: usize,
    /// Bytes of one frame from a client. The largest protocol message known is about 150 kB.
    pub frame_bytes: usize,
    /// Frames that wait for one connection to read: a round of a large group, many times over.
    pub queue_frames: usize,
    /// Bytes that wait for one connection to read: many of the largest messages. A reader that is
    /// further behind is cut off, so that it does not cost the others their memory.
    pub queue_bytes: usize,
    /// Bytes that wait for all connections: memory of a small server. Who adds to it beyond this
    /// is cut off.
    pub queue_total_bytes: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            groups: GroupLimits::default(),
            connections: 20_000,
            frame_bytes: 1 << 20,
            queue_frames: 4_096,
            queue_bytes: 8 << 20,
            queue_total_bytes: 1 << 30,
        }
    }
}

/// How a relay behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Strict rules, or as lax as older clients know them.
    pub compat: Compat,
    /// How long the place of a broken connection with a token is kept.
    pub grace: Duration,
    /// After what time a group that nobody uses is forgotten.
    pub idle_group: Duration,
    /// After what time a session that nobody uses is forgotten.
    pub idle_session: Duration,
    /// How often a connection is pinged: below what proxies and address translators forget.
    pub ping: Duration,
    /// A folder that is served beside the relay.
    pub static_dir: Option<PathBuf>,
    /// How much the relay keeps, in all and per address.
    pub limits: RelayLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            compat: Compat::Strict,
            grace: Duration::from_secs(60),
            idle_group: Duration::from_secs(24 * 3600),
            idle_session: Duration::from_secs(3600),
            ping: Duration::from_secs(20),
            static_dir: None,
            limits: RelayLimits::default(),
        }
    }
}

impl Config {
    pub(crate) fn rules(&self) -> Rules {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Rules {
            compat: self.compat,
            limits: self.limits.groups,
            grace: millis(self.grace),
            idle_group: millis(self.idle_group),
            idle_session: millis(self.idle_session),
        }
    }
}
