//! One run among devices: proposals, agreement, the protocol, and the word that all have kept it.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_engine::{Expected, HandshakeSecret, Outgoing, make_handshake};
use quorate_party::{Gate, Incoming, Transport, Worker, compute_with_peers};
use quorate_types::*;
use tokio::time::Instant;

use super::channel::Channel;
use super::message::{InstanceId, MessageKind, Proposal, ProposedCeremony, SignedMessage};
use super::signer::VerifyingKey;
use super::signing_request::SigningRequest;

/// How long a device that is done waits for the others to be: its last messages may still be on
/// their way to them.
const DONE_GRACE: Duration = Duration::from_secs(10);
/// How long giving up may take.
const ABORT_LIMIT: Duration = Duration::from_secs(2);
/// How long a transport may take to leave: others may have missed our last messages.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Longest reason that is taken from another device, in bytes.
const MAX_REASON: usize = 512;

/// The reason with which a device leaves a run whose request it does not approve.
const DECLINED: &str = "declined to sign this";

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Waiting for these devices to show up.
    WaitingFor(Vec<PartyId>),
    /// Computing; messages of this round are awaited.
    Round(u16),
    /// The result is there; these devices have not said that they have theirs.
    Confirming(Vec<PartyId>),
}

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

/// What a run is about.
pub(crate) struct RunParameters {
    pub(crate) instance: InstanceId,
    pub(crate) ceremony: ProposedCeremony,
    /// Our key.
    pub(crate) key: VerifyingKey,
    /// Our place among the members, from 0.
    pub(crate) me: usize,
    /// How many members there are.
    pub(crate) members: usize,
    pub(crate) deadline: Instant,
}

pub(crate) struct Run<'a, 'h> {
    worker: &'a Worker,
    parameters: RunParameters,
    channel: Channel,
    observer: &'a mut Observer<'h>,
    /// Messages that came before they were wanted.
    early: VecDeque<SignedMessage>,
    /// The members, in their order.
    ids: Vec<PartyId>,
    stage: Progress,
}

impl<'a, 'h> Run<'a, 'h> {
    pub(crate) fn new(
        worker: &'a Worker,
        parameters: RunParameters,
        channel: Channel,
        observer: &'a mut Observer<'h>,
        ids: Vec<PartyId>,
    ) -> Self {
        let stage = Progress::WaitingFor(Vec::new());
        Self { worker, parameters, channel, observer, early: VecDeque::new(), ids, stage }
    }

    /// Runs to the end, at the latest to the deadline. The others are told when it fails here.
    pub(crate) async fn finish(mut self) -> Result<PartyOutcome> {
        let deadline = self.parameters.deadline;
        let made = tokio::time::timeout_at(deadline, self.go()).await;
        let ended = match made.unwrap_or_else(|_| Err(self.late())) {
            Ok(outcome) => self.confirm(&outcome).await.map(|()| outcome),
            Err(error) => Err(error),
        };
        if let Err(error) = &ended {
            let reason = Bytes::from(error.message.clone());
            let telling = async {
                self.channel.send(MessageKind::Abort, None, reason).await?;
                self.channel.flush().await
            };
            let _ = tokio::time::timeout(ABORT_LIMIT, telling).await;
        }
        let _ = tokio::time::timeout(LEAVE_LIMIT, self.channel.close()).await;
        // A computation that the deadline has left may have come upon a fault.
        self.worker.keyring.settled().await;
        ended
    }

    async fn go(&mut self) -> Result<PartyOutcome> {
        let session = self.parameters.instance.session();
        let me = self.worker.id().clone();
        let keyring = &self.worker.keyring;
        let key = match &self.parameters.ceremony {
            ProposedCeremony::Sign { key_id, .. } => {
                keyring.key(*key_id, &self.worker.compute).await?
            }
            ProposedCeremony::Keygen { .. } => None,
        };
        let shown = keyring.shown(key.as_deref()).await?;
        let (handshake, secret) = make_handshake(keyring.identity(), session, &me, &shown);
        let proposals = self.exchange_proposals(&handshake).await?;
        let ceremony = self.agree(&proposals).await?;
        let view = self.view(session, &proposals, ceremony);
        self.compute(&view, (handshake, secret)).await
    }

