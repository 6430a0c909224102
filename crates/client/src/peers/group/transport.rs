//! Messages over the group relay.
//!
//! All that was sent is sent again after a break: a relay that was restarted has lost what waited
//! in it. Each message is taken once, however often it comes.

use std::collections::HashSet;
use std::sync::Arc;

use quorate_participant::Gate;
use quorate_participant::devices::{MessageKind, SignedMessage, VerifyingKey};
use quorate_types::{Error, ErrorCode, GroupKind, PartyId, Result};
use serde_json::{Value, json};

use super::super::channel::{Channel, Ends, Order};
use super::super::signer::MessageSigner;
use super::connection::{Heard, RelayConnection};
use super::message::{Body, GroupMessage, SessionContext};

/// Who meets in a session.
pub(super) struct Roster {
    pub(super) context: SessionContext,
    /// Numbers and keys, in the order of the numbers, or of the holders of the key.
    pub(super) members: Vec<(u16, VerifyingKey)>,
    /// Our place among them, from 0.
    pub(super) me: usize,
    /// Our key announcement, for members that have not received it.
    pub(super) key_announcement: Value,
    /// What the others said before we knew them all.
    pub(super) early: Vec<GroupMessage>,
}

impl Roster {
    /// How the relay calls the member at this place: by number, but by index in a signature.
    pub(super) fn address(&self, at: usize) -> u16 {
        match self.context.kind {
            GroupKind::Keygen => self.members[at].0,
            GroupKind::Sign => u16::try_from(at + 1).expect("there are few members"),
        }
    }

    /// Puts the members in the order of the holders of a key, who all have to be here.
    ///
    /// # Errors
    /// `conflict` naming the holder in whose place somebody else is.
    pub(super) fn put_in_order(&mut self, holders: &[PartyId]) -> Result<()> {
        let own = self.members[self.me].0;
        let mut members = Vec::with_capacity(holders.len());
        for holder in holders {
            let member = self.members.iter().find(|(_, key)| key.party_id() == *holder);
            members.push(member.cloned().ok_or_else(|| {
                let why = format!("{holder} holds a share of the key, and another device is here");
                Error::new(ErrorCode::Conflict, why).waiting_for(vec![holder.clone()])
            })?);
        }
        let me = members.iter().position(|(number, _)| *number == own);
        self.me = me.ok_or_else(Error::internal)?;
        self.members = members;
        Ok(())
    }

    /// The numbers that a message is bound to.
    fn numbers(&self, from: usize, to: Option<usize>) -> (u16, u16) {
        (self.members[from].0, to.map_or(0, |to| self.members[to].0))
    }

    /// Carries messages until the channel is closed.
    pub(super) fn start(
        self,
        connection: RelayConnection,
        signer: Arc<dyn MessageSigner>,
    ) -> Channel {
        Channel::start(|ends| {
            let transport = TransportTask {
                sent: vec![Sent {
                    method: "Session.message",
                    params: self.key_announcement.clone(),
                    gate: Gate::open(),
                }],
                roster: self,
                connection,
                signer,
                ends,
                unanswered: HashSet::new(),
                flushes: Vec::new(),
                done: false,
                closed: false,
                taken: HashSet::new(),
            };
            transport.run()
        })
    }
}

/// A call of this run.
struct Sent {
    method: &'static str,
    params: Value,
    /// What is sent again after a break asks again.
    gate: Gate,
}

struct TransportTask {
    roster: Roster,
    connection: RelayConnection,
    signer: Arc<dyn MessageSigner>,
    ends: Ends,
    /// All calls of this run.
    sent: Vec<Sent>,
    unanswered: HashSet<u64>,
    flushes: Vec<tokio::sync::oneshot::Sender<()>>,
    /// The last message said that we have our result.
    done: bool,
    /// The relay says that all have finished.
    closed: bool,
    /// Messages that the run has.
    taken: HashSet<(usize, MessageKind)>,
}

