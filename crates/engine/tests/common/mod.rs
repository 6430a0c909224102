//! Parties in one process: identities, handshakes, and delivery in a shuffled order.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use quorate_engine::*;
use quorate_testkit::Seeded;
use quorate_types::*;

/// A message under way.
pub(crate) type Addressed = (PartyId, PartyId, Bytes);

/// How a party's run ended: `Ok(None)` where it still waits.
pub(crate) type Ending = Result<Option<Output>, Fault>;

/// A key with all its shares, in the order of the holders.
pub(crate) struct Made {
    pub(crate) holders: Vec<PartyId>,
    pub(crate) shares: Vec<Arc<Share>>,
    pub(crate) key: PublicKey,
    /// How often it was refreshed.
    pub(crate) refreshes: u32,
}

impl Made {
    pub(crate) fn scheme(&self) -> Scheme {
        self.shares[0].scheme()
    }

    /// What is signed where these 32 bytes are: as a digest or as a message.
    pub(crate) fn input(&self, signed: &Digest) -> SignInput {
        match self.scheme() {
            Scheme::EcdsaSecp256k1 => SignInput::Digest(*signed),
            _ => SignInput::Message(signed.0.to_vec().into()),
        }
    }

    /// The key as its holders know it.
    pub(crate) fn epoch(&self) -> Arc<KeyEpoch> {
        Arc::new(KeyEpoch {
            key_id: session(1).into(),
            epoch: self.refreshes,
            scheme: self.scheme(),
            threshold: self.shares[0].threshold(),
            public_key: self.key.clone(),
            holders: self.holders.clone(),
        })
    }
}

/// The schemes that every test of whole runs is repeated for.
pub(crate) const SCHEMES: &[Scheme] = Scheme::ALL;

static KEYS: LazyLock<Vec<(Scheme, [Made; 2])>> = LazyLock::new(|| {
    let keys = |scheme| [keygen(scheme, 2, 2, 1), keygen(scheme, 2, 3, 1)];
    SCHEMES.iter().map(|scheme| (*scheme, keys(*scheme))).collect()
});

fn keys(scheme: Scheme) -> &'static [Made; 2] {
    &KEYS.iter().find(|(of, _)| *of == scheme).expect("one of the schemes").1
}

/// A 2-of-2 key for tests that do not care which.
pub(crate) fn two_of_two(scheme: Scheme) -> &'static Made {
    &keys(scheme)[0]
}

/// A 2-of-3 key for tests that do not care which.
pub(crate) fn two_of_three(scheme: Scheme) -> &'static Made {
    &keys(scheme)[1]
}

pub(crate) fn name(n: usize) -> PartyId {
    format!("party-{n}").parse().expect("a name")
}

pub(crate) fn session(n: u128) -> SessionId {
    format!("{n:032x}").parse().expect("a UUID")
}

/// Runs for the given parties, all of them in one session.
pub(crate) fn runs(id: SessionId, parties: &[PartyId], task: impl Fn(usize) -> Task) -> Vec<Run> {
    let identities: Vec<_> = parties.iter().map(|_| Identity::generate()).collect();
    let members = parties.iter().zip(&identities);
    let handshakes: Vec<_> = members
        .map(|(party, identity)| make_handshake(identity, id, party, &Shown::default()))
        .collect();
    let members = parties.iter().zip(&handshakes);
    let roster: Vec<_> = members
        .map(|(party, (handshake, _))| Member {
            party_id: party.clone(),
            handshake: handshake.clone(),
        })
        .collect();
    let positions = handshakes.into_iter().enumerate();
    positions
        .map(|(at, (_, secret))| {
            let roster = roster.clone();
            Run::new(&identities[at], secret, (id, 0), &parties[at], roster, task(at))
                .expect("a run")
        })
        .collect()
}

/// Deliveries of a step, one per recipient. Of several broadcasts of one round, which only a cheat
/// makes, each of the others gets one.
pub(crate) fn deliveries(
    parties: &[PartyId],
    from: usize,
    outgoing: Vec<Outgoing>,
) -> Vec<Addressed> {
    let me = &parties[from];
    let others: Vec<_> = parties.iter().filter(|party| *party != me).collect();
    let mut deliveries = Vec::new();
    for (at, Outgoing { to, round, payload, .. }) in outgoing.iter().enumerate() {
        let story = |other: &Outgoing| other.to.is_none() && other.round == *round;
        let stories = outgoing.iter().filter(|other| story(other)).count();
        let told = outgoing[..at].iter().filter(|other| story(other)).count();
        let to = match to {
            Some(party) => vec![party],
            None if stories > 1 => vec![others[told]],
            None => others.clone(),
        };
        deliveries.extend(to.into_iter().map(|to| (me.clone(), to.clone(), payload.clone())));
    }
    deliveries
}

