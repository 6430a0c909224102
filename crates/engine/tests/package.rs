//! Packages of shares: what was packed signs at its receiver, and nothing else is taken for one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use quorate_engine::*;
use quorate_schemes::Statement;
use quorate_types::*;

fn identities(made: &Made) -> Vec<Arc<Identity>> {
    made.holders.iter().map(|_| Arc::new(Identity::generate())).collect()
}

fn package(made: &Made, identities: &[Arc<Identity>], at: usize) -> Package {
    let key = made.epoch();
    let public: Vec<_> = identities.iter().map(|identity| identity.public()).collect();
    let statement = Statement::new(&key, &[7; 32], &public);
    let confirmations: Vec<_> = identities.iter().map(|one| one.confirm(&statement)).collect();
    Package {
        holding: Holding {
            holder: made.holders[at].clone(),
            key: (*key).clone(),
            tenant: Tenant::default(),
            created_at: Timestamp(5),
            label: Some("treasury".parse().unwrap()),
            identities: public,
            execution: [7; 32],
            confirmations: confirmations.concat(),
            bans: vec![(name(9), "it dealt wrongly".into(), Timestamp(6))],
        },
        identity: identities[at].clone(),
        generation: 5,
        share: made.shares[at].clone(),
    }
}

#[test]
fn what_was_packed_is_the_same_holder_and_signs() {
    for scheme in SCHEMES {
        let made = two_of_three(*scheme);
        let identities = identities(made);
        let packed = package(made, &identities, 2);
        let bytes = packed.encode().unwrap();
        let unpacked = Package::decode(&bytes).unwrap();
        assert_eq!((&unpacked.holding, unpacked.generation), (&packed.holding, 5));
        // As the first version wrote it.
        let first = [&[1][..], &bytes[1..33], &bytes[41..]].concat();
        let first = Package::decode(&first).unwrap();
        assert_eq!((first.holding, first.generation), (packed.holding, 0));
        assert_eq!(unpacked.identity.public(), identities[2].public());
        let mut shares = made.shares.clone();
        shares[2] = unpacked.share;
        let (holders, key, refreshes) = (made.holders.clone(), made.key.clone(), made.refreshes);
        let received = Made { holders, shares, key, refreshes };
        let digest = Digest([3; 32]);
        let (parties, mut runs) = signing(session(5), &received, &[0, 2], digest);
        let endings = deliver(&parties, &mut runs, 5, |_, _| {});
        check(&received, &digest, endings);
    }
}

#[test]
fn a_package_whose_parts_do_not_belong_together_is_refused() {
    for scheme in SCHEMES {
        let made = two_of_three(*scheme);
        let all = identities(made);
        let refused = |change: &dyn Fn(&mut Package)| {
            let mut packed = package(made, &all, 1);
            change(&mut packed);
            let error = Package::decode(&packed.encode().unwrap()).err().unwrap();
            error.details.fields.contains_key("share")
        };
        assert!(refused(&|packed| packed.identity = all[0].clone()), "another's identity");
        assert!(refused(&|packed| packed.share = made.shares[0].clone()), "another's share");
        assert!(refused(&|packed| packed.holding.holder = made.holders[0].clone()));
        assert!(refused(&|packed| packed.holding.key.epoch += 1));
        assert!(refused(&|packed| packed.holding.execution[0] ^= 1));
        assert!(refused(&|packed| packed.holding.confirmations.truncate(64)));
        assert!(refused(&|packed| packed.holding.identities.truncate(1)));
        let other = SCHEMES.iter().find(|other| *other != scheme).unwrap();
        assert!(refused(&|packed| packed.share = two_of_three(*other).shares[1].clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_package_that_was_changed_or_cut_off_is_refused(at: prop::sample::Index, bit in 0..8_u8) {
        let made = two_of_two(Scheme::Ed25519);
        let bytes = package(made, &identities(made), 0).encode().unwrap();
        // The label, the tenant, the time and the bans are the sealer's word.
        let mut bad = bytes.to_vec();
        let at = at.index(bad.len());
        bad[at] ^= 1 << bit;
        if let Ok(read) = Package::decode(&bad) {
            let packed = Package::decode(&bytes).unwrap();
            prop_assert_eq!(read.holding.key, packed.holding.key);
            prop_assert_eq!(read.identity.public(), packed.identity.public());
        }
        prop_assert!(Package::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn junk_is_no_package(junk: Vec<u8>) {
        prop_assert!(Package::decode(&junk).is_err());
        for version in [1, 2] {
            prop_assert!(Package::decode(&[&[version][..], &junk].concat()).is_err());
        }
    }
}
