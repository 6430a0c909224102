//! How many connections the process and each address may hold.
//!
//! Connections share the process's file descriptors with the database and with each other's ports,
//! so one address must not take them all: not by design, and not by a client that never closes.
//! Other roles and trusted parties come from addresses where anybody else may be, often the
//! loopback. A connection past a bound is therefore on trial for a moment where they call, and one
//! that has proven itself counts apart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_core::budget::{Budget, Over};
use quorate_types::{ClientAddress, Error, Result};
use tokio_util::sync::CancellationToken;

/// Connections of one process at once, where its file descriptors allow more. An idle one costs a
/// few KiB.
const MOST: usize = 100_000;
/// File descriptors kept for the databases, the listeners, connections that we open, those on trial
/// and those of roles and parties.
const RESERVE: usize = 256;
/// Connections of roles and parties that count for no address.
const PROVEN: usize = RESERVE / 2;
/// Connections on trial. One more ends the oldest.
const TRIALS: usize = 16;
/// A connection on trial has proven itself by then: over the slowest line in a few round trips.
const TRIAL_TIME: Duration = Duration::from_secs(3);
/// Seconds after which a client that was refused a place may try again.
const RETRY_SECONDS: u32 = 5;
/// Refusals are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The connections of one process.
pub(crate) struct Connections {
    most_proven: usize,
    held: Mutex<Held>,
}

struct Held {
    places: Budget<ClientAddress>,
    proven: usize,
    /// In the order of their coming, with what ends each.
    trials: BTreeMap<u64, CancellationToken>,
    last_trial: u64,
    refused: u64,
    logged: Option<Instant>,
}

/// Who a new connection may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Anybody else: counts for its address.
    Client,
    /// Anybody, a role or a trusted party among them.
    Caller,
    /// A trusted proxy: it may have every place, and whom each counts for shows with its requests.
    Proxy,
}

/// What a connection counts as.
#[derive(Clone, Copy)]
enum Standing {
    /// One of this address.
    Counted(ClientAddress),
    Trial(u64),
    /// One of a role or a trusted party.
    Proven,
}

/// A connection's place; given back when it is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    standing: Mutex<Standing>,
    /// Ends the connection while it is on trial.
    over: CancellationToken,
}

impl Connections {
    /// Places for a process that may open `files` file descriptors.
    pub(crate) fn new(files: usize) -> Arc<Self> {
        // A tiny limit is halved rather than used up: some connections, and some files.
        let most = files.saturating_sub(RESERVE).max(files / 2).min(MOST);
        let held = Held {
            places: Budget::new(most),
            proven: 0,
            trials: BTreeMap::new(),
            last_trial: 0,
            refused: 0,
            logged: None,
        };
        Arc::new(Self { most_proven: PROVEN.min(files / 8), held: Mutex::new(held) })
    }