    /// Exchanges proposals; ours first, then those of the others as they come.
    async fn exchange_proposals(&mut self, handshake: &Handshake) -> Result<Vec<Proposal>> {
        let others: Vec<_> =
            (0..self.parameters.members).filter(|at| *at != self.parameters.me).collect();
        for from in &others {
            self.channel.expect(MessageKind::Abort, *from).await?;
        }
        for from in &others {
            self.channel.expect(MessageKind::Proposal, *from).await?;
        }
        let RunParameters { key, ceremony, .. } = &self.parameters;
        let mine = Proposal::new(key.clone(), ceremony.clone(), handshake);
        self.channel.send(MessageKind::Proposal, None, mine.to_bytes()).await?;
        let mut proposals = vec![None; self.parameters.members];
        proposals[self.parameters.me] = Some(mine);
        while proposals.iter().any(Option::is_none) {
            let missing = (0..proposals.len()).filter(|at| proposals[*at].is_none());
            self.tell(Progress::WaitingFor(missing.map(|at| self.name(at)).collect()));
            let message = self.next().await?;
            if message.kind != MessageKind::Proposal {
                self.early.push_back(message);
                continue;
            }
            let from = message.from;
            let proposal = Proposal::read(&message.payload, &self.name(from))?;
            if proposal.key.party_id() != self.ids[from] {
                let why = format!("{} opens with a key that is not its own", self.ids[from]);
                return Err(Error::new(ErrorCode::Conflict, why));
            }
            if !self.parameters.ceremony.fits(&proposal.ceremony) {
                return Err(disagreement(
                    &self.name(from),
                    &proposal.ceremony,
                    &self.parameters.ceremony,
                ));
            }
            proposals[from] = Some(proposal);
        }
        Ok(proposals.into_iter().flatten().collect())
    }

