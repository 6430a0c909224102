//! Signatures, over a bad network and with a death at each action of each signer's vault.

use quorate_types::*;

use crate::process::Death;
use crate::world::{Network, World, party, seeds};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn key(world: &mut World) -> KeyId {
    let made = world.keygen(Scheme::Ed25519, 2, None).view;
    assert_eq!(made.status, SessionStatus::Completed, "{:?}", made.failure);
    made.session_id.into()
}

#[test]
fn a_network_that_loses_messages_costs_a_signature_and_nothing_else() {
    let mut failed = 0;
    for seed in seeds(60) {
        let mut world = World::new(seed, &NAMES);
        let key = key(&mut world);
        world.network = Network { repeats: 20, loses: 10 };
        let tried = world.sign(key, &["a", "c"], None).view;
        failed += u32::from(tried.status == SessionStatus::Failed);
        world.network = Network::default();
        // The core has verified it.
        let signed = world.sign(key, &["c", "a"], None).view;
        assert_eq!(signed.status, SessionStatus::Completed, "seed {seed}: {:?}", signed.failure);
    }
    assert!(failed > 0 || std::env::var("QUORATE_SEED").is_ok(), "some messages mattered");
}

#[test]
fn a_death_at_any_action_of_any_vault_costs_a_signature_at_most() {
    for seed in seeds(4) {
        for name in ["a", "b"] {
            let mut world = World::new(seed, &NAMES);
            let key = key(&mut world);
            let mut at = 0;
            loop {
                let what = |death: Death| format!("seed {seed}, {name} {death:?}");
                let mut died = 0;
                for death in [Death::Before(at), Death::After(at)] {
                    let ran = world.sign(key, &["a", "b"], Some((name, death)));
                    died += usize::from(ran.died == [party(name)]);
                    let signed = world.sign(key, &["a", "b"], None).view;
                    let why = format!("{}: {:?}", what(death), signed.failure);
                    assert_eq!(signed.status, SessionStatus::Completed, "{why}");
                }
                if died == 0 {
                    break;
                }
                at += 1;
            }
            assert!(at >= 3, "{name}: {at} actions of its vault were tried");
        }
    }
}
