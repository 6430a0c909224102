//! One run among devices, as one of them sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_engine::{Expected, HandshakeSecret, Outgoing, make_handshake};
use quorate_types::*;

use super::agree::{self, aborted};
use super::key::VerifyingKey;
use super::message::{InstanceId, MessageKind, Proposal, ProposedCeremony, SignedMessage};
use super::signing_request::SigningRequest;
use crate::Me;
use crate::attempt::{Action, Attempt, Event, Next, Progress};
use crate::computation::Incoming;
use crate::gate::Ended;
use crate::key::{OpenKey, shown};
use crate::vault::{VaultAction, VaultAnswer};

/// How long a device that is done waits for the others to be: its last messages may still be on
/// their way to them.
const DONE_GRACE: Duration = Duration::from_secs(10);

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for these devices to show up.
    WaitingFor(Vec<PartyId>),
    /// Computing; messages of this round are awaited.
    Round(u16),
    /// The result is there; these devices have not said that they have theirs.
    Confirming(Vec<PartyId>),
}

/// What a run is about.
pub struct RunParameters {
    /// What the devices have in common.
    pub instance: InstanceId,
    /// What this device wants.
    pub ceremony: ProposedCeremony,
    /// By which key it is known.
    pub key: VerifyingKey,
    /// The names of the members, in their order.
    pub members: Vec<PartyId>,
    /// This device's place among them, from 0.
    pub me: usize,
}

/// What a run asks of its runtime. Actions are carried out in their order; at most the last of a
/// list is answered. One with messages that fails is answered by [`DeviceInput::Received`] with
/// the error.
pub enum DeviceAction {
    /// Of the attempt, but none with messages: [`DeviceInput::Attempt`].
    Attempt(Action),
    /// A message from this member will be needed.
    Expect(MessageKind, usize),
    /// Send a message, to all others where `to` is `None`.
    Send {
        /// What it is.
        kind: MessageKind,
        /// The recipient's place among the members.
        to: Option<usize>,
        /// What it says.
        payload: Bytes,
    },
    /// Wait until all messages have left this machine: [`DeviceInput::Flushed`].
    Flush,
    /// Take what messages there are, one at least: [`DeviceInput::Received`].
    Receive,
    /// Ask the user whether to sign what a device proposes: [`DeviceInput::Approved`].
    Approve(PartyId, SigningRequest),
    /// Tell the user.
    Tell(Stage),
    /// From now on the run ends after so long, whatever its deadline: [`DeviceInput::Late`].
    Deadline(Duration),
    /// Nothing more is sent, received or begun. What is being computed comes to its end.
    Stop,
    /// Tell the others why this device gives up, for a bounded time and whatever comes of it.
    Abort(Bytes),
    /// The run is over. Nothing comes after it.
    Done(Result<PartyOutcome>),
}

/// What a run is told.
pub enum DeviceInput {
    /// What came of the attempt's action.
    Attempt(Event),
    /// Messages that have come, or why none can come or leave any more.
    Received(Result<Vec<SignedMessage>>),
    /// All messages have left.
    Flushed,
    /// What the user said.
    Approved(bool),
    /// The run's time is up; with what keeps the relay out of reach, if anything does.
    Late(Option<String>),
}

/// A device's part in a run.
pub struct DeviceRun {
    me: Me,
    parameters: RunParameters,
    /// Messages that came before they were wanted.
    early: VecDeque<SignedMessage>,
    told: Stage,
    /// Why the run ends although the attempt was going on.
    late: Option<Error>,
    state: State,
}

enum State {
    /// The share is being opened.
    Opening,
    /// The vault is asked what to show of itself.
    Showing(Option<Arc<OpenKey>>),
    /// Proposals are awaited.
    Meeting(Meeting),
    /// The user is asked.
    Approving(Meeting, SigningRequest),
    Attempting(Box<Attempt>),
    /// The others' confirmations are awaited, after ours has left.
    Confirming(PartyOutcome, Vec<u8>, Vec<usize>),
    Over,
}