    /// What the devices do, once all agree to it.
    async fn agree(&mut self, proposals: &[Proposal]) -> Result<Ceremony> {
        let (key_id, mine) = match &self.parameters.ceremony {
            ProposedCeremony::Keygen { scheme, threshold } => {
                return Ok(Ceremony::Keygen { scheme: *scheme, threshold: *threshold });
            }
            ProposedCeremony::Sign { key_id, request } => (*key_id, request),
        };
        let mut requests = proposals.iter().filter_map(|proposal| match &proposal.ceremony {
            ProposedCeremony::Sign { request, .. } => Some((&proposal.key, request.as_ref()?)),
            ProposedCeremony::Keygen { .. } => None,
        });
        let Some((proposer, request)) = requests.next() else {
            let why = "no device proposes what to sign; start the signature on one of them";
            return Err(Error::new(ErrorCode::InvalidRequest, why));
        };
        if requests.any(|(_, other)| other != request) {
            let why = "the devices propose different things to sign; start it on one of them only";
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        if mine.is_none() && !(self.observer.approve)(&proposer.party_id(), request) {
            return Err(Error::new(ErrorCode::Forbidden, DECLINED));
        }
        let key = self.worker.keyring.key(key_id, &self.worker.compute).await?;
        let key = key.ok_or_else(|| Error::not_found("key", key_id))?;
        Ok(Ceremony::Sign { key: key.stored.record.key.clone(), input: request.input() })
    }

    /// The session as the protocol is to see it.
    fn view(&self, session: SessionId, proposals: &[Proposal], ceremony: Ceremony) -> SessionView {
        let participant = |(index, proposal): (u16, &Proposal)| ParticipantView {
            party_id: proposal.key.party_id(),
            party_index: PartyIndex(index),
            status: ParticipantStatus::Computing,
            device: DeviceInfo::default(),
            handshake: Some(proposal.handshake()),
        };
        SessionView {
            tenant: Tenant::default(),
            session_id: session,
            ceremony,
            status: SessionStatus::InProgress,
            participants: (0..).zip(proposals).map(participant).collect(),
            outcome: None,
            failure: None,
            created_at: Timestamp(0),
            expires_at: Timestamp(0),
        }
    }

    async fn compute(
        &mut self,
        view: &SessionView,
        handshake: (Handshake, HandshakeSecret),
    ) -> Result<PartyOutcome> {
        let ids: Vec<_> = view.participants.iter().map(|p| p.party_id.clone()).collect();
        let mut transport = Messages {
            channel: &mut self.channel,
            early: &mut self.early,
            ids: &ids,
            gate: Gate::open(),
        };
        let (stage, observer) = (&mut self.stage, &mut *self.observer);
        let progress = |round| {
            *stage = Progress::Round(round);
            (observer.progress)(stage.clone());
        };
        compute_with_peers(self.worker, view, handshake, &mut transport, progress)
            .await
            .map_err(|failure| self.told(failure))
    }

    /// A failure as the user is told it. What ended the run here need not be this device's fault:
    /// another one may have aborted it.
    fn told(&self, failure: Failure) -> Error {
        let own = failure.parties.iter().all(|party| party == self.worker.id());
        let abort = self.early.iter().find(|message| message.kind == MessageKind::Abort);
        match abort {
            Some(abort) if own => aborted(&self.ids[abort.from], &abort.payload),
            _ => of_failure(failure, self.worker.id()),
        }
    }

    /// Says that we have our result, and waits for the others to say so.
    async fn confirm(&mut self, outcome: &PartyOutcome) -> Result<()> {
        let result = match outcome {
            PartyOutcome::Key { public_key: bytes, .. } | PartyOutcome::Signature { bytes, .. } => {
                bytes.clone()
            }
            PartyOutcome::Failure(failure) => {
                return Err(self.told(failure.clone()));
            }
        };
        let mut missing: Vec<_> =
            (0..self.parameters.members).filter(|at| *at != self.parameters.me).collect();
        for from in &missing {
            self.channel.expect(MessageKind::Confirmation, *from).await?;
        }
        self.channel.send(MessageKind::Confirmation, None, result.clone().into()).await?;
        self.channel.flush().await?;
        let until = Instant::now() + DONE_GRACE;
        while !missing.is_empty() {
            self.tell(Progress::Confirming(missing.iter().map(|at| self.name(*at)).collect()));
            let next = match self
                .early
                .iter()
                .position(|message| message.kind == MessageKind::Confirmation)
            {
                Some(at) => self.early.remove(at).map(Ok),
                None => tokio::time::timeout_at(until, self.next()).await.ok(),
            };
            let message = match next {
                Some(Ok(message)) => message,
                // It needs nobody's word: a signature verifies, and of a key each holder has signed
                // that it keeps its share.
                Some(Err(_)) | None => return Ok(()),
            };
            if message.kind != MessageKind::Confirmation {
                continue;
            }
            if message.payload != result {
                let who = self.name(message.from);
                let why = format!("{who} has another result than this device; do not use it");
                let blame = Blame { party_id: who, reason: "another result".into() };
                return Err(Error::new(ErrorCode::Conflict, why).blaming(blame));
            }
            missing.retain(|at| *at != message.from);
        }
        Ok(())
    }

    /// The next message that is no abort.
    async fn next(&mut self) -> Result<SignedMessage> {
        let message = self.channel.receive().await?;
        match message.kind {
            MessageKind::Abort => Err(aborted(&self.name(message.from), &message.payload)),
            _ => Ok(message),
        }
    }

    fn tell(&mut self, stage: Progress) {
        if self.stage != stage {
            self.stage = stage.clone();
            (self.observer.progress)(stage);
        }
    }

    fn name(&self, at: usize) -> PartyId {
        self.ids[at].clone()
    }

    fn late(&self) -> Error {
        let relay = match self.channel.last_error() {
            Some(why) => format!("; the relay is out of reach: {why}"),
            None => String::new(),
        };
        let list = |who: &[PartyId]| who.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ");
        let (why, who) = match &self.stage {
            Progress::WaitingFor(who) => (
                format!(
                    "timed out: nothing arrived from {}; start again on all devices",
                    list(who)
                ),
                who.clone(),
            ),
            Progress::Round(round) => {
                (format!("timed out in round {round}; start again"), Vec::new())
            }
            Progress::Confirming(who) => ("timed out".into(), who.clone()),
        };
        Error::new(ErrorCode::SessionExpired, format!("{why}{relay}")).waiting_for(who)
    }
}

fn disagreement(who: &PartyId, theirs: &ProposedCeremony, ours: &ProposedCeremony) -> Error {
    let words = |ceremony: &ProposedCeremony| match ceremony {
        ProposedCeremony::Keygen { threshold, .. } => {
            format!("make a {}-of-{} key", threshold.signers(), threshold.parties())
        }
        ProposedCeremony::Sign { key_id, .. } => format!("sign with key {key_id}"),
    };
    let why = format!("{who} wants to {}, this device to {}", words(theirs), words(ours));
    Error::new(ErrorCode::Conflict, why)
}

fn aborted(who: &PartyId, reason: &[u8]) -> Error {
    let reason = String::from_utf8_lossy(&reason[..reason.len().min(MAX_REASON)]);
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    let blame = Blame { party_id: who.clone(), reason: reason.clone() };
    let message = if reason == DECLINED {
        format!("{who} {reason}")
    } else {
        format!("{who} aborted: {reason}")
    };
    Error::new(ErrorCode::Conflict, message).blaming(blame)
}

/// A failure as `own` device tells it. What ended the run here need not be its own fault.
fn of_failure(failure: Failure, own: &PartyId) -> Error {
    let mut error = Error::new(ErrorCode::Conflict, failure.message.clone());
    if let [party] = failure.parties.as_slice()
        && party != own
    {
        error = error.blaming(Blame { party_id: party.clone(), reason: failure.message });
    }
    error
}

/// The engine's transport over a run's channel.
struct Messages<'a> {
    channel: &'a mut Channel,
    early: &'a mut VecDeque<SignedMessage>,
    ids: &'a [PartyId],
    gate: Gate,
}