impl TransportTask {
    async fn run(mut self) {
        self.connection.report_errors_to(self.ends.last_error.clone());
        if let Err(error) = self.transport_messages().await {
            self.ends.fail(error).await;
        }
    }

    async fn transport_messages(&mut self) -> Result<()> {
        for message in std::mem::take(&mut self.roster.early) {
            self.take(message).await;
        }
        loop {
            if self.unanswered.is_empty() {
                for flushed in self.flushes.drain(..) {
                    let _ = flushed.send(());
                }
            }
            tokio::select! {
                biased;
                order = self.ends.orders.recv() => match order {
                    None if self.done => return self.leave().await,
                    None => return Ok(()),
                    Some(order) => self.order(order).await?,
                },
                heard = self.connection.next() => self.hear(heard?).await?,
            }
        }
    }

    /// Says that we are finished, and stays until all are: what the relay loses in a restart, those
    /// who are not finished need again.
    async fn leave(&mut self) -> Result<()> {
        let SessionContext { group, session, .. } = self.roster.context;
        let number = self.roster.members[self.roster.me].0;
        self.say("Session.finish", json!([group, session, number]), Gate::open());
        self.closed = false;
        while !self.closed {
            let heard = self.connection.next().await?;
            self.hear(heard).await?;
        }
        Ok(())
    }

    async fn order(&mut self, order: Order) -> Result<()> {
        match order {
            // What is for us comes without asking.
            Order::Expect { .. } => {}
            Order::Send { kind, to, payload, gate } => {
                let Roster { context, me, .. } = &self.roster;
                let numbers = self.roster.numbers(*me, to);
                let body = context.seal(self.signer.as_ref(), kind, numbers, &payload).await?;
                // Signing may take its time: what is asked before it is out of date.
                gate.check()?;
                let (sender, receiver) = (self.roster.address(*me), to);
                let receiver = receiver.map(|to| self.roster.address(to));
                self.say("Session.message", context.message(sender, receiver, &body), gate);
                self.done = kind == MessageKind::Confirmation;
            }
            Order::Flush(flushed) => self.flushes.push(flushed),
        }
        Ok(())
    }

    fn say(&mut self, method: &'static str, params: Value, gate: Gate) {
        self.unanswered.insert(self.connection.post(method, &params));
        self.sent.push(Sent { method, params, gate });
    }

    async fn hear(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Again => {
                self.unanswered.clear();
                for sent in self.sent.iter().filter(|sent| sent.gate.check().is_ok()) {
                    self.unanswered.insert(self.connection.post(sent.method, &sent.params));
                }
            }
            Heard::Answer(id, answer) => match answer {
                _ if !self.unanswered.contains(&id) => {}
                Ok(_) => drop(self.unanswered.remove(&id)),
                Err(refusal) if refusal.is_for_now() => self.connection.broke(refusal.message),
                Err(refusal) => return Err(refusal.error("a message")),
            },
            Heard::Event(name, message) if name == "sessionMessage" => {
                if let Some(message) = self.roster.context.read(message) {
                    self.take(message).await;
                }
            }
            Heard::Event(name, _) => self.closed |= name == "sessionClosed",
        }
        Ok(())
    }

    async fn take(&mut self, message: GroupMessage) {
        let Body::Message { kind, sealed } = message.body else { return };
        let Roster { context, members, me, .. } = &self.roster;
        let mut others = (0..members.len()).filter(|at| at != me);
        let Some(from) = others.find(|at| self.roster.address(*at) == message.sender) else {
            return;
        };
        let to = match kind {
            MessageKind::Round { direct: true, .. } => Some(*me),
            _ => None,
        };
        let numbers = self.roster.numbers(from, to);
        match context.open(&members[from].1, kind, numbers, &sealed) {
            Some(payload) => {
                if self.taken.insert((from, kind)) {
                    let _ =
                        self.ends.messages.send(Ok(SignedMessage { from, kind, payload })).await;
                }
            }
            None => tracing::warn!(?kind, from, "dropped a message without its sender's signature"),
        }
    }
}
