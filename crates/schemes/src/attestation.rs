//! What the holders of a key sign of it, and whether they all have.
//!
//! Each holder signs what it has stored: the key's id and epoch, the execution that made it, the
//! public key, the threshold and the holders with their identities. Whoever has the signatures of
//! all knows that no holder is without its share and that nobody was shown another key: they are the
//! certificate of the epoch, and a holder that has an earlier one learns from them that its share is
//! stale.
//!
//! ```text
//! version 2: execution (32) | key id (16) | epoch (4) | public key | t (2) | n (2)
//!            | each holder: name, identity            with the length (8) before what varies
//! version 1: the same without key id and epoch        for first epochs of earlier versions
//! ```

use quorate_types::{Attestation, CONFIRMATION, Error, KeyEpoch, Result};

use crate::identity::verify_identity;

const VERSIONS: [&str; 2] = ["quorate/confirmation/v1", "quorate/confirmation/v2"];

/// What one holder's confirmation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    bytes: Vec<u8>,
    /// As it was signed before statements named key and epoch; of first epochs only.
    first_version: Option<Vec<u8>>,
    identities: Vec<[u8; 32]>,
}

impl Statement {
    /// That the holders of `key`, with these identities in their order, made it in this execution.
    pub fn new(key: &KeyEpoch, execution: &[u8; 32], identities: &[[u8; 32]]) -> Self {
        let mut rest = Vec::new();
        let mut add = |part: &[u8]| {
            rest.extend_from_slice(&(part.len() as u64).to_be_bytes());
            rest.extend_from_slice(part);
        };
        add(&key.public_key.0);
        add(&key.threshold.signers().to_be_bytes());
        add(&key.threshold.parties().to_be_bytes());
        for (holder, identity) in key.holders.iter().zip(identities) {
            add(holder.as_str().as_bytes());
            add(identity);
        }
        let (id, epoch) = (key.key_id.0.as_bytes(), key.epoch.to_be_bytes());
        Self {
            bytes: [&execution[..], id, &epoch, &rest].concat(),
            first_version: (key.epoch == 0).then(|| [&execution[..], &rest].concat()),
            identities: identities.to_vec(),
        }
    }

    /// The domain and the bytes that a holder signs with its identity.
    pub fn signed(&self) -> (&'static str, &[u8]) {
        (VERSIONS[1], &self.bytes)
    }

    /// The holders' identities, in their order.
    pub fn identities(&self) -> &[[u8; 32]] {
        &self.identities
    }

    /// Whether this is the confirmation of the holder at `position`.
    pub fn holds(&self, position: usize, confirmation: &[u8]) -> bool {
        let (domain, bytes) = self.signed();
        self.verifies(position, domain, bytes, confirmation)
    }

    /// Whether these are the confirmations of all holders, in their order, in either version.
    pub fn confirmed_by(&self, confirmations: &[u8]) -> bool {
        let (each, rest) = confirmations.as_chunks::<CONFIRMATION>();
        if !rest.is_empty() || each.len() != self.identities.len() {
            return false;
        }
        let all = |domain, bytes: &[u8]| {
            each.iter().enumerate().all(|(at, one)| self.verifies(at, domain, bytes, one))
        };
        let first = |bytes: &Vec<u8>| all(VERSIONS[0], bytes);
        all(VERSIONS[1], &self.bytes) || self.first_version.as_ref().is_some_and(first)
    }

    fn verifies(&self, position: usize, domain: &str, bytes: &[u8], confirmation: &[u8]) -> bool {
        let (Some(identity), Ok(signature)) =
            (self.identities.get(position), confirmation.try_into())
        else {
            return false;
        };
        verify_identity(identity, domain, bytes, signature)
    }
}

/// Checks that all holders of a key have signed it.
///
/// Whether the identities are those of the holders that were meant is for the caller to know.
///
/// # Errors
/// `invalid_request` naming `attestation`.
pub fn check_attestation(key: &KeyEpoch, attestation: &Attestation) -> Result<()> {
    let Attestation { execution, identities, confirmations } = attestation;
    let complete = identities.len() == key.holders.len();
    if complete && Statement::new(key, execution, identities).confirmed_by(confirmations) {
        return Ok(());
    }
    let problem = format!("the attestation of key {} is not signed by all its holders", key.key_id);
    Err(Error::invalid_field("attestation", problem))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use quorate_types::{PartyId, PublicKey, Scheme, Threshold};

    use super::*;
    use crate::identity::in_domain;

    fn key(epoch: u32) -> KeyEpoch {
        KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch,
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        }
    }

    fn signers() -> [SigningKey; 2] {
        [SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32])]
    }

    fn sign_all(domain: &str, bytes: &[u8]) -> Vec<u8> {
        signers().each_ref().map(|key| key.sign(&in_domain(domain, bytes)).to_bytes()).concat()
    }

    fn attested(key: &KeyEpoch) -> Attestation {
        let identities = signers().each_ref().map(|key| key.verifying_key().to_bytes()).to_vec();
        let statement = Statement::new(key, &[7; 32], &identities);
        let (domain, bytes) = statement.signed();
        let confirmations = sign_all(domain, bytes);
        Attestation { execution: [7; 32], identities, confirmations }
    }

    #[test]
    fn an_attestation_holds_for_its_key_only() {
        let made = key(3);
        let all = attested(&made);
        check_attestation(&made, &all).unwrap();
        let swapped: Vec<PartyId> = made.holders.iter().rev().cloned().collect();
        for other in [
            KeyEpoch {
                key_id: "550e8400-e29b-41d4-a716-446655440001".parse().unwrap(),
                ..made.clone()
            },
            KeyEpoch { epoch: 4, ..made.clone() },
            KeyEpoch { threshold: Threshold::new(2, 3).unwrap(), ..made.clone() },
            KeyEpoch { public_key: PublicKey(vec![5; 65]), ..made.clone() },
            KeyEpoch { holders: swapped, ..made.clone() },
        ] {
            assert!(check_attestation(&other, &all).is_err(), "{other:?}");
        }
        let changed = |change: &dyn Fn(&mut Attestation)| {
            let mut bad = all.clone();
            change(&mut bad);
            check_attestation(&made, &bad).is_err()
        };
        assert!(changed(&|bad| bad.execution[0] ^= 1));
        assert!(changed(&|bad| bad.identities.reverse()));
        assert!(changed(&|bad| bad.identities.truncate(1)));
        assert!(changed(&|bad| bad.identities.push([1; 32])));
        assert!(changed(&|bad| bad.confirmations.truncate(64)));
        assert!(changed(&|bad| bad.confirmations.extend([0; 64])));
        assert!(changed(&|bad| bad.confirmations.rotate_left(64)));
        assert!(changed(&|bad| bad.confirmations.clear()));
        for at in 0..all.confirmations.len() {
            assert!(changed(&|bad| bad.confirmations[at] ^= 1), "byte {at}");
        }
    }

    #[test]
    fn a_key_of_an_earlier_version_keeps_its_confirmations() {
        let (first, second) = (key(0), key(1));
        let Attestation { execution, identities, .. } = attested(&first);
        let old = Statement::new(&first, &execution, &identities).first_version.unwrap();
        let confirmations = sign_all(VERSIONS[0], &old);
        let old = Attestation { execution, identities, confirmations };
        check_attestation(&first, &old).unwrap();
        assert!(check_attestation(&second, &old).is_err(), "no later epoch is of that version");
    }
}
