//! Carries out what an attempt asks for.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use quorate_participant::{Action, Computation, Ended, Event, Gate, Progress, VaultAction};
use quorate_types::Result;
use tokio::sync::watch;

use crate::clock;
use crate::session::Worker;
use crate::transport::RouterTransport;

/// Messages handed to the run in one go: one from each peer of the largest session.
const BATCH_LEN: usize = 16;

/// How long the acknowledgements of a run that has failed may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// What carries out the actions of one attempt.
pub struct Driver {
    worker: Worker,
    gate: Gate,
    changes: watch::Receiver<u64>,
}

impl Driver {
    /// A driver that computes and keeps with `worker`.
    pub fn new(worker: Worker) -> Self {
        let changes = worker.keyring.ban_changes();
        Self { worker, gate: Gate::open(), changes }
    }

    /// Carries out one action of an attempt but those with messages, which its transport is for;
    /// `None` when nothing is to be answered. The vault is never left, a computation as soon as a
    /// signer is banned.
    pub async fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Vault(action) => return Some(self.vault(action).await),
            Action::Compute(work) => return Some(self.compute(work).await),
            Action::Fence => return Some(Event::Passed),
            Action::Guard(gate) => self.gate = gate,
            Action::Tell(progress) => note(&progress),
            _ => {}
        }
        None
    }

    /// Carries out one action of an attempt over the router.
    pub(crate) async fn over_router(
        &mut self,
        action: Action,
        transport: &mut RouterTransport,
    ) -> Option<Event> {
        let sent = match action {
            Action::Receive => return Some(self.receive(transport).await),
            Action::Send(outgoing) => self.unless_locked(transport.send(outgoing)).await,
            Action::Refused(message) => self.unless_locked(transport.refused(message)).await,
            Action::Flush => self.unless_locked(transport.flush()).await,
            Action::Leave => {
                let _ = tokio::time::timeout(LEAVE_LIMIT, transport.flush()).await;
                Ok(())
            }
            Action::Accepted(message) => {
                transport.accepted(message);
                Ok(())
            }
            action => {
                if let Action::Guard(gate) = &action {
                    transport.guard(gate);
                }
                return self.perform(action).await;
            }
        };
        sent.err().map(Event::Broken)
    }

    /// Asks the vault, which needs no messages.
    async fn vault(&self, action: VaultAction) -> Event {
        let Worker { keyring, compute } = &self.worker;
        Event::Vault(keyring.answer(action, compute).await)
    }

    /// Runs a computation on the pool. It runs to its end though nobody waits for it, and whoever
    /// stops the process waits for it, if it may ban somebody.
    async fn compute(&mut self, work: Computation) -> Event {
        let (keyring, runtime) = (self.worker.keyring.clone(), tokio::runtime::Handle::current());
        let compute = self.worker.compute.clone();
        let under_way = work.may_ban().then(|| keyring.writes().token());
        let job = move || {
            let computed = work.run(clock::now());
            if let Some(ban) = computed.ban() {
                keyring.write_new_ban(ban.clone(), &runtime);
            }
            drop(under_way);
            computed
        };
        match self.unless_locked(compute.run_unless_stopped(job)).await {
            Ok(computed) => Event::Computed(Box::new(computed)),
            Err(ended) => Event::Broken(ended),
        }
    }

    async fn receive(&mut self, transport: &mut RouterTransport) -> Event {
        let first = match self.unless_locked(transport.receive()).await {
            Ok(first) => first,
            Err(ended) => return Event::Broken(ended),
        };
        let mut batch = vec![first];
        while batch.len() < BATCH_LEN {
            match transport.try_receive() {
                Some(incoming) => batch.push(incoming),
                None => break,
            }
        }
        Event::Messages(batch)
    }

    /// Does one thing, unless a signer is banned or becomes so meanwhile.
    ///
    /// # Errors
    /// How the run ends.
    pub async fn unless_locked<T>(
        &mut self,
        work: impl Future<Output = Result<T>>,
    ) -> std::result::Result<T, Ended> {
        tokio::select! {
            biased;
            ended = locked(&self.gate, &mut self.changes) => Err(ended),
            done = work => done.map_err(Ended::Transport),
        }
    }
}

/// Waits until a signer of a run is banned.
async fn locked(gate: &Gate, changes: &mut watch::Receiver<u64>) -> Ended {
    if gate.guards() {
        loop {
            changes.mark_unchanged();
            if let Err(ended) = gate.pass() {
                return ended;
            }
            if changes.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// Begins to hand something over, unless a signer is banned, and waits for its end. No ban can be
/// set between the question and the beginning.
pub(crate) async fn release<T>(gate: &Gate, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    let begin =
        std::future::poll_fn(|context| Poll::Ready(gate.release(|| work.as_mut().poll(context))));
    match begin.await? {
        Poll::Ready(done) => done,
        Poll::Pending => work.await,
    }
}

fn note(progress: &Progress) {
    match progress {
        Progress::Round { round, .. } => tracing::debug!(round, "waiting for messages"),
        Progress::Refused { from, fault } => {
            tracing::warn!(%from, code = fault.code.name(), "refused a message: {}", fault.message);
        }
    }
}
