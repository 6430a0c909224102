//! Shares as a party holds them: open to sign with, or just made.

use std::sync::Arc;

use quorate_engine::{Identity, Pending, Share, Shown};
use quorate_schemes::Statement;
use quorate_types::vault::{Ban, SealedShare, ShareState};
use quorate_types::{KeyEpoch, KeyRecord, PartyId};

use crate::vault::Standing;

/// A share ready to sign with, and what was stored beside it.
pub struct OpenKey {
    /// The open share of one epoch.
    pub share: Arc<Share>,
    /// Its key's public side, epoch and pinned holders, without the sealed bytes.
    pub stored: SealedShare,
    /// The bans that were in the vault when the share was opened.
    pub(crate) bans: Vec<Ban>,
    /// Those of later epochs, which wait for confirmations, oldest first.
    pub(crate) later: Vec<Arc<OpenKey>>,
}

impl OpenKey {
    /// A share, what is stored beside it, and the bans in the vault under its key.
    pub fn new(share: Arc<Share>, stored: SealedShare, bans: Vec<Ban>) -> Self {
        Self { share, stored, bans, later: Vec::new() }
    }

    /// The same share with those of later epochs, which wait for confirmations, oldest first.
    #[must_use]
    pub fn followed_by(&self, later: Vec<Arc<Self>>) -> Self {
        let (share, stored, bans) =
            (Arc::clone(&self.share), self.stored.clone(), self.bans.clone());
        Self { share, stored, bans, later }
    }

    /// The same share once the vault has it active, with the confirmations of all holders.
    #[must_use]
    pub fn activated(&self, confirmations: Vec<u8>) -> Self {
        let state = ShareState::Active;
        let stored = SealedShare { state, confirmations, ..self.stored.clone() };
        Self { stored, ..self.followed_by(self.later.clone()) }
    }

    /// Those of later epochs than this one, which wait for confirmations, oldest first.
    pub fn later(&self) -> &[Arc<Self>] {
        &self.later
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

    /// The shares that wait for confirmations, oldest first: this one, or those of later epochs.
    pub(crate) fn waiting(self: &Arc<Self>) -> &[Arc<Self>] {
        if self.active() { &self.later } else { std::slice::from_ref(self) }
    }

    /// Whether these are confirmations of all holders of a later epoch than this one.
    pub(crate) fn replaced_by(&self, shown: &Shown) -> bool {
        let SealedShare { epoch, ref record, ref identities, .. } = self.stored;
        let later = || KeyEpoch { epoch: shown.epoch, ..(*record.key).clone() };
        shown.epoch > epoch
            && Statement::new(&later(), &shown.execution, identities)
                .confirmed_by(&shown.confirmations)
    }

    /// What the holders confirm of this key.
    pub fn statement(&self) -> Statement {
        let SealedShare { record, execution, identities, .. } = &self.stored;
        Statement::new(&record.key, execution, identities)
    }
}

/// What a party shows of its vault in a handshake: how far it has come, the certificate of the share
/// of the key that is used, and its own confirmation of the newest share that waits for those of the
/// others.
pub fn shown(
    identity: &Identity,
    (generation, process): Standing,
    key: Option<&Arc<OpenKey>>,
) -> Shown {
    let shown = Shown { generation, process, ..Shown::default() };
    let Some(key) = key else { return shown };
    let pending = |share: &Arc<OpenKey>| Pending {
        epoch: share.stored.epoch,
        execution: share.stored.execution,
        confirmation: identity.confirm(&share.statement()),
    };
    let SealedShare { epoch, execution, ref confirmations, .. } = key.stored;
    let (confirmations, pending) = (confirmations.clone(), key.waiting().last().map(pending));
    Shown { epoch, execution, confirmations, pending, ..shown }
}

/// A share that a run has just made.
pub struct NewShare {
    /// The new share, to be sealed and stored.
    pub share: Share,
    /// Its key's public side.
    pub record: KeyRecord,
    /// The holders' identities, in their order.
    pub identities: Vec<[u8; 32]>,
    /// The id of the execution that made it.
    pub execution: [u8; 32],
}
