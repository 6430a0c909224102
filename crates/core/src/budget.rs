//! A bounded quantity that many holders share, so that none of them can take it all.
//!
//! What was given is never taken away. Instead a holder is refused early: at half of the whole
//! always, and at its fair share once the whole is three quarters used. A [`Budget`] is for one
//! thread at a time; the [`shared`] one is taken from without a lock.

pub mod shared;

use std::collections::HashMap;
use std::hash::Hash;

/// A quantity of bytes or things, and how much of it each holder has.
#[derive(Clone, Debug)]
pub struct Budget<K> {
    rule: Rule,
    used: usize,
    holders: HashMap<K, usize>,
}

/// Why an amount was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Over {
    /// The whole is used up.
    Whole,
    /// This holder has its share.
    Share,
}

/// How a whole of so much is shared.
#[derive(Clone, Copy, Debug)]
struct Rule {
    limit: usize,
}

impl Rule {
    /// Refuses `amount` for one of `holders`, which has `own` of the `used` so far.
    fn check(self, used: usize, own: usize, holders: usize, amount: usize) -> Result<(), Over> {
        if used.saturating_add(amount) > self.limit {
            return Err(Over::Whole);
        }
        let own = own.saturating_add(amount);
        let fair = self.limit / holders.max(1);
        if own > self.limit.div_ceil(2) || (self.is_scarce(used) && own > fair) {
            return Err(Over::Share);
        }
        Ok(())
    }

    fn is_scarce(self, used: usize) -> bool {
        used > self.limit / 4 * 3
    }
}

impl<K: Clone + Eq + Hash> Budget<K> {
    /// A budget of `limit`, all of it free.
    pub fn new(limit: usize) -> Self {
        Self { rule: Rule { limit }, used: 0, holders: HashMap::new() }
    }

    /// Refuses what [`Budget::take`] would refuse.
    ///
    /// # Errors
    /// When the whole or the holder's share does not have room for `amount`.
    pub fn check(&self, holder: &K, amount: usize) -> Result<(), Over> {
        let own = self.used_by(holder);
        let holders = self.holders.len() + usize::from(own == 0);
        self.rule.check(self.used, own, holders, amount)
    }

    /// Gives `amount` to a holder.
    ///
    /// # Errors
    /// When the whole or the holder's share does not have room for it.
    pub fn take(&mut self, holder: &K, amount: usize) -> Result<(), Over> {
        self.check(holder, amount)?;
        self.add(holder, amount);
        Ok(())
    }

    /// Counts what a holder has been given already, whatever the bounds.
    pub fn add(&mut self, holder: &K, amount: usize) {
        if amount == 0 {
            return;
        }
        self.used += amount;
        match self.holders.get_mut(holder) {
            Some(own) => *own += amount,
            None => {
                self.holders.insert(holder.clone(), amount);
            }
        }
    }

    /// Takes `amount` back. A holder that has nothing left is forgotten.
    pub fn give_back(&mut self, holder: &K, amount: usize) {
        let Some(own) = self.holders.get_mut(holder) else {
            return;
        };
        let amount = amount.min(*own);
        *own -= amount;
        self.used -= amount;
        if *own == 0 {
            self.holders.remove(holder);
        }
    }

    /// All that is used.
    pub fn used(&self) -> usize {
        self.used
    }

    /// What one holder has.
    pub fn used_by(&self, holder: &K) -> usize {
        self.holders.get(holder).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_gets_half_and_the_next_finds_room() {
        let mut budget = Budget::new(100);
        assert_eq!(budget.take(&"a", 50), Ok(()));
        assert_eq!(budget.take(&"a", 1), Err(Over::Share));
        assert_eq!(budget.take(&"b", 50), Ok(()));
        assert_eq!(budget.take(&"c", 1), Err(Over::Whole));
        budget.give_back(&"b", 1);
        assert_eq!(budget.take(&"c", 1), Ok(()));
    }

    #[test]
    fn above_three_quarters_only_those_below_their_share_get_more() {
        let mut budget = Budget::new(100);
        budget.take(&"a", 50).unwrap();
        budget.take(&"b", 26).unwrap();
        assert_eq!(budget.take(&"b", 8), Ok(()), "its share of two is 50");
        budget.take(&"c", 1).unwrap();
        assert_eq!(budget.take(&"b", 1), Err(Over::Share), "its share of three is 33");
        assert_eq!(budget.take(&"c", 10), Ok(()));
    }

    #[test]
    fn holders_of_nothing_are_forgotten() {
        let mut budget = Budget::new(10);
        budget.take(&1, 3).unwrap();
        budget.give_back(&1, 3);
        budget.give_back(&1, 3);
        assert!(budget.holders.is_empty() && budget.used() == 0);
    }
}
