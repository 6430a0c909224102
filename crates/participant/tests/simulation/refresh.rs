//! Refreshes: whole, over a bad network, and with a death at each action of each holder's vault.
//! Afterwards the old epoch or the new one signs, never neither, and never both.

use std::sync::Arc;

use quorate_engine::Identity;
use quorate_participant::{Bans, Gate, Me, VaultAction, VaultAnswer};
use quorate_types::vault::ShareState;
use quorate_types::*;

use crate::disk::Disk;
use crate::process::Death;
use crate::world::{Crash, Network, World, at_each_death, party, seeds};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn key(world: &mut World) -> KeyId {
    let made = world.keygen(Scheme::Ed25519, 2, None).view;
    assert_eq!(made.status, SessionStatus::Completed, "{:?}", made.failure);
    made.session_id.into()
}

/// The epoch that each holder signs with.
fn epochs(world: &World, key: KeyId) -> [u32; 3] {
    NAMES.map(|name| {
        let share = world.disk(name).share(key).expect("nobody is without a share");
        assert_eq!(share.state, ShareState::Active, "nobody is without a share that signs");
        share.epoch
    })
}

/// Every pair signs, and with a holder of the new epoch the other comes to it: it never signs with
/// the old one again, whose bytes are gone.
fn assert_signs(world: &mut World, key: KeyId, what: &str) {
    for pair in [["a", "b"], ["b", "c"], ["c", "a"], ["a", "b"]] {
        let before = epochs(world, key);
        let signed = world.sign(key, &pair, None).view;
        assert_eq!(signed.status, SessionStatus::Completed, "{what}: {:?}", signed.failure);
        let after = epochs(world, key);
        let of = |epochs: [u32; 3], name| epochs[NAMES.iter().position(|n| *n == name).unwrap()];
        let newest = pair.map(|name| of(before, name)).into_iter().max();
        for name in NAMES {
            let (was, is) = (of(before, name), of(after, name));
            let expected = if pair.contains(&name) { newest.unwrap() } else { was };
            assert_eq!(is, expected, "{what}: {name} after {pair:?} signed");
            for share in world.disk(name).shares.values().filter(|share| share.epoch < is) {
                assert_eq!(share.state, ShareState::Retired, "{what}");
                assert!(share.sealed.is_empty(), "{what}: a share that was replaced is wiped");
            }
        }
    }
}

#[test]
fn a_key_is_refreshed_twice_and_every_pair_signs_with_the_same_key() {
    for seed in seeds(6) {
        let (mut world, what) = (World::new(seed, &NAMES), format!("seed {seed}"));
        world.network = Network { repeats: 20, loses: 0 };
        let key = key(&mut world);
        let public_key = world.disk("a").share(key).unwrap().record.public_key.clone();
        for epoch in 0..2 {
            let view = world.refresh(key, epoch, None).view;
            assert_eq!(view.status, SessionStatus::Completed, "{what}: {:?}", view.failure);
            assert_eq!(epochs(&world, key), [epoch + 1; 3], "{what}");
            assert_signs(&mut world, key, &what);
        }
        assert_eq!(world.disk("c").share(key).unwrap().record.public_key, public_key, "{what}");
    }
}

/// A refresh in which a process dies, and what can be done afterwards.
fn crashed(seed: u64, crash: Crash) -> bool {
    let mut world = World::new(seed, &NAMES);
    let key = key(&mut world);
    let ran = world.refresh(key, 0, Some(crash));
    let what = format!("seed {seed}, {crash:?}");
    let pending = |world: &World, name| {
        world.disk(name).shares.values().any(|share| share.state == ShareState::Pending)
    };
    let kept = NAMES.map(|name| pending(&world, name) || epochs(&world, key) != [0; 3]);
    assert_signs(&mut world, key, &what);
    assert_refreshes(&mut world, key, &what);
    // Where only some have kept the new share, nobody ever signs with it.
    let mixed = kept.contains(&true) && kept.contains(&false);
    assert_eq!(epochs(&world, key), [1 + u32::from(mixed); 3], "{what}");
    ran.died == [party(crash.0)]
}

/// The next refresh is finished whatever the one before has left, and one epoch signs.
fn assert_refreshes(world: &mut World, key: KeyId, what: &str) {
    let view = world.refresh(key, 0, None).view;
    assert_eq!(view.status, SessionStatus::Completed, "{what}: {:?}", view.failure);
    let newest = epochs(world, key)[0];
    assert_eq!(epochs(world, key), [newest; 3], "{what}");
    let made = world.disk("a").share(key).unwrap().execution;
    for name in NAMES {
        let shares = &world.disk(name).shares;
        assert_eq!(shares[&(key, newest)].execution, made, "{what}: of one execution");
        let waits = shares.values().any(|share| share.state == ShareState::Pending);
        assert!(!waits, "{what}: {name} keeps nothing that waits");
    }
    assert_signs(world, key, what);
}

#[test]
fn refreshes_that_break_off_one_after_the_other_leave_the_next_one_free() {
    for seed in seeds(4) {
        let (mut world, what) = (World::new(seed, &NAMES), format!("seed {seed}"));
        let key = key(&mut world);
        for (name, at) in [("a", 4), ("b", 5), ("c", 4), ("a", 5)] {
            let view = world.refresh(key, 0, Some((name, Death::Before(at)))).view;
            assert_signs(&mut world, key, &format!("{what}: {name} died: {:?}", view.failure));
        }
        assert_refreshes(&mut world, key, &what);
    }
}

