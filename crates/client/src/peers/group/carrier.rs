//! Letters over the group relay.
//!
//! All that was sent is sent again after a break: a relay that was restarted has lost what waited
//! in it. Each letter is taken once, however often it comes.

use std::collections::HashSet;
use std::sync::Arc;

use quorate_party::Gate;
use quorate_types::{Result, SessionKind};
use serde_json::{Value, json};

use super::super::letter::{Letter, Slot};
use super::super::mail::{Ends, Mail, Order};
use super::super::signer::{MessageSigner, VerifyingKey};
use super::link::{Heard, Link};
use super::words::{Body, Room, Words};

/// Who meets in a session.
pub(super) struct Roster {
    pub(super) room: Room,
    /// Numbers and keys, in the order of the numbers.
    pub(super) members: Vec<(u16, VerifyingKey)>,
    /// Our place among them, from 0.
    pub(super) me: usize,
    /// Our introduction, for those that have not heard it.
    pub(super) introduction: Value,
    /// What the others said before we knew them all.
    pub(super) early: Vec<Words>,
}

impl Roster {
    /// How the relay calls the member at this place: by number, but by index in a signature.
    pub(super) fn address(&self, at: usize) -> u16 {
        match self.room.kind {
            SessionKind::Keygen => self.members[at].0,
            SessionKind::Sign => u16::try_from(at + 1).expect("there are few members"),
        }
    }

    /// The numbers that a letter is bound to.
    fn numbers(&self, from: usize, to: Option<usize>) -> (u16, u16) {
        (self.members[from].0, to.map_or(0, |to| self.members[to].0))
    }

    /// Carries letters until the mail is closed.
    pub(super) fn start(self, link: Link, signer: Arc<dyn MessageSigner>) -> Mail {
        Mail::start(|ends| {
            let carrier = Carrier {
                sent: vec![Sent {
                    method: "Session.message",
                    params: self.introduction.clone(),
                    gate: Gate::open(),
                }],
                roster: self,
                link,
                signer,
                ends,
                unanswered: HashSet::new(),
                flushes: Vec::new(),
                done: false,
                closed: false,
                taken: HashSet::new(),
            };
            carrier.run()
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

struct Carrier {
    roster: Roster,
    link: Link,
    signer: Arc<dyn MessageSigner>,
    ends: Ends,
    /// All calls of this run.
    sent: Vec<Sent>,
    unanswered: HashSet<u64>,
    flushes: Vec<tokio::sync::oneshot::Sender<()>>,
    /// The last letter said that we have our result.
    done: bool,
    /// The relay says that all have finished.
    closed: bool,
    /// Letters that the run has.
    taken: HashSet<(usize, Slot)>,
}

impl Carrier {
    async fn run(mut self) {
        self.link.tell_trouble(self.ends.trouble.clone());
        if let Err(error) = self.carry().await {
            let _ = self.ends.letters.send(Err(error)).await;
        }
    }

    async fn carry(&mut self) -> Result<()> {
        for words in std::mem::take(&mut self.roster.early) {
            self.take(words).await;
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
                heard = self.link.next() => self.hear(heard?).await?,
            }
        }
    }

    /// Says that we are finished, and stays until all are: what the relay loses in a restart, those
    /// who are not finished need again.
    async fn leave(&mut self) -> Result<()> {
        let Room { group, session, .. } = self.roster.room;
        let number = self.roster.members[self.roster.me].0;
        self.say("Session.finish", json!([group, session, number]), Gate::open());
        self.closed = false;
        while !self.closed {
            let heard = self.link.next().await?;
            self.hear(heard).await?;
        }
        Ok(())
    }

    async fn order(&mut self, order: Order) -> Result<()> {
        match order {
            // What is for us comes without asking.
            Order::Expect { .. } => {}
            Order::Send { slot, to, payload, gate } => {
                let Roster { room, me, .. } = &self.roster;
                let numbers = self.roster.numbers(*me, to);
                let body = room.letter(self.signer.as_ref(), slot, numbers, &payload).await?;
                // Signing may take its time: what is asked before it is out of date.
                gate.check()?;
                let (sender, receiver) = (self.roster.address(*me), to);
                let receiver = receiver.map(|to| self.roster.address(to));
                self.say("Session.message", room.message(sender, receiver, &body), gate);
                self.done = slot == Slot::Done;
            }
            Order::Flush(flushed) => self.flushes.push(flushed),
        }
        Ok(())
    }

    fn say(&mut self, method: &'static str, params: Value, gate: Gate) {
        self.unanswered.insert(self.link.post(method, &params));
        self.sent.push(Sent { method, params, gate });
    }

    async fn hear(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Again => {
                self.unanswered.clear();
                for sent in self.sent.iter().filter(|sent| sent.gate.check().is_ok()) {
                    self.unanswered.insert(self.link.post(sent.method, &sent.params));
                }
            }
            Heard::Answer(id, answer) => match answer {
                _ if !self.unanswered.contains(&id) => {}
                Ok(_) => drop(self.unanswered.remove(&id)),
                Err(refusal) if refusal.is_for_now() => self.link.broke(refusal.message),
                Err(refusal) => return Err(refusal.error("a letter")),
            },
            Heard::Event(name, message) if name == "sessionMessage" => {
                if let Some(words) = self.roster.room.read(message) {
                    self.take(words).await;
                }
            }
            Heard::Event(name, _) => self.closed |= name == "sessionClosed",
        }
        Ok(())
    }

    async fn take(&mut self, words: Words) {
        let Body::Letter { slot, letter } = words.body else { return };
        let Roster { room, members, me, .. } = &self.roster;
        let mut others = (0..members.len()).filter(|at| at != me);
        let Some(from) = others.find(|at| self.roster.address(*at) == words.sender) else { return };
        let to = match slot {
            Slot::Round { direct: true, .. } => Some(*me),
            _ => None,
        };
        let numbers = self.roster.numbers(from, to);
        match room.open(&members[from].1, slot, numbers, &letter) {
            Some(payload) => {
                if self.taken.insert((from, slot)) {
                    let _ = self.ends.letters.send(Ok(Letter { from, slot, payload })).await;
                }
            }
            None => tracing::warn!(?slot, from, "dropped a letter that its sender did not sign"),
        }
    }
}
