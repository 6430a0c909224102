//! What connections hold: bytes and ids, counted against the bounds before anything is stored.
//!
//! The counters are shared by all parts of a relay, so they are atomic; they are the only
//! thing that two parts have in common. What is stored counts for its connection and for the address
//! that it came from, also when the connection is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use quorate_types::ClientAddress;

use crate::budget::Over;
use crate::budget::shared::{Share, Shares};

/// Bookkeeping of one id, charged to the total on top of the frame.
pub const ID_COST: usize = 256;

/// How long a message stays at most that an address publishes while it leaves newcomers no room.
pub const PRESSED_TTL: Duration = Duration::from_secs(300);

/// Bounds of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RendezvousLimits {
    /// Bytes of one frame, its header included. The largest real one is about 120 kB.
    pub message_bytes: usize,
    /// Bytes of the stored frames that one connection published.
    pub connection_bytes: usize,
    /// Stored frames and open questions of one connection.
    pub connection_ids: usize,
    /// Bytes of everything stored, with [`ID_COST`] for each stored frame and open question. One
    /// address may hold half.
    pub total_bytes: usize,
}

impl Default for RendezvousLimits {
    fn default() -> Self {
        Self {
            message_bytes: 16 << 20,
            connection_bytes: 64 << 20,
            connection_ids: 100_000,
            total_bytes: 1 << 30,
        }
    }
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// The frame is longer than any may be.
    TooLarge,
    /// The connection's stored frames are as many bytes as they may be.
    ConnectionBytes,
    /// The connection has as many ids as it may have.
    ConnectionIds,
    /// The connections of this address hold as much as they may.
    Address,
    /// The relay is full.
    Full,
}

impl From<Over> for Rejection {
    fn from(over: Over) -> Self {
        match over {
            Over::Share => Self::Address,
            Over::Whole => Self::Full,
        }
    }
}

impl Rejection {
    /// The WebSocket close code.
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooLarge => 1009,
            Self::ConnectionBytes | Self::ConnectionIds | Self::Address | Self::Full => 1013,
        }
    }

    /// What the closed peer is told.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "a message is longer than this relay takes",
            Self::ConnectionBytes => {
                "too many bytes of this connection are stored; wait for their ttl"
            }
            Self::ConnectionIds => "this connection has too many messages and questions open",
            Self::Address => {
                "the connections of this address hold as much as they may; try again later"
            }
            Self::Full => "the relay is full; try again later",
        }
    }
}

/// The books of a relay.
#[derive(Debug)]
pub struct Ledger {
    limits: RendezvousLimits,
    held: Shares<ClientAddress>,
    stored: AtomicUsize,
    asks: AtomicUsize,
}

impl Ledger {
    /// Empty books with these bounds.
    pub fn new(limits: RendezvousLimits) -> Arc<Self> {
        let (stored, asks) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limits, held: Shares::new(limits.total_bytes), stored, asks })
    }

    /// Bounds for all addresses together.
    pub fn limits(&self) -> &RendezvousLimits {
        &self.limits
    }

    /// Bytes charged to the total.
    pub fn held_bytes(&self) -> usize {
        self.held.used()
    }

    /// Number of stored messages, of all addresses.
    pub fn stored(&self) -> usize {
        self.stored.load(Relaxed)
    }

    /// Number of subscriptions that wait for a message, of all addresses.
    pub fn asks(&self) -> usize {
        self.asks.load(Relaxed)
    }
}

/// What one connection holds. It lives until the last of its stored frames is gone.
#[derive(Debug)]
pub struct Account {
    number: u64,
    ledger: Arc<Ledger>,
    address: Arc<Share>,
    bytes: AtomicUsize,
    ids: AtomicUsize,
}

impl Account {
    /// An account of the connection with this number, which no other one has, from this address.
    pub fn new(ledger: &Arc<Ledger>, number: u64, address: ClientAddress) -> Arc<Self> {
        let (bytes, ids) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let address = ledger.held.of(address);
        Arc::new(Self { number, ledger: ledger.clone(), address, bytes, ids })
    }

    /// The connection's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How long a message that it publishes now may stay.
    pub fn longest_ttl(&self) -> Duration {
        if self.address.is_pressed() { PRESSED_TTL } else { Duration::MAX }
    }

    pub(super) fn limits(&self) -> &RendezvousLimits {
        &self.ledger.limits
    }

    /// Charges a frame, or nothing at all.
    pub(super) fn store(&self, bytes: usize) -> Result<(), Rejection> {
        let limits = self.limits();
        take(&self.bytes, bytes, limits.connection_bytes, Rejection::ConnectionBytes)
            .and_then(|()| self.open(bytes).inspect_err(|_| give(&self.bytes, bytes)))?;
        self.ledger.stored.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Charges a question, or nothing at all.
    pub(super) fn ask(&self) -> Result<(), Rejection> {
        self.open(0)?;
        self.ledger.asks.fetch_add(1, Relaxed);
        Ok(())
    }

    pub(super) fn forget_stored(&self, bytes: usize) {
        give(&self.bytes, bytes);
        self.close(bytes);
        give(&self.ledger.stored, 1);
    }

    pub(super) fn forget_ask(&self) {
        self.close(0);
        give(&self.ledger.asks, 1);
    }

    fn open(&self, bytes: usize) -> Result<(), Rejection> {
        let limits = self.limits();
        take(&self.ids, 1, limits.connection_ids, Rejection::ConnectionIds)?;
        self.address.take(bytes + ID_COST).inspect_err(|_| give(&self.ids, 1))?;
        Ok(())
    }

    fn close(&self, bytes: usize) {
        give(&self.ids, 1);
        self.address.give_back(bytes + ID_COST);
    }
}

/// Two that take at once may both be refused near the bound; neither gets past it.
fn take(
    counter: &AtomicUsize,
    amount: usize,
    bound: usize,
    refusal: Rejection,
) -> Result<(), Rejection> {
    if counter.fetch_add(amount, Relaxed).saturating_add(amount) <= bound {
        return Ok(());
    }
    give(counter, amount);
    Err(refusal)
}

fn give(counter: &AtomicUsize, amount: usize) {
    counter.fetch_sub(amount, Relaxed);
}
