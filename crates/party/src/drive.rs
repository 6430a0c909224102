//! Drives one run over one transport: compute, send, receive, again.

use std::time::Duration;

use quorate_engine::{Fault, Output, Run, Step};
use quorate_types::{Error, MessageId, PartyId};

use crate::compute::Compute;
use crate::gate::Gate;
use crate::transport::{Incoming, Transport};

/// Messages handed to the run in one go: one from each peer of the largest session.
const BATCH_LEN: usize = 16;

/// How long the acknowledgements of a run that has failed may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// Why a run ended without an output.
#[derive(Debug)]
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

/// What the driver tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The run waits for messages of this round.
    Round {
        /// The round.
        round: u16,
        /// Who has not sent its message of it.
        waiting_for: Vec<PartyId>,
    },
    /// A message was refused; the run goes on as if it had not come.
    Refused {
        /// Who the router says sent it.
        from: PartyId,
        /// Why.
        fault: Fault,
    },
}

/// The run with what a job on the compute pool made of it.
struct Turn {
    run: Run,
    refused: Vec<(Incoming, Fault)>,
    accepted: Vec<MessageId>,
    step: Result<Step, Ended>,
}

/// Takes the messages in, then computes if nobody is missing. `first` computes in any case.
fn turn(mut run: Run, batch: Vec<Incoming>, first: bool, gate: &Gate) -> Turn {
    let mut refused = Vec::new();
    let mut accepted = Vec::with_capacity(batch.len());
    for incoming in batch {
        match run.receive(&incoming.from, &incoming.payload) {
            Ok(()) => accepted.push(incoming.message_id),
            Err(fault) => refused.push((incoming, fault)),
        }
    }
    let due = first || (!accepted.is_empty() && run.waiting_for().is_empty());
    let step = match due {
        true => gate.pass().and_then(|()| run.advance().map_err(|fault| gate.settle(fault))),
        false => Ok(Step { outgoing: Vec::new(), output: None }),
    };
    Turn { run, refused, accepted, step }
}

/// Does one thing with the transport, unless a signer is banned or becomes so meanwhile.
async fn unless_locked<T>(
    gate: &Gate,
    work: impl Future<Output = quorate_types::Result<T>>,
) -> Result<T, Ended> {
    tokio::select! {
        biased;
        ended = gate.locked() => Err(ended),
        done = work => done.map_err(Ended::Transport),
    }
}

/// Runs `run` to its next output: a keygen has two, the key and its confirmations.
///
/// Everything the run computes happens on `compute`. Sending never waits for durability, and a
/// refused message is acknowledged as failed and ignored: only the run's own step, a ban of a
/// signer or a transport that is gone for good ends it. There is no time limit here; put one
/// around it. Dropping the future stops the run after the computation under way, whose fault still
/// takes effect: it is settled where it arises, before the transport is asked for anything.
///
/// # Errors
/// [`Ended`] says whether the protocol or the transport stopped it.
pub async fn drive(
    mut run: Run,
    transport: &mut dyn Transport,
    compute: &Compute,
    gate: &Gate,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<(Run, Output), Ended> {
    let mut batch = Vec::new();
    let mut first = true;
    let mut round = None;
    loop {
        let messages = std::mem::take(&mut batch);
        let (settling, under_way) = (gate.clone(), gate.computing());
        let computing = compute.run_unless_stopped(move || {
            let turn = turn(run, messages, first, &settling);
            drop(under_way);
            turn
        });
        let done = unless_locked(gate, computing).await?;
        run = done.run;
        first = false;
        let step = match done.step {
            Ok(step) => step,
            Err(ended) => {
                // The session is lost: a peer that waits for its acknowledgement learns it anyway.
                let _ = tokio::time::timeout(LEAVE_LIMIT, transport.flush()).await;
                return Err(ended);
            }
        };
        for message in done.accepted {
            transport.accepted(message);
        }
        for (incoming, fault) in done.refused {
            unless_locked(gate, transport.refused(incoming.message_id)).await?;
            progress(Progress::Refused { from: incoming.from, fault });
        }
        for outgoing in step.outgoing {
            unless_locked(gate, transport.send(outgoing)).await?;
        }
        // At the end nothing needs an acknowledgement any more: the messages go with the session.
        if let Some(output) = step.output {
            gate.pass()?;
            return Ok((run, output));
        }
        unless_locked(gate, transport.flush()).await?;
        if round.replace(run.round()) != Some(run.round()) {
            progress(Progress::Round { round: run.round(), waiting_for: run.waiting_for() });
        }
        batch.push(unless_locked(gate, transport.receive()).await?);
        while batch.len() < BATCH_LEN {
            match transport.try_receive() {
                Some(incoming) => batch.push(incoming),
                None => break,
            }
        }
    }
}
