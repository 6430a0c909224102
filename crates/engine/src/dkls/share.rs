//! The share of a DKLs23 key.

use dkls23_secp256k1::Party;
use k256::elliptic_curve::sec1::ToSec1Point as _;
use quorate_types::{PublicKey, Result, Scheme, ShareIndex};
use zeroize::Zeroizing;

use crate::machine::encode_behind;
use crate::share::{Material, Share};

/// The library's own form, which wipes itself when dropped; boxed, since a move would leave a copy
/// behind.
pub(crate) struct Part(pub(crate) Box<Party>);

impl Material for Part {
    fn encode(&self, front: &[u8]) -> Zeroizing<Vec<u8>> {
        encode_behind(front, &self.0)
    }
}

/// The share that holds what the library made or what was stored.
pub(crate) fn share(party: Box<Party>) -> Result<Share> {
    let public_key = PublicKey(party.pk.to_sec1_point(false).as_bytes().to_vec());
    let numbers = (party.parameters.threshold, party.parameters.share_count);
    let index = ShareIndex(party.party_index.as_u8());
    Share::new(Scheme::EcdsaSecp256k1, public_key, numbers, index, Box::new(Part(party)))
}

/// Reads the stored form; `None` where it is none.
pub(crate) fn read(body: &[u8]) -> Option<Result<Share>> {
    match postcard::take_from_bytes(body) {
        Ok((party, [])) => Some(share(party)),
        _ => None,
    }
}
