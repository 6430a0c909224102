//! How many of each there are. What there is none of takes no memory.

use std::collections::BTreeMap;

/// Counts by key, in the order of the keys.
#[derive(Clone, Debug)]
pub struct Tally<K>(BTreeMap<K, usize>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Tally<K> {
    /// One more of this.
    pub fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// One less of this, if there is any.
    pub fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    /// How many there are of this.
    pub fn of(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// The first key of which there is any.
    pub fn first(&self) -> Option<&K> {
        self.0.first_key_value().map(|(key, _)| key)
    }

    /// Keys of which there is any.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The counts that are not zero.
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        self.0.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_down_to_nothing_is_forgotten() {
        let mut tally = Tally::default();
        for key in ["b", "a", "b"] {
            tally.add(key);
        }
        assert_eq!((tally.of(&"a"), tally.of(&"b"), tally.of(&"c")), (1, 2, 0));
        tally.remove(&"a");
        tally.remove(&"a");
        assert_eq!((tally.first(), tally.len()), (Some(&"b"), 1));
        tally.remove(&"b");
        assert_eq!(tally.counts().collect::<Vec<_>>(), [1]);
        tally.remove(&"b");
        assert!(tally.is_empty());
    }
}
