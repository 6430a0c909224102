//! The heavy part: what a runtime runs on its pool, a value that is sent there and comes back.

use std::sync::Arc;

use bytes::Bytes;
use quorate_engine::{Fault, HandshakeSecret, Identity, Member, Run, Step, Task};
use quorate_types::vault::Ban;
use quorate_types::{MessageId, PartyId, SessionId, Timestamp};

use crate::gate::{Ended, Gate};

/// A message as a run takes it.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What to acknowledge it by.
    pub message_id: MessageId,
    /// The sender as the router names it; the engine checks the signature against it.
    pub from: PartyId,
    /// The sealed envelope.
    pub payload: Bytes,
}

/// Work for the processor.
pub struct Computation(pub(crate) Work);

pub(crate) enum Work {
    Start(Box<Start>),
    Turn(Box<Turn>),
}

/// A run that is to be prepared.
pub(crate) struct Start {
    pub(crate) party: PartyId,
    pub(crate) identity: Arc<Identity>,
    pub(crate) secret: HandshakeSecret,
    pub(crate) session: SessionId,
    pub(crate) attempt: u32,
    pub(crate) roster: Vec<Member>,
    pub(crate) task: Task,
}

/// A run with messages for it.
pub(crate) struct Turn {
    pub(crate) run: Box<Run>,
    pub(crate) batch: Vec<Incoming>,
    /// It computes in any case, not only when nobody is missing.
    pub(crate) first: bool,
    pub(crate) gate: Gate,
}

/// What a computation has come to.
pub struct Computed {
    pub(crate) result: Done,
    /// When, by this machine's clock.
    pub(crate) at: Timestamp,
    ban: Option<Ban>,
}

pub(crate) enum Done {
    Started(Result<Box<Run>, Fault>),
    Turned(Turned),
}

/// A run with what a turn made of it.
pub(crate) struct Turned {
    pub(crate) run: Box<Run>,
    pub(crate) refused: Vec<(Incoming, Fault)>,
    pub(crate) accepted: Vec<MessageId>,
    pub(crate) step: Result<Step, Ended>,
}

impl Computation {
    /// Whether it may come upon a fault that bans somebody: then the process should not end before
    /// it has.
    pub fn may_ban(&self) -> bool {
        matches!(&self.0, Work::Turn(turn) if turn.gate.guards())
    }

    /// Computes, in up to some hundred milliseconds. A ban that this sets holds when it returns,
    /// whether or not anybody takes the result.
    pub fn run(self, now: Timestamp) -> Computed {
        match self.0 {
            Work::Start(start) => {
                let Start { party, identity, secret, session, attempt, roster, task } = *start;
                let run = Run::new(&identity, secret, (session, attempt), &party, roster, task);
                Computed { result: Done::Started(run.map(Box::new)), at: now, ban: None }
            }
            Work::Turn(turn) => turn.run(now),
        }
    }
}

impl Turn {
    /// Takes the messages in, then computes if nobody is missing.
    fn run(self, now: Timestamp) -> Computed {
        let Self { mut run, batch, first, gate } = self;
        let mut refused = Vec::new();
        let mut accepted = Vec::with_capacity(batch.len());
        for incoming in batch {
            match run.receive(&incoming.from, &incoming.payload) {
                Ok(()) => accepted.push(incoming.message_id),
                Err(fault) => refused.push((incoming, fault)),
            }
        }
        let due = first || (!accepted.is_empty() && run.waiting_for().is_empty());
        let mut ban = None;
        let step = match due {
            true => gate.pass().and_then(|()| {
                run.advance().map_err(|fault| {
                    let (ended, set) = gate.settle(fault, now);
                    ban = set;
                    ended
                })
            }),
            false => Ok(Step::default()),
        };
        let result = Done::Turned(Turned { run, refused, accepted, step });
        Computed { result, at: now, ban }
    }
}

impl Computed {
    /// The ban that it has set. It is to be written to the vault by a task that nothing cancels:
    /// the session may be left before its own machine comes to it.
    pub fn ban(&self) -> Option<&Ban> {
        self.ban.as_ref()
    }
}
