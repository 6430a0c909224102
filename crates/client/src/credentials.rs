//! A party's identity as the credentials of its calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_engine::{Identity, Nonce, PartyProof, ProvenCall};
use quorate_rpc::endpoint::{Call, Credentials};
use quorate_types::PartyId;
use sha2::{Digest as _, Sha256};

/// The scheme of the `Authorization` header.
pub const PARTY_SCHEME: &str = "Quorate-Party";

/// Signs each call with a party's identity key. A signature serves for one call at one server.
pub struct PartyCredentials {
    party: PartyId,
    identity: Arc<Identity>,
    /// The nonce of each server, with the number of calls it has served.
    nonces: Mutex<HashMap<String, (Nonce, u64)>>,
}

impl PartyCredentials {
    /// Proofs of `party` by its identity key.
    pub fn new(party: PartyId, identity: Arc<Identity>) -> Self {
        Self { party, identity, nonces: Mutex::default() }
    }

    /// The nonce for one call to `audience`, and the call's number.
    fn next(&self, audience: &str) -> Option<(Nonce, u64)> {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let (nonce, count) = nonces.get_mut(audience)?;
        *count += 1;
        Some((*nonce, *count))
    }

    fn bare(&self) -> String {
        format!("{PARTY_SCHEME} {}", self.party)
    }
}

impl Credentials for PartyCredentials {
    fn authorization(&self, call: &Call<'_>) -> String {
        let Some(place) = self.next(call.audience) else { return self.bare() };
        let body = Sha256::digest(call.body.unwrap_or_default()).into();
        let facts = ProvenCall { method: call.method, target: call.target, body };
        let audience = call.audience.to_owned();
        let proof = PartyProof::sign(&self.identity, self.party.clone(), audience, place, facts);
        format!("{PARTY_SCHEME} {proof}")
    }

    fn take_nonce(&self, audience: &str, nonce: &str) -> bool {
        let mut bytes = Nonce::default();
        if hex::decode_to_slice(nonce, &mut bytes).is_err() {
            return false;
        }
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls that were refused side by side get one nonce each: the last one serves all.
        if nonces.get(audience).is_none_or(|(held, _)| *held != bytes) {
            nonces.insert(audience.to_owned(), (bytes, 0));
        }
        true
    }

    fn challenge(&self) -> Option<String> {
        Some(self.bare())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(audience: &str) -> Call<'_> {
        Call { audience, method: "GET", target: "/api/v1/parties", body: Some(b"") }
    }

    fn proof(credentials: &PartyCredentials, audience: &str) -> Option<PartyProof> {
        let value = credentials.authorization(&call(audience));
        value.strip_prefix(PARTY_SCHEME).unwrap().parse().ok()
    }

    #[test]
    fn each_call_counts_its_servers_nonce_on() {
        let identity = Arc::new(Identity::generate());
        let credentials = PartyCredentials::new("p".parse().unwrap(), identity.clone());
        assert!(proof(&credentials, "a:1").is_none(), "it asks for a nonce first");
        assert!(credentials.take_nonce("a:1", &"01".repeat(32)));
        let counts = [1, 2, 3].map(|_| proof(&credentials, "a:1").unwrap().count);
        assert_eq!(counts, [1, 2, 3]);
        assert!(credentials.take_nonce("a:1", &"01".repeat(32)));
        assert_eq!(proof(&credentials, "a:1").unwrap().count, 4, "no number twice");
        assert!(proof(&credentials, "b:1").is_none(), "a nonce belongs to its server");
        assert!(!credentials.take_nonce("a:1", "01"));
        assert!(credentials.take_nonce("a:1", &"02".repeat(32)));
        let proof = proof(&credentials, "a:1").unwrap();
        assert_eq!((proof.nonce, proof.count), ([2; 32], 1));
        assert!(proof.is_for(&identity.public(), "GET", "/api/v1/parties"));
    }
}
