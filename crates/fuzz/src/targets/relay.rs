//! Frames of the binary relay: parsed, and steps of a rendezvous with several connections.
//!
//! An input is steps. The low two bits of a step's first byte are a connection, the next two say
//! what it does: 0 and 1 send a frame, whose length (2 bytes, little endian) and bytes follow;
//! 2 leaves; 3 lets as many seconds pass as the next byte says, and expires if that is even.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::rendezvous::{
    Account, Asked, ID_COST, Ledger, Publish, Published, Receiver, Rejection, Rendezvous,
    RendezvousLimits,
};
use quorate_types::{ClientAddress, RelayId};
use quorate_wire::relay::{Header, Kind};

use super::Notes;

/// Steps and pieces of frames: lengths, ids of messages, ttls, flags.
pub(crate) const WORDS: &[&str] = &[
    "\0",
    "\u{1}",
    "\u{2}",
    "\u{3}",
    "\u{8}",
    "\u{9}",
    "\u{c}\u{2}",
    "\u{c}\u{1}",
    "\u{c}\u{14}",
    "\0$\0",
    "\u{1}$\0",
    "\u{2}%\0",
    "\u{3}(\0",
    "\u{5}\0",
    "\0\0",
    "body",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "\0$\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\u{5}\0\0\0",
    "\u{1}(\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\u{5}\0\0\0body",
    "\u{2}(\0bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\u{5}\0\0\0body",
];

/// Bounds that an input can reach.
const LIMITS: RendezvousLimits = RendezvousLimits {
    message_bytes: 200,
    connection_bytes: 300,
    connection_ids: 6,
    total_bytes: 12 * ID_COST + 600,
};

/// Runs an input.
pub(crate) fn run(input: &[u8]) -> Vec<u64> {
    let mut world = World::new();
    let mut notes = Notes::default();
    let mut rest = input;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let connection = usize::from(first & 3);
        match first >> 2 & 3 {
            2 => world.leave(connection),
            3 => {
                let seconds = take(&mut rest, 1).first().copied().unwrap_or(0);
                world.pass(seconds, &mut notes);
            }
            _ => {
                let length = take(&mut rest, 2)
                    .iter()
                    .rev()
                    .fold(0, |all, byte| all << 8 | usize::from(*byte));
                let frame = Bytes::copy_from_slice(take(&mut rest, length));
                world.frame(connection, frame, &mut notes);
            }
        }
        world.check();
    }
    world.end();
    notes.end()
}

/// Takes so many bytes, or all that are left.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length.min(rest.len()));
    *rest = after;
    taken
}

#[derive(Clone)]
struct Connection(Arc<Account>);

impl Receiver for Connection {
    fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

/// A connection from one of two addresses.
fn connection(ledger: &Arc<Ledger>, number: u64) -> Connection {
    let address = ClientAddress::of([127, 0, 0, (number % 2) as u8].into());
    Connection(Account::new(ledger, number, address))
}

/// A stored message as the books should have it.
struct Held {
    publisher: u64,
    bytes: usize,
    due: Duration,
    once: bool,
}

struct World {
    ledger: Arc<Ledger>,
    rendezvous: Rendezvous<Connection>,
    connections: Vec<Connection>,
    last_number: u64,
    now: Duration,
    stored: BTreeMap<RelayId, Held>,
    /// Questions that are open, or were until their time was over.
    asked: BTreeSet<(u64, RelayId)>,
}

impl World {
    fn new() -> Self {
        let ledger = Ledger::new(LIMITS);
        let connections = (1..=4).map(|number| connection(&ledger, number)).collect();
        let (stored, asked) = (BTreeMap::new(), BTreeSet::new());
        let (rendezvous, now) = (Rendezvous::default(), Duration::ZERO);
        Self { ledger, rendezvous, connections, last_number: 4, now, stored, asked }
    }

    fn frame(&mut self, connection: usize, frame: Bytes, notes: &mut Notes) {
        let Some((header, kind)) = Header::parse(&frame) else {
            assert!(frame.len() < quorate_wire::relay::HEADER);
            return notes.note("short");
        };
        assert_eq!(header.to_bytes(), frame[..quorate_wire::relay::HEADER]);
        let from = self.connections[connection].clone();
        match kind {
            Kind::Ask => self.ask(&from, &header, notes),
            Kind::Publish => self.publish(&from, &header, frame, notes),
        }
    }

