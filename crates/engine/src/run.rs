//! One party's attempt at one session: envelopes in, envelopes out, and a result at the end.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_schemes::{IdentityVerifier, Statement};
use quorate_types::threshold::MAX_PARTIES;
use quorate_types::{Handshake, PartyId, SessionId};
use zeroize::Zeroizing;

use crate::channel::Channel;
use crate::confirmation::Confirm;
use crate::echo::Broadcasts;
use crate::envelope::{self, Address, Envelope, Fingerprint};
use crate::execution::{Facts, KeyFacts, execution_id};
use crate::fault::{Fault, FaultCode, Severity};
use crate::handshake::{HandshakeSecret, HandshakeView, Shown, read_handshake, read_own_handshake};
use crate::identity::Identity;
use crate::machine::{Input, Kind, Machine, MachineFault, OutboundMessage, Position};
use crate::registry;
use crate::task::{Expected, Output, Task};

/// A party of the session with its handshake.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name in the session.
    pub party_id: PartyId,
    /// Its handshake to this attempt.
    pub handshake: Handshake,
}

/// What a step of a run gives.
#[derive(Default)]
pub struct Step {
    /// Payloads to send, in this order.
    pub outgoing: Vec<Outgoing>,
    /// The result, at the end.
    pub output: Option<Output>,
}

/// A payload to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// To whom; `None` to all others.
    pub to: Option<PartyId>,
    /// The protocol's round.
    pub round: u16,
    /// Whether it may tell something of the result. What comes before may leave while the
    /// permission of the run is being written.
    pub telling: bool,
    /// The encoded envelope, signed and sealed where it is direct.
    pub payload: Bytes,
}

/// A message's place in the protocol.
type MessageKey = (u16, Kind, Position);

/// A party of the run with what is needed to talk to it.
struct Peer {
    party: PartyId,
    identity: [u8; 32],
    shown: Shown,
    verifier: IdentityVerifier,
    channel: Channel,
}

/// One attempt at one session, as one party runs it.
pub struct Run {
    identity: Identity,
    secret: HandshakeSecret,
    execution: [u8; 32],
    roster: Vec<Peer>,
    me: Position,
    machine: Box<dyn Machine>,
    /// Where shares are made: the round behind those of the machine.
    confirmation: Option<u16>,
    /// Envelopes, one per round, kind and sender: no machine expects more than 8 × 2 × 15.
    inbox: BTreeMap<MessageKey, Bytes>,
    /// The envelopes of the step under way, by sender: the evidence of a cheat.
    stepping: Vec<(Position, Bytes)>,
    /// The broadcasts that are echoed.
    broadcasts: Broadcasts,
    /// Every envelope taken in, by which a repetition is known.
    seen: BTreeMap<MessageKey, Fingerprint>,
    /// Set when a key was made, until it is kept.
    keeping: bool,
    /// Set when the run has ended, one way or the other.
    over: bool,
}

impl Run {
    /// Prepares a run of one attempt, counted from 0. `roster` is in the order of the session's
    /// participants.
    ///
    /// # Errors
    /// When a handshake does not hold, when `me` is not in the roster with the handshake
    /// that `secret` belongs to, or when the task does not fit the roster.
    pub fn new(
        identity: &Identity,
        secret: HandshakeSecret,
        (session, attempt): (SessionId, u32),
        me: &PartyId,
        roster: Vec<Member>,
        task: Task,
    ) -> Result<Self, Fault> {
        let bad = |why: &str| Fault::benign(FaultCode::BadInput, why);
        if roster.len() > usize::from(MAX_PARTIES) {
            return Err(bad("the session has more parties than a key can have"));
        }
        let position = roster.iter().position(|member| member.party_id == *me);
        let position =
            position.ok_or_else(|| bad("this party does not take part in the session"))?;
        if roster[position].handshake != secret.handshake {
            return Err(bad("the session has another handshake of this party than it made"));
        }
        let views = views(session, &roster, position)?;
        if views[position].1.identity != identity.public() {
            return Err(bad("this party sent a handshake with another identity than it has"));
        }
        let execution = execution_id(&facts((session, attempt), &task, &views)?);
        let parties: Vec<_> = views.iter().map(|(party, _)| party).collect();
        let machine = registry::start(&task, position, &parties, execution)?;
        let confirmation = task.makes_shares().then(|| machine.rounds().saturating_add(1));
        Ok(Self {
            identity: Identity::from_secret(&identity.secret()),
            secret,
            execution,
            roster: views.into_iter().map(peer).collect::<Result<_, _>>()?,
            me: position,
            machine,
            confirmation,
            inbox: BTreeMap::new(),
            stepping: Vec::new(),
            broadcasts: Broadcasts::default(),
            seen: BTreeMap::new(),
            keeping: false,
            over: false,
        })
    }

