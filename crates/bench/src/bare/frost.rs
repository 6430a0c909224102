//! The baseline for Ed25519: the threshold library alone, both signers in turn on one thread.

use std::collections::BTreeMap;

use frost_ed25519::keys::{IdentifierList, KeyPackage, PublicKeyPackage, generate_with_dealer};
use frost_ed25519::rand_core::{self, CryptoRng, RngCore};
use frost_ed25519::{SigningPackage, aggregate, round1, round2};

/// The system's randomness, as the library asks for it.
struct SystemRandom;

impl RngCore for SystemRandom {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system gives randomness");
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for SystemRandom {}

/// A 2-of-3 key with the shares of its first two holders.
pub(crate) struct Key {
    shares: Vec<KeyPackage>,
    public: PublicKeyPackage,
}

/// Makes a key.
pub(crate) fn keygen() -> Key {
    let (shares, public) =
        generate_with_dealer(3, 2, IdentifierList::Default, &mut SystemRandom).expect("2 of 3");
    let shares = shares.into_values().take(2);
    let shares = shares.map(|share| KeyPackage::try_from(share).expect("an honest dealer"));
    Key { shares: shares.collect(), public }
}

/// Signs with two shares; the library verifies what it puts together.
pub(crate) fn sign(key: &Key, message: &[u8]) {
    let rounds: Vec<_> = key
        .shares
        .iter()
        .map(|share| (share, round1::commit(share.signing_share(), &mut SystemRandom)))
        .collect();
    let commitments: BTreeMap<_, _> =
        rounds.iter().map(|(share, (_, shown))| (*share.identifier(), *shown)).collect();
    let package = SigningPackage::new(commitments, message);
    let parts: BTreeMap<_, _> = rounds
        .iter()
        .map(|(share, (nonces, _))| {
            let part = round2::sign(&package, nonces, share).expect("honest signers");
            (*share.identifier(), part)
        })
        .collect();
    // Each signer puts it together for itself.
    for _ in &key.shares {
        aggregate(&package, &parts, &key.public).expect("honest signers");
    }
}
