//! A party's signed handshake to one attempt at one session.
//!
//! It carries the party's identity key, a fresh HPKE key to which the others seal their messages,
//! and a fresh nonce. The nonce makes the execution id of every attempt unique, so that a message
//! of an earlier one can never be taken for a current one; the HPKE key is forgotten with the
//! attempt, so that a stolen identity opens nothing that was recorded.
//!
//! It also shows three things of the party's vault: how often it has changed and which process has
//! it open, by which the others notice one that was put back from a backup; and the certificate of
//! its share of the key that is to sign or to be refreshed: the epoch, the execution that made it and
//! the confirmations of all holders. By it a holder that missed some confirmations can use its
//! share, and one that has only an earlier epoch knows that its share is stale. A share of the next
//! epoch that waits for confirmations is shown with the party's own: where all holders show theirs,
//! they are the certificate.
//!
//! ```text
//! version 3 (1) | identity key (32) | HPKE key (32) | nonce (32) | generation (8) | process (16)
//! | epoch (4) | execution (32) | confirmations: count (1), 64 bytes each
//! | pending: 0 (1), or 1 (1), epoch (4), execution (32), own confirmation (64) | signature (64)
//! ```

use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use quorate_schemes::verify_identity;
use quorate_types::threshold::MAX_PARTIES;
use quorate_types::{CONFIRMATION, Handshake, PartyId, SessionId};

use crate::fault::{Fault, FaultCode};
use crate::identity::Identity;

const VERSION: u8 = 3;
/// Up to the epoch.
const BEFORE_EPOCH: usize = 1 + 32 + 32 + 32 + 8 + 16;
/// Up to and with the count of confirmations.
const FIXED: usize = BEFORE_EPOCH + 4 + 32 + 1;
/// A pending share behind its flag.
const PENDING: usize = 4 + 32 + CONFIRMATION;
const DOMAIN: &str = "quorate/handshake/v3";

pub(crate) type SealKem = X25519HkdfSha256;

/// The private half of a handshake. It cannot be printed or serialized, and serves one run.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_engine::HandshakeSecret>();
/// ```
///
/// ```compile_fail,E0277
/// fn copied<T: Clone>() {}
/// copied::<quorate_engine::HandshakeSecret>();
/// ```
pub struct HandshakeSecret {
    pub(crate) decryption_key: <SealKem as hpke::Kem>::PrivateKey,
    pub(crate) handshake: Handshake,
}

/// What a party shows of its vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// How often its shares and bans have changed.
    pub generation: u64,
    /// Random, and the same for as long as one process has the vault open: handshakes of one
    /// process may be seen out of order.
    pub process: [u8; 16],
    /// The epoch of its share of the key that is to sign or to be refreshed; 0 for none.
    pub epoch: u32,
    /// The execution that made that epoch; zeros for none, and for a key of the first version.
    pub execution: [u8; 32],
    /// The holders' confirmations of that epoch, 64 bytes each in their order. Empty for none.
    pub confirmations: Vec<u8>,
    /// A share of the next epoch that has not been confirmed by all holders.
    pub pending: Option<Pending>,
}

/// A share that waits for the confirmations of the other holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The epoch of the pending share.
    pub epoch: u32,
    /// The execution that made it.
    pub execution: [u8; 32],
    /// The party's own confirmation: see [`Identity::confirm`].
    pub confirmation: [u8; CONFIRMATION],
}

/// What a handshake says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeView {
    /// The party's Ed25519 identity key.
    pub identity: [u8; 32],
    /// Its X25519 key for this attempt.
    pub encryption_key: [u8; 32],
    /// Its nonce for this attempt.
    pub nonce: [u8; 32],
    /// What it shows of its vault.
    pub shown: Shown,
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    bytes
}

