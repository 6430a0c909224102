//! The gate between a run and its messages: no run releases anything once its pair is banned.
//!
//! The multiplication's set-up lives as long as the key, and each attempt at its check leaks one
//! bit of it. A ban therefore holds for (key, epoch, peer) over all runs of the process: it is set
//! inside the computation in which the fault arises, before anything can be sent, and it ends the
//! other runs, which all say the same.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use quorate_engine::{Fault, Severity};
use quorate_types::{Error, PartyId, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::drive::Ended;
use crate::keyring::{Keyring, OpenKey};

/// One run's view of the bans that concern it. A keygen has none.
#[derive(Clone)]
pub struct Gate(Option<Arc<Guarded>>);

struct Guarded {
    keyring: Arc<Keyring>,
    key: Arc<OpenKey>,
    signers: Vec<PartyId>,
    runtime: Handle,
    changes: watch::Receiver<u64>,
    /// The fault by which this run banned its peer, if it was the first to.
    own: OnceLock<Fault>,
}

impl Gate {
    /// The gate of a run that uses no key.
    pub fn open() -> Self {
        Self(None)
    }

    /// The gate of a run that signs with `key` among `signers`. Must be called on a runtime.
    pub(crate) fn new(keyring: &Arc<Keyring>, key: &Arc<OpenKey>, signers: Vec<PartyId>) -> Self {
        Self(Some(Arc::new(Guarded {
            keyring: Arc::clone(keyring),
            key: Arc::clone(key),
            signers,
            runtime: Handle::current(),
            changes: keyring.ban_changes(),
            own: OnceLock::new(),
        })))
    }

    /// Takes the consequence of a fault and says how the run ends. A ban holds when this returns,
    /// and a task that nothing cancels writes it to the vault.
    ///
    /// Of runs that come upon faults of one pair side by side only the first says so: the others
    /// end as those that found nothing, or each would tell something about the key.
    pub(crate) fn settle(&self, fault: Fault) -> Ended {
        let Some(guarded) = &self.0 else { return Ended::Fault(fault) };
        if let (Severity::Ban, Some(peer)) = (fault.severity, &fault.blame) {
            let (peer, reason) = (peer.clone(), fault.message.clone());
            let first = || drop(guarded.own.set(fault.clone()));
            let evidence = fault.evidence.clone();
            let ban = guarded.keyring.ban_now(&guarded.key, peer, reason, evidence, first);
            if let Some(ban) = ban {
                let keyring = Arc::clone(&guarded.keyring);
                let writing = async move { keyring.write_ban(ban).await };
                guarded.keyring.writes().spawn_on(writing, &guarded.runtime);
            }
        }
        self.last_word(Ended::Fault(fault))
    }

    /// How a run ends that has ended so: a ban comes before whatever else has ended it.
    pub(crate) fn last_word(&self, ended: Ended) -> Ended {
        match self.check() {
            Err(locked) => self.ended(locked),
            Ok(()) => ended,
        }
    }

    /// How a run ends when a signer is banned: by its own fault if that was the first.
    fn ended(&self, locked: Error) -> Ended {
        match self.0.as_ref().and_then(|guarded| guarded.own.get()) {
            Some(fault) => Ended::Fault(fault.clone()),
            None => Ended::Locked(locked),
        }
    }

    /// For a computation that may come upon a fault: [`Keyring::settled`] waits for its end.
    pub(crate) fn computing(&self) -> Option<TaskTrackerToken> {
        self.0.as_ref().map(|guarded| guarded.keyring.writes().token())
    }

    /// Ends the run when a signer is banned.
    pub(crate) fn pass(&self) -> std::result::Result<(), Ended> {
        self.check().map_err(|error| self.ended(error))
    }

    /// Refuses to release anything when a signer is banned.
    ///
    /// # Errors
    /// `key_locked`.
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            Some(guarded) => guarded.keyring.check_bans(&guarded.key, &guarded.signers),
            None => Ok(()),
        }
    }

    /// Begins to hand something over, unless a signer is banned, and waits for its end. No ban can
    /// be set between the question and the beginning.
    ///
    /// # Errors
    /// `key_locked`, and what `work` answers.
    pub(crate) async fn release<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        let begin = std::future::poll_fn(|context| {
            let mut begin = || work.as_mut().poll(context);
            Poll::Ready(match &self.0 {
                Some(guarded) => {
                    guarded.keyring.while_unbanned(&guarded.key, &guarded.signers, begin)
                }
                None => Ok(begin()),
            })
        });
        match begin.await? {
            Poll::Ready(done) => done,
            Poll::Pending => work.await,
        }
    }

    /// Waits until a signer is banned.
    pub(crate) async fn locked(&self) -> Ended {
        let Some(guarded) = &self.0 else { return std::future::pending().await };
        let mut changes = guarded.changes.clone();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.check() {
                return self.ended(error);
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
