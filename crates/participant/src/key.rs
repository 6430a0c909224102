//! Shares as a party holds them: open to sign with, or just made.

use std::sync::Arc;

use quorate_engine::{Share, Shown};
use quorate_schemes::Statement;
use quorate_types::vault::{Ban, SealedShare, ShareState};
use quorate_types::{KeyRecord, PartyId};

use crate::vault::Standing;

/// A share ready to sign with, and what was stored beside it.
pub struct OpenKey {
    /// The share.
    pub share: Arc<Share>,
    /// Its key's public side, epoch and pinned holders, without the sealed bytes.
    pub stored: SealedShare,
    /// The bans that were in the vault when the share was opened.
    pub(crate) bans: Vec<Ban>,
}

impl OpenKey {
    /// A share, what is stored beside it, and the bans in the vault under its key.
    pub fn new(share: Arc<Share>, stored: SealedShare, bans: Vec<Ban>) -> Self {
        Self { share, stored, bans }
    }

    /// The same share once the vault has it active, with the confirmations of all holders.
    #[must_use]
    pub fn activated(&self, confirmations: Vec<u8>) -> Self {
        let state = ShareState::Active;
        let stored = SealedShare { state, confirmations, ..self.stored.clone() };
        Self { share: Arc::clone(&self.share), stored, bans: self.bans.clone() }
    }

    /// The identity key that this holder had when the key was made.
    pub fn pinned(&self, holder: &PartyId) -> Option<[u8; 32]> {
        let position = self.stored.record.holders.iter().position(|p| p == holder)?;
        self.stored.identities.get(position).copied()
    }

    /// Whether all holders have confirmed that they keep their share.
    pub fn active(&self) -> bool {
        self.stored.state == ShareState::Active
    }

    /// What the holders confirm of this key.
    pub fn statement(&self) -> Statement {
        let SealedShare { record, execution, identities, .. } = &self.stored;
        Statement::new(&record.key, execution, identities)
    }
}

/// What a party shows of its vault in a handshake: how far it has come, and the certificate of the
/// share of the key that is used.
pub fn shown((generation, process): Standing, key: Option<&OpenKey>) -> Shown {
    let shown = Shown { generation, process, ..Shown::default() };
    let Some(OpenKey { stored, .. }) = key else { return shown };
    let SealedShare { epoch, execution, ref confirmations, .. } = *stored;
    Shown { epoch, execution, confirmations: confirmations.clone(), ..shown }
}

/// A share that a run has just made.
pub struct NewShare {
    /// The share.
    pub share: Share,
    /// Its key's public side.
    pub record: KeyRecord,
    /// The holders' identities, in their order.
    pub identities: Vec<[u8; 32]>,
    /// The id of the execution that made it.
    pub execution: [u8; 32],
}
