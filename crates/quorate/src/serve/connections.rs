//! How many connections the process and each address may hold.
//!
//! Connections share the process's file descriptors with the database and with each other's ports,
//! so one address must not take them all: not by design, and not by a client that never closes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections of one process at once, where its file descriptors allow more. An idle one costs a
/// few KiB.
const MOST: usize = 100_000;
/// File descriptors kept for the databases, the listeners and connections that we open.
const RESERVE: usize = 256;
/// Refusals are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The connections of one process.
pub(crate) struct Connections {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    refused: u64,
    logged: Option<Instant>,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The process holds all that it may.
    Full,
    /// This address holds half of it.
    Address,
}

/// A connection's place; given back when it is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    /// Places for a process that may open `files` file descriptors.
    pub(crate) fn new(files: usize) -> Arc<Self> {
        // A tiny limit is halved rather than used up: some connections, and some files.
        let most = files.saturating_sub(RESERVE).max(files / 2).min(MOST);
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// Takes a place for a peer.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Result<Place, Refused> {
        let address = network(peer.ip());
        let mut held = self.held();
        let refused = if held.total >= self.most {
            Some(Refused::Full)
        } else {
            let own = held.by_address.get(&address).copied().unwrap_or(0);
            (own >= self.most.div_ceil(2)).then_some(Refused::Address)
        };
        if let Some(refused) = refused {
            held.refused += 1;
            if held.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
                held.logged = Some(Instant::now());
                let count = std::mem::take(&mut held.refused);
                tracing::warn!(%address, ?refused, count, most = self.most, "connections refused");
            }
            return Err(refused);
        }
        held.total += 1;
        *held.by_address.entry(address).or_default() += 1;
        drop(held);
        Ok(Place { connections: Arc::clone(self), address })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.connections.held();
        held.total -= 1;
        if let Some(own) = held.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 customer gets.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
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
        let connections = Connections::new(RESERVE + 8);
        assert_eq!(connections.most, 132, "half of a small limit");
        let take = |at: &str| connections.admit(peer(at));
        let mut own: Vec<_> = (0..66).map(|_| take("127.0.0.2:1").unwrap()).collect();
        assert_eq!(take("127.0.0.2:2").err(), Some(Refused::Address));
        let mut others: Vec<_> = (0..66).map(|_| take("127.0.0.1:1").unwrap()).collect();
        assert_eq!(take("10.0.0.1:1").err(), Some(Refused::Full));
        own.pop();
        others.pop();
        assert!(take("127.0.0.2:3").is_ok());
        drop((own, others));
        let held = connections.held();
        assert_eq!((held.total, held.by_address.len()), (0, 0), "no address is remembered");
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let one = network("2001:db8:1:2:3::4".parse().unwrap());
        assert_eq!(one, network("2001:db8:1:2:ffff::9".parse().unwrap()));
        assert_ne!(one, network("2001:db8:1:3::4".parse().unwrap()));
        assert_eq!(
            network("::ffff:10.0.0.1".parse().unwrap()),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
    }
}
