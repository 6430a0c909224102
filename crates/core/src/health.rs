//! How server parties have done in their sessions lately: by this signers are chosen, and by this
//! a party that is slow is told from one that is silent.

use std::collections::HashMap;
use std::time::Duration;

use quorate_types::{KeyId, PartyId};

/// Who has failed with a key is chosen for it last for so long.
const REFUSED: Duration = Duration::from_secs(60);
/// Who has failed at all is chosen last for so long.
const FAILED: Duration = Duration::from_secs(10);
/// A party's time to answer that is waited for in any case.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest wait for a party that shows no sign of life.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);
/// Parties remembered, and keys of each: about 100 bytes each. When full, memory starts afresh.
const REMEMBERED: usize = 1_024;

#[derive(Default)]
struct Known {
    /// Its last sign of life in any session.
    heard: Duration,
    /// It was silent in a session for too long and has not been heard of since.
    silent: bool,
    failed: Option<Duration>,
    /// Keys that it could not sign with, and when.
    refused: HashMap<KeyId, Duration>,
    /// How long its answers take: the slowest, a tenth forgotten with each.
    answers: Duration,
    /// When it was chosen last, counted in choices.
    turn: u64,
}

/// What the coordinator has seen of server parties since it was started.
#[derive(Default)]
pub struct Health {
    parties: HashMap<PartyId, Known>,
    turns: u64,
}

impl Health {
    fn known(&mut self, party: &PartyId) -> &mut Known {
        if self.parties.len() >= REMEMBERED && !self.parties.contains_key(party) {
            self.parties.clear();
        }
        self.parties.entry(party.clone()).or_default()
    }

    /// A sign of life.
    pub fn heard(&mut self, now: Duration, party: &PartyId) {
        let known = self.known(party);
        known.heard = now;
        known.silent = false;
    }

    /// It did what a session waited for.
    pub fn answered(&mut self, now: Duration, party: &PartyId, took: Duration) {
        self.heard(now, party);
        let known = self.known(party);
        known.answers = took.max(known.answers - known.answers / 10);
    }

    /// It was silent in a session for too long.
    pub fn silent(&mut self, party: &PartyId) {
        self.known(party).silent = true;
    }

    /// It could not sign with this key.
    pub fn failed(&mut self, now: Duration, party: &PartyId, key: KeyId) {
        let known = self.known(party);
        known.failed = Some(now);
        if known.refused.len() >= REMEMBERED {
            known.refused.clear();
        }
        known.refused.insert(key, now);
    }

