//! Nonces for the proofs of parties, and which of their calls have been made.
//!
//! A nonce is its time by the monotonic clock, a number and a MAC of both, so that handing one out
//! keeps nothing. What is kept is for trusted parties alone, and only once their signature has been
//! checked.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use quorate_engine::Nonce;
use quorate_types::{Error, PartyId, Result, Secret};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

const DOMAIN: &[u8] = b"quorate/party-nonce/v1";
/// How long a nonce serves.
const LIFE: Duration = Duration::from_secs(300);
/// Nonces of one party in use at once: one for each of its connections, and to spare.
const NONCES_OF_A_PARTY: usize = 32;
/// How far calls may overtake each other: far more than a party has under way.
const WINDOW: u64 = 1_024;
const WORDS: usize = 16;

/// Makes nonces and takes each of their calls once.
pub(crate) struct Nonces {
    key: Secret<[u8; 32]>,
    issued: AtomicU64,
    spent: Mutex<HashMap<PartyId, Spent>>,
}

/// What one party has used.
#[derive(Default)]
struct Spent {
    /// Nonces made at this time or earlier are not taken any more.
    forgotten: Option<Duration>,
    /// By the nonces' time.
    windows: BTreeMap<(Duration, Nonce), Window>,
}

/// The calls of one nonce: the highest number, and which of the [`WINDOW`] up to it were made.
#[derive(Default)]
struct Window {
    highest: u64,
    made: [u64; WORDS],
}

impl Window {
    /// Notes a call. False where it was made before, or is too old to tell.
    fn take(&mut self, count: u64) -> bool {
        if count == 0 || count.saturating_add(WINDOW) <= self.highest {
            return false;
        }
        if count > self.highest {
            let passed = (count - self.highest).min(WINDOW);
            for number in count - passed + 1..=count {
                let (word, bit) = place(number);
                self.made[word] &= !bit;
            }
            self.highest = count;
        }
        let (word, bit) = place(count);
        let fresh = self.made[word] & bit == 0;
        self.made[word] |= bit;
        fresh
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    (usize::try_from(at / 64).unwrap_or(0), 1 << (at % 64))
}

impl Nonces {
    /// Nonces of this process alone.
    pub(crate) fn new() -> Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| Error::internal())?;
        Ok(Self { key: Secret::new(key), issued: AtomicU64::new(0), spent: Mutex::default() })
    }

    /// A nonce for calls from now on.
    pub(crate) fn issue(&self, now: Duration) -> Nonce {
        let mut nonce = Nonce::default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        nonce[..8].copy_from_slice(&millis.to_be_bytes());
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        nonce[8..16].copy_from_slice(&number.to_be_bytes());
        let mac = self.mac(&nonce[..16]);
        nonce[16..].copy_from_slice(&mac);
        nonce
    }

    /// Takes one call of a party under a nonce. The party's signature has been checked.
    ///
    /// # Errors
    /// Why the call is not taken; another nonce is the way out.
    pub(crate) fn spend(
        &self,
        now: Duration,
        party: &PartyId,
        nonce: Nonce,
        count: u64,
    ) -> std::result::Result<(), &'static str> {
        let made = self.time_of(nonce).ok_or("the nonce is not one of this server's")?;
        if now.saturating_sub(made) > LIFE {
            return Err("the nonce is too old");
        }
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = spent.entry(party.clone()).or_default();
        spent.forget(now);
        if spent.forgotten.is_some_and(|time| made <= time) {
            return Err("the nonce is too old");
        }
        let window = spent.windows.entry((made, nonce)).or_default();
        if window.take(count) { Ok(()) } else { Err("this call has been made before") }
    }

    /// Whether a nonce in use should be replaced.
    pub(crate) fn is_old(&self, now: Duration, nonce: Nonce) -> bool {
        self.time_of(nonce).is_none_or(|made| now.saturating_sub(made) > LIFE / 2)
    }

    fn time_of(&self, nonce: Nonce) -> Option<Duration> {
        let (head, mac) = nonce.split_at(16);
        let genuine: bool = self.mac(head).ct_eq(mac).into();
        let time = head[..8].try_into().ok().map(u64::from_be_bytes);
        let time = time.map(Duration::from_millis);
        time.filter(|_| genuine)
    }

    fn mac(&self, head: &[u8]) -> [u8; 16] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose())
            .expect("HMAC takes keys of any length");
        mac.update(DOMAIN);
        mac.update(head);
        let mut short = [0; 16];
        short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        short
    }
}

impl Spent {
    /// Drops windows that have lapsed, and the oldest where there would be too many.
    fn forget(&mut self, now: Duration) {
        while let Some(entry) = self.windows.first_entry() {
            let made = entry.key().0;
            let lapsed = now.saturating_sub(made) > LIFE;
            if !lapsed && self.windows.len() <= NONCES_OF_A_PARTY {
                return;
            }
            self.windows.pop_first();
            self.forgotten = self.forgotten.max(Some(made));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    fn later(millis: u64) -> Duration {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn each_call_of_a_nonce_is_taken_once_in_any_order() {
        let (nonces, party) = (Nonces::new().unwrap(), "p".parse().unwrap());
        let nonce = nonces.issue(START);
        for count in [1, 3, 2, 500, 1_525, 502] {
            assert!(nonces.spend(START, &party, nonce, count).is_ok(), "{count}");
            assert!(nonces.spend(START, &party, nonce, count).is_err(), "{count} again");
        }
        for count in [0, 1, 500, 501] {
            assert!(nonces.spend(START, &party, nonce, count).is_err(), "{count} is behind");
        }
        for count in [1_524, 503, u64::MAX] {
            assert!(nonces.spend(START, &party, nonce, count).is_ok(), "{count}");
        }
        assert!(nonces.spend(START, &party, nonce, 1_524).is_err());
        assert!(nonces.spend(START, &"q".parse().unwrap(), nonce, 1).is_ok(), "its own numbers");
    }

    #[test]
    fn a_nonce_serves_for_its_life_at_its_server() {
        let (nonces, party) = (Nonces::new().unwrap(), "p".parse().unwrap());
        let nonce = nonces.issue(START);
        let tick = Duration::from_millis(1);
        assert!(!nonces.is_old(START + LIFE / 2, nonce));
        assert!(nonces.is_old(START + LIFE / 2 + tick, nonce));
        assert!(nonces.spend(START + LIFE, &party, nonce, 1).is_ok());
        assert!(nonces.spend(START + LIFE + tick, &party, nonce, 2).is_err());
        assert!(Nonces::new().unwrap().spend(START, &party, nonce, 3).is_err());
        for byte in [0, 8, 31] {
            let mut forged = nonce;
            forged[byte] ^= 1;
            assert!(nonces.spend(START, &party, forged, 4).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn a_party_that_uses_many_nonces_cannot_use_the_oldest_again() {
        let (nonces, party) = (Nonces::new().unwrap(), "p".parse().unwrap());
        let first = nonces.issue(START);
        assert!(nonces.spend(START, &party, first, 1).is_ok());
        let last = u64::try_from(NONCES_OF_A_PARTY).unwrap() + 1;
        for number in 1..=last {
            let nonce = nonces.issue(later(number));
            assert!(nonces.spend(later(number), &party, nonce, 1).is_ok());
        }
        assert!(nonces.spend(later(last), &party, first, 1).is_err(), "a replay");
        assert!(nonces.spend(later(last), &party, first, 2).is_err());
        let kept = nonces.spent.lock().unwrap()[&party].windows.len();
        assert!(kept <= NONCES_OF_A_PARTY + 1, "{kept}");
    }
}
