//! Keys and signatures through whole runs, in every order of delivery, with and without attackers.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use quorate_engine::*;
use quorate_testkit::Seeded;
use quorate_types::*;

/// The key whose shares are in `data`.
const FIRST_VERSION_KEY: &str = "044ccf726f931642d0e10ed0f5db555c84586ada7a7abcde79e235719c61b4b74a\
                                 b61de6ec1a8158daece6bf24ed6753d0ae4df1b9079a4ac860478915ac91ef20";

/// Signs with each of these groups of holders.
fn sign_with(made: &Made, groups: &[&[usize]]) {
    for (seed, who) in (1_u8..).zip(groups) {
        let digest = Digest([seed; 32]);
        let (parties, mut runs) = signing(session(seed.into()), made, who, digest);
        let endings = deliver(&parties, &mut runs, seed.into(), |_, _| {});
        check(made, &digest, endings);
        assert!(runs.iter().all(|run| run.waiting_for().is_empty()));
    }
}

#[test]
fn two_of_two_sign() {
    for scheme in SCHEMES {
        sign_with(two_of_two(*scheme), &[&[0, 1], &[1, 0]]);
    }
}

#[test]
fn any_two_of_three_sign_and_a_third_looks_on() {
    for scheme in SCHEMES {
        let groups: [&[usize]; 5] = [&[0, 1], &[2, 0], &[1, 2], &[0, 1, 2], &[2, 1, 0]];
        sign_with(two_of_three(*scheme), &groups);
    }
}

#[test]
fn three_of_five_sign_and_the_others_look_on() {
    for scheme in SCHEMES {
        let made = keygen(*scheme, 3, 5, 11);
        sign_with(&made, &[&[4, 1, 0], &[1, 2, 3, 4], &[4, 3, 2, 1, 0]]);
    }
}

/// Of DKLs23 it would be 16 times 6 seconds of computing.
#[test]
fn sixteen_parties_make_an_ed25519_key_and_any_of_them_sign() {
    let made = keygen(Scheme::Ed25519, 9, 16, 12);
    let all: Vec<usize> = (0..16).collect();
    let odd: Vec<usize> = (0..16).filter(|at| at % 2 == 1).chain([0]).collect();
    sign_with(&made, &[&all, &odd, &all[7..]]);
}

#[test]
fn no_two_attempts_give_the_same_signature() {
    for scheme in SCHEMES {
        let digest = Digest([9; 32]);
        let sign = || {
            let (parties, mut runs) = signing(session(4), two_of_two(*scheme), &[0, 1], digest);
            let ending = deliver(&parties, &mut runs, 1, |_, _| {}).remove(0);
            let Ok(Some(Output::Signature(signature))) = ending else { panic!("a signature") };
            signature.bytes()[..32].to_vec()
        };
        assert_ne!(sign(), sign(), "r, and so the nonce, must differ");
    }
}

#[test]
fn a_thousand_ed25519_signatures_verify_and_repeat_no_nonce() {
    let made = two_of_three(Scheme::Ed25519);
    let mut shuffle = Seeded(5);
    let mut seen = std::collections::HashSet::new();
    for n in 0..1_000 {
        let digest = Digest(std::array::from_fn(|_| u8::try_from(shuffle.below(256)).unwrap()));
        let who = [[0, 1], [1, 2], [2, 0]][shuffle.below(3)];
        let (parties, mut runs) = signing(session(n), made, &who, digest);
        let endings = deliver(&parties, &mut runs, shuffle.below(1 << 30) as u64, |_, _| {});
        let Ok(Some(Output::Signature(signature))) = &endings[0] else { panic!("a signature") };
        assert!(seen.insert(signature.bytes()[..32].to_vec()), "R is repeated");
        check(made, &digest, endings);
    }
}

