//! Key shares: what is the same in every scheme, around what its protocol computes with.

use std::any::Any;

use quorate_types::{Error, PublicKey, Result, Scheme, ShareIndex, Threshold};
use zeroize::Zeroizing;

/// The secret part of a share, in the form of the scheme's protocol. It wipes itself when dropped.
pub(crate) trait Material: Any + Send + Sync {
    /// Its stored form behind `front`, in a buffer that has room for all of it from the start.
    fn encode(&self, front: &[u8]) -> Zeroizing<Vec<u8>>;
}

/// One party's share of a key. It cannot be printed or serialized, only sealed.
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_engine::Share>();
/// ```
///
/// ```compile_fail,E0277
/// fn copied<T: Clone>() {}
/// copied::<quorate_engine::Share>();
/// ```
pub struct Share {
    scheme: Scheme,
    public_key: PublicKey,
    threshold: Threshold,
    index: ShareIndex,
    material: Box<dyn Material>,
}

impl Share {
    /// Wraps what a protocol made or what was stored, after checking the numbers.
    pub(crate) fn new(
        scheme: Scheme,
        public_key: PublicKey,
        (signers, parties): (u8, u8),
        index: ShareIndex,
        material: Box<dyn Material>,
    ) -> Result<Self> {
        let threshold = Threshold::new(signers.into(), parties.into())?;
        if !(1..=parties).contains(&index.0) {
            return Err(Error::invalid("the share's index is beyond the number of holders"));
        }
        Ok(Self { scheme, public_key, threshold, index, material })
    }

    /// The key's scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The verifying key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Which holder this is.
    pub fn share_index(&self) -> ShareIndex {
        self.index
    }

    /// Signers needed and holders.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The secret part; `None` where it is that of another protocol.
    pub(crate) fn material<M: Material>(&self) -> Option<&M> {
        let material: &dyn Any = self.material.as_ref();
        material.downcast_ref()
    }

    pub(crate) fn encode(&self, front: &[u8]) -> Zeroizing<Vec<u8>> {
        self.material.encode(front)
    }
}