    /// Every message that this run will need from the others, by round.
    pub fn expected(&self) -> Vec<Expected> {
        let mut expected = Vec::new();
        for round in 0..=self.confirmation.unwrap_or_else(|| self.machine.rounds()) {
            for kind in [Kind::Broadcast, Kind::Direct] {
                let positions = self.roster.iter().enumerate();
                for (position, peer) in positions.filter(|(position, _)| *position != self.me) {
                    if self.expects(round, kind, position) {
                        let from = peer.party.clone();
                        expected.push(Expected { from, round, direct: kind == Kind::Direct });
                    }
                }
            }
        }
        expected
    }

    fn expects(&self, round: u16, kind: Kind, from: Position) -> bool {
        let confirmation = kind == Kind::Broadcast && self.confirmation == Some(round);
        confirmation || self.machine.expects(round, kind, from)
    }

    /// Takes a payload in after checking all that can be checked of it: form, execution, sender,
    /// recipient, round, signature. Cheap. A repeated one is ignored; one for a later round waits.
    ///
    /// # Errors
    /// Says what is wrong with the payload. A refused one changes nothing: the run goes on.
    pub fn receive(&mut self, from: &PartyId, payload: &Bytes) -> Result<(), Fault> {
        let position =
            self.roster.iter().position(|peer| peer.party == *from).ok_or_else(|| {
                Fault::benign(FaultCode::WrongSender, format!("{from} does not take part"))
            })?;
        self.take(position, payload)
            .map_err(|fault| Fault { message: format!("from {from}: {}", fault.message), ..fault })
    }

    fn take(&mut self, position: Position, payload: &Bytes) -> Result<(), Fault> {
        let envelope = Envelope::read(payload)?;
        let message_key = self.message_key(position, &envelope.address)?;
        let peer = &self.roster[position];
        match self.seen.get(&message_key) {
            Some(known) if *known == envelope.fingerprint() => return Ok(()),
            Some(_) => {
                envelope.verified(&peer.verifier)?;
                let message = format!("a second, different message of round {}", message_key.0);
                let fault = Fault::benign(FaultCode::ConflictingMessage, message);
                let both = self.at_hand(message_key).map(|first| vec![first, payload.clone()]);
                return Err(Fault {
                    evidence: both.unwrap_or_default(),
                    ..fault.blaming(&peer.party)
                });
            }
            None => {}
        }
        let fingerprint = envelope.verified(&peer.verifier)?;
        self.seen.insert(message_key, fingerprint);
        if !self.over && message_key.0 >= self.machine.need().round {
            self.inbox.insert(message_key, payload.clone());
        }
        Ok(())
    }

    /// The envelope that was taken in first for this place, while it is kept.
    fn at_hand(&self, (round, kind, from): MessageKey) -> Option<Bytes> {
        let echoed = self.broadcasts.get(round, from).filter(|_| kind == Kind::Broadcast);
        self.inbox.get(&(round, kind, from)).or(echoed).cloned()
    }

    /// Where a message belongs that came from this position and has this address.
    fn message_key(&self, position: Position, address: &Address) -> Result<MessageKey, Fault> {
        let refuse = |code, message: &str| Err(Fault::benign(code, message));
        if address.execution != self.execution {
            return refuse(
                FaultCode::ExecutionMismatch,
                "the message belongs to another attempt, or its sender sees other facts of this one",
            );
        }
        if usize::from(address.from) != position || position == self.me {
            return refuse(FaultCode::WrongSender, "the envelope names another sender");
        }
        if address.to.is_some_and(|to| usize::from(to) != self.me) {
            return refuse(FaultCode::WrongRecipient, "the envelope is for another party");
        }
        let kind = if address.to.is_some() { Kind::Direct } else { Kind::Broadcast };
        let round = address.round;
        if self.expects(round, kind, position) {
            return Ok((round, kind, position));
        }
        if (0..self.roster.len()).any(|other| self.expects(round, kind, other)) {
            return refuse(
                FaultCode::NotASigner,
                "its sender has no message to send in this round",
            );
        }
        refuse(FaultCode::WrongRound, "no such message belongs to its round")
    }

