//! Which holders of a key sign together.

use quorate_types::PartyId;

/// Two parties that do not sign together, in any order.
pub type Pair = (PartyId, PartyId);

/// The first `count` parties that may sign together: all of `fixed`, and the earliest of `others`
/// that no pair of `apart` keeps from it. `None` where there are no such.
///
/// At most 16 parties hold a key, so that 12 870 sets are looked at in the worst case.
pub fn choose(
    fixed: &[PartyId],
    others: &[PartyId],
    count: usize,
    apart: &[Pair],
) -> Option<Vec<PartyId>> {
    let mut chosen: Vec<&PartyId> = fixed.iter().collect();
    let fits = |chosen: &[&PartyId], party: &PartyId| {
        chosen.iter().all(|other| {
            **other != *party
                && apart.iter().all(|(a, b)| (a, b) != (*other, party) && (b, a) != (*other, party))
        })
    };
    let alone = |at: usize| fits(&chosen[..at], chosen[at]);
    if chosen.len() > count || !(0..chosen.len()).all(alone) {
        return None;
    }
    extend(&mut chosen, others, count, &fits).then(|| chosen.into_iter().cloned().collect())
}

fn extend<'a>(
    chosen: &mut Vec<&'a PartyId>,
    others: &'a [PartyId],
    count: usize,
    fits: &impl Fn(&[&PartyId], &PartyId) -> bool,
) -> bool {
    if chosen.len() == count {
        return true;
    }
    for (at, party) in others.iter().enumerate() {
        if chosen.len() + others.len() - at < count {
            return false;
        }
        if fits(chosen, party) {
            chosen.push(party);
            if extend(chosen, &others[at + 1..], count, fits) {
                return true;
            }
            chosen.pop();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(all: &str) -> Vec<PartyId> {
        all.chars().map(|name| name.to_string().parse().unwrap()).collect()
    }

    fn chosen(fixed: &str, others: &str, count: usize, apart: &[&str]) -> Option<String> {
        let pair = |pair: &&str| {
            let two = names(pair);
            (two[0].clone(), two[1].clone())
        };
        let apart: Vec<_> = apart.iter().map(pair).collect();
        let chosen = choose(&names(fixed), &names(others), count, &apart)?;
        Some(chosen.iter().map(PartyId::as_str).collect())
    }

    #[test]
    fn the_earliest_that_may_sign_together_do() {
        assert_eq!(chosen("", "abc", 2, &[]).unwrap(), "ab");
        assert_eq!(chosen("", "abc", 2, &["ba"]).unwrap(), "ac");
        assert_eq!(chosen("", "abc", 2, &["ab", "ca"]).unwrap(), "bc");
        assert_eq!(chosen("c", "ab", 2, &["ca"]).unwrap(), "cb");
        assert_eq!(chosen("c", "cab", 2, &[]).unwrap(), "ca", "nobody twice");
        assert_eq!(chosen("", "abc", 2, &["ab", "ac", "bc"]), None);
        assert_eq!(chosen("ab", "c", 2, &["ab"]), None, "those that are fixed are not changed");
        assert_eq!(chosen("", "a", 2, &[]), None);
        assert_eq!(chosen("ab", "", 1, &[]), None);
    }

    proptest! {
        #[test]
        fn a_set_is_found_where_there_is_one(
            pairs in proptest::collection::vec((0..6_usize, 0..6_usize), 0..12),
            count in 1..5_usize,
        ) {
            let all = names("abcdef");
            let apart: Vec<_> =
                pairs.iter().map(|(a, b)| (all[*a].clone(), all[*b].clone())).collect();
            let may = |set: u32| {
                let within = |at: &usize| set >> at & 1 == 1;
                set.count_ones() as usize == count
                    && pairs.iter().all(|(a, b)| a == b || !(within(a) && within(b)))
            };
            let found = choose(&[], &all, count, &apart);
            prop_assert_eq!(found.is_some(), (0..64).any(may));
            if let Some(found) = found {
                let set = found.iter().fold(0, |set, party| {
                    set | 1 << all.iter().position(|one| one == party).unwrap()
                });
                prop_assert!(may(set));
            }
        }
    }
}