/// Devices that exchange proposals.
struct Meeting {
    handshake: Handshake,
    secret: HandshakeSecret,
    key: Option<Arc<OpenKey>>,
    proposals: Vec<Option<Proposal>>,
}

type Actions = Vec<DeviceAction>;

impl DeviceRun {
    /// Begins a run: what is to be done first comes with it.
    pub fn begin(me: Me, parameters: RunParameters) -> (Self, Vec<DeviceAction>) {
        let (state, question) = match &parameters.ceremony {
            ProposedCeremony::Sign { key_id, .. } | ProposedCeremony::Refresh { key_id } => {
                (State::Opening, VaultAction::OpenKey(*key_id))
            }
            ProposedCeremony::Keygen { .. } => (State::Showing(None), VaultAction::ReadStanding),
        };
        let (early, told) = (VecDeque::new(), Stage::WaitingFor(Vec::new()));
        let run = Self { me, parameters, early, told, late: None, state };
        (run, vec![DeviceAction::Attempt(Action::Vault(question))])
    }

    /// Takes one thing in and says what is to be done.
    pub fn handle(&mut self, input: DeviceInput) -> Vec<DeviceAction> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let next = match (state, input) {
            (state, DeviceInput::Late(relay)) => self.late(state, relay),
            (State::Opening, DeviceInput::Attempt(Event::Vault(answer))) => self.opened(answer),
            (State::Showing(key), DeviceInput::Attempt(Event::Vault(answer))) => {
                self.shown(key, answer)
            }
            (State::Meeting(meeting), DeviceInput::Received(messages)) => {
                messages.and_then(|messages| self.met(meeting, messages))
            }
            (State::Approving(meeting, request), DeviceInput::Approved(approved)) => {
                self.approved(meeting, request, approved)
            }
            (State::Attempting(attempt), DeviceInput::Attempt(event)) => {
                self.advance(attempt, event)
            }
            (State::Attempting(attempt), DeviceInput::Received(messages)) => {
                self.received(attempt, messages)
            }
            (State::Confirming(outcome, result, missing), input) => {
                self.confirming(outcome, result, missing, input)
            }
            (state, _) => {
                self.state = state;
                Ok(Vec::new())
            }
        };
        next.unwrap_or_else(|error| self.give_up(error))
    }

    /// Ends a run that fails here; the others are told.
    fn give_up(&mut self, error: Error) -> Actions {
        self.state = State::Over;
        let reason = Bytes::from(error.message.clone());
        vec![DeviceAction::Abort(reason), DeviceAction::Done(Err(error))]
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.parameters.me;
        (0..self.parameters.members.len()).filter(move |at| *at != me)
    }

    fn names(&self, places: &[usize]) -> Vec<PartyId> {
        places.iter().map(|at| self.parameters.members[*at].clone()).collect()
    }

    fn place(&self, party: &PartyId) -> Result<usize> {
        let place = self.parameters.members.iter().position(|member| member == party);
        place.ok_or_else(Error::internal)
    }

    fn tell(&mut self, stage: Stage) -> Option<DeviceAction> {
        if self.told == stage {
            return None;
        }
        self.told = stage.clone();
        Some(DeviceAction::Tell(stage))
    }

    fn opened(&mut self, answer: Result<VaultAnswer>) -> Result<Actions> {
        let VaultAnswer::Key(key) = answer? else { return Err(Error::internal()) };
        self.state = State::Showing(key);
        Ok(vec![DeviceAction::Attempt(Action::Vault(VaultAction::ReadStanding))])
    }

    /// Sends our proposal, with the handshake that shows what our vault holds.
    fn shown(&mut self, key: Option<Arc<OpenKey>>, answer: Result<VaultAnswer>) -> Result<Actions> {
        let VaultAnswer::Standing(standing) = answer? else {
            return Err(Error::internal());
        };
        let session = self.parameters.instance.session();
        let Me { party, identity, .. } = &self.me;
        let shown = shown(identity, standing, key.as_ref());
        let (handshake, secret) = make_handshake(identity, session, party, &shown);
        let RunParameters { key: own, ceremony, members, me, .. } = &self.parameters;
        let mine = Proposal::new(own.clone(), ceremony.clone(), &handshake);
        let mut actions = Vec::new();
        for kind in [MessageKind::Abort, MessageKind::Proposal] {
            actions.extend(self.others().map(|from| DeviceAction::Expect(kind, from)));
        }
        let payload = mine.to_bytes();
        actions.push(DeviceAction::Send { kind: MessageKind::Proposal, to: None, payload });
        let mut proposals = vec![None; members.len()];
        proposals[*me] = Some(mine);
        actions.extend(self.meet(Meeting { handshake, secret, key, proposals })?);
        Ok(actions)
    }

    /// Waits for the proposals that are missing, or goes on.
    fn meet(&mut self, meeting: Meeting) -> Result<Actions> {
        let missing: Vec<_> = self.others().filter(|at| meeting.proposals[*at].is_none()).collect();
        if missing.is_empty() {
            return self.agree(meeting);
        }
        let mut actions: Vec<_> =
            self.tell(Stage::WaitingFor(self.names(&missing))).into_iter().collect();
        actions.push(DeviceAction::Receive);
        self.state = State::Meeting(meeting);
        Ok(actions)
    }

    fn met(&mut self, mut meeting: Meeting, messages: Vec<SignedMessage>) -> Result<Actions> {
        for message in messages {
            let from = message.from;
            match message.kind {
                MessageKind::Abort => {
                    return Err(aborted(&self.parameters.members[from], &message.payload));
                }
                MessageKind::Proposal => {
                    let (name, ours) = (&self.parameters.members[from], &self.parameters.ceremony);
                    let proposal = agree::proposal(&message.payload, name, ours)?;
                    meeting.proposals[from] = Some(proposal);
                }
                _ => self.early.push_back(message),
            }
        }
        self.meet(meeting)
    }

    /// All proposals are there: asks the user, where another device proposes what to sign.
    fn agree(&mut self, meeting: Meeting) -> Result<Actions> {
        let ProposedCeremony::Sign { request: mine, .. } = &self.parameters.ceremony else {
            return self.attempt(meeting, None);
        };
        let proposals: Vec<_> = meeting.proposals.iter().flatten().cloned().collect();
        let (proposer, request) = agree::request(&proposals)?;
        if mine.is_some() {
            return self.attempt(meeting, Some(request));
        }
        self.state = State::Approving(meeting, request.clone());
        Ok(vec![DeviceAction::Approve(proposer, request)])
    }

    fn approved(
        &mut self,
        meeting: Meeting,
        request: SigningRequest,
        approved: bool,
    ) -> Result<Actions> {
        match approved {
            true => self.attempt(meeting, Some(request)),
            false => Err(Error::new(ErrorCode::Forbidden, agree::DECLINED)),
        }
    }

    fn attempt(&mut self, meeting: Meeting, request: Option<SigningRequest>) -> Result<Actions> {
        let Meeting { handshake, secret, key, proposals } = meeting;
        let proposals: Vec<_> = proposals.into_iter().flatten().collect();
        let key = key.map(|key| Arc::clone(&key.stored.record.key));
        let ceremony =
            agree::ceremony(&self.parameters.ceremony, key, request.as_ref(), &proposals)?;
        let view = agree::view(self.parameters.instance.session(), &proposals, ceremony);
        let (attempt, actions) = Attempt::begin(&self.me, (handshake, secret), view, None);
        self.carry_on(Box::new(attempt), actions)
    }

    fn advance(&mut self, mut attempt: Box<Attempt>, event: Event) -> Result<Actions> {
        let outcome = match attempt.handle(event) {
            Next::Do(actions) => return self.carry_on(attempt, actions),
            Next::Over(outcome) => outcome,
        };
        match (outcome, self.late.take()) {
            (Ok(outcome), _) => self.confirm(outcome),
            (Err(_), Some(late)) => Err(late),
            (Err(failure), None) => Err(self.failed(failure)),
        }
    }

    /// What the attempt wants done, over the messages of this run.
    fn carry_on(&mut self, attempt: Box<Attempt>, actions: Vec<Action>) -> Result<Actions> {
        let mut done = Vec::with_capacity(actions.len());
        for action in actions {
            match action {
                Action::Expect(expected) => {
                    for Expected { from, round, direct } in expected {
                        let kind = MessageKind::Round { round, direct };
                        done.push(DeviceAction::Expect(kind, self.place(&from)?));
                    }
                }
                Action::Send(Outgoing { to, round, payload, .. }) => {
                    let to = to.map(|party| self.place(&party)).transpose()?;
                    let kind = MessageKind::Round { round, direct: to.is_some() };
                    done.push(DeviceAction::Send { kind, to, payload });
                }
                Action::Tell(Progress::Round { round, .. }) => {
                    done.extend(self.tell(Stage::Round(round)));
                }
                // A relay forgets by itself: nothing is acknowledged.
                Action::Accepted(_) | Action::Refused(_) | Action::Flush | Action::Leave => {}
                Action::Receive => {
                    done.extend(self.receive(attempt)?);
                    return Ok(done);
                }
                action => done.push(DeviceAction::Attempt(action)),
            }
        }
        self.state = State::Attempting(attempt);
        Ok(done)
    }

    /// What has come already, or a question for more.
    fn receive(&mut self, attempt: Box<Attempt>) -> Result<Actions> {
        if let Some(abort) = self.abort() {
            return self.advance(attempt, Event::Broken(Ended::Transport(abort)));
        }
        let mut batch = Vec::new();
        for message in std::mem::take(&mut self.early) {
            match message.kind {
                MessageKind::Round { .. } => batch.push(self.incoming(message)),
                _ => self.early.push_back(message),
            }
        }
        if batch.is_empty() {
            self.state = State::Attempting(attempt);
            return Ok(vec![DeviceAction::Receive]);
        }
        self.advance(attempt, Event::Messages(batch))
    }

    /// Messages that came while the attempt waits for some.
    fn received(
        &mut self,
        attempt: Box<Attempt>,
        messages: Result<Vec<SignedMessage>>,
    ) -> Result<Actions> {
        match messages {
            Ok(messages) => {
                let wanted = |message: &SignedMessage| message.kind != MessageKind::Proposal;
                self.early.extend(messages.into_iter().filter(wanted));
                self.receive(attempt)
            }
            Err(error) => self.advance(attempt, Event::Broken(Ended::Transport(error))),
        }
    }

    fn incoming(&self, message: SignedMessage) -> Incoming {
        Incoming {
            message_id: MessageId(uuid::Uuid::nil()),
            from: self.parameters.members[message.from].clone(),
            payload: message.payload,
        }
    }

    fn abort(&self) -> Option<Error> {
        let abort = self.early.iter().find(|message| message.kind == MessageKind::Abort)?;
        Some(aborted(&self.parameters.members[abort.from], &abort.payload))
    }

    /// A failure as the user is told it. What ended the run here need not be this device's fault:
    /// another one may have aborted it.
    fn failed(&self, failure: Failure) -> Error {
        let own = failure.parties.iter().all(|party| *party == self.me.party);
        self.abort().filter(|_| own).unwrap_or_else(|| agree::of_failure(failure, &self.me.party))
    }

    /// Says that we have our result, and waits for the others to say so.
    fn confirm(&mut self, outcome: PartyOutcome) -> Result<Actions> {
        let refreshes = matches!(self.parameters.ceremony, ProposedCeremony::Refresh { .. });
        let result = match &outcome {
            // The key is the same in every epoch: the run that made this one tells them apart.
            PartyOutcome::Key { public_key, attestation: Some(made), .. } if refreshes => {
                [&public_key[..], &made.execution].concat()
            }
            PartyOutcome::Key { public_key: bytes, .. } | PartyOutcome::Signature { bytes, .. } => {
                bytes.clone()
            }
            PartyOutcome::Failure(failure) => return Err(self.failed(failure.clone())),
        };
        let missing: Vec<_> = self.others().collect();
        let kind = MessageKind::Confirmation;
        let mut actions = vec![DeviceAction::Deadline(DONE_GRACE)];
        actions.extend(missing.iter().map(|from| DeviceAction::Expect(kind, *from)));
        let payload = result.clone().into();
        actions.push(DeviceAction::Send { kind, to: None, payload });
        actions.push(DeviceAction::Flush);
        self.state = State::Confirming(outcome, result, missing);
        Ok(actions)
    }

    fn confirming(
        &mut self,
        outcome: PartyOutcome,
        result: Vec<u8>,
        mut missing: Vec<usize>,
        input: DeviceInput,
    ) -> Result<Actions> {
        let mut actions = Vec::new();
        match input {
            DeviceInput::Flushed => actions.push(DeviceAction::Deadline(DONE_GRACE)),
            DeviceInput::Received(Ok(messages)) => self.early.extend(messages),
            // It needs nobody's word: a signature verifies, and of a key each holder has signed
            // that it keeps its share.
            _ => return Ok(vec![DeviceAction::Done(Ok(outcome))]),
        }
        for message in std::mem::take(&mut self.early) {
            match message.kind {
                MessageKind::Abort => return Ok(vec![DeviceAction::Done(Ok(outcome))]),
                MessageKind::Confirmation if message.payload == result => {
                    missing.retain(|at| *at != message.from);
                }
                MessageKind::Confirmation => {
                    let who = self.parameters.members[message.from].clone();
                    let why = format!("{who} has another result than this device; do not use it");
                    let blame = Blame { party_id: who, reason: "another result".into() };
                    return Err(Error::new(ErrorCode::Conflict, why).blaming(blame));
                }
                MessageKind::Proposal | MessageKind::Round { .. } => {}
            }
        }
        if missing.is_empty() {
            return Ok(vec![DeviceAction::Done(Ok(outcome))]);
        }
        actions.extend(self.tell(Stage::Confirming(self.names(&missing))));
        actions.push(DeviceAction::Receive);
        self.state = State::Confirming(outcome, result, missing);
        Ok(actions)
    }

    /// The time is up. An attempt is stopped, never cut off: a fault it has come upon must reach
    /// the vault.
    fn late(&mut self, state: State, relay: Option<String>) -> Result<Actions> {
        match state {
            State::Attempting(_) => {
                let error = self.too_late(relay);
                self.late.get_or_insert(error);
                self.state = state;
                Ok(vec![DeviceAction::Stop])
            }
            State::Confirming(outcome, ..) => Ok(vec![DeviceAction::Done(Ok(outcome))]),
            State::Over => Ok(Vec::new()),
            _ => Err(self.too_late(relay)),
        }
    }

    fn too_late(&self, relay: Option<String>) -> Error {
        let relay =
            relay.map(|why| format!("; the relay is out of reach: {why}")).unwrap_or_default();
        let list = |who: &[PartyId]| who.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ");
        let (why, who) = match &self.told {
            Stage::WaitingFor(who) => (
                format!(
                    "timed out: nothing arrived from {}; start again on all devices",
                    list(who)
                ),
                who.clone(),
            ),
            Stage::Round(round) => (format!("timed out in round {round}; start again"), Vec::new()),
            Stage::Confirming(who) => ("timed out".into(), who.clone()),
        };
        Error::new(ErrorCode::SessionExpired, format!("{why}{relay}")).waiting_for(who)
    }
}
