//! How many connections the process and each address may hold.
//!
//! Connections share the process's file descriptors with the database and with each other's ports,
//! so one address must not take them all: not by design, and not by a client that never closes.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_core::budget::{Budget, Over};
use quorate_types::{ClientAddress, Error, Result};

/// Connections of one process at once, where its file descriptors allow more. An idle one costs a
/// few KiB.
const MOST: usize = 100_000;
/// File descriptors kept for the databases, the listeners and connections that we open.
const RESERVE: usize = 256;
/// Seconds after which a client that was refused a place may try again.
const RETRY_SECONDS: u32 = 5;
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
    /// Whom it counts for.
    address: Mutex<ClientAddress>,
}

impl Connections {
    /// Places for a process that may open `files` file descriptors.
    pub(crate) fn new(files: usize) -> Arc<Self> {
        // A tiny limit is halved rather than used up: some connections, and some files.
        let most = files.saturating_sub(RESERVE).max(files / 2).min(MOST);
        let held = Held { places: Budget::new(most), refused: 0, logged: None };
        Arc::new(Self { held: Mutex::new(held) })
    }

    /// Takes a place for a peer, if there is one for it. A trusted proxy may have them all: whom
    /// each counts for shows with its requests.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr, proxy: bool) -> Option<Arc<Place>> {
        let address = ClientAddress::of(peer);
        let mut held = self.held();
        let taken = match held.places.take(&address, 1) {
            Err(Over::Share) if proxy => {
                held.places.add(&address, 1);
                Ok(())
            }
            taken => taken,
        };
        match taken {
            Ok(()) => {
                let (connections, address) = (Arc::clone(self), Mutex::new(address));
                Some(Arc::new(Place { connections, address }))
            }
            Err(over) => {
                held.refuse(address, over);
                None
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Notes a refusal, and tells of some.
    fn refuse(&mut self, address: ClientAddress, over: Over) {
        self.refused += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let count = std::mem::take(&mut self.refused);
            let open = self.places.used();
            tracing::warn!(%address, ?over, count, open, "connections refused");
        }
    }
}

impl Place {
    /// A trusted proxy's connection serves this client now.
    ///
    /// # Errors
    /// `rate_limited` when the client has its share of places.
    pub(crate) fn serves(&self, client: ClientAddress) -> Result<()> {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if *address == client {
            return Ok(());
        }
        let mut held = self.connections.held();
        held.places.give_back(&address, 1);
        if let Err(over) = held.places.take(&client, 1) {
            held.places.add(&address, 1);
            held.refuse(client, over);
            let problem = "this address has as many connections open as it may; close some";
            return Err(Error::rate_limited(problem, RETRY_SECONDS));
        }
        *address = client;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let address = self.address.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.connections.held().places.give_back(address, 1);
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ErrorCode;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_holds_half_and_gives_it_back() {
        // Half of a small limit.
        let connections = Connections::new(RESERVE + 8);
        let take = |at: &str| connections.admit(ip(at), false);
        let mut own: Vec<_> = (0..66).map(|_| take("127.0.0.2").unwrap()).collect();
        assert!(take("127.0.0.2").is_none());
        let mut others: Vec<_> = (0..66).map(|_| take("127.0.0.1").unwrap()).collect();
        assert!(take("10.0.0.1").is_none());
        own.pop();
        others.pop();
        assert!(take("10.0.0.1").is_some());
        drop((own, others));
        assert_eq!(connections.held().places.used(), 0);
    }

    #[test]
    fn behind_a_proxy_each_client_holds_half() {
        let connections = Connections::new(RESERVE + 8);
        let take = || connections.admit(ip("10.0.0.1"), true).unwrap();
        let [one, other] = ["198.51.100.1", "198.51.100.2"].map(|text| ClientAddress::of(ip(text)));
        let mut held: Vec<_> = (0..66).map(|_| take()).collect();
        for place in &held {
            place.serves(one).unwrap();
            place.serves(one).unwrap();
        }
        held.extend((0..60).map(|_| take()));
        assert_eq!(held[66].serves(one).unwrap_err().code, ErrorCode::RateLimited);
        held[66].serves(other).unwrap();
        let places = |address| connections.held().places.used_by(&address);
        assert_eq!((places(one), places(other)), (66, 1));
        assert_eq!(places(ClientAddress::of(ip("10.0.0.1"))), 59);
        drop(held);
        assert_eq!(connections.held().places.used(), 0);
    }
}