/// Runs the second of two attempts under attack: before each delivery arrives, its recipient gets
/// all deliveries of the first attempt, and this one misdelivered and tampered with in every way.
fn harried(attempt: impl Fn() -> (Vec<PartyId>, Vec<Run>)) -> Vec<Ending> {
    let (parties, mut earlier) = attempt();
    let mut kept: HashMap<PartyId, Vec<Addressed>> = HashMap::new();
    deliver(&parties, &mut earlier, 2, |_, delivery| {
        kept.entry(delivery.1.clone()).or_default().push(delivery.clone());
    });
    let refuse = |code: &str, got: Result<(), Fault>| {
        let fault = got.expect_err(code);
        let expected = (code, Severity::Benign, None);
        assert_eq!((fault.code.name(), fault.severity, fault.blame), expected);
    };
    let (parties, mut runs) = attempt();
    deliver(&parties, &mut runs, 3, |run, (from, to, payload)| {
        for (_, _, old) in &kept[to] {
            refuse("execution_mismatch", run.receive(from, old));
        }
        let with = |at: usize, value: u8| {
            let mut bytes = payload.to_vec();
            bytes[at] = value;
            Bytes::from(bytes)
        };
        refuse("wrong_sender", run.receive(&name(9), payload));
        refuse("wrong_sender", run.receive(to, payload));
        refuse("wrong_sender", run.receive(from, &with(34, 9)));
        refuse("wrong_round", run.receive(from, &with(37, 77)));
        refuse("envelope_invalid", run.receive(from, &with(0, 2)));
        refuse("envelope_invalid", run.receive(from, &payload.slice(..40)));
        if payload[1] == 1 {
            refuse("wrong_recipient", run.receive(from, &with(35, 7)));
        }
        for at in [40, payload.len() / 2, payload.len() - 1] {
            refuse("signature_invalid", run.receive(from, &with(at, payload[at] ^ 1)));
        }
        for at in (0..38).chain(payload.len() - 64..payload.len()) {
            let fault = run.receive(from, &with(at, payload[at] ^ 1)).expect_err("a flipped bit");
            assert_eq!((fault.severity, fault.blame), (Severity::Benign, None), "byte {at}");
        }
    })
}

#[test]
fn a_signature_is_made_among_tampered_misaddressed_and_replayed_messages() {
    for scheme in SCHEMES {
        let (made, digest) = (two_of_two(*scheme), Digest([3; 32]));
        let endings = harried(|| signing(session(5), made, &[0, 1], digest));
        check(made, &digest, endings);
    }
}

#[test]
fn a_key_is_made_among_tampered_misaddressed_and_replayed_messages() {
    for scheme in SCHEMES {
        for ending in harried(|| making(*scheme, 2, 2)) {
            assert!(matches!(ending, Ok(Some(Output::Key { .. }))));
        }
    }
}

#[test]
fn a_repeated_message_is_ignored() {
    for scheme in SCHEMES {
        let (made, digest) = (two_of_two(*scheme), Digest([4; 32]));
        let (parties, mut runs) = signing(session(6), made, &[0, 1], digest);
        let outputs = deliver(&parties, &mut runs, 9, |run, (from, _, payload)| {
            run.receive(from, payload).unwrap();
        });
        check(made, &digest, outputs);
    }
}

#[test]
fn signers_of_different_digests_find_out_by_the_first_message() {
    for scheme in SCHEMES {
        let made = two_of_two(*scheme);
        let (parties, mut ours) = signing(session(7), made, &[0, 1], Digest([1; 32]));
        let (_, mut theirs) = signing(session(7), made, &[0, 1], Digest([2; 32]));
        let step = theirs[1].advance().unwrap();
        for (from, _, payload) in deliveries(&parties, 1, step.outgoing) {
            let fault = ours[0].receive(&from, &payload).unwrap_err();
            assert_eq!(fault.code, FaultCode::ExecutionMismatch);
        }
        assert_eq!(ours[0].round(), 0);
        ours[0].advance().unwrap();
        assert_eq!((ours[0].round(), ours[0].waiting_for()), (1, vec![parties[1].clone()]));
    }
}

#[test]
fn a_share_opens_for_its_party_key_epoch_and_seal_key_only() {
    for scheme in SCHEMES {
        let made = two_of_two(*scheme);
        let Made { holders, shares, key, .. } = made;
        let seal = |n| SealKey::from_bytes(Secret::new([n; 32]));
        let context = |party, key_id, epoch| SealContext { party_id: party, key_id, epoch };
        let key_id: KeyId = session(1).into();
        let sealed = shares[0].seal(&seal(1), &context(&holders[0], key_id, 0)).unwrap();
        let opened = Share::open(&sealed, &seal(1), &context(&holders[0], key_id, 0)).unwrap();
        let facts = (opened.scheme(), opened.public_key(), opened.threshold());
        assert_eq!(facts, (made.scheme(), key, shares[0].threshold()));
        assert_eq!(opened.share_index(), ShareIndex(1));
        let wrong = [
            Share::open(&sealed, &seal(2), &context(&holders[0], key_id, 0)),
            Share::open(&sealed, &seal(1), &context(&holders[1], key_id, 0)),
            Share::open(&sealed, &seal(1), &context(&holders[0], session(2).into(), 0)),
            Share::open(&sealed, &seal(1), &context(&holders[0], key_id, 1)),
            Share::open(&sealed[1..], &seal(1), &context(&holders[0], key_id, 0)),
            Share::open(&[], &seal(1), &context(&holders[0], key_id, 0)),
        ];
        for result in wrong {
            assert_eq!(result.err().unwrap().code, ErrorCode::InvalidRequest);
        }
    }
}

