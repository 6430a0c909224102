//! Keys and signatures through whole runs, in every order of delivery, with and without attackers.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use quorate_engine::*;
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
        check(&made.key, &digest, endings);
        assert!(runs.iter().all(|run| run.waiting_for().is_empty()));
    }
}

#[test]
fn two_of_two_sign() {
    sign_with(&TWO_OF_TWO, &[&[0, 1], &[1, 0]]);
}

#[test]
fn any_two_of_three_sign_and_a_third_looks_on() {
    sign_with(&TWO_OF_THREE, &[&[0, 1], &[2, 0], &[1, 2], &[0, 1, 2], &[2, 1, 0]]);
}

#[test]
fn three_of_five_sign_and_the_others_look_on() {
    sign_with(&keygen(3, 5, 11), &[&[4, 1, 0], &[1, 2, 3, 4], &[4, 3, 2, 1, 0]]);
}

#[test]
fn no_two_attempts_give_the_same_signature() {
    let digest = Digest([9; 32]);
    let sign = || {
        let (parties, mut runs) = signing(session(4), &TWO_OF_TWO, &[0, 1], digest);
        let ending = deliver(&parties, &mut runs, 1, |_, _| {}).remove(0);
        let Ok(Some(Output::Signature(signature))) = ending else { panic!("a signature") };
        signature.bytes[..32].to_vec()
    };
    assert_ne!(sign(), sign(), "r, and so the nonce, must differ");
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
    let digest = Digest([3; 32]);
    let endings = harried(|| signing(session(5), &TWO_OF_TWO, &[0, 1], digest));
    check(&TWO_OF_TWO.key, &digest, endings);
}

#[test]
fn a_key_is_made_among_tampered_misaddressed_and_replayed_messages() {
    for ending in harried(|| making(2, 2)) {
        assert!(matches!(ending, Ok(Some(Output::Key { .. }))));
    }
}

#[test]
fn a_repeated_message_is_ignored() {
    let made = &*TWO_OF_TWO;
    let digest = Digest([4; 32]);
    let (parties, mut runs) = signing(session(6), made, &[0, 1], digest);
    let outputs = deliver(&parties, &mut runs, 9, |run, (from, _, payload)| {
        run.receive(from, payload).unwrap();
    });
    check(&made.key, &digest, outputs);
}

#[test]
fn signers_of_different_digests_find_out_by_the_first_message() {
    let made = &*TWO_OF_TWO;
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

#[test]
fn a_share_opens_for_its_party_key_epoch_and_seal_key_only() {
    let Made { holders, shares, key } = &*TWO_OF_TWO;
    let seal = |n| SealKey::from_bytes(Secret::new([n; 32]));
    let context = |party, key_id, epoch| SealContext { party_id: party, key_id, epoch };
    let key_id: KeyId = session(1).into();
    let sealed = shares[0].seal(&seal(1), &context(&holders[0], key_id, 0)).unwrap();
    let opened = Share::open(&sealed, &seal(1), &context(&holders[0], key_id, 0)).unwrap();
    assert_eq!(opened.public_key(), key);
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

#[test]
fn a_passphrase_gives_the_same_seal_key_only_with_its_salt() {
    let Made { holders, shares, .. } = &*TWO_OF_TWO;
    let context = SealContext { party_id: &holders[0], key_id: session(1).into(), epoch: 0 };
    let key = |phrase: &[u8], salt: &[u8]| SealKey::from_passphrase(phrase, salt).unwrap();
    let sealed = shares[0].seal(&key(b"correct horse", &[1; 16]), &context).unwrap();
    assert!(Share::open(&sealed, &key(b"correct horse", &[1; 16]), &context).is_ok());
    assert!(Share::open(&sealed, &key(b"correct horse", &[2; 16]), &context).is_err());
    assert!(Share::open(&sealed, &key(b"battery staple", &[1; 16]), &context).is_err());
}

#[test]
fn a_run_refuses_a_roster_it_does_not_fit() {
    let made = &*TWO_OF_THREE;
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
        let run = Run::new(&identities[at], secret, session(8), me, members, task);
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
fn shares_that_the_first_version_sealed_open_as_ecdsa_and_sign() {
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
    sign_with(&Made { holders, shares, key }, &[&[0, 1]]);
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
