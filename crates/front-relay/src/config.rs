//! The bounds of a relay and the times it keeps.

use std::time::Duration;

use quorate_core::rendezvous::RendezvousLimits;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// What may be stored and asked for.
    pub limits: RendezvousLimits,
    /// Bytes that may wait for one connection to read them. One message may always wait.
    pub queue_bytes: usize,
    /// Messages that may wait for one connection to read them.
    pub queue_messages: usize,
    /// Bytes that may wait for all connections together, half of them for those of one address.
    /// Bodies count for each receiver.
    pub queue_total_bytes: usize,
    /// Each peer is pinged this often; one that says nothing for two pings is cut.
    pub ping_every: Duration,
    /// Time to close when a connection ends or the relay stops.
    pub grace: Duration,
    /// Parts of the rendezvous, each with its own lock.
    pub parts: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: RendezvousLimits::default(),
            queue_bytes: 32 << 20,
            queue_messages: 65_536,
            queue_total_bytes: 1 << 30,
            ping_every: Duration::from_secs(20),
            grace: Duration::from_secs(5),
            parts: 32,
        }
    }
}