#[test]
fn a_passphrase_gives_the_same_seal_key_only_with_its_salt() {
    let Made { holders, shares, .. } = two_of_two(Scheme::EcdsaSecp256k1);
    let context = SealContext { party_id: &holders[0], key_id: session(1).into(), epoch: 0 };
    let key = |phrase: &[u8], salt: &[u8]| SealKey::from_passphrase(phrase, salt).unwrap();
    let sealed = shares[0].seal(&key(b"correct horse", &[1; 16]), &context).unwrap();
    assert!(Share::open(&sealed, &key(b"correct horse", &[1; 16]), &context).is_ok());
    assert!(Share::open(&sealed, &key(b"correct horse", &[2; 16]), &context).is_err());
    assert!(Share::open(&sealed, &key(b"battery staple", &[1; 16]), &context).is_err());
}

#[test]
fn a_run_refuses_a_roster_it_does_not_fit() {
    let made = two_of_three(Scheme::EcdsaSecp256k1);
    let Made { holders, shares, .. } = made;
    let parties = [holders[0].clone(), holders[1].clone()];
    let identities: Vec<_> = (0..4).map(|_| Identity::generate()).collect();
    let member = |(party, identity): (&PartyId, &Identity)| {
        let (handshake, secret) = make_handshake(identity, session(8), party, &Shown::default());
        (Member { party_id: party.clone(), handshake }, secret)
    };
    let sign = |share: usize| Task::Sign {
        share: shares[share].clone(),
        key: made.epoch(),
        made_by: [0; 32],
        input: SignInput::Digest(Digest([0; 32])),
    };
    let attempt = |me: &PartyId, roster: &[PartyId], task| {
        let mut secrets: Vec<_> = roster.iter().zip(&identities).map(member).collect();
        let at = roster.iter().position(|p| p == me).unwrap_or(0);
        let members = secrets.iter().map(|(member, _)| member.clone()).collect();
        let secret = secrets.swap_remove(at).1;
        let run = Run::new(&identities[at], secret, (session(8), 0), me, members, task);
        run.err().map(|fault| fault.code)
    };
    assert_eq!(attempt(&parties[0], &parties, sign(0)), None);
    assert_eq!(attempt(&parties[0], &parties, sign(1)), Some(FaultCode::NotASigner));
    assert_eq!(attempt(&parties[0], &parties[..1], sign(0)), Some(FaultCode::NotASigner));
    let stranger = [parties[0].clone(), name(9)];
    assert_eq!(attempt(&parties[0], &stranger, sign(0)), Some(FaultCode::NotASigner));
    assert_eq!(attempt(&name(9), &parties, sign(0)), Some(FaultCode::BadInput));
    let twice = [parties[0].clone(), parties[1].clone(), parties[1].clone()];
    assert_eq!(attempt(&parties[0], &twice, sign(0)), Some(FaultCode::BadInput));
    let threshold = Threshold::new(2, 3).unwrap();
    let keygen = Task::Keygen { scheme: Scheme::EcdsaSecp256k1, threshold };
    assert_eq!(attempt(&parties[0], &parties, keygen), Some(FaultCode::BadInput));
}

#[test]
fn shares_that_the_first_version_sealed_open_as_ecdsa_sign_and_are_refreshed() {
    let sealed: [&[u8]; 2] =
        [include_bytes!("data/share-v1-1.bin"), include_bytes!("data/share-v1-2.bin")];
    let seal = SealKey::from_bytes(Secret::new([1; 32]));
    let holders: Vec<_> = (1..=2).map(name).collect();
    let mut shares = Vec::new();
    for (at, sealed) in sealed.into_iter().enumerate() {
        let context = SealContext { party_id: &holders[at], key_id: session(1).into(), epoch: 0 };
        let share = Share::open(sealed, &seal, &context).unwrap();
        assert_eq!(share.scheme(), Scheme::EcdsaSecp256k1);
        assert_eq!(usize::from(share.share_index().0), at + 1);
        assert_eq!(share.threshold(), Threshold::new(2, 2).unwrap());
        // Sealed again it is of this version, and one byte longer.
        let again = share.seal(&seal, &context).unwrap();
        assert_eq!(again.len(), sealed.len() + 1);
        shares.push(Arc::new(Share::open(&again, &seal, &context).unwrap()));
    }
    let key = PublicKey(hex::decode(FIRST_VERSION_KEY).unwrap());
    let made = Made { holders, shares, key, refreshes: 0 };
    sign_with(&made, &[&[0, 1]]);
    sign_with(&refresh(&made, 3), &[&[0, 1]]);
}