/// Delivers in a shuffled order until nothing is under way; `touch` sees each delivery first and
/// may deliver false ones itself.
pub(crate) fn deliver(
    parties: &[PartyId],
    runs: &mut [Run],
    seed: u64,
    mut touch: impl FnMut(&mut Run, &Addressed),
) -> Vec<Ending> {
    let mut shuffle = Seeded(seed);
    let mut endings: Vec<Ending> = Vec::new();
    let mut under_way = Vec::new();
    for (at, run) in runs.iter_mut().enumerate() {
        let step = run.advance().expect("the first step needs nothing");
        under_way.extend(deliveries(parties, at, step.outgoing));
        endings.push(Ok(None));
    }
    while !under_way.is_empty() {
        let delivery = under_way.swap_remove(shuffle.below(under_way.len()));
        let at = parties.iter().position(|party| *party == delivery.1).expect("a party");
        touch(&mut runs[at], &delivery);
        runs[at].receive(&delivery.0, &delivery.2).expect("a party's own delivery is taken");
        match runs[at].advance() {
            Ok(step) => {
                under_way.extend(deliveries(parties, at, step.outgoing));
                if step.output.is_some() {
                    endings[at] = Ok(step.output);
                }
            }
            Err(fault) => endings[at] = Err(fault),
        }
    }
    endings
}

/// Runs of a key generation by `n` parties.
pub(crate) fn making(scheme: Scheme, t: i64, n: usize) -> (Vec<PartyId>, Vec<Run>) {
    let parties: Vec<_> = (1..=n).map(name).collect();
    let threshold = Threshold::new(t, i64::try_from(n).expect("small")).expect("a threshold");
    let runs = runs(session(1), &parties, |_| Task::Keygen { scheme, threshold });
    (parties, runs)
}

/// Makes a key.
pub(crate) fn keygen(scheme: Scheme, t: i64, n: usize, seed: u64) -> Made {
    let (holders, mut runs) = making(scheme, t, n);
    let endings = deliver(&holders, &mut runs, seed, |_, _| {});
    made(holders, endings, 0)
}

/// The key that these runs have made or refreshed.
fn made(holders: Vec<PartyId>, endings: Vec<Ending>, refreshes: u32) -> Made {
    let mut shares = Vec::new();
    let mut keys = Vec::new();
    for ending in endings {
        let Some(Output::Key { share, public_key }) = ending.expect("no fault") else {
            panic!("it ends with a key");
        };
        shares.push(Arc::new(share));
        keys.push(public_key);
    }
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    Made { holders, shares, key: keys.remove(0), refreshes }
}

/// Runs of a refresh by all holders.
pub(crate) fn refreshing(id: SessionId, made: &Made) -> (Vec<PartyId>, Vec<Run>) {
    let runs = runs(id, &made.holders, |at| Task::Refresh {
        share: Arc::clone(&made.shares[at]),
        key: made.epoch(),
        made_by: [0; 32],
    });
    (made.holders.clone(), runs)
}

/// Refreshes a key: its next epoch, under the same public key.
pub(crate) fn refresh(before: &Made, seed: u64) -> Made {
    let (holders, mut runs) = refreshing(session(2), before);
    let endings = deliver(&holders, &mut runs, seed, |_, _| {});
    let after = made(holders, endings, before.refreshes + 1);
    assert_eq!(after.key, before.key);
    after
}

/// Signing runs of the holders at these positions.
pub(crate) fn signing(
    id: SessionId,
    made: &Made,
    who: &[usize],
    digest: Digest,
) -> (Vec<PartyId>, Vec<Run>) {
    let parties: Vec<_> = who.iter().map(|at| made.holders[*at].clone()).collect();
    let runs = runs(id, &parties, |at| Task::Sign {
        share: Arc::clone(&made.shares[who[at]]),
        key: made.epoch(),
        made_by: [0; 32],
        input: made.input(&digest),
    });
    (parties, runs)
}

/// All ended with a signature that an independent library verifies.
pub(crate) fn check(made: &Made, signed: &Digest, endings: Vec<Ending>) {
    for ending in endings {
        let Some(Output::Signature(signature)) = ending.expect("no fault") else {
            panic!("signing ends with a signature");
        };
        match made.scheme() {
            Scheme::EcdsaSecp256k1 => check_ecdsa(&made.key, signed, &signature),
            _ => check_ed25519(&made.key, signed, &signature),
        }
    }
}

fn check_ecdsa(key: &PublicKey, digest: &Digest, signature: &Signature) {
    use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
    let key = VerifyingKey::from_sec1_bytes(&key.0).expect("a key");
    let bytes = Signature::from_slice(signature.bytes()).expect("a signature");
    key.verify_prehash(&digest.0, &bytes).expect("it verifies");
    assert_eq!(bytes.normalize_s(), bytes, "low s");
    let id = signature.recovery_id().and_then(RecoveryId::from_byte).expect("a recovery id");
    let recovered = VerifyingKey::recover_from_prehash(&digest.0, &bytes, id);
    assert_eq!(recovered.expect("recovers"), key);
}

fn check_ed25519(key: &PublicKey, message: &Digest, signature: &Signature) {
    let key: &[u8; 32] = key.0.as_slice().try_into().expect("32 bytes");
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).expect("a key");
    assert_eq!(signature.recovery_id(), None);
    let signature = ed25519_dalek::Signature::from_bytes(signature.bytes());
    key.verify_strict(&message.0, &signature).expect("it verifies");
}