    /// Computes as far as the received messages allow. Heavy; to be called once at the start and
    /// when nobody is waited for.
    ///
    /// # Errors
    /// The fault has ended the run, and blames who caused it where that is known.
    pub fn advance(&mut self) -> Result<Step, Fault> {
        let mut step = Step::default();
        while !self.over && !self.keeping && self.missing().is_empty() {
            let round = self.round();
            let stepped = match self.open().and_then(|input| self.machine.step(input)) {
                Ok(stepped) => stepped,
                Err(fault) => return Err(self.end(round, fault)),
            };
            self.stepping.clear();
            for send in stepped.sends {
                match self.wrap(send) {
                    Ok(outgoing) => step.outgoing.push(outgoing),
                    Err(fault) => return Err(self.end(round, fault)),
                }
            }
            self.keeping = matches!(stepped.output, Some(Output::Key { .. }));
            self.over = stepped.output.is_some() && !self.keeping;
            step.output = stepped.output;
        }
        Ok(step)
    }

    /// The share of the key that this run has made is on disk: the next step confirms it to the
    /// others, and the run goes on until all have.
    pub fn kept(&mut self, statement: Statement) {
        let Some(round) = self.confirmation else { return };
        self.machine = Box::new(Confirm::new(statement, round, self.me, &self.identity));
        self.keeping = false;
    }

    /// The id of this execution.
    pub fn execution(&self) -> [u8; 32] {
        self.execution
    }

    /// Takes out and opens what the machine needs; all of it is there.
    fn open(&mut self) -> Result<Input, MachineFault> {
        let need = self.machine.need();
        let mut input = Input::default();
        for position in need.broadcasts {
            let envelope = self.taken(need.round, Kind::Broadcast, position);
            self.keep_broadcast(need.round, position, &envelope);
            let body = Zeroizing::new(envelope::body(&envelope).to_vec());
            input.broadcasts.insert(position, self.behind_echo(need.round, position, body)?);
        }
        for position in need.directs {
            let envelope = self.taken(need.round, Kind::Direct, position);
            let body = envelope::body(&envelope).to_vec();
            let header = self.address(position, Some(self.me), need.round).header();
            let channel = &mut self.roster[position].channel;
            let body = channel.open(&self.secret, &header, body).ok_or_else(|| MachineFault {
                code: FaultCode::SealInvalid,
                ..MachineFault::violation(position, "sent a message that cannot be opened")
            })?;
            input.directs.insert(position, self.behind_echo(need.round, position, body)?);
        }
        Ok(input)
    }

    /// Takes an envelope out for the step that needs it.
    fn taken(&mut self, round: u16, kind: Kind, position: Position) -> Bytes {
        let envelope = self.inbox.remove(&(round, kind, position)).expect("nothing is missing");
        self.stepping.push((position, envelope.clone()));
        envelope
    }

    /// Keeps a broadcast that will be echoed.
    fn keep_broadcast(&mut self, round: u16, from: Position, envelope: &Bytes) {
        let echoes = (round..=self.machine.rounds()).filter_map(|at| self.machine.echoed(at));
        if echoes.into_iter().any(|rounds| rounds.contains(&round)) {
            self.broadcasts.keep(round, from, envelope.clone());
        }
    }

    /// What the machine gets of a body: all behind the echo, where the round has one.
    fn behind_echo(
        &self,
        round: u16,
        from: Position,
        mut body: Zeroizing<Vec<u8>>,
    ) -> Result<Zeroizing<Vec<u8>>, MachineFault> {
        if let Some(rounds) = self.machine.echoed(round) {
            let verifier = |position: Position| &self.roster[position].verifier;
            let echo = self.broadcasts.compare(rounds, from, &body, self.execution, verifier)?;
            body.drain(..echo);
        }
        Ok(body)
    }

    fn wrap(&mut self, send: OutboundMessage) -> Result<Outgoing, MachineFault> {
        let OutboundMessage { round, to, mut body } = send;
        if let Some(rounds) = self.machine.echoed(round) {
            let echo = self.broadcasts.echo(rounds, self.me);
            // In one piece: a buffer that grows leaves unwiped copies behind.
            let mut all = Zeroizing::new(Vec::with_capacity(echo.len() + body.len()));
            all.extend_from_slice(&echo);
            all.extend_from_slice(&body);
            body = all;
        }
        let address = self.address(self.me, to, round);
        let peer = to.map(|position| &mut self.roster[position]);
        let party = peer.as_ref().map(|peer| peer.party.clone());
        let channel = peer.map(|peer| &mut peer.channel);
        let payload = envelope::wrap(&self.identity, &address, &body, channel);
        let payload = payload.ok_or_else(|| MachineFault {
            code: FaultCode::HandshakeInvalid,
            blame: to,
            ..MachineFault::ours("sent a handshake with an unusable encryption key")
        })?;
        if to.is_none() {
            self.keep_broadcast(round, self.me, &payload);
        }
        let telling = round >= self.machine.telling();
        Ok(Outgoing { to: party, round, telling, payload })
    }

