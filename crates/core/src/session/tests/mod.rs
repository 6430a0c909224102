//! Sessions rule by rule: what they are made of, and helpers to drive one.

mod attempts;
mod delegating;
mod ending;
mod entering;
mod refreshing;
mod reporting;

use k256::ecdsa::SigningKey;
use k256::elliptic_curve::ops::Reduce;
use k256::elliptic_curve::point::AffineCoordinates;
use k256::{FieldBytes, ProjectivePoint, Scalar};

use super::*;

/// The deadline of every session here; it is created at 0.
const DEADLINE: i64 = 1_000;
const DIGEST: Digest = Digest([9; 32]);

fn name(n: usize) -> PartyId {
    format!("p{n}").parse().unwrap()
}

fn names(parties: &[usize]) -> Vec<PartyId> {
    parties.iter().copied().map(name).collect()
}

fn token(n: usize) -> [u8; 32] {
    [u8::try_from(n).unwrap() + 1; 32]
}

fn secret(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

/// The public key of `seed`, compressed or not.
fn public(seed: u8, compressed: bool) -> Vec<u8> {
    secret(seed).verifying_key().to_sec1_point(compressed).as_bytes().to_vec()
}

/// A valid signature on [`DIGEST`] under the key of seed 7; another nonce makes another one.
fn signature(nonce: u8) -> Vec<u8> {
    let scalar = |bytes: [u8; 32]| <Scalar as Reduce<FieldBytes>>::reduce(&bytes.into());
    let (k, d, z) = (scalar([nonce; 32]), scalar([7; 32]), scalar(DIGEST.0));
    let r = scalar((ProjectivePoint::GENERATOR * k).to_affine().x().into());
    let s = k.invert().unwrap() * (z + r * d);
    k256::ecdsa::Signature::from_scalars(r, s).unwrap().normalize_s().to_bytes().to_vec()
}

fn spoiled(mut signature: Vec<u8>) -> Vec<u8> {
    signature[40] ^= 1;
    signature
}

fn new(kind: SessionKind, t: i64, n: i64, parties: &[usize]) -> NewSession {
    let session_id: SessionId = format!("{:032x}", 1).parse().unwrap();
    let other: SessionId = format!("{:032x}", 2).parse().unwrap();
    let threshold = Threshold::new(t, n).unwrap();
    let key = Arc::new(KeyEpoch {
        key_id: other.into(),
        epoch: 0,
        scheme: Scheme::default(),
        threshold,
        public_key: PublicKey(public(7, false)),
        holders: (0..usize::try_from(n).unwrap()).map(name).collect(),
    });
    let participant = |&n: &usize| {
        (
            NewParticipant { party_id: name(n), device: DeviceInfo::default(), on_behalf_of: None },
            token(n),
        )
    };
    NewSession {
        session_id,
        tenant: Tenant::default(),
        ceremony: match kind {
            SessionKind::Keygen => Ceremony::Keygen { scheme: Scheme::default(), threshold },
            SessionKind::Sign => Ceremony::Sign { key, input: SignInput::Digest(DIGEST) },
            SessionKind::Refresh => Ceremony::Refresh { key },
        },
        participants: parties.iter().map(participant).collect(),
        servers: Vec::new(),
        reserve: None,
        authorization: None,
        now: Timestamp(0),
        expires_at: Timestamp(DEADLINE),
        label: None,
    }
}

/// A session of these parties in which nothing has happened.
fn created(kind: SessionKind, parties: usize) -> Session {
    let all: Vec<_> = (0..parties).collect();
    let n = i64::try_from(parties).unwrap();
    Session::create(new(kind, 2, n, &all), &mut Effects::default()).unwrap()
}

/// A session that computes.
fn running(kind: SessionKind, parties: usize) -> Session {
    let mut session = created(kind, parties);
    for n in 0..parties {
        at(&mut session, 1, join(n, None, true)).0.unwrap();
    }
    assert_eq!(session.status(), SessionStatus::InProgress);
    session
}

fn at(session: &mut Session, now: i64, command: Command) -> (Result<Reply>, Effects) {
    let mut effects = Effects::default();
    let reply = session.apply(Timestamp(now), command, &mut effects);
    (reply, effects)
}

/// Applies a command that must be refused without changing anything.
fn refused(session: &mut Session, now: i64, command: Command) -> Error {
    let before = (session.view(), session.timeline().to_vec());
    let (reply, effects) = at(session, now, command);
    assert_eq!((session.view(), session.timeline().to_vec()), before);
    assert_eq!(effects, Effects::default());
    reply.unwrap_err()
}

/// Applies a command that must be accepted without changing anything.
fn repeated(session: &mut Session, now: i64, command: Command) -> Reply {
    let before = (session.view(), session.timeline().to_vec());
    let (reply, effects) = at(session, now, command);
    assert_eq!((session.view(), session.timeline().to_vec()), before);
    assert_eq!(effects, Effects::default());
    reply.unwrap()
}

fn join(n: usize, handshake: Option<&'static [u8]>, ready: bool) -> Command {
    Command::Join {
        party: name(n),
        token_hash: token(n),
        device: DeviceInfo::default(),
        handshake: handshake.map(Handshake::from_static),
        ready,
        attempt: 0,
    }
}

fn ready(n: usize) -> Command {
    Command::Ready { party: name(n) }
}

fn made(n: usize, key: Vec<u8>) -> Command {
    Command::Report {
        party: name(n),
        attempt: 0,
        outcome: PartyOutcome::Key { public_key: key, attestation: None, epoch: None },
    }
}

fn signed(n: usize, bytes: Vec<u8>) -> Command {
    let outcome = PartyOutcome::Signature { bytes, recovery_id: None };
    Command::Report { party: name(n), attempt: 0, outcome }
}

fn gave_up(n: usize, reason: FailureReason, blamed: &[usize]) -> Command {
    let failure = Failure { reason, message: "no power".into(), parties: names(blamed) };
    Command::Report { party: name(n), attempt: 0, outcome: PartyOutcome::Failure(failure) }
}

fn standing(session: &Session) -> Vec<ParticipantStatus> {
    session.view().participants.iter().map(|p| p.status).collect()
}

fn history(session: &Session) -> Vec<&str> {
    session.timeline().iter().map(|entry| entry.what.as_str()).collect()
}
