//! The share of a FROST key.

use std::collections::BTreeMap;

use frost_ed25519::VerifyingKey;
use frost_ed25519::keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare};
use quorate_types::{Error, PublicKey, Result, Scheme, ShareIndex};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{array, identifier};
use crate::machine::encode_behind;
use crate::share::{Material, Share};

/// What the library signs with. Boxed, since a move would leave a copy behind; the key package
/// wipes itself when dropped.
pub(super) struct Part {
    pub(super) key: Box<KeyPackage>,
    pub(super) public: PublicKeyPackage,
    stored: Stored,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Stored {
    index: u8,
    signers: u8,
    secret: Zeroizing<[u8; 32]>,
    public_key: [u8; 32],
    /// The public halves of all shares, in the order of the holders.
    verifying_shares: Vec<[u8; 32]>,
}

impl Material for Part {
    fn encode(&self, front: &[u8]) -> Zeroizing<Vec<u8>> {
        encode_behind(front, &self.stored)
    }
}

/// The share that a keygen has made.
pub(super) fn share(
    index: ShareIndex,
    key: Box<KeyPackage>,
    public: PublicKeyPackage,
) -> Option<Result<Share>> {
    let secret = Zeroizing::new(key.signing_share().serialize());
    let encode = |share: &VerifyingShare| share.serialize().map(|bytes| array(&bytes));
    let verifying_shares: Result<Vec<_>, _> =
        public.verifying_shares().values().map(encode).collect();
    let stored = Stored {
        index: index.0,
        signers: u8::try_from(*key.min_signers()).ok()?,
        secret: Zeroizing::new(array(&secret)),
        public_key: array(&public.verifying_key().serialize().ok()?),
        verifying_shares: verifying_shares.ok()?,
    };
    Some(wrap(Part { key, public, stored }))
}

fn wrap(part: Part) -> Result<Share> {
    let Stored { index, signers, public_key, verifying_shares, .. } = &part.stored;
    let parties = u8::try_from(verifying_shares.len());
    let parties = parties.map_err(|_| Error::invalid("the share has too many holders"))?;
    let (numbers, index) = ((*signers, parties), ShareIndex(*index));
    let public_key = PublicKey(public_key.to_vec());
    Share::new(Scheme::Ed25519, public_key, numbers, index, Box::new(part))
}

/// Reads the stored form; `None` where it is none.
pub(crate) fn read(body: &[u8]) -> Option<Result<Share>> {
    let (stored, []) = postcard::take_from_bytes::<Stored>(body).ok()? else { return None };
    let signing_share = SigningShare::deserialize(&*stored.secret).ok()?;
    let verifying_key = VerifyingKey::deserialize(&stored.public_key).ok()?;
    let mut verifying_shares = BTreeMap::new();
    for (index, share) in (1_u8..).zip(&stored.verifying_shares) {
        let share = VerifyingShare::deserialize(share).ok()?;
        verifying_shares.insert(identifier(ShareIndex(index)), share);
    }
    let own = (stored.index > 0).then(|| identifier(ShareIndex(stored.index)))?;
    let verifying_share = *verifying_shares.get(&own)?;
    if verifying_share != VerifyingShare::from(signing_share) {
        return None;
    }
    let signers = u16::from(stored.signers);
    let key = KeyPackage::new(own, signing_share, verifying_share, verifying_key, signers);
    let public = PublicKeyPackage::new(verifying_shares, verifying_key, Some(signers));
    Some(wrap(Part { key: Box::new(key), public, stored }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn junk_is_no_share(junk: Vec<u8>) {
            prop_assert!(read(&junk).is_none_or(|share| share.is_err()));
        }
    }
}