    /// These have their turn, one after the other: who has waited longest had it first.
    pub fn chosen<'a>(&mut self, parties: impl IntoIterator<Item = &'a PartyId>) {
        let mut parties: Vec<_> = parties.into_iter().collect();
        parties.sort_by_key(|party| (self.parties.get(party).map_or(0, |one| one.turn), *party));
        for party in parties {
            self.turns += 1;
            self.known(party).turn = self.turns;
        }
    }

    /// Orders parties by how likely a signature with this key ends well and soon: those that have
    /// neither been silent nor failed, by the sessions they are `busy` with, and in turns.
    pub fn rank(
        &self,
        now: Duration,
        key: Option<KeyId>,
        parties: &mut [PartyId],
        busy: impl Fn(&PartyId) -> usize,
    ) {
        let since = |at: Duration, limit| now.saturating_sub(at) < limit;
        parties.sort_by_cached_key(|party| {
            let Some(known) = self.parties.get(party) else {
                return (false, false, false, busy(party), 0, party.clone());
            };
            let refused = key.and_then(|key| known.refused.get(&key));
            (
                known.silent,
                refused.is_some_and(|at| since(*at, REFUSED)),
                known.failed.is_some_and(|at| since(at, FAILED)),
                busy(party),
                known.turn,
                party.clone(),
            )
        });
    }

    /// How long an answer of these parties may take: half a second, and three times their slowest.
    pub fn patience<'a>(&self, parties: impl IntoIterator<Item = &'a PartyId>) -> Duration {
        let answers = |party| self.parties.get(party).map(|known| known.answers);
        let slowest = parties.into_iter().filter_map(answers).max().unwrap_or_default();
        (PATIENCE + 3 * slowest).min(LONGEST_PATIENCE)
    }

    /// When a party was last heard of.
    pub fn last_heard(&self, party: &PartyId) -> Duration {
        self.parties.get(party).map(|known| known.heard).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str) -> PartyId {
        name.parse().unwrap()
    }

    fn key(n: u128) -> KeyId {
        format!("{n:032x}").parse().unwrap()
    }

    fn ranked(health: &Health, now: u64, key: Option<KeyId>) -> String {
        let mut parties = ["a", "b", "c"].map(party);
        health.rank(Duration::from_secs(now), key, &mut parties, |_| 0);
        parties.iter().map(PartyId::as_str).collect()
    }

    #[test]
    fn parties_have_their_turns() {
        let mut health = Health::default();
        assert_eq!(ranked(&health, 0, None), "abc");
        health.chosen(&[party("a"), party("b")]);
        assert_eq!(ranked(&health, 0, None), "cab");
        health.chosen(&[party("a"), party("c")]);
        assert_eq!(ranked(&health, 0, None), "bca");
        let mut parties = ["a", "b", "c"].map(party);
        let busy = |one: &PartyId| usize::from(one.as_str() == "b");
        health.rank(Duration::ZERO, None, &mut parties, busy);
        assert_eq!(parties, ["c", "a", "b"].map(party), "the busy one is last");
    }

    #[test]
    fn one_that_was_silent_is_last_until_it_is_heard() {
        let mut health = Health::default();
        health.silent(&party("a"));
        assert_eq!(ranked(&health, 1_000, None), "bca");
        health.heard(Duration::from_secs(1_001), &party("a"));
        assert_eq!(ranked(&health, 1_001, None), "abc");
        assert_eq!(health.last_heard(&party("a")), Duration::from_secs(1_001));
        assert_eq!(health.last_heard(&party("b")), Duration::ZERO);
    }

    #[test]
    fn one_that_failed_is_later_for_a_while_and_longer_with_that_key() {
        let mut health = Health::default();
        health.failed(Duration::from_secs(100), &party("a"), key(1));
        for (now, of, expected) in [
            (105, None, "bca"),
            (111, None, "abc"),
            (111, Some(key(2)), "abc"),
            (111, Some(key(1)), "bca"),
            (161, Some(key(1)), "abc"),
        ] {
            assert_eq!(ranked(&health, now, of), expected, "{now} {of:?}");
        }
    }

    #[test]
    fn patience_grows_with_the_slowest_and_shrinks_again() {
        let mut health = Health::default();
        let all = [party("a"), party("b")];
        let millis = Duration::from_millis;
        assert_eq!(health.patience(&all), millis(500));
        health.answered(millis(1), &all[1], millis(100));
        health.answered(millis(1), &all[0], millis(20));
        assert_eq!(health.patience(&all), millis(800));
        for _ in 0..100 {
            health.answered(millis(2), &all[1], millis(10));
        }
        assert_eq!(health.patience(&all), millis(560));
        health.answered(millis(3), &all[1], millis(60_000));
        assert_eq!(health.patience(&all), LONGEST_PATIENCE);
    }

    #[test]
    fn memory_is_bounded() {
        let mut health = Health::default();
        for n in 0..3 * REMEMBERED {
            health.heard(Duration::ZERO, &party(&format!("p{n}")));
            health.failed(Duration::ZERO, &party("a"), key(n as u128));
        }
        assert!(health.parties.len() <= REMEMBERED);
        assert!(health.parties.values().all(|known| known.refused.len() <= REMEMBERED));
    }
}