impl Messages<'_> {
    fn place(&self, party: &PartyId) -> Result<usize> {
        self.ids.iter().position(|id| id == party).ok_or_else(Error::internal)
    }

    fn take(&mut self, message: SignedMessage) -> Result<Option<Incoming>> {
        match message.kind {
            MessageKind::Round { .. } => Ok(Some(self.incoming(message))),
            MessageKind::Abort => {
                let error = aborted(&self.ids[message.from], &message.payload);
                self.early.push_back(message);
                Err(error)
            }
            MessageKind::Confirmation => {
                self.early.push_back(message);
                Ok(None)
            }
            MessageKind::Proposal => Ok(None),
        }
    }

    fn incoming(&self, message: SignedMessage) -> Incoming {
        Incoming {
            message_id: MessageId(uuid::Uuid::nil()),
            from: self.ids[message.from].clone(),
            payload: message.payload,
        }
    }

    fn early(&mut self) -> Option<Incoming> {
        let round = |message: &SignedMessage| matches!(message.kind, MessageKind::Round { .. });
        let at = self.early.iter().position(round)?;
        self.early.remove(at).map(|message| self.incoming(message))
    }
}

#[async_trait]
impl Transport for Messages<'_> {
    async fn expect(&mut self, expected: &[Expected]) -> Result<()> {
        for Expected { from, round, direct } in expected {
            let kind = MessageKind::Round { round: *round, direct: *direct };
            self.channel.expect(kind, self.place(from)?).await?;
        }
        Ok(())
    }

    fn guard(&mut self, gate: &Gate) {
        self.gate = gate.clone();
    }

    async fn send(&mut self, outgoing: Outgoing) -> Result<()> {
        let Outgoing { to, round, payload } = outgoing;
        let to = to.map(|party| self.place(&party)).transpose()?;
        let kind = MessageKind::Round { round, direct: to.is_some() };
        self.channel.send_through(self.gate.clone(), kind, to, payload).await
    }

    async fn receive(&mut self) -> Result<Incoming> {
        if let Some(abort) = self.early.iter().find(|message| message.kind == MessageKind::Abort) {
            return Err(aborted(&self.ids[abort.from], &abort.payload));
        }
        if let Some(incoming) = self.early() {
            return Ok(incoming);
        }
        loop {
            let message = self.channel.receive().await?;
            if let Some(incoming) = self.take(message)? {
                return Ok(incoming);
            }
        }
    }

    fn try_receive(&mut self) -> Option<Incoming> {
        if let Some(incoming) = self.early() {
            return Some(incoming);
        }
        // What ends the run is left for `receive`, which looks there first.
        match self.channel.try_receive()? {
            Ok(message) if message.kind == MessageKind::Abort => {
                self.early.push_back(message);
                None
            }
            Ok(message) => self.take(message).ok().flatten(),
            Err(_) => None,
        }
    }

    // A relay forgets by itself: nothing is acknowledged.
    fn accepted(&mut self, _: MessageId) {}

    async fn refused(&mut self, _: MessageId) -> Result<()> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
