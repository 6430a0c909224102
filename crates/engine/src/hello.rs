//! A party's signed introduction to one attempt at one session.
//!
//! It carries the party's identity key, a fresh HPKE key to which the others seal their messages,
//! and a fresh nonce. The nonce makes the execution id of every attempt unique, so that a message
//! of an earlier one can never be taken for a current one; the HPKE key is forgotten with the
//! attempt, so that a stolen identity opens nothing that was recorded.
//!
//! ```text
//! version 1 (1) | identity key (32) | HPKE key (32) | nonce (32) | signature (64)
//! ```

use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use quorate_types::{Hello, PartyId, SessionId};

use crate::fault::{Fault, FaultCode};
use crate::identity::{Identity, verify_identity};

const VERSION: u8 = 1;
const SIGNED: usize = 1 + 32 + 32 + 32;
const LENGTH: usize = SIGNED + 64;
const DOMAIN: &str = "quorate/hello/v1";

pub(crate) type SealKem = X25519HkdfSha256;

/// The private half of an introduction. It cannot be printed or serialized, and serves one run.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_engine::HelloSecret>();
/// ```
///
/// ```compile_fail,E0277
/// fn copied<T: Clone>() {}
/// copied::<quorate_engine::HelloSecret>();
/// ```
pub struct HelloSecret {
    pub(crate) decryption_key: <SealKem as hpke::Kem>::PrivateKey,
    pub(crate) hello: Hello,
}

/// What an introduction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloView {
    /// The party's Ed25519 identity key.
    pub identity: [u8; 32],
    /// Its X25519 key for this attempt.
    pub encryption_key: [u8; 32],
    /// Its nonce for this attempt.
    pub nonce: [u8; 32],
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    bytes
}

/// Introduces a party to a session, anew for each attempt.
pub fn introduce(identity: &Identity, session: SessionId, party: &PartyId) -> (Hello, HelloSecret) {
    let (decryption_key, encryption_key) = SealKem::gen_keypair();
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.push(VERSION);
    bytes.extend_from_slice(&identity.public());
    bytes.extend_from_slice(&encryption_key.to_bytes());
    bytes.extend_from_slice(&random::<32>());
    let signature = identity.sign(DOMAIN, &signed(&bytes, session, party));
    bytes.extend_from_slice(&signature);
    let hello = Hello::from(bytes);
    (hello.clone(), HelloSecret { decryption_key, hello })
}

fn signed(body: &[u8], session: SessionId, party: &PartyId) -> Vec<u8> {
    [body, session.0.as_bytes(), party.as_str().as_bytes()].concat()
}

/// Reads an introduction and checks that its identity key signed it for this session and party.
pub fn read_hello(hello: &[u8], session: SessionId, party: &PartyId) -> Result<HelloView, Fault> {
    let invalid = |why: &str| {
        Fault::benign(FaultCode::HelloInvalid, format!("the introduction of {party} {why}"))
            .blaming(party)
    };
    if hello.len() != LENGTH || hello[0] != VERSION {
        return Err(invalid("is not of this version"));
    }
    let part = |from: usize| -> [u8; 32] {
        hello[from..from + 32].try_into().expect("inside the checked length")
    };
    let view = HelloView { identity: part(1), encryption_key: part(33), nonce: part(65) };
    let signature: [u8; 64] = hello[SIGNED..].try_into().expect("the checked length");
    let message = signed(&hello[..SIGNED], session, party);
    if !verify_identity(&view.identity, DOMAIN, &message, &signature) {
        return Err(invalid("is not signed by its identity key for this session"));
    }
    <SealKem as hpke::Kem>::PublicKey::from_bytes(&view.encryption_key)
        .map_err(|_| invalid("has an unusable encryption key"))?;
    Ok(view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_holds_for_its_session_and_party_only() {
        let session = |n: u128| format!("{n:032x}").parse::<SessionId>().unwrap();
        let (p, q): (PartyId, PartyId) = ("p".parse().unwrap(), "q".parse().unwrap());
        let identity = Identity::generate();
        let (hello, _) = introduce(&identity, session(1), &p);
        let view = read_hello(&hello, session(1), &p).unwrap();
        assert_eq!(view.identity, identity.public());
        assert!(read_hello(&hello, session(2), &p).is_err());
        assert!(read_hello(&hello, session(1), &q).is_err());
        for at in 0..hello.len() {
            let mut bad = hello.to_vec();
            bad[at] ^= 1;
            let fault = read_hello(&bad, session(1), &p).unwrap_err();
            assert_eq!(fault.code, FaultCode::HelloInvalid, "byte {at}");
        }
        assert!(read_hello(&hello[1..], session(1), &p).is_err());
    }

    #[test]
    fn two_introductions_share_neither_key_nor_nonce() {
        let session = "00000000000000000000000000000001".parse().unwrap();
        let party = "p".parse().unwrap();
        let identity = Identity::generate();
        let read =
            || read_hello(&introduce(&identity, session, &party).0, session, &party).unwrap();
        let (a, b) = (read(), read());
        assert_ne!(a.nonce, b.nonce);
        assert_ne!(a.encryption_key, b.encryption_key);
    }
}
