//! The runtime around one run among devices: its channel, its clock and its user.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
pub use quorate_participant::devices::Stage as Progress;
use quorate_participant::devices::{
    DeviceAction, DeviceInput, DeviceRun, MessageKind, ProposedCeremony, RunParameters,
    SignedMessage, SigningRequest,
};
use quorate_participant::{Action, Ended, Event, Gate};
use quorate_party::{Driver, Worker};
use quorate_types::*;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::channel::Channel;

/// How long giving up may take.
const ABORT_LIMIT: Duration = Duration::from_secs(2);
/// How long a transport may take to leave: others may have missed our last messages.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Messages handed to the run in one go: one from each of the most devices that a key can have.
const BATCH_LEN: usize = 16;

/// Whether to sign what the named device proposes.
pub type Approve<'a> = Box<dyn FnMut(&PartyId, &SigningRequest) -> bool + Send + 'a>;

/// What a run asks and tells its user.
pub struct Observer<'a> {
    /// Told of every step.
    pub progress: Box<dyn FnMut(Progress) + Send + 'a>,
    /// Whether to sign what another device proposes.
    pub approve: Approve<'a>,
}

impl Default for Observer<'_> {
    /// Tells nobody, and signs nothing that another device proposes.
    fn default() -> Self {
        Self { progress: Box::new(|_| ()), approve: Box::new(|_, _| false) }
    }
}

/// Runs to the end, at the latest to the deadline. The others are told when it fails here.
pub(crate) async fn run(
    worker: &Worker,
    parameters: RunParameters,
    mut deadline: Instant,
    channel: Channel,
    observer: &mut Observer<'_>,
) -> Result<PartyOutcome> {
    let stop = CancellationToken::new();
    let kind = match parameters.ceremony {
        ProposedCeremony::Keygen { .. } => SessionKind::Keygen,
        ProposedCeremony::Sign { .. } => SessionKind::Sign,
        ProposedCeremony::Refresh { .. } => SessionKind::Refresh,
    };
    let compute = worker.compute.for_session(kind, stop.clone());
    let last_error = channel.watch_errors();
    let driver = Driver::new(Worker { compute, ..worker.clone() });
    let mut hands = Hands { driver, gate: Gate::open(), channel, stop: stop.clone(), observer };
    let (mut machine, mut actions) = DeviceRun::begin(worker.keyring.me(), parameters);
    let ended = 'run: loop {
        let mut late = false;
        let mut working = pin!(hands.perform(actions).fuse());
        actions = loop {
            let input = tokio::select! {
                biased;
                done = &mut working, if !working.is_terminated() => match done {
                    Performed::Answer(input) => input,
                    Performed::Over(outcome) => break 'run outcome,
                    Performed::Deadline(after, rest) => {
                        deadline = Instant::now() + after;
                        break rest;
                    }
                },
                () = tokio::time::sleep_until(deadline), if !late => {
                    late = true;
                    DeviceInput::Late(last_error.get())
                }
            };
            let mut more = machine.handle(input);
            if matches!(more.as_slice(), [DeviceAction::Stop]) {
                stop.cancel();
                more.clear();
            }
            if !more.is_empty() {
                break more;
            }
        };
    };
    let Hands { channel, .. } = hands;
    let _ = tokio::time::timeout(LEAVE_LIMIT, channel.close()).await;
    // Other runs of this process may have come upon faults.
    worker.keyring.settled().await;
    ended
}

/// What has come of a list of actions.
enum Performed {
    Answer(DeviceInput),
    /// The run has another deadline, so long from now; these actions are left.
    Deadline(Duration, Vec<DeviceAction>),
    Over(Result<PartyOutcome>),
}

/// What carries out a run's actions.
struct Hands<'a, 'h> {
    driver: Driver,
    /// What is sent asks it again right before it leaves.
    gate: Gate,
    channel: Channel,
    stop: CancellationToken,
    observer: &'a mut Observer<'h>,
}

impl Hands<'_, '_> {
    /// Carries actions out in their order, up to the first that has an answer.
    async fn perform(&mut self, actions: Vec<DeviceAction>) -> Performed {
        let mut actions = actions.into_iter();
        while let Some(action) = actions.next() {
            let answer = match action {
                DeviceAction::Done(outcome) => return Performed::Over(outcome),
                DeviceAction::Deadline(after) => {
                    return Performed::Deadline(after, actions.collect());
                }
                DeviceAction::Attempt(action) => {
                    if let Action::Guard(gate) = &action {
                        self.gate = gate.clone();
                    }
                    self.driver.perform(action).await.map(DeviceInput::Attempt)
                }
                DeviceAction::Expect(kind, from) => {
                    let (channel, stop) = (&self.channel, &self.stop);
                    let expecting = unless_stopped(stop, channel.expect(kind, from));
                    broken(self.driver.unless_locked(expecting).await)
                }
                DeviceAction::Send { kind, to, payload } => self.send(kind, to, payload).await,
                DeviceAction::Flush => {
                    let flushed = unless_stopped(&self.stop, self.channel.flush()).await;
                    Some(match flushed {
                        Ok(()) => DeviceInput::Flushed,
                        Err(error) => DeviceInput::Received(Err(error)),
                    })
                }
                DeviceAction::Receive => Some(self.receive().await),
                DeviceAction::Approve(proposer, request) => {
                    Some(DeviceInput::Approved((self.observer.approve)(&proposer, &request)))
                }
                DeviceAction::Tell(stage) => {
                    (self.observer.progress)(stage);
                    None
                }
                DeviceAction::Abort(reason) => {
                    self.abort(reason).await;
                    None
                }
                DeviceAction::Stop => {
                    self.stop.cancel();
                    None
                }
            };
            if let Some(answer) = answer {
                return Performed::Answer(answer);
            }
        }
        std::future::pending().await
    }

    async fn send(
        &mut self,
        kind: MessageKind,
        to: Option<usize>,
        payload: Bytes,
    ) -> Option<DeviceInput> {
        let sending = self.channel.send(self.gate.clone(), kind, to, payload);
        broken(self.driver.unless_locked(unless_stopped(&self.stop, sending)).await)
    }

    async fn receive(&mut self) -> DeviceInput {
        let receiving = unless_stopped(&self.stop, self.channel.receive());
        let first = match self.driver.unless_locked(receiving).await {
            Ok(first) => first,
            Err(ended) => return input(ended),
        };
        let mut batch: Vec<SignedMessage> = vec![first];
        while batch.len() < BATCH_LEN {
            match self.channel.try_receive() {
                Some(Ok(message)) => batch.push(message),
                // An error comes again: the channel keeps it.
                _ => break,
            }
        }
        DeviceInput::Received(Ok(batch))
    }

    async fn abort(&mut self, reason: Bytes) {
        let telling = async {
            self.channel.send(Gate::open(), MessageKind::Abort, None, reason).await?;
            self.channel.flush().await
        };
        let _ = tokio::time::timeout(ABORT_LIMIT, telling).await;
    }
}

fn broken(done: std::result::Result<(), Ended>) -> Option<DeviceInput> {
    done.err().map(input)
}

/// How the machine hears that an action with messages was left.
fn input(ended: Ended) -> DeviceInput {
    match ended {
        Ended::Transport(error) => DeviceInput::Received(Err(error)),
        ended => DeviceInput::Attempt(Event::Broken(ended)),
    }
}

async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            Err(Error::new(ErrorCode::SessionExpired, "the run is over; start a new one"))
        }
        done = work => done,
    }
}
