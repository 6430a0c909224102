//! Keygens: whole, over a bad network, and with a death at each action of each holder's vault.

use quorate_types::vault::{SealedShare, ShareState};
use quorate_types::*;

use crate::world::{Crash, Network, Ran, World, at_each_death, party, seeds};

const NAMES: [&str; 3] = ["a", "b", "c"];
const SCHEME: Scheme = Scheme::Ed25519;

fn key_of(ran: &Ran) -> KeyId {
    ran.view.session_id.into()
}

/// What holds of a key however its keygen went.
fn assert_sound(world: &World, key: KeyId, what: &str) {
    let shares: Vec<&SealedShare> =
        NAMES.iter().filter_map(|name| world.disk(name).share(key)).collect();
    for share in &shares {
        assert_eq!(share.record.public_key, shares[0].record.public_key, "{what}: one key");
        assert_eq!(share.execution, shares[0].execution, "{what}: of one execution");
    }
    let active = shares.iter().any(|share| share.state == ShareState::Active);
    assert!(!active || shares.len() == NAMES.len(), "{what}: a key that signs is held by all");
    for name in NAMES {
        let state = world.disk(name).share(key).map(|share| share.state);
        let pins = world.disk(name).pins.len();
        assert!(pins == 0 || state == Some(ShareState::Active), "{what}: {name} has pinned");
    }
}

/// The key signs in every pair with a holder that has all confirmations, which the others then
/// have too; it signs in no pair that has not, and then another key is made.
fn assert_recovers(world: &mut World, key: KeyId, what: &str) {
    let active = |world: &World, name| {
        world.disk(name).share(key).is_some_and(|share| share.state == ShareState::Active)
    };
    if !NAMES.iter().any(|name| world.disk(name).share(key).is_some()) {
        return;
    }
    if !NAMES.iter().any(|name| active(world, name)) {
        let refused = world.sign(key, &["a", "b"], None).view;
        assert_eq!(refused.status, SessionStatus::Failed, "{what}: nobody has confirmed it");
        let another = world.keygen(SCHEME, 2, None).view;
        assert_eq!(another.status, SessionStatus::Completed, "{what}: {:?}", another.failure);
        return;
    }
    while let Some(late) = NAMES.iter().find(|name| !active(world, name)) {
        let teller = NAMES.iter().find(|name| active(world, name)).unwrap();
        let signed = world.sign(key, &[teller, late], None).view;
        assert_eq!(signed.status, SessionStatus::Completed, "{what}: {:?}", signed.failure);
        assert!(active(world, late), "{what}: {late} was shown the confirmations");
    }
    for pair in [["a", "b"], ["b", "c"], ["c", "a"]] {
        let signed = world.sign(key, &pair, None).view;
        assert_eq!(signed.status, SessionStatus::Completed, "{what}: {:?}", signed.failure);
    }
}

#[test]
fn a_key_is_made_and_every_pair_signs_in_whatever_order_things_happen() {
    for seed in seeds(12) {
        let mut world = World::new(seed, &NAMES);
        world.network = Network { repeats: 20, loses: 0 };
        let ran = world.keygen(SCHEME, 2, None);
        let what = format!("seed {seed}");
        assert_eq!(ran.view.status, SessionStatus::Completed, "{what}: {:?}", ran.view.failure);
        let key = key_of(&ran);
        assert_eq!(world.states(key), [Some(ShareState::Active); 3], "{what}");
        for name in NAMES {
            assert_eq!(world.disk(name).pins.len(), 2, "{what}: the names of the others");
        }
        assert_sound(&world, key, &what);
        assert_recovers(&mut world, key, &what);
    }
}

#[test]
fn a_network_that_loses_messages_leaves_a_key_of_all_or_none_that_signs() {
    let mut ends = [0, 0];
    for seed in seeds(60) {
        let mut world = World::new(seed, &NAMES);
        world.network = Network { repeats: 10, loses: 2 };
        let ran = world.keygen(SCHEME, 2, None);
        world.network = Network::default();
        let (key, what) = (key_of(&ran), format!("seed {seed}"));
        ends[usize::from(ran.view.status == SessionStatus::Completed)] += 1;
        assert_sound(&world, key, &what);
        assert_recovers(&mut world, key, &what);
    }
    assert!(ends[0] > 0 && ends[1] > 0 || std::env::var("QUORATE_SEED").is_ok(), "{ends:?}");
}

#[test]
fn a_keygen_that_its_owner_closes_keeps_what_was_kept() {
    let mut kept = 0;
    for seed in seeds(40) {
        let mut world = World::new(seed, &NAMES);
        world.close_after = Some(100 + usize::try_from(seed).unwrap() * 4);
        let ran = world.keygen(SCHEME, 2, None);
        world.close_after = None;
        let (key, what) = (key_of(&ran), format!("seed {seed}"));
        let held = NAMES.iter().filter(|name| world.disk(name).share(key).is_some()).count();
        kept += usize::from(ran.view.status == SessionStatus::Failed && held > 0);
        assert_sound(&world, key, &what);
        assert_recovers(&mut world, key, &what);
    }
    assert!(
        kept > 0 || std::env::var("QUORATE_SEED").is_ok(),
        "some were closed after a share was kept"
    );
}

/// A keygen in which a process dies.
fn crashed(seed: u64, crash: Crash) -> bool {
    let mut world = World::new(seed, &NAMES);
    let ran = world.keygen(SCHEME, 2, Some(crash));
    let (key, what) = (key_of(&ran), format!("seed {seed}, {crash:?}"));
    assert_sound(&world, key, &what);
    assert_recovers(&mut world, key, &what);
    let died = ran.died == [party(crash.0)];
    assert!(died || ran.view.status == SessionStatus::Completed, "{what}");
    died
}

#[test]
fn a_death_at_any_action_of_any_vault_leaves_a_key_that_signs_or_none() {
    at_each_death(7, crashed);
}

#[test]
fn an_ecdsa_key_is_made_and_signs() {
    let mut world = World::new(1, &["a", "b"]);
    let ran = world.keygen(Scheme::EcdsaSecp256k1, 2, None);
    assert_eq!(ran.view.status, SessionStatus::Completed, "{:?}", ran.view.failure);
    let signed = world.sign(key_of(&ran), &["b", "a"], None).view;
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
}
