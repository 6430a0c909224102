//! Which keygens run now: a bounded number at each server party, the tenants by turns.
//!
//! Keygens that run side by side slow each other down until none ends in time. One that is not
//! admitted yet holds no place: it waits for its tenant's turn. Tenants have their turns one after
//! the other (start-time fair queueing), the keygens of one tenant in the order in which their parties
//! were ready. A keygen that waits lets nobody pass who needs one of its parties, so that it is not
//! overtaken endlessly.

use std::cmp::min;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use quorate_types::*;

use crate::tally::Tally;

/// How long a keygen is expected to take before any has been measured.
const FIRST_PACE: Duration = Duration::from_secs(3);
/// The weight of what was measured before: one part in so many is the latest keygen's.
const MEMORY: u32 = 8;

/// Where a keygen stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It will be ready without anybody's doing: server parties alone make it.
    Expected,
    /// Ready since then, with its turn.
    Ready(u64, Duration),
    /// Running since then.
    Running(Duration),
}

#[derive(Clone, Debug)]
struct Keygen {
    tenant: Tenant,
    servers: Vec<PartyId>,
    stage: Stage,
}

/// The places of all server parties.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Keygens at once of one party.
    places: usize,
    keygens: HashMap<SessionId, Keygen>,
    /// The ready ones in the order of their turns, the longest ready of a turn first.
    ready: BTreeSet<(u64, Duration, SessionId)>,
    /// The turn of the next keygen of each tenant that has been ready lately.
    next: HashMap<Tenant, u64>,
    /// The turn of the keygen admitted last.
    admitted: u64,
    /// Per party: keygens that run.
    running: Tally<PartyId>,
    /// Per party and tenant: keygens that run, are ready or are expected.
    load: HashMap<PartyId, Tally<Tenant>>,
    /// How long a keygen has lately taken, or would have with every place taken.
    pace: Duration,
    /// Whether that was measured.
    measured: bool,
}

impl Admission {
    /// Nothing runs; each party has `places`, at least one.
    pub fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            keygens: HashMap::new(),
            ready: BTreeSet::new(),
            next: HashMap::new(),
            admitted: 0,
            running: Tally::default(),
            load: HashMap::new(),
            pace: FIRST_PACE,
            measured: false,
        }
    }

    /// A keygen was created that needs nobody but these server parties.
    pub fn expect(&mut self, id: SessionId, tenant: &Tenant, servers: &[PartyId]) {
        self.enter(id, tenant, servers, Stage::Expected);
    }

    /// A keygen's parties are all ready. Said again, it keeps its turn.
    pub fn ready(&mut self, now: Duration, id: SessionId, tenant: &Tenant, servers: &[PartyId]) {
        if self.enter(id, tenant, servers, Stage::Expected).stage == Stage::Expected {
            let turn = self.next_turn(tenant);
            self.enter(id, tenant, servers, Stage::Expected).stage = Stage::Ready(turn, now);
            self.ready.insert((turn, now, id));
        }
    }

    /// A keygen runs already, as a restarted coordinator finds it.
    pub fn runs(&mut self, now: Duration, id: SessionId, tenant: &Tenant, servers: &[PartyId]) {
        if !self.keygens.contains_key(&id) {
            count(&mut self.running, servers);
            self.enter(id, tenant, servers, Stage::Running(now));
        }
    }

    fn enter(
        &mut self,
        id: SessionId,
        tenant: &Tenant,
        servers: &[PartyId],
        stage: Stage,
    ) -> &mut Keygen {
        self.keygens.entry(id).or_insert_with(|| {
            for party in servers {
                self.load.entry(party.clone()).or_default().add(tenant.clone());
            }
            Keygen { tenant: tenant.clone(), servers: servers.to_vec(), stage }
        })
    }

    /// The turn of a tenant's next keygen: after its last one, and not before the latest admitted.
    fn next_turn(&mut self, tenant: &Tenant) -> u64 {
        if self.ready.is_empty() {
            self.next.clear();
        }
        let next = self.next.entry(tenant.clone()).or_default();
        let turn = (*next).max(self.admitted);
        *next = turn + 1;
        turn
    }

    /// Gives the next keygen its places, where one can have them.
    pub fn admit(&mut self, now: Duration) -> Option<SessionId> {
        let mut needed = HashSet::new();
        let mut found = None;
        for (turn, at, id) in &self.ready {
            let servers = &self.keygens.get(id)?.servers;
            let free = |party: &PartyId| self.running.of(party) < self.places;
            if servers.iter().all(|party| free(party) && !needed.contains(party)) {
                found = Some((*turn, *at, *id));
                break;
            }
            needed.extend(servers);
            // All parties that anybody waits for: nobody behind can pass.
            if needed.len() == self.load.len() {
                break;
            }
        }
        let (turn, at, id) = found?;
        self.ready.remove(&(turn, at, id));
        self.admitted = self.admitted.max(turn);
        let keygen = self.keygens.get_mut(&id)?;
        keygen.stage = Stage::Running(now);
        count(&mut self.running, &keygen.servers);
        Some(id)
    }

    /// A keygen has ended; whether it `made` a key says whether its time counts.
    pub fn leave(&mut self, now: Duration, id: SessionId, made: bool) {
        let Some(keygen) = self.keygens.remove(&id) else { return };
        for party in &keygen.servers {
            if let Some(load) = self.load.get_mut(party) {
                load.remove(&keygen.tenant);
                if load.is_empty() {
                    self.load.remove(party);
                }
            }
        }
        match keygen.stage {
            Stage::Expected => {}
            Stage::Ready(turn, at) => drop(self.ready.remove(&(turn, at, id))),
            Stage::Running(since) => {
                let beside = keygen.servers.iter().map(|party| self.running.of(party));
                let beside = beside.max().unwrap_or(1).clamp(1, self.places);
                discount(&mut self.running, &keygen.servers);
                if made {
                    // Keygens beside each other share the processor: one that ran alone tells what
                    // all places together would have taken.
                    let shares = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                    let took = now.saturating_sub(since);
                    let took = took.saturating_mul(shares(self.places)) / shares(beside);
                    self.pace = match std::mem::replace(&mut self.measured, true) {
                        true => (self.pace * (MEMORY - 1) + took) / MEMORY,
                        false => took,
                    };
                }
            }
        }
    }

    /// How long a keygen of this tenant among these parties is expected to wait for its places and
    /// to run, were it created now.
    pub fn expected(&self, tenant: &Tenant, servers: &[PartyId]) -> Duration {
        // All of its own are ahead, and of each other tenant as many and one more.
        let ahead = |load: &Tally<Tenant>| {
            let own = load.of(tenant);
            load.counts().map(|count| min(count, own + 1)).sum::<usize>()
        };
        let ahead = servers.iter().filter_map(|party| self.load.get(party)).map(ahead).max();
        let ahead = u32::try_from(ahead.unwrap_or(0)).unwrap_or(u32::MAX);
        let places = u32::try_from(self.places).unwrap_or(u32::MAX);
        self.pace.saturating_mul(ahead) / places + self.pace
    }
}

