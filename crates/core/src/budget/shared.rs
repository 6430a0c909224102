//! A budget that many threads take from at once, without a lock.
//!
//! The rule is that of [`Budget`](super::Budget). Each holder has a [`Share`], which is looked up
//! once, when a connection begins, and lives as long as anything is counted for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Over, Rule};

/// Holders that are remembered before those that are gone are looked for.
const REMEMBERED: usize = 64;

/// A quantity of bytes or things that its holders share.
#[derive(Debug)]
pub struct Shares<K> {
    pool: Arc<Pool>,
    known: Mutex<HashMap<K, Weak<Share>>>,
}

#[derive(Debug)]
struct Pool {
    rule: Rule,
    used: AtomicUsize,
    /// Holders that have something.
    holders: AtomicUsize,
}

/// What one holder has.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    own: AtomicUsize,
}

impl<K: Eq + Hash> Shares<K> {
    /// A quantity of `limit`, all of it free.
    pub fn new(limit: usize) -> Self {
        let (used, holders) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let pool = Arc::new(Pool { rule: Rule { limit }, used, holders });
        Self { pool, known: Mutex::default() }
    }

    /// All that is used.
    pub fn used(&self) -> usize {
        self.pool.used.load(Relaxed)
    }

    /// The share of a holder. It is the same for as long as anybody has it, so whoever counts
    /// something for the holder keeps it.
    pub fn of(&self, holder: K) -> Arc<Share> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = known.get(&holder).and_then(Weak::upgrade) {
            return share;
        }
        if known.len() >= REMEMBERED && known.len() == known.capacity() {
            known.retain(|_, share| share.strong_count() > 0);
            // Twice of what is used stays, so that looking is cheap on average.
            let kept = (known.len() * 2).max(REMEMBERED);
            known.shrink_to(kept);
        }
        let share = Arc::new(Share { pool: self.pool.clone(), own: AtomicUsize::new(0) });
        known.insert(holder, Arc::downgrade(&share));
        share
    }
}

impl Share {
    /// Takes `amount`. Of two that take at once near a bound both may be refused; none gets past it.
    ///
    /// # Errors
    /// When the whole or this holder's share does not have room for it; then nothing is taken.
    pub fn take(&self, amount: usize) -> Result<(), Over> {
        if amount == 0 {
            return Ok(());
        }
        let Pool { rule, used, holders } = &*self.pool;
        // Who is refused anyway must not come in the way of others, not even for a moment.
        let own = self.own.load(Relaxed);
        let among = holders.load(Relaxed) + usize::from(own == 0);
        rule.check(used.load(Relaxed), own, among, amount)?;
        let own = self.own.fetch_add(amount, AcqRel);
        if own == 0 {
            holders.fetch_add(1, Relaxed);
        }
        let before = used.fetch_add(amount, Relaxed);
        rule.check(before, own, holders.load(Relaxed), amount)
            .inspect_err(|_| self.give_back(amount))
    }

    /// Gives back what was taken.
    pub fn give_back(&self, amount: usize) {
        if amount == 0 {
            return;
        }
        self.pool.used.fetch_sub(amount, Relaxed);
        if self.own.fetch_sub(amount, AcqRel) == amount {
            self.pool.holders.fetch_sub(1, Relaxed);
        }
    }

    /// Whether the whole is scarce and this holder has more than would be its fair share if one
    /// more came. What it takes now should not stay long, so that a newcomer finds room soon.
    pub fn is_pressed(&self) -> bool {
        let Pool { rule, used, holders } = &*self.pool;
        let newcomers = rule.limit / (holders.load(Relaxed) + 1);
        rule.is_scarce(used.load(Relaxed)) && self.own.load(Relaxed) > newcomers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is used, and by how many.
    fn counts(shares: &Shares<u32>) -> (usize, usize) {
        (shares.used(), shares.pool.holders.load(Relaxed))
    }

    #[test]
    fn shares_are_given_by_the_rule_of_a_budget() {
        let shares = Shares::new(100);
        let [a, b, c] = [1, 2, 3].map(|holder| shares.of(holder));
        assert_eq!(a.take(51), Err(Over::Share));
        assert_eq!((a.take(50), a.take(1)), (Ok(()), Err(Over::Share)));
        assert_eq!((b.take(26), b.take(8)), (Ok(()), Ok(())), "a share of two is 50");
        assert_eq!(c.take(1), Ok(()));
        assert_eq!(b.take(1), Err(Over::Share), "a share of three is 33");
        assert_eq!(c.take(16), Err(Over::Whole));
        assert_eq!(shares.used(), 85, "what is refused is not counted");
        a.give_back(50);
        assert_eq!(counts(&shares), (35, 2));
        b.give_back(34);
        c.give_back(1);
        assert_eq!(counts(&shares), (0, 0));
    }

    #[test]
    fn who_leaves_no_room_for_a_newcomer_is_pressed() {
        let shares = Shares::new(100);
        let [a, b] = [1, 2].map(|holder| shares.of(holder));
        a.take(50).unwrap();
        b.take(25).unwrap();
        assert!(!a.is_pressed(), "a quarter is free");
        b.take(1).unwrap();
        assert!(a.is_pressed() && !b.is_pressed(), "a share of three is 33");
        b.take(8).unwrap();
        assert!(b.is_pressed());
    }

    #[test]
    fn threads_that_take_at_once_never_get_past_a_bound() {
        // Half has room for one of them.
        let all = Shares::new(20);
        let shares = [1, 2].map(|holder| (all.of(holder), AtomicUsize::new(0)));
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for (share, given) in shares.iter().chain(&shares) {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..20_000 {
                        if share.take(7).is_ok() {
                            assert_eq!(given.fetch_add(1, AcqRel), 0, "one has it at a time");
                            given.fetch_sub(1, AcqRel);
                            share.give_back(7);
                        }
                    }
                });
            }
        });
        assert_eq!(counts(&all), (0, 0));
    }

    #[test]
    fn a_holder_has_one_share_while_it_has_something_and_is_forgotten_later() {
        let shares = Shares::new(1_000);
        let kept = shares.of(1_000);
        kept.take(500).unwrap();
        for holder in 0..1_000 {
            assert_eq!(shares.of(holder).take(0), Ok(()));
        }
        assert!(shares.known.lock().unwrap().len() < 4 * REMEMBERED);
        assert_eq!(shares.of(1_000).take(1), Err(Over::Share));
    }
}