#[test]
fn a_share_of_a_scheme_that_is_not_known_here_is_of_a_newer_version() {
    let seal = SealKey::from_bytes(Secret::new([1; 32]));
    let party = name(1);
    let context = SealContext { party_id: &party, key_id: session(1).into(), epoch: 0 };
    // The bytes that a sealed share is bound to.
    let mut bound = b"quorate/share/v1".to_vec();
    bound.extend(7_u64.to_be_bytes());
    bound.extend(b"party-1");
    bound.extend(1_u128.to_be_bytes());
    bound.extend(0_u32.to_be_bytes());
    for (plain, says) in [
        (&[2, 250, 0][..], "newer version"),
        (&[3, 1, 0], "newer version"),
        (&[2], "newer version"),
        (&[2, 1, 0], "cannot be opened"),
        (&[1, 0], "cannot be opened"),
    ] {
        let sealed = seal.seal(plain, &bound).unwrap();
        let error = Share::open(&sealed, &seal, &context).err().unwrap();
        assert!(error.message.contains(says), "{plain:?}: {error:?}");
    }
}

#[test]
fn a_share_of_one_scheme_is_not_used_as_anothers() {
    let [ecdsa, ed25519] = [Scheme::EcdsaSecp256k1, Scheme::Ed25519].map(two_of_two);
    let start = |made: &Made, share: &Made, input: SignInput| {
        let parties = &made.holders;
        let identities: Vec<_> = parties.iter().map(|_| Identity::generate()).collect();
        let handshakes = parties.iter().zip(&identities).map(|(party, identity)| {
            make_handshake(identity, session(9), party, &Shown::default())
        });
        let (handshakes, secrets): (Vec<_>, Vec<_>) = handshakes.unzip();
        let member = |(party, handshake): (&PartyId, &Handshake)| Member {
            party_id: party.clone(),
            handshake: handshake.clone(),
        };
        let roster = parties.iter().zip(&handshakes).map(member).collect();
        let share = share.shares[0].clone();
        let task = Task::Sign { share, key: made.epoch(), made_by: [0; 32], input };
        let secret = secrets.into_iter().next().unwrap();
        let run = Run::new(&identities[0], secret, (session(9), 0), &parties[0], roster, task);
        run.err().map(|fault| (fault.code, fault.message))
    };
    let signed = Digest([1; 32]);
    for (one, other) in [(ecdsa, ed25519), (ed25519, ecdsa)] {
        assert_eq!(start(one, one, one.input(&signed)), None);
        let (code, _) = start(one, other, one.input(&signed)).unwrap();
        assert_eq!(code, FaultCode::NotASigner);
        let (code, message) = start(one, one, other.input(&signed)).unwrap();
        assert_eq!(code, FaultCode::BadInput);
        assert!(message.contains("message_hash"), "{message}");
    }
    // The tag is sealed with the share: what is stored under one is not read as the other.
    let seal = SealKey::from_bytes(Secret::new([1; 32]));
    let context = SealContext { party_id: &ecdsa.holders[0], key_id: session(1).into(), epoch: 0 };
    let bound = [
        b"quorate/share/v1",
        &7_u64.to_be_bytes()[..],
        b"party-1",
        &1_u128.to_be_bytes(),
        &0_u32.to_be_bytes(),
    ]
    .concat();
    for made in [ecdsa, ed25519] {
        let sealed = made.shares[0].seal(&seal, &context).unwrap();
        let mut plain = seal.open(&sealed, &bound).unwrap();
        plain[1] = 3 - plain[1];
        let swapped = seal.seal(&plain, &bound).unwrap();
        let error = Share::open(&swapped, &seal, &context).err().unwrap();
        assert!(error.message.contains("cannot be opened"), "{error:?}");
    }
}

/// The permission of a signature is written while what tells nothing of it is on its way.
#[test]
fn what_tells_of_a_signature_is_marked_from_the_round_in_which_shares_of_it_leave() {
    for (scheme, first) in [(Scheme::EcdsaSecp256k1, 3), (Scheme::Ed25519, 2)] {
        let (parties, mut runs) =
            signing(session(70), two_of_two(scheme), &[0, 1], Digest([3; 32]));
        let mut under_way = Vec::new();
        let mut last = 0;
        for (at, run) in runs.iter_mut().enumerate() {
            under_way.push((at, run.advance().unwrap().outgoing));
        }
        while let Some((from, sent)) = under_way.pop() {
            for Outgoing { round, telling, payload, .. } in sent {
                assert_eq!(telling, round >= first, "round {round} of {scheme}");
                last = last.max(round);
                let to = 1 - from;
                runs[to].receive(&parties[from], &payload).unwrap();
                under_way.insert(0, (to, runs[to].advance().unwrap().outgoing));
            }
        }
        assert_eq!(last, first, "nothing more is sent among two");
    }
}