    fn address(&self, from: Position, to: Option<Position>, round: u16) -> Address {
        let small = |position: Position| u8::try_from(position).expect("at most MAX_PARTIES");
        Address { execution: self.execution, from: small(from), to: to.map(small), round }
    }

    /// Ends the run by a fault in the step that took this round, and names whom it blames.
    fn end(&mut self, step: u16, fault: MachineFault) -> Fault {
        self.over = true;
        self.inbox.clear();
        let MachineFault { code, severity, blame, message, mut evidence } = fault;
        let stepping = std::mem::take(&mut self.stepping);
        if severity == Severity::Ban {
            let answered = self.machine.echoed(step);
            let answered = answered.into_iter().flat_map(|rounds| self.broadcasts.of(rounds));
            evidence.extend(answered.cloned());
            let signed = |(position, envelope)| (Some(position) == blame).then_some(envelope);
            evidence.extend(stepping.into_iter().filter_map(signed));
        }
        let blame = blame.map(|position| self.roster[position].party.clone());
        let message = blame.as_ref().map(|party| format!("{party} {message}")).unwrap_or(message);
        Fault { code, severity, blame, message, evidence }
    }

    /// The round whose messages are waited for.
    pub fn round(&self) -> u16 {
        self.machine.need().round
    }

    fn missing(&self) -> Vec<Position> {
        let need = self.machine.need();
        let here =
            |kind, position: Position| self.inbox.contains_key(&(need.round, kind, position));
        let missing = (0..self.roster.len()).filter(|position| {
            need.broadcasts.contains(position) && !here(Kind::Broadcast, *position)
                || need.directs.contains(position) && !here(Kind::Direct, *position)
        });
        missing.collect()
    }

    /// The parties whose message of this round has not come; nobody once the run is over.
    pub fn waiting_for(&self) -> Vec<PartyId> {
        let missing = if self.over || self.keeping { Vec::new() } else { self.missing() };
        missing.into_iter().map(|position| self.roster[position].party.clone()).collect()
    }

    /// What the parties show of their vaults, in the order of the roster.
    pub fn shown(&self) -> impl Iterator<Item = &Shown> {
        self.roster.iter().map(|peer| &peer.shown)
    }

    /// The identity keys of the roster, in its order.
    pub fn identities(&self) -> Vec<[u8; 32]> {
        self.roster.iter().map(|peer| peer.identity).collect()
    }
}

/// Reads the handshakes; nobody may be there twice, under one name or one identity.
fn views(
    session: SessionId,
    roster: &[Member],
    me: Position,
) -> Result<Vec<(PartyId, HandshakeView)>, Fault> {
    let mut views: Vec<(PartyId, HandshakeView)> = Vec::with_capacity(roster.len());
    for (position, Member { party_id, handshake }) in roster.iter().enumerate() {
        let view = match position == me {
            true => read_own_handshake(handshake, party_id)?.0,
            false => read_handshake(handshake, session, party_id)?,
        };
        let twice = |(party, known): &(PartyId, HandshakeView)| {
            party == party_id || known.identity == view.identity
        };
        if views.iter().any(twice) {
            let message = format!("{party_id} is in the session twice, by name or by identity");
            return Err(Fault::benign(FaultCode::BadInput, message));
        }
        views.push((party_id.clone(), view));
    }
    Ok(views)
}

fn peer((party, handshake): (PartyId, HandshakeView)) -> Result<Peer, Fault> {
    let HandshakeView { identity, encryption_key, shown, .. } = handshake;
    let verifier = IdentityVerifier::new(&identity).ok_or_else(|| {
        let message = format!("the identity key of {party} cannot be used");
        Fault::benign(FaultCode::HandshakeInvalid, message).blaming(&party)
    })?;
    Ok(Peer { party, identity, shown, verifier, channel: Channel::new(encryption_key) })
}

fn facts<'a>(
    (session, attempt): (SessionId, u32),
    task: &'a Task,
    roster: &'a [(PartyId, HandshakeView)],
) -> Result<Facts<'a>, Fault> {
    let row = registry::row(task.scheme());
    let row = row.map_err(|error| Fault::benign(FaultCode::BadInput, error.message))?;
    let key = task.key().map(|(share, key, made_by)| KeyFacts {
        key_id: key.key_id,
        epoch: key.epoch,
        public_key: share.public_key(),
        made_by,
        holders: &key.holders,
    });
    Ok(Facts {
        ceremony: task.name(),
        protocol: row.protocol(task),
        scheme: task.scheme(),
        session,
        attempt,
        key,
        threshold: task.threshold(),
        input: task.input(),
        path: "",
        roster,
    })
}

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod tests;