/// Makes a party's handshake for a session, anew for each attempt.
pub fn make_handshake(
    identity: &Identity,
    session: SessionId,
    party: &PartyId,
    shown: &Shown,
) -> (Handshake, HandshakeSecret) {
    let (decryption_key, encryption_key) = SealKem::gen_keypair();
    let mut bytes = Vec::with_capacity(FIXED + shown.confirmations.len() + 1 + PENDING + 64);
    bytes.push(VERSION);
    bytes.extend_from_slice(&identity.public());
    bytes.extend_from_slice(&encryption_key.to_bytes());
    bytes.extend_from_slice(&random::<32>());
    bytes.extend_from_slice(&shown.generation.to_be_bytes());
    bytes.extend_from_slice(&shown.process);
    bytes.extend_from_slice(&shown.epoch.to_be_bytes());
    bytes.extend_from_slice(&shown.execution);
    let count = u8::try_from(shown.confirmations.len() / CONFIRMATION).expect("few holders");
    bytes.push(count);
    bytes.extend_from_slice(&shown.confirmations);
    bytes.push(u8::from(shown.pending.is_some()));
    if let Some(Pending { epoch, execution, confirmation }) = &shown.pending {
        bytes.extend_from_slice(&epoch.to_be_bytes());
        bytes.extend_from_slice(execution);
        bytes.extend_from_slice(confirmation);
    }
    let signature = identity.sign(DOMAIN, &signed(&bytes, session, party));
    bytes.extend_from_slice(&signature);
    let handshake = Handshake::from(bytes);
    (handshake.clone(), HandshakeSecret { decryption_key, handshake })
}

fn signed(body: &[u8], session: SessionId, party: &PartyId) -> Vec<u8> {
    [body, session.0.as_bytes(), party.as_str().as_bytes()].concat()
}

/// The generation and the process that a handshake shows, unchecked: for one that was checked
/// before it was kept, of this version or the one before.
pub fn standing(handshake: &[u8]) -> Option<(u64, [u8; 16])> {
    let (generation, rest) = handshake.get(97..)?.split_first_chunk()?;
    Some((u64::from_be_bytes(*generation), *rest.first_chunk()?))
}

/// What a handshake claims to show, unchecked: for a certificate, which proves itself.
pub fn claimed(handshake: &[u8]) -> Option<Shown> {
    (handshake.first() == Some(&VERSION))
        .then(|| read_shown(handshake))
        .flatten()
        .map(|read| read.0)
}

/// What a handshake of this version shows, and the length of what is signed of it; `None` when it
/// is cut off, too long or damaged.
fn read_shown(handshake: &[u8]) -> Option<(Shown, usize)> {
    let count = *handshake.get(FIXED - 1)?;
    let flag = FIXED + usize::from(count) * CONFIRMATION;
    let signed_len = match handshake.get(flag)? {
        0 => flag + 1,
        1 => flag + 1 + PENDING,
        _ => return None,
    };
    if u16::from(count) > MAX_PARTIES || handshake.len() != signed_len + 64 {
        return None;
    }
    let (generation, process) = standing(handshake)?;
    let (epoch, rest) = handshake[BEFORE_EPOCH..].split_first_chunk()?;
    let shown = Shown {
        generation,
        process,
        epoch: u32::from_be_bytes(*epoch),
        execution: *rest.first_chunk()?,
        confirmations: handshake[FIXED..flag].to_vec(),
        pending: pending(&handshake[flag + 1..signed_len]),
    };
    Some((shown, signed_len))
}

/// The pending share that these bytes show; `None` for no bytes.
fn pending(bytes: &[u8]) -> Option<Pending> {
    let (epoch, rest) = bytes.split_first_chunk()?;
    let (execution, confirmation) = rest.split_first_chunk()?;
    let (epoch, execution) = (u32::from_be_bytes(*epoch), *execution);
    Some(Pending { epoch, execution, confirmation: confirmation.try_into().ok()? })
}

