//! Handshakes and envelopes of other parties, forged and genuinely signed ones.
//!
//! The first byte of an input chooses: a handshake; an envelope as it comes; envelopes that their
//! sender signed, whatever they say, in a keygen of each scheme and in an Ed25519 signature. Keys are
//! fresh in each process: no outcome depends on them.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use quorate_engine::{
    Identity, Member, Output, Run, Share, Shown, Task, make_handshake, read_handshake,
};
use quorate_types::{Handshake, KeyEpoch, PartyId, Scheme, SessionId, SignInput, Threshold};
use sha2::{Digest as _, Sha256};

use super::Notes;

/// Front bytes of the formats.
pub(crate) const WORDS: &[&str] = &[
    "\0",
    "\u{1}",
    "\u{2}",
    "\u{1}\0",
    "\u{1}\u{1}",
    "\u{0}\u{1}",
    "\u{1}\u{0}\0\u{1}",
    "\u{1}\u{7f}\0\u{2}",
    "abcdefghijklmnopqrstuvwxyzabcdef",
];

/// Of an envelope: before and after the execution id, and all before the body.
const FRONT: usize = 2;
const HEADER: usize = 38;
const DOMAIN: &str = "quorate/envelope/v1";

struct Parties {
    me: PartyId,
    peer: PartyId,
    session: SessionId,
    mine: Identity,
    peers: Identity,
    /// The peer's handshake.
    handshake: Handshake,
}

static PARTIES: LazyLock<Parties> = LazyLock::new(|| {
    let (me, peer): (PartyId, PartyId) =
        ("a".parse().expect("a name"), "b".parse().expect("a name"));
    let session = format!("{:032x}", 7).parse().expect("32 hex digits");
    let (mine, peers) = (Identity::generate(), Identity::generate());
    let handshake = make_handshake(&peers, session, &peer, &Shown::default()).0;
    Parties { me, peer, session, mine, peers, handshake }
});

/// Runs an input.
pub(crate) fn run(input: &[u8]) -> Vec<u64> {
    let mut notes = Notes::default();
    let (&first, rest) = input.split_first().unwrap_or((&0, &[]));
    match first % 6 {
        0 => handshake(rest, &mut notes),
        1 => forged(rest, &mut notes),
        2 => signed(begin(keygen(Scheme::EcdsaSecp256k1)), rest, &mut notes),
        3 => signed(begin(keygen(Scheme::Ed25519)), rest, &mut notes),
        4 => signed(begin(signature()), rest, &mut notes),
        _ => signed(begin(refresh()), rest, &mut notes),
    }
    notes.end()
}

/// Bytes that replace the front of the genuine handshake, or all of a longer one.
fn handshake(input: &[u8], notes: &mut Notes) {
    let Parties { peer, session, handshake, .. } = &*PARTIES;
    let mut bytes = handshake.to_vec();
    bytes.splice(..input.len().min(bytes.len()), input.iter().copied());
    let read = read_handshake(&bytes, *session, peer);
    assert_eq!(read.is_ok(), bytes == handshake.to_vec(), "only the genuine one holds");
    notes.note(read.map_err(|fault| fault.code).is_ok());
}

fn keygen(scheme: Scheme) -> Task {
    Task::Keygen { scheme, threshold: Threshold::new(2, 2).expect("2 of 2") }
}

/// Our share of an Ed25519 key that we hold with the peer.
static SHARE: LazyLock<Arc<Share>> = LazyLock::new(|| {
    let Parties { me, peer, session, mine, peers, .. } = &*PARTIES;
    let (own, secret) = make_handshake(mine, *session, me, &Shown::default());
    let (their, their_secret) = make_handshake(peers, *session, peer, &Shown::default());
    let run = |identity, secret, party| {
        let roster = roster(own.clone(), their.clone());
        Run::new(identity, secret, (*session, 0), party, roster, keygen(Scheme::Ed25519))
            .expect("a run")
    };
    let mut runs = [run(mine, secret, me), run(peers, their_secret, peer)];
    let mut sent = Vec::new();
    let mut turn = 0;
    loop {
        let from = [peer, me][turn];
        for payload in std::mem::take(&mut sent) {
            runs[turn].receive(from, &payload).expect("of an honest peer");
        }
        let step = runs[turn].advance().expect("with an honest peer");
        if let Some(Output::Key { share, .. }) = step.output
            && turn == 0
        {
            return Arc::new(share);
        }
        sent.extend(step.outgoing.into_iter().map(|outgoing| outgoing.payload));
        turn = 1 - turn;
    }
});

/// The key of our share.
fn key() -> Arc<KeyEpoch> {
    let Parties { me, peer, session, .. } = &*PARTIES;
    let share = &*SHARE;
    Arc::new(KeyEpoch {
        key_id: (*session).into(),
        epoch: 0,
        scheme: share.scheme(),
        threshold: share.threshold(),
        public_key: share.public_key().clone(),
        holders: vec![me.clone(), peer.clone()],
    })
}

fn signature() -> Task {
    let input = SignInput::Message(Bytes::from_static(b"message"));
    Task::Sign { share: Arc::clone(&SHARE), key: key(), made_by: [0; 32], input }
}

fn refresh() -> Task {
    Task::Refresh { share: Arc::clone(&SHARE), key: key(), made_by: [0; 32] }
}

fn roster(own: Handshake, their: Handshake) -> Vec<Member> {
    let Parties { me, peer, .. } = &*PARTIES;
    vec![
        Member { party_id: me.clone(), handshake: own },
        Member { party_id: peer.clone(), handshake: their },
    ]
}

/// A run with the peer, and the id of its execution.
fn begin(task: Task) -> (Run, Vec<u8>) {
    let Parties { me, session, mine, handshake, .. } = &*PARTIES;
    let (own, secret) = make_handshake(mine, *session, me, &Shown::default());
    let roster = roster(own, handshake.clone());
    let mut run = Run::new(mine, secret, (*session, 0), me, roster, task).expect("a run");
    let step = run.advance().expect("the first step needs nothing");
    let execution = step.outgoing[0].payload[FRONT..FRONT + 32].to_vec();
    (run, execution)
}

fn forged(input: &[u8], notes: &mut Notes) {
    let (mut run, _) = begin(keygen(Scheme::EcdsaSecp256k1));
    let fault =
        run.receive(&PARTIES.peer, &Bytes::copy_from_slice(input)).expect_err("nobody signed this");
    notes.note(fault.code);
}

/// Kind, sender, recipient, round (2 bytes) and body, several times with a length of 1 byte.
fn signed((mut run, execution): (Run, Vec<u8>), mut input: &[u8], notes: &mut Notes) {
    let Parties { me, peer, peers, .. } = &*PARTIES;
    while let Some((&length, rest)) = input.split_first() {
        let (piece, rest) = rest.split_at(usize::from(length).min(rest.len()));
        input = rest;
        let Some((address, body)) = piece.split_first_chunk::<5>() else {
            continue;
        };
        let front = [&[1, address[0]], &execution[..], &address[1..]].concat();
        assert_eq!(front.len(), HEADER);
        let digest = Sha256::digest(body);
        let signature = peers.sign(DOMAIN, &[&front[..], &digest[..]].concat());
        let payload = Bytes::from([&front[..], body, &signature[..]].concat());
        let taken = run.receive(peer, &payload).map_err(|fault| fault.code);
        assert!(run.receive(me, &payload).is_err(), "we send nothing to ourselves");
        notes.note(taken);
        match run.advance() {
            Ok(step) => assert!(step.output.is_none(), "no result comes of noise"),
            Err(fault) => notes.note(fault.code),
        }
    }
}
