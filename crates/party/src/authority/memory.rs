//! The nonces that are used up and the counts of what was allowed, in front of the ledger.

use std::collections::{BTreeSet, HashMap, VecDeque};

use quorate_authority::{Denial, MAX_RATE, Rate, Request, Rule};
use quorate_ports::ledger::{Consumed, Remembered};
use quorate_types::{AuthorityKey, KeyId, SessionId, Timestamp};
use sha2::{Digest as _, Sha256};

use super::Stored;

/// Requests that are remembered at once, about 100 bytes each: at 500 a second those of the last
/// eight minutes, which is longer than requests last unless somebody asks for more.
const NONCES: usize = 262_144;

/// What has been allowed for one key, or of keys that were made.
#[derive(Default)]
pub(super) struct Uses {
    total: u64,
    /// Those that a rate may have to count, rising; at most [`MAX_RATE`].
    recent: VecDeque<Timestamp>,
}

impl Uses {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many there were after a moment.
    pub(super) fn since(&self, from: Timestamp) -> u64 {
        let before = self.recent.partition_point(|at| *at <= from);
        (self.recent.len() - before) as u64
    }

    fn note(&mut self, at: Timestamp) {
        // A clock that was set back must not put the order wrong.
        let at = self.recent.back().map_or(at, |last| at.max(*last));
        self.recent.push_back(at);
        if self.recent.len() > MAX_RATE as usize {
            self.recent.pop_front();
        }
    }
}

#[derive(Default)]
pub(super) struct Memory {
    nonces: HashMap<[u8; 16], SessionId>,
    /// Nonces by the time until which they are kept.
    expiry: BTreeSet<(Timestamp, [u8; 16])>,
    uses: HashMap<Option<KeyId>, Uses>,
    /// Writes of nonces that may be under way, oldest first.
    writes: VecDeque<([u8; 16], Stored)>,
}

/// Names an initiator's nonce: no other initiator can use it up.
pub(super) fn nonce(initiator: &AuthorityKey, nonce: &[u8; 16]) -> [u8; 16] {
    let hash = Sha256::new()
        .chain_update([u8::try_from(initiator.bytes().len()).unwrap_or(u8::MAX)])
        .chain_update(initiator.bytes())
        .chain_update(nonce)
        .finalize();
    *hash.first_chunk().expect("32 bytes")
}

impl Memory {
    pub(super) fn new(remembered: Remembered) -> Self {
        let mut memory = Self::default();
        for Consumed { nonce, session, key, at, keep_until } in remembered.consumed {
            memory.nonces.insert(nonce, session);
            memory.expiry.insert((keep_until, nonce));
            memory.uses.entry(key).or_default().note(at);
        }
        for (key, total) in remembered.totals {
            memory.uses.entry(key).or_default().total = total;
        }
        memory
    }

    /// Whether a nonce serves for this session already.
    ///
    /// # Errors
    /// By `nonce` when it serves for another one.
    pub(super) fn serves(&self, nonce: [u8; 16], session: SessionId) -> Result<bool, Denial> {
        match self.nonces.get(&nonce) {
            None => Ok(false),
            Some(used) if *used == session => Ok(true),
            Some(used) => {
                let why = format!("the request was used by session {used}: sign a new one");
                Err(Denial::new(Rule::Nonce, why))
            }
        }
    }

    /// Remembers the write of a nonce for as long as it is under way.
    pub(super) fn writes(&mut self, nonce: [u8; 16], stored: Stored) {
        while self.writes.front().is_some_and(|(_, stored)| stored.peek().is_some()) {
            self.writes.pop_front();
        }
        self.writes.push_back((nonce, stored));
    }

    /// The write of a nonce that serves; `None` when it has long been on the disk.
    pub(super) fn written(&self, nonce: [u8; 16]) -> Option<Stored> {
        let found = self.writes.iter().find(|(one, _)| *one == nonce);
        found.map(|(_, stored)| stored.clone())
    }

    pub(super) fn uses(&mut self, key: Option<KeyId>) -> &Uses {
        self.uses.entry(key).or_default()
    }

    /// Uses a request up and counts it; `rates` are those that count it.
    ///
    /// # Errors
    /// By `full` when there is no room to remember it.
    pub(super) fn consume(
        &mut self,
        nonce: [u8; 16],
        session: SessionId,
        request: &Request,
        rates: &[Rate],
        now: Timestamp,
    ) -> Result<Consumed, Denial> {
        while let Some((until, old)) = self.expiry.first().copied()
            && until < now
        {
            self.expiry.pop_first();
            self.nonces.remove(&old);
        }
        if self.nonces.len() >= NONCES {
            let why = "this party remembers as many unexpired requests as it can: sign requests \
                       that expire sooner";
            return Err(Denial::new(Rule::Full, why));
        }
        let counted = rates.iter().map(|rate| now.0.saturating_add(rate.per.millis())).max();
        let keep_until = Timestamp(request.expires_at.0.max(counted.unwrap_or(i64::MIN)));
        let key = request.key_id();
        self.nonces.insert(nonce, session);
        self.expiry.insert((keep_until, nonce));
        let uses = self.uses.entry(key).or_default();
        uses.total += 1;
        if !rates.is_empty() {
            uses.note(now);
        }
        Ok(Consumed { nonce, session, key, at: now, keep_until })
    }
}