/// Reads a handshake and checks that its identity key signed it for this session and party.
pub fn read_handshake(
    handshake: &[u8],
    session: SessionId,
    party: &PartyId,
) -> Result<HandshakeView, Fault> {
    let (view, signed_len) = read_own_handshake(handshake, party)?;
    let signature: [u8; 64] = handshake[signed_len..].try_into().expect("the checked length");
    let message = signed(&handshake[..signed_len], session, party);
    if !verify_identity(&view.identity, DOMAIN, &message, &signature) {
        return Err(invalid(party, "is not signed by its identity key for this session"));
    }
    <SealKem as hpke::Kem>::PublicKey::from_bytes(&view.encryption_key)
        .map_err(|_| invalid(party, "has an unusable encryption key"))?;
    Ok(view)
}

/// Reads a handshake that this party has made itself and has just compared with what it sent: its
/// signature tells it nothing. Answers with the length of what is signed, too.
pub(crate) fn read_own_handshake(
    handshake: &[u8],
    party: &PartyId,
) -> Result<(HandshakeView, usize), Fault> {
    if handshake.first().is_some_and(|version| *version != VERSION) {
        let message = format!(
            "{party} speaks version {} of the protocol and this party version {VERSION}: update \
             the older one",
            handshake[0]
        );
        return Err(Fault::benign(FaultCode::VersionMismatch, message).blaming(party));
    }
    let Some((shown, signed_len)) = read_shown(handshake) else {
        return Err(invalid(party, "is cut off, too long or damaged"));
    };
    let part = |from: usize| -> [u8; 32] {
        handshake[from..from + 32].try_into().expect("inside the checked length")
    };
    let view =
        HandshakeView { identity: part(1), encryption_key: part(33), nonce: part(65), shown };
    Ok((view, signed_len))
}

fn invalid(party: &PartyId, why: &str) -> Fault {
    let message = format!("the handshake of {party} {why}");
    Fault::benign(FaultCode::HandshakeInvalid, message).blaming(party)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_holds_for_its_session_and_party_only() {
        let session = |n: u128| format!("{n:032x}").parse::<SessionId>().unwrap();
        let (p, q): (PartyId, PartyId) = ("p".parse().unwrap(), "q".parse().unwrap());
        let identity = Identity::generate();
        let waiting = Pending { epoch: 6, execution: [1; 32], confirmation: [2; 64] };
        for pending in [None, Some(waiting)] {
            let shown = Shown {
                generation: 7,
                process: [8; 16],
                epoch: 0x0102_0304,
                execution: [9; 32],
                confirmations: vec![3; 128],
                pending,
            };
            let (handshake, _) = make_handshake(&identity, session(1), &p, &shown);
            let view = read_handshake(&handshake, session(1), &p).unwrap();
            assert_eq!(view.identity, identity.public());
            assert_eq!(view.shown, shown);
            assert_eq!(standing(&handshake), Some((7, [8; 16])));
            assert!(read_handshake(&handshake, session(2), &p).is_err());
            assert!(read_handshake(&handshake, session(1), &q).is_err());
            for at in 0..handshake.len() {
                let mut bad = handshake.to_vec();
                bad[at] ^= 1;
                let fault = read_handshake(&bad, session(1), &p).unwrap_err();
                let code =
                    if at == 0 { FaultCode::VersionMismatch } else { FaultCode::HandshakeInvalid };
                assert_eq!(fault.code, code, "byte {at}");
            }
            for length in 1..handshake.len() {
                let fault = read_handshake(&handshake[..length], session(1), &p).unwrap_err();
                assert_eq!(fault.code, FaultCode::HandshakeInvalid, "{length} bytes");
            }
            assert!(read_handshake(&handshake[1..], session(1), &p).is_err());
        }
    }

    #[test]
    fn two_handshakes_share_neither_key_nor_nonce() {
        let session = "00000000000000000000000000000001".parse().unwrap();
        let party = "p".parse().unwrap();
        let identity = Identity::generate();
        let read = || {
            read_handshake(
                &make_handshake(&identity, session, &party, &Shown::default()).0,
                session,
                &party,
            )
            .unwrap()
        };
        let (a, b) = (read(), read());
        assert_ne!(a.nonce, b.nonce);
        assert_ne!(a.encryption_key, b.encryption_key);
    }
}
