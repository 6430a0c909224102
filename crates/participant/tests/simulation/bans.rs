//! A holder that cheats in the multiplication, which the others find out.

use std::sync::OnceLock;

use dkls23_secp256k1::Party as Held;
use quorate_engine::SealKey;
use quorate_types::vault::{Ban, SealedShare};
use quorate_types::*;

use crate::process::Death;
use crate::world::{World, party, seeds};

/// What stands in a share's plain form before the library's own: version and tag of the scheme.
const FRONT: [u8; 2] = [2, 1];

/// Two honest holders and `c`, whose share makes it cheat: made once, since it takes a second.
struct Made {
    key: KeyId,
    holders: Vec<(&'static str, [u8; 32], SealedShare)>,
}

/// What a share is bound to at rest.
fn context(party: &PartyId, key: KeyId) -> Vec<u8> {
    let name = party.as_str().as_bytes();
    let length = (name.len() as u64).to_be_bytes();
    [b"quorate/share/v1", &length[..], name, key.0.as_bytes(), &0_u32.to_be_bytes()].concat()
}

/// Spoils both seeds of one base transfer with every peer: each check of the other side fails.
fn spoiled(party: &PartyId, key: KeyId, sealed: &[u8]) -> Vec<u8> {
    let seal = SealKey::from_bytes(Secret::new([7; 32]));
    let context = context(party, key);
    let plain = seal.open(sealed, &context).unwrap();
    let mut held: Held = postcard::from_bytes(&plain[2..]).unwrap();
    for receiver in held.mul_receivers.values_mut() {
        receiver.ote_receiver.seeds0[0][0] ^= 1;
        receiver.ote_receiver.seeds1[0][0] ^= 1;
    }
    let plain = [&FRONT[..], &postcard::to_allocvec(&held).unwrap()].concat();
    seal.seal(&plain, &context).unwrap()
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut world = World::new(0, &["a", "b", "c"]);
        let view = world.keygen(Scheme::EcdsaSecp256k1, 2, None).view;
        assert_eq!(view.status, SessionStatus::Completed, "{:?}", view.failure);
        let key = view.session_id.into();
        let holder = |name: &'static str| {
            let holder = &world.holders[&party(name)];
            let mut share = holder.disk.share(key).unwrap().clone();
            if name == "c" {
                share.sealed = spoiled(&party(name), key, &share.sealed);
            }
            (name, *holder.identity.expose(), share)
        };
        Made { key, holders: ["a", "b", "c"].map(holder).into() }
    })
}

/// The holders on new machines.
fn world(seed: u64) -> (World, KeyId) {
    let Made { key, holders } = made();
    let mut world = World::new(seed, &["a", "b", "c"]);
    // Sessions get other ids than the keygen had.
    world.skip_sessions(1);
    for (name, identity, share) in holders {
        let holder = world.holders.get_mut(&party(name)).unwrap();
        holder.identity = Secret::new(*identity);
        holder.disk.shares.insert((*key, share.epoch), share.clone());
    }
    (world, *key)
}

fn bans<'a>(world: &'a World, name: &str) -> &'a [Ban] {
    &world.disk(name).bans
}

/// Whoever has not banned the cheat may have been kept from it by its own death.
fn assert_locked(world: &mut World, key: KeyId, what: &str) {
    let locked = world.sign(key, &["a", "c"], None).view;
    assert_eq!(locked.status, SessionStatus::Failed, "{what}");
    let failure = locked.failure.unwrap();
    assert!(failure.message.contains("key_locked"), "{what}: {}", failure.message);
    let signed = world.sign(key, &["a", "b"], None).view;
    assert_eq!(signed.status, SessionStatus::Completed, "{what}: the honest sign");
}

#[test]
fn a_cheat_is_banned_on_the_disk_before_it_is_told_and_signs_with_its_victim_no_more() {
    for seed in seeds(8) {
        let (mut world, key) = world(seed);
        let cheated = world.sign(key, &["a", "c"], None).view;
        let failure = cheated.failure.expect("it ends without a signature");
        assert_eq!(failure.reason, FailureReason::PartyCheated, "seed {seed}: {failure:?}");
        assert_eq!(failure.parties, [party("c")]);
        let [ban] = bans(&world, "a") else { panic!("seed {seed}: one ban") };
        assert_eq!((ban.key_id, ban.epoch, &ban.peer), (key, 0, &party("c")));
        assert!(!ban.evidence.is_empty());
        assert_locked(&mut world, key, &format!("seed {seed}"));
    }
}

#[test]
fn a_victim_that_dies_has_told_of_no_ban_that_it_forgets() {
    for seed in seeds(3) {
        let (mut at, mut forgotten) = (0, 0);
        loop {
            let mut died = 0;
            for death in [Death::Before(at), Death::After(at)] {
                let what = format!("seed {seed}, {death:?}");
                let (mut world, key) = world(seed);
                let ran = world.sign(key, &["a", "c"], Some(("a", death)));
                died += ran.died.len();
                let told = ran.view.failure.is_some_and(|failure| {
                    failure.reason == FailureReason::PartyCheated && failure.parties == [party("c")]
                });
                let banned = !bans(&world, "a").is_empty();
                assert!(banned || !told, "{what}: what was told is on the disk");
                forgotten += u32::from(!banned);
                if !banned {
                    // It finds out again.
                    let again = world.sign(key, &["a", "c"], None).view;
                    assert_eq!(again.status, SessionStatus::Failed, "{what}");
                }
                assert_locked(&mut world, key, &what);
            }
            if died == 0 {
                break;
            }
            at += 1;
        }
        assert!(at >= 4 && forgotten > 0, "{at} actions, {forgotten} times nothing was found");
    }
}

#[test]
fn a_ban_ends_with_a_refresh_by_all_holders() {
    let (mut world, key) = world(1);
    world.sign(key, &["a", "c"], None);
    assert_locked(&mut world, key, "before");
    let refreshed = world.refresh(key, 0, None).view;
    assert_eq!(refreshed.status, SessionStatus::Completed, "{:?}", refreshed.failure);
    assert_eq!(bans(&world, "a").len(), 1, "what happened stays on record");
    let signed = world.sign(key, &["a", "c"], None).view;
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
}