    fn ask(&mut self, from: &Connection, header: &Header, notes: &mut Notes) {
        let (id, ttl, number) = (header.id, header.ttl.duration(), from.0.number());
        self.stored.retain(|stored, held| *stored != id || held.due > self.now);
        let asked = self.rendezvous.ask(self.now, id, ttl, from);
        notes.note(asked.as_ref().map(std::mem::discriminant));
        match asked {
            Ok(Asked::Ready(frame)) => {
                let held = self.stored.get(&id).expect("what is ready was stored");
                assert_eq!(frame.len(), held.bytes);
                assert_eq!(Header::parse(&frame).map(|(header, _)| header.id), Some(id));
                if held.once {
                    self.stored.remove(&id);
                }
            }
            Ok(Asked::Waits) => {
                assert!(!self.stored.contains_key(&id), "what is stored is ready");
                self.asked.insert((number, id));
            }
            Ok(Asked::Nothing) => assert!(ttl.is_zero()),
            Err(refusal) => assert_ne!(refusal, Rejection::TooLarge),
        }
    }

    fn publish(&mut self, from: &Connection, header: &Header, frame: Bytes, notes: &mut Notes) {
        let (id, ttl, bytes) = (header.id, header.ttl.duration(), frame.len());
        let once = header.one_receiver();
        let message = Publish { id, ttl, one_receiver: once, frame };
        let (asked, mut told) = (&mut self.asked, 0);
        let published = self.rendezvous.publish(self.now, message, &from.0, |to, _| {
            assert!(asked.remove(&(to.0.number(), id)), "only who asked is told, and once");
            told += 1;
            true
        });
        notes.note((published.map(|p| std::mem::discriminant(&p)), told.min(2)));
        assert!(told == 0 || published.is_ok(), "what is refused reaches nobody");
        if published == Err(Rejection::TooLarge) {
            return assert!(bytes > LIMITS.message_bytes);
        }
        self.stored.retain(|stored, held| *stored != id || held.due > self.now);
        match published {
            Ok(Published::Stored(count)) => {
                assert_eq!(count, told);
                let held = Held { publisher: from.0.number(), bytes, due: self.now + ttl, once };
                assert!(self.stored.insert(id, held).is_none(), "the first message wins");
            }
            Ok(Published::Delivered(count)) => assert!(count == told && !(once && told > 1)),
            Ok(Published::Ignored) => assert!(self.stored.contains_key(&id)),
            Err(_) => {}
        }
    }

    /// A connection leaves, and another one comes in its place.
    fn leave(&mut self, index: usize) {
        let number = self.connections[index].0.number();
        self.rendezvous.leave(number);
        self.asked.retain(|(asker, _)| *asker != number);
        self.last_number += 1;
        self.connections[index] = connection(&self.ledger, self.last_number);
    }

    fn pass(&mut self, seconds: u8, notes: &mut Notes) {
        self.now += Duration::from_secs(seconds.into());
        if seconds.is_multiple_of(2) {
            let expired = self.rendezvous.expire(self.now, usize::MAX);
            notes.note((expired.stored.min(2), expired.asks.min(2)));
            let before = self.stored.len();
            self.stored.retain(|_, held| held.due > self.now);
            assert_eq!(expired.stored, before - self.stored.len());
        }
    }

    /// The books are what is there, and within their bounds.
    fn check(&self) {
        let bytes: usize = self.stored.values().map(|held| held.bytes).sum();
        let (stored, asks) = (self.ledger.stored(), self.ledger.asks());
        assert_eq!(stored, self.stored.len(), "stored messages");
        assert_eq!(self.ledger.held_bytes(), bytes + (stored + asks) * ID_COST, "held bytes");
        assert!(self.ledger.held_bytes() <= LIMITS.total_bytes);
        assert!(asks <= self.asked.len(), "open questions");
        assert!(self.rendezvous.len() <= stored + asks);
        for publisher in self.stored.values().map(|held| held.publisher) {
            let own = || self.stored.values().filter(|held| held.publisher == publisher);
            assert!(own().map(|held| held.bytes).sum::<usize>() <= LIMITS.connection_bytes);
            assert!(own().count() <= LIMITS.connection_ids);
        }
    }

    /// After all time nothing is left.
    fn end(mut self) {
        self.rendezvous.expire(Duration::MAX, usize::MAX);
        let ledger = &self.ledger;
        assert_eq!((ledger.held_bytes(), ledger.stored(), ledger.asks()), (0, 0, 0));
        assert!(self.rendezvous.is_empty() && self.rendezvous.next_deadline().is_none());
    }
}