fn count(of: &mut Tally<PartyId>, parties: &[PartyId]) {
    parties.iter().for_each(|party| of.add(party.clone()));
}

fn discount(of: &mut Tally<PartyId>, parties: &[PartyId]) {
    parties.iter().for_each(|party| of.remove(party));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u128) -> SessionId {
        format!("{n:032x}").parse().unwrap()
    }

    fn parties(names: &[&str]) -> Vec<PartyId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn tenant(n: u8) -> Tenant {
        format!("tenant-{n}").parse().unwrap()
    }

    fn us() -> Tenant {
        tenant(0)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn keygens_start_in_the_order_in_which_they_were_ready() {
        let mut admission = Admission::new(2);
        for (n, ready) in [(4, 0), (3, 1), (1, 2), (2, 2)] {
            admission.ready(at(ready), id(n), &us(), &parties(&["a", "b"]));
        }
        admission.ready(at(9), id(4), &us(), &parties(&["a", "b"]));
        assert_eq!(admission.admit(at(10)), Some(id(4)), "ready again is no later turn");
        assert_eq!(admission.admit(at(10)), Some(id(3)));
        assert_eq!(admission.admit(at(10)), None, "both places are taken");
        admission.leave(at(11), id(3), true);
        assert_eq!(admission.admit(at(11)), Some(id(1)), "of two equally old the first");
        admission.leave(at(11), id(2), false);
        admission.leave(at(11), id(1), true);
        assert_eq!(admission.admit(at(12)), None, "who left has no turn");
    }

    #[test]
    fn nobody_passes_who_needs_a_party_that_another_waits_for() {
        let mut admission = Admission::new(1);
        admission.ready(at(0), id(1), &us(), &parties(&["a"]));
        admission.ready(at(1), id(2), &us(), &parties(&["a", "b"]));
        admission.ready(at(2), id(3), &us(), &parties(&["b"]));
        admission.ready(at(3), id(4), &us(), &parties(&["c"]));
        assert_eq!(admission.admit(at(4)), Some(id(1)));
        assert_eq!(admission.admit(at(4)), Some(id(4)), "nobody waits for c");
        assert_eq!(admission.admit(at(4)), None, "b is free, but 2 waits for it");
        admission.leave(at(5), id(1), true);
        assert_eq!(admission.admit(at(5)), Some(id(2)));
        admission.leave(at(6), id(2), true);
        assert_eq!(admission.admit(at(6)), Some(id(3)));
    }

    #[test]
    fn tenants_have_their_turns_one_after_the_other() {
        let mut admission = Admission::new(1);
        let servers = parties(&["a", "b"]);
        for n in 1..=300 {
            admission.ready(at(n), id(n.into()), &tenant(1), &servers);
        }
        assert_eq!(admission.expected(&tenant(1), &servers), FIRST_PACE * 301);
        assert_eq!(admission.expected(&tenant(2), &servers), FIRST_PACE * 2, "one of each");
        assert_eq!(admission.admit(at(301)), Some(id(1)));
        for n in [501, 502] {
            admission.ready(at(n), id(n.into()), &tenant(2), &servers);
        }
        for (left, next) in [(1, 501), (501, 2), (2, 502), (502, 3), (3, 4)] {
            admission.leave(at(600), id(left), false);
            assert_eq!(admission.admit(at(600)), Some(id(next)), "after {left}");
        }
    }

    #[test]
    fn the_expected_time_grows_with_the_load_and_follows_the_pace() {
        let mut admission = Admission::new(2);
        let servers = parties(&["a", "b"]);
        assert_eq!(admission.expected(&us(), &servers), FIRST_PACE);
        for n in 1..=10 {
            admission.expect(id(n), &us(), &servers);
        }
        assert_eq!(admission.expected(&us(), &servers), FIRST_PACE * 6);
        assert_eq!(admission.expected(&us(), &parties(&["c"])), FIRST_PACE, "c has nothing to do");
        admission.ready(at(0), id(1), &us(), &servers);
        assert_eq!(admission.admit(at(0)), Some(id(1)));
        admission.leave(at(11), id(1), true);
        assert_eq!(admission.pace, at(22), "alone, and so twice as long with both places taken");
        admission.ready(at(20), id(2), &us(), &servers);
        assert_eq!(admission.admit(at(20)), Some(id(2)));
        admission.leave(at(23), id(2), true);
        assert_eq!(admission.pace, at(20), "seven parts of 22 s, one of 6 s");
        admission.ready(at(30), id(3), &us(), &servers);
        assert_eq!(admission.admit(at(30)), Some(id(3)));
        admission.leave(at(100), id(3), false);
        assert_eq!(admission.pace, at(20), "a keygen that failed says nothing");
        for n in [4, 5] {
            admission.ready(at(100), id(n), &us(), &servers);
            assert_eq!(admission.admit(at(100)), Some(id(n)));
        }
        admission.leave(at(112), id(4), true);
        assert_eq!(admission.pace, at(19), "seven parts of 20 s, one of 12 s beside another");
    }

    proptest! {
        #[test]
        fn no_party_runs_more_than_its_places_and_nothing_is_left_over(
            places in 1_usize..4,
            steps in prop::collection::vec((0_u8..4, 0_u128..12, 1_u8..8, 0_u8..3), 1..200),
        ) {
            let servers = |mask: u8| {
                let names = ["a", "b", "c"];
                let set = (0..3).filter(|n| mask & (1 << n) != 0).map(|n| names[n]);
                parties(&set.collect::<Vec<_>>())
            };
            let mut admission = Admission::new(places);
            let mut now = Duration::ZERO;
            for (what, n, mask, whose) in steps {
                now += at(1);
                let tenant = tenant(whose);
                match what {
                    0 => admission.expect(id(n), &tenant, &servers(mask)),
                    1 => admission.ready(now, id(n), &tenant, &servers(mask)),
                    2 => admission.leave(now, id(n), true),
                    _ => while admission.admit(now).is_some() {},
                }
                prop_assert!(admission.running.counts().all(|n| n <= places));
                let ready = admission.keygens.values().filter(|k| matches!(k.stage, Stage::Ready(..)));
                prop_assert_eq!(ready.count(), admission.ready.len());
            }
            // Whatever happened, all that are ready run in the end, and then nothing is held.
            while let Some((_, _, first)) = admission.ready.first().copied() {
                while admission.admit(now).is_some() {}
                let running: Vec<_> = admission.keygens.iter()
                    .filter(|(_, k)| matches!(k.stage, Stage::Running(_)))
                    .map(|(id, _)| *id).collect();
                prop_assert!(!running.is_empty(), "{first} starves");
                running.into_iter().for_each(|id| admission.leave(now, id, true));
            }
            for n in 0..12 {
                admission.leave(now, id(n), false);
            }
            prop_assert!(admission.load.is_empty() && admission.running.is_empty());
        }
    }
}
