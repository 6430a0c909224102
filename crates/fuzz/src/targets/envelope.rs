//! Handshakes and envelopes of other parties, forged and genuinely signed ones.
//!
//! The first byte of an input chooses: a handshake; an envelope as it comes; an envelope that
//! its sender signed, whatever it says. Keys are fresh in each process: no outcome depends on them.

use std::sync::LazyLock;

use bytes::Bytes;
use quorate_engine::{Identity, Member, Run, Shown, Task, make_handshake, read_handshake};
use quorate_types::{Handshake, PartyId, Scheme, SessionId, Threshold};
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
    match first % 3 {
        0 => handshake(rest, &mut notes),
        1 => forged(rest, &mut notes),
        _ => signed(rest, &mut notes),
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

/// A run of a keygen with the peer, and the id of its execution.
fn begin() -> (Run, Vec<u8>) {
    let Parties { me, peer, session, mine, handshake, .. } = &*PARTIES;
    let (own, secret) = make_handshake(mine, *session, me, &Shown::default());
    let roster = vec![
        Member { party_id: me.clone(), handshake: own },
        Member { party_id: peer.clone(), handshake: handshake.clone() },
    ];
    let threshold = Threshold::new(2, 2).expect("2 of 2");
    let task = Task::Keygen { scheme: Scheme::EcdsaSecp256k1, threshold };
    let mut run = Run::new(mine, secret, *session, me, roster, task).expect("a run");
    let step = run.advance().expect("the first step needs nothing");
    let execution = step.outgoing[0].payload[FRONT..FRONT + 32].to_vec();
    (run, execution)
}

fn forged(input: &[u8], notes: &mut Notes) {
    let (mut run, _) = begin();
    let fault =
        run.receive(&PARTIES.peer, &Bytes::copy_from_slice(input)).expect_err("nobody signed this");
    notes.note(fault.code);
}

/// Kind, sender, recipient, round (2 bytes) and body, several times with a length of 1 byte.
fn signed(mut input: &[u8], notes: &mut Notes) {
    let Parties { me, peer, peers, .. } = &*PARTIES;
    let (mut run, execution) = begin();
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
            Ok(step) => assert!(step.output.is_none(), "no key comes of noise"),
            Err(fault) => notes.note(fault.code),
        }
    }
}
