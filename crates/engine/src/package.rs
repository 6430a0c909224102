//! A share on its way from one machine to another, with what makes its receiver the holder.
//!
//! ```text
//! version 2 (1) | identity, secret (32) | generation (8) | length of the facts (4)
//! | the facts, in postcard
//! | the share, as it is sealed at rest: version, tag of the scheme, the scheme's form
//! ```
//!
//! Version 1 had no generation.
//!
//! It is sealed to its receiver before it leaves: `quorate_schemes::seal_package`.

use std::sync::Arc;

use quorate_schemes::Statement;
use quorate_types::{
    Error, KeyEpoch, KeyLabel, KeyRecord, PartyId, Result, Secret, Tenant, Timestamp,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::share::Share;

const VERSION: u8 = 2;
/// The version without a generation.
const FIRST: u8 = 1;
const IDENTITY: usize = 32;

/// What everybody may know of a share: its key, and what its holder knows of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The party that holds the share.
    pub holder: PartyId,
    /// The epoch of the key.
    pub key: KeyEpoch,
    /// Who owns the key.
    pub tenant: Tenant,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it is called.
    pub label: Option<KeyLabel>,
    /// The holders' identity keys, in their order.
    pub identities: Vec<[u8; 32]>,
    /// The execution that made the epoch.
    pub execution: [u8; 32],
    /// The confirmations of all holders, 64 bytes each in their order.
    pub confirmations: Vec<u8>,
    /// With whom this holder signs no more in this epoch, since when and why.
    pub bans: Vec<(PartyId, String, Timestamp)>,
}

impl Holding {
    /// The public side of the key.
    pub fn record(&self) -> KeyRecord {
        KeyRecord {
            key: Arc::new(self.key.clone()),
            tenant: self.tenant.clone(),
            created_at: self.created_at,
            label: self.label.clone(),
            frozen: None,
        }
    }
}

/// A share with the identity of its holder and what is public of both. It cannot be printed or
/// serialized but by [`Package::encode`].
///
/// ```compile_fail,E0277
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<quorate_engine::Package>();
/// ```
pub struct Package {
    /// What everybody may know of it.
    pub holding: Holding,
    /// The holder's identity.
    pub identity: Arc<Identity>,
    /// How often shares and bans had changed in the vault that it comes from: what the holder has
    /// shown to others, who take a vault that shows less for an older one.
    pub generation: u64,
    /// The holder's share of the key.
    pub share: Arc<Share>,
}

fn damaged() -> Error {
    Error::invalid_field("share", "this is not a package of a share, or it is damaged")
}

impl Package {
    /// Its bytes, to be sealed. They are wiped when dropped, and stand nowhere else.
    ///
    /// # Errors
    /// `internal_error` for a share of a scheme that is not known here.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        let facts = postcard::to_allocvec(&self.holding).map_err(|_| Error::internal())?;
        let length = u32::try_from(facts.len()).map_err(|_| Error::internal())?;
        let share = self.share.plain()?;
        let room = 1 + IDENTITY + 8 + 4 + facts.len() + share.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        bytes.push(VERSION);
        bytes.extend_from_slice(self.identity.secret().expose());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&facts);
        bytes.extend_from_slice(&share);
        Ok(bytes)
    }

    /// Reads a package and checks that its parts belong together: that all holders have confirmed
    /// the key, that the identity is that of its holder, and the share its share.
    ///
    /// # Errors
    /// `invalid_request` naming `share`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((&version, rest)) = bytes.split_first() else { return Err(damaged()) };
        if version != VERSION && version != FIRST {
            let why = "this package was made by a newer version, or it is none";
            return Err(Error::invalid_field("share", why));
        }
        let (secret, rest) = rest.split_first_chunk::<IDENTITY>().ok_or_else(damaged)?;
        let (generation, rest) = match version {
            FIRST => (0, rest),
            _ => {
                let (generation, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
                (u64::from_be_bytes(*generation), rest)
            }
        };
        let (length, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (facts, share) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let (holding, []) = postcard::take_from_bytes::<Holding>(facts).map_err(|_| damaged())?
        else {
            return Err(damaged());
        };
        let share = Share::read(share)?.ok_or_else(damaged)??;
        let identity = Identity::from_secret(&Secret::new(*secret));
        let (identity, share) = (Arc::new(identity), Arc::new(share));
        let package = Self { holding, identity, generation, share };
        if package.fits() { Ok(package) } else { Err(damaged()) }
    }

    fn fits(&self) -> bool {
        let Self { holding, identity, generation: _, share } = self;
        let Holding { holder, key, identities, execution, confirmations, .. } = holding;
        let at = usize::from(share.share_index().0).wrapping_sub(1);
        (share.scheme(), share.threshold(), share.public_key())
            == (key.scheme, key.threshold, &key.public_key)
            && key.holders.len() == identities.len()
            && key.holders.get(at) == Some(holder)
            && identities.get(at) == Some(&identity.public())
            && Statement::new(key, execution, identities).confirmed_by(confirmations)
    }
}