/// The newest epoch of which a holder keeps a share.
fn newest(world: &World, name: &str) -> u32 {
    world.disk(name).shares.keys().next_back().expect("a share").1
}

/// Breaks refreshes off until both `a` and `b` have kept their shares of one, which `c` has not.
fn break_off(world: &mut World, key: KeyId) -> u32 {
    let before = newest(world, "a").max(newest(world, "b"));
    loop {
        let ran = world.refresh(key, 0, Some(("c", Death::Keeping)));
        assert_eq!(ran.died, [party("c")], "{:?}", ran.view.failure);
        let kept = ["a", "b"].map(|name| newest(world, name));
        if kept[0] == kept[1] && kept[0] > before {
            return kept[0];
        }
    }
}

#[test]
fn a_certificate_that_comes_to_light_late_is_followed_and_a_later_one_replaces_it() {
    let mut world = World::new(1, &NAMES);
    let key = key(&mut world);
    let first = break_off(&mut world, key);
    let execution = world.disk("a").shares[&(key, first)].execution;
    let second = break_off(&mut world, key);
    let kept = &world.disk("a").shares[&(key, first)];
    assert_eq!((kept.execution, kept.state), (execution, ShareState::Pending), "it stays");
    let signing = |world: &mut World| {
        let signed = world.sign(key, &["a", "b"], None).view;
        assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
        ["a", "b"].map(|name| world.disk(name).share(key).unwrap().epoch)
    };
    assert_eq!(signing(&mut world), [0, 0]);
    // As if c had confirmed all the same, and told one of them.
    world.certify(key, first, "a");
    assert_eq!(signing(&mut world), [first; 2], "who has kept that share follows");
    world.certify(key, second, "b");
    assert_eq!(signing(&mut world), [second; 2], "the later certificate counts");
}

#[test]
fn too_many_refreshes_that_broke_off_name_the_command_at_each_holder_in_the_way() {
    const MOST: u32 = 16;
    let mut world = World::new(1, &NAMES);
    let key = key(&mut world);
    while NAMES.iter().all(|name| newest(&world, name) < MOST) {
        world.refresh(key, 0, Some(("c", Death::Keeping)));
    }
    let failure = world.refresh(key, 0, None).view.failure.expect("no more are kept");
    for name in NAMES {
        let in_the_way = newest(&world, name) == MOST;
        let command =
            format!("at {name} `quorate party shares discard {key} --epoch {MOST} --yes`");
        assert_eq!(failure.message.contains(&command), in_the_way, "{}", failure.message);
        assert_eq!(failure.parties.contains(&party(name)), in_the_way);
    }
    assert_signs(&mut world, key, "the epoch before signs all the same");
    for holder in world.holders.values_mut() {
        holder.disk.shares.remove(&(key, MOST));
    }
    assert_refreshes(&mut world, key, "after that");
}

#[test]
fn a_death_at_any_action_of_any_vault_leaves_the_old_epoch_or_the_new_one() {
    at_each_death(6, crashed);
}

#[test]
fn a_network_that_loses_messages_leaves_the_old_epoch_or_the_new_one() {
    let mut ends = [0, 0];
    for seed in seeds(60) {
        let (mut world, what) = (World::new(seed, &NAMES), format!("seed {seed}"));
        let key = key(&mut world);
        world.network = Network { repeats: 10, loses: 2 };
        let ran = world.refresh(key, 0, None);
        world.network = Network::default();
        ends[usize::from(ran.view.status == SessionStatus::Completed)] += 1;
        assert_signs(&mut world, key, &what);
    }
    assert!(ends[0] > 0 && ends[1] > 0 || std::env::var("QUORATE_SEED").is_ok(), "{ends:?}");
}

#[test]
fn a_share_of_an_old_epoch_that_is_put_back_signs_nothing_and_says_why() {
    let mut world = World::new(1, &NAMES);
    let key = key(&mut world);
    let old = world.disk("b").shares.clone();
    let view = world.refresh(key, 0, None).view;
    assert_eq!(view.status, SessionStatus::Completed, "{:?}", view.failure);
    let holder = world.holders.get_mut(&party("b")).unwrap();
    holder.disk = Disk::with(old);
    let failure = world.sign(key, &["a", "b"], None).view.failure.expect("it does not sign");
    assert!(failure.message.contains("stale_epoch"), "{}", failure.message);
    let signed = world.sign(key, &["a", "c"], None).view;
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
}

#[test]
fn a_run_of_an_epoch_that_has_ended_releases_nothing() {
    let mut world = World::new(1, &NAMES);
    let key = key(&mut world);
    world.refresh(key, 0, None);
    let holder = world.holders.get_mut(&party("a")).unwrap();
    let me = Me {
        party: party("a"),
        identity: Arc::new(Identity::from_secret(&holder.identity)),
        bans: Arc::new(Bans::new(party("a"))),
    };
    let open = VaultAction::OpenKey(key);
    let VaultAnswer::Key(Some(new)) = holder.disk.answer(&me, [1; 16], open) else {
        panic!("it holds a share");
    };
    let mut before = new.followed_by(Vec::new());
    before.stored.epoch = 0;
    let gate = Gate::new(&me.bans, &Arc::new(before), vec![party("a"), party("b")]);
    assert!(gate.release(|| ()).is_ok());
    me.bans.advance(key, 1);
    assert_eq!(gate.release(|| ()).unwrap_err().code, ErrorCode::StaleEpoch);
    assert!(Gate::new(&me.bans, &new, vec![party("a"), party("b")]).release(|| ()).is_ok());
}
