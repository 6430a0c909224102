//! How many connections the process and each address may hold.
//!
//! Connections share the process's file descriptors with the database and with each other's ports,
//! so one address must not take them all: not by design, and not by a client that never closes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_core::budget::Budget;
use quorate_types::ClientAddress;

/// Connections of one process at once, where its file descriptors allow more. An idle one costs a
/// few KiB.
const MOST: usize = 100_000;
/// File descriptors kept for the databases, the listeners and connections that we open.
const RESERVE: usize = 256;
/// Refusals are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The connections of one process.
pub(crate) struct Connections {
    held: Mutex<Held>,
}

struct Held {
    places: Budget<ClientAddress>,
    refused: u64,
    logged: Option<Instant>,
}

/// A connection's place; given back when it is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    address: ClientAddress,
}

impl Connections {
    /// Places for a process that may open `files` file descriptors.
    pub(crate) fn new(files: usize) -> Arc<Self> {
        // A tiny limit is halved rather than used up: some connections, and some files.
        let most = files.saturating_sub(RESERVE).max(files / 2).min(MOST);
        let held = Held { places: Budget::new(most), refused: 0, logged: None };
        Arc::new(Self { held: Mutex::new(held) })
    }

    /// Takes a place for a peer, if there is one for it.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let address = ClientAddress::of(peer.ip());
        let mut held = self.held();
        let Err(over) = held.places.take(&address, 1) else {
            drop(held);
            return Some(Place { connections: Arc::clone(self), address });
        };
        held.refused += 1;
        if held.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            held.logged = Some(Instant::now());
            let count = std::mem::take(&mut held.refused);
            let open = held.places.used();
            tracing::warn!(%address, ?over, count, open, "connections refused");
        }
        None
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.held().places.give_back(&self.address, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_holds_half_and_gives_it_back() {
        // Half of a small limit.
        let connections = Connections::new(RESERVE + 8);
        let take = |at: &str| connections.admit(peer(at));
        let mut own: Vec<_> = (0..66).map(|_| take("127.0.0.2:1").unwrap()).collect();
        assert!(take("127.0.0.2:2").is_none());
        let mut others: Vec<_> = (0..66).map(|_| take("127.0.0.1:1").unwrap()).collect();
        assert!(take("10.0.0.1:1").is_none());
        own.pop();
        others.pop();
        assert!(take("10.0.0.1:1").is_some());
        drop((own, others));
        assert_eq!(connections.held().places.used(), 0);
    }
}
