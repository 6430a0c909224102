//! A party's proof that it makes one call: its signature over the call and a nonce of the server.
//!
//! As text it is `NAME AUDIENCE NONCE COUNT BODY SIGNATURE`, bytes in hex. The audience is the
//! `host:port` that the party dialed, the body its SHA-256. A server's nonce serves many calls,
//! each with a count of its own, so that no call waits for a nonce.

use std::fmt;
use std::str::FromStr;

use quorate_schemes::verify_identity;
use quorate_types::{Error, ErrorCode, PartyId, Result};
use sha2::{Digest as _, Sha256};

use crate::identity::Identity;

const DOMAIN: &str = "quorate/party-call/v2";
/// Longest audience: a DNS name and a port.
const MAX_AUDIENCE: usize = 260;

/// A server's challenge, opaque to the party.
pub type Nonce = [u8; 32];

/// What a proof is for: everything that must be the same when the server checks it.
#[derive(Clone, Copy)]
pub struct ProvenCall<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// Path and query, as they are sent.
    pub target: &'a str,
    /// SHA-256 of the body; of no bytes for a stream of calls.
    pub body: [u8; 32],
}

/// A proof for one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartyProof {
    /// The party that makes the call.
    pub party: PartyId,
    /// The `host:port` that was dialed, in lower case.
    pub audience: String,
    /// The server's nonce.
    pub nonce: Nonce,
    /// Which of the nonce's calls this is; from 1.
    pub count: u64,
    /// SHA-256 of the body.
    pub body: [u8; 32],
    signature: [u8; 64],
}

impl PartyProof {
    /// Signs a call to `audience`.
    pub fn sign(
        identity: &Identity,
        party: PartyId,
        audience: String,
        (nonce, count): (Nonce, u64),
        call: ProvenCall<'_>,
    ) -> Self {
        let signature = [0; 64];
        let mut proof = Self { party, audience, nonce, count, body: call.body, signature };
        proof.signature = identity.sign(DOMAIN, &proof.digest(call.method, call.target));
        proof
    }

    /// Whether this identity signed it for a call with this method, path and query. Whether the
    /// body, the audience and the nonce are right is the server's to check.
    pub fn is_for(&self, identity: &[u8; 32], method: &str, target: &str) -> bool {
        verify_identity(identity, DOMAIN, &self.digest(method, target), &self.signature)
    }

    /// SHA-256 over all facts, texts behind their lengths.
    fn digest(&self, method: &str, target: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        for text in [self.party.as_str(), &self.audience, method, target] {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(self.body);
        hash.update(self.nonce);
        hash.update(self.count.to_be_bytes());
        hash.finalize().into()
    }
}

impl fmt::Display for PartyProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        write!(f, "{} {} ", self.party, self.audience)?;
        hex(f, &self.nonce)?;
        write!(f, " {} ", self.count)?;
        hex(f, &self.body)?;
        f.write_str(" ")?;
        hex(f, &self.signature)
    }
}

impl FromStr for PartyProof {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Error::new(
                ErrorCode::Unauthorized,
                "a party's proof is `NAME AUDIENCE NONCE COUNT BODY SIGNATURE`, bytes in hex",
            )
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [party, audience, nonce, count, body, signature] = words.as_slice() else {
            return Err(malformed());
        };
        if audience.len() > MAX_AUDIENCE {
            return Err(malformed());
        }
        Ok(Self {
            party: party.parse().map_err(|_| malformed())?,
            audience: (*audience).to_owned(),
            nonce: bytes(nonce).ok_or_else(malformed)?,
            count: count.parse().map_err(|_| malformed())?,
            body: bytes(body).ok_or_else(malformed)?,
            signature: bytes(signature).ok_or_else(malformed)?,
        })
    }
}

/// Exactly `N` bytes in hex.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: ProvenCall<'static> =
        ProvenCall { method: "POST", target: "/api/v1/parties?x=1", body: [3; 32] };

    fn proof(identity: &Identity) -> PartyProof {
        let audience = "router.example:443".to_owned();
        PartyProof::sign(identity, "p".parse().unwrap(), audience, ([7; 32], 1), CALL)
    }

    #[test]
    fn a_proof_comes_back_from_its_text() {
        let proof = proof(&Identity::generate());
        assert_eq!(proof.to_string().parse::<PartyProof>().unwrap(), proof);
    }

    #[test]
    fn each_fact_of_a_call_is_signed() {
        let identity = Identity::generate();
        let (key, good) = (identity.public(), proof(&identity));
        let (method, target) = (CALL.method, CALL.target);
        assert!(good.is_for(&key, method, target));
        assert!(!good.is_for(&key, "PUT", target));
        assert!(!good.is_for(&key, method, "/api/v1/parties?x=2"));
        assert!(!good.is_for(&key, method, "/api/v1/partiez?x=1"));
        assert!(!good.is_for(&Identity::generate().public(), method, target));
        let changes: [fn(&mut PartyProof); 6] = [
            |proof| proof.party = "q".parse().unwrap(),
            |proof| proof.audience = "router.example:444".into(),
            |proof| proof.nonce[0] ^= 1,
            |proof| proof.count += 1,
            |proof| proof.body[31] ^= 1,
            |proof| proof.signature[0] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut forged = good.clone();
            change(&mut forged);
            assert!(!forged.is_for(&key, method, target), "change {number}");
        }
    }

    #[test]
    fn junk_is_no_proof() {
        let good = proof(&Identity::generate()).to_string();
        let (short, long) = (&good[..good.len() - 1], format!("{good}0"));
        let audience = good.replace("router.example", &"a".repeat(MAX_AUDIENCE));
        for junk in ["", "p", "p 5 00", short, &long, &format!("{good} x"), &audience] {
            let error = junk.parse::<PartyProof>().unwrap_err();
            assert_eq!(error.code, ErrorCode::Unauthorized, "{junk}");
        }
    }
}