    /// Takes a place for a connection from this address, if there is one for it.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, peer: Peer) -> Option<Arc<Place>> {
        let (address, over) = (ClientAddress::of(address), CancellationToken::new());
        let mut held = self.held();
        let standing = match held.places.take(&address, 1) {
            Ok(()) => Standing::Counted(address),
            Err(Over::Share) if peer == Peer::Proxy => {
                held.places.add(&address, 1);
                Standing::Counted(address)
            }
            Err(why) => {
                held.refuse(address, why);
                if peer != Peer::Caller {
                    return None;
                }
                held.try_out(&over)
            }
        };
        drop(held);
        Some(Arc::new(Place { connections: self.clone(), standing: Mutex::new(standing), over }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes a connection on trial, in the place of the oldest one where they are many.
    fn try_out(&mut self, over: &CancellationToken) -> Standing {
        if self.trials.len() >= TRIALS
            && let Some((_, oldest)) = self.trials.pop_first()
        {
            oldest.cancel();
        }
        self.last_trial += 1;
        self.trials.insert(self.last_trial, over.clone());
        Standing::Trial(self.last_trial)
    }

    fn give_back(&mut self, standing: Standing) {
        match standing {
            Standing::Counted(address) => self.places.give_back(&address, 1),
            Standing::Trial(number) => drop(self.trials.remove(&number)),
            Standing::Proven => self.proven -= 1,
        }
    }

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
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection is there for a moment only.
    pub(crate) fn is_on_trial(&self) -> bool {
        matches!(*self.standing(), Standing::Trial(_))
    }

    /// Returns when the connection's trial is over, never if it has none or has proven itself.
    pub(crate) async fn trial_over(&self) {
        if self.is_on_trial() {
            let _ = tokio::time::timeout(TRIAL_TIME, self.over.cancelled()).await;
            if self.is_on_trial() {
                return;
            }
        }
        std::future::pending().await
    }

    /// A role or a trusted party has proven to be at the other end: it takes nobody's place, as
    /// long as these are few.
    pub(crate) fn prove(&self) {
        let mut standing = self.standing();
        if matches!(*standing, Standing::Proven) {
            return;
        }
        let mut held = self.connections.held();
        if held.proven < self.connections.most_proven {
            held.proven += 1;
            held.give_back(*standing);
            *standing = Standing::Proven;
        }
    }

    /// A trusted proxy's connection serves this client now.
    ///
    /// # Errors
    /// `rate_limited` when the client has its share of places.
    pub(crate) fn serves(&self, client: ClientAddress) -> Result<()> {
        let mut standing = self.standing();
        let Standing::Counted(address) = *standing else {
            return Ok(());
        };
        if address == client {
            return Ok(());
        }
        let mut held = self.connections.held();
        held.places.give_back(&address, 1);
        if let Err(over) = held.places.take(&client, 1) {
            held.places.add(&address, 1);
            held.refuse(client, over);
            return Err(no_place());
        }
        *standing = Standing::Counted(client);
        Ok(())
    }
}

/// Says that a client has as many connections as it may.
pub(crate) fn no_place() -> Error {
    let problem = "this address has as many connections open as it may; close some";
    Error::rate_limited(problem, RETRY_SECONDS)
}

impl Drop for Place {
    fn drop(&mut self) {
        let standing = *self.standing();
        self.connections.held().give_back(standing);
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ErrorCode;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Connections of which one address may have 66.
    fn small() -> Arc<Connections> {
        // Half of a small limit.
        Connections::new(RESERVE + 8)
    }

    fn take(connections: &Arc<Connections>, at: &str, peer: Peer) -> Option<Arc<Place>> {
        connections.admit(ip(at), peer)
    }

    #[test]
    fn one_address_holds_half_and_gives_it_back() {
        let connections = small();
        let take = |at: &str| take(&connections, at, Peer::Client);
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
        let connections = small();
        let take = || take(&connections, "10.0.0.1", Peer::Proxy).unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn who_proves_itself_finds_a_place_where_others_have_taken_all() {
        let connections = small();
        let take = || take(&connections, "127.0.0.1", Peer::Caller).unwrap();
        let held: Vec<_> = (0..66).map(|_| take()).collect();
        let role = take();
        assert!(role.is_on_trial() && !held[0].is_on_trial());
        role.prove();
        role.prove();
        let mut strangers: Vec<_> = (0..TRIALS).map(|_| take()).collect();
        assert!(strangers.iter().all(|place| place.is_on_trial()));
        let newest = take();
        assert!(strangers[0].over.is_cancelled(), "it makes room for one more");
        let never = tokio::time::timeout(TRIAL_TIME * 9, role.trial_over());
        assert!(never.await.is_err() && !role.is_on_trial());
        let late = tokio::time::timeout(TRIAL_TIME * 2, newest.trial_over());
        assert!(late.await.is_ok(), "a stranger's trial ends");
        // One that was counted gives its place to others.
        held[0].prove();
        assert_eq!(connections.held().places.used(), 65);
        assert!(!take().is_on_trial());
        strangers.clear();
        drop((held, role, newest));
        let left = connections.held();
        assert_eq!((left.places.used(), left.proven, left.trials.len()), (0, 0, 0));
    }

    #[test]
    fn those_who_prove_themselves_are_bounded_too() {
        let connections = small();
        let most = (RESERVE + 8) / 8;
        let held: Vec<_> =
            (0..66).map(|_| take(&connections, "127.0.0.1", Peer::Caller).unwrap()).collect();
        held.iter().for_each(|place| place.prove());
        let left = connections.held();
        assert_eq!((left.proven, left.places.used()), (most, 66 - most));
    }
}
