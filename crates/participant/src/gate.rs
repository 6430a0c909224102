//! The gate between a run and its messages: no run releases anything once its pair is banned.
//!
//! A ban is set inside the computation in which the fault arises, before anything can be sent, and
//! it ends the other runs of the pair, which all say the same.

use std::sync::{Arc, OnceLock};

use quorate_engine::{Fault, Severity};
use quorate_types::vault::{Ban, SealedShare};
use quorate_types::{Error, PartyId, Result, Timestamp};

use crate::bans::Bans;
use crate::key::OpenKey;

/// Why a run ended without an output.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The protocol cannot go on; the fault says why and through whom.
    Fault(Fault),
    /// Another run has banned one of the signers meanwhile.
    Locked(Error),
    /// The messages cannot go on: the router refused for good, or the stream has ended.
    Transport(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Transport(error)
    }
}

/// One run's view of the bans that concern it. A run that makes shares has none.
#[derive(Clone)]
pub struct Gate(Option<Arc<Guarded>>);

struct Guarded {
    bans: Arc<Bans>,
    key: Arc<OpenKey>,
    signers: Vec<PartyId>,
    /// The fault by which this run banned its peer, if it was the first to.
    own: OnceLock<Fault>,
}

impl Gate {
    /// The gate of a run that uses no key.
    pub fn open() -> Self {
        Self(None)
    }

    /// The gate of a run that signs with `key` among `signers`.
    pub fn new(bans: &Arc<Bans>, key: &Arc<OpenKey>, signers: Vec<PartyId>) -> Self {
        let (bans, key) = (Arc::clone(bans), Arc::clone(key));
        Self(Some(Arc::new(Guarded { bans, key, signers, own: OnceLock::new() })))
    }

    /// Whether a fault of the run may ban somebody.
    pub fn guards(&self) -> bool {
        self.0.is_some()
    }

    /// Takes the consequence of a fault at a time of this machine and says how the run ends. A ban
    /// holds when this returns; the one that was set is to be written to the vault by somebody whom
    /// nothing cancels.
    ///
    /// Of runs that come upon faults of one pair side by side only the first says so: the others
    /// end as those that found nothing, or each would tell something about the key.
    pub fn settle(&self, fault: Fault, now: Timestamp) -> (Ended, Option<Ban>) {
        let Some(guarded) = &self.0 else { return (Ended::Fault(fault), None) };
        let mut set = None;
        if let (Severity::Ban, Some(peer)) = (fault.severity, &fault.blame) {
            let SealedShare { key_id, epoch, .. } = guarded.key.stored;
            let ban = Ban {
                key_id,
                epoch,
                peer: peer.clone(),
                reason: fault.message.clone(),
                at: now,
                evidence: fault.evidence.clone(),
            };
            let first = || drop(guarded.own.set(fault.clone()));
            set = guarded.bans.set(&guarded.key, &ban, first).then_some(ban);
        }
        (self.last_word(Ended::Fault(fault)), set)
    }

    /// How a run ends that has ended so: a ban comes before whatever else has ended it.
    pub fn last_word(&self, ended: Ended) -> Ended {
        self.pass().err().unwrap_or(ended)
    }

    /// Ends the run when a signer is banned: by its own fault if that was the first.
    ///
    /// # Errors
    /// How the run ends.
    pub fn pass(&self) -> std::result::Result<(), Ended> {
        self.check().map_err(|locked| match self.0.as_ref().and_then(|guarded| guarded.own.get()) {
            Some(fault) => Ended::Fault(fault.clone()),
            None => Ended::Locked(locked),
        })
    }

    /// Refuses to release anything when a signer is banned.
    ///
    /// # Errors
    /// `key_locked`.
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            Some(guarded) => guarded.bans.check(&guarded.key, &guarded.signers),
            None => Ok(()),
        }
    }

    /// Begins to hand something over, unless a signer is banned. No ban can be set between the
    /// question and the beginning, which must not block.
    ///
    /// # Errors
    /// `key_locked`.
    pub fn release<T>(&self, begin: impl FnOnce() -> T) -> Result<T> {
        match &self.0 {
            Some(guarded) => guarded.bans.while_unbanned(&guarded.key, &guarded.signers, begin),
            None => Ok(begin()),
        }
    }
}
