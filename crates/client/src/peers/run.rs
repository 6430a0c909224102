//! One run among devices: openings, agreement, the protocol, and the word that all have kept it.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_engine::{Expected, HelloSecret, Outgoing, introduce};
use quorate_party::{Gate, Incoming, Transport, Worker, compute_with_peers};
use quorate_types::*;
use tokio::time::Instant;

use super::letter::{InstanceId, Letter, Opening, Purpose, Slot};
use super::mail::Mail;
use super::signer::VerifyingKey;
use super::what::Proposal;

/// How long a device that is done waits for the others to be: its last letters may still be on
/// their way to them.
const DONE_GRACE: Duration = Duration::from_secs(10);
/// How long giving up may take.
const ABORT_LIMIT: Duration = Duration::from_secs(2);
/// How long a carrier may take to leave: others may have missed our last letters.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Longest reason that is taken from another device, in bytes.
const MAX_REASON: usize = 512;

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for these devices to show up.
    Gathering(Vec<PartyId>),
    /// Computing; messages of this round are awaited.
    Round(u16),
    /// The result is there; these devices have not said that they have theirs.
    Confirming(Vec<PartyId>),
}

/// What a run asks and tells its user.
pub struct Hooks<'a> {
    /// Told of every step.
    pub progress: Box<dyn FnMut(Stage) + Send + 'a>,
    /// Whether to sign what another device proposes.
    pub approve: Box<dyn FnMut(&Proposal) -> bool + Send + 'a>,
}

impl Default for Hooks<'_> {
    /// Tells nobody, and signs nothing that another device proposes.
    fn default() -> Self {
        Self { progress: Box::new(|_| ()), approve: Box::new(|_| false) }
    }
}

/// What a run is about.
pub(crate) struct Terms {
    pub(crate) instance: InstanceId,
    pub(crate) purpose: Purpose,
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
    terms: Terms,
    mail: Mail,
    hooks: &'a mut Hooks<'h>,
    /// Letters that came before they were wanted.
    early: VecDeque<Letter>,
    /// The members, in their order.
    ids: Vec<PartyId>,
    stage: Stage,
}

impl<'a, 'h> Run<'a, 'h> {
    pub(crate) fn new(
        worker: &'a Worker,
        terms: Terms,
        mail: Mail,
        hooks: &'a mut Hooks<'h>,
        ids: Vec<PartyId>,
    ) -> Self {
        let stage = Stage::Gathering(Vec::new());
        Self { worker, terms, mail, hooks, early: VecDeque::new(), ids, stage }
    }

    /// Runs to the end, at the latest to the deadline. The others are told when it fails here.
    pub(crate) async fn finish(mut self) -> Result<PartyOutcome> {
        let deadline = self.terms.deadline;
        let made = tokio::time::timeout_at(deadline, self.go()).await;
        let ended = match made.unwrap_or_else(|_| Err(self.late())) {
            Ok(outcome) => self.confirm(&outcome).await.map(|()| outcome),
            Err(error) => Err(error),
        };
        if let Err(error) = &ended {
            let reason = Bytes::from(error.message.clone());
            let telling = async {
                self.mail.send(Slot::Abort, None, reason).await?;
                self.mail.flush().await
            };
            let _ = tokio::time::timeout(ABORT_LIMIT, telling).await;
        }
        let _ = tokio::time::timeout(LEAVE_LIMIT, self.mail.close()).await;
        // A computation that the deadline has left may have come upon a fault.
        self.worker.keyring.settled().await;
        ended
    }

    async fn go(&mut self) -> Result<PartyOutcome> {
        let session = self.terms.instance.session();
        let me = self.worker.id().clone();
        let keyring = &self.worker.keyring;
        let key = match &self.terms.purpose {
            Purpose::Sign { key_id, .. } => keyring.key(*key_id, &self.worker.compute).await?,
            Purpose::Keygen { .. } => None,
        };
        let shown = keyring.shown(key.as_deref()).await?;
        let (hello, secret) = introduce(keyring.identity(), session, &me, &shown);
        let openings = self.gather(&hello).await?;
        let digest = self.agree(&openings)?;
        let view = self.view(session, &openings, digest).await?;
        self.compute(&view, (hello, secret)).await
    }

    /// Exchanges openings; ours first, then those of the others as they come.
    async fn gather(&mut self, hello: &Hello) -> Result<Vec<Opening>> {
        let others: Vec<_> = (0..self.terms.members).filter(|at| *at != self.terms.me).collect();
        for from in &others {
            self.mail.expect(Slot::Abort, *from).await?;
        }
        for from in &others {
            self.mail.expect(Slot::Opening, *from).await?;
        }
        let Terms { key, purpose, .. } = &self.terms;
        let mine = Opening::new(key.clone(), purpose.clone(), hello);
        self.mail.send(Slot::Opening, None, mine.to_bytes()).await?;
        let mut openings = vec![None; self.terms.members];
        openings[self.terms.me] = Some(mine);
        while openings.iter().any(Option::is_none) {
            let missing = (0..openings.len()).filter(|at| openings[*at].is_none());
            self.tell(Stage::Gathering(missing.map(|at| self.name(at)).collect()));
            let letter = self.next().await?;
            if letter.slot != Slot::Opening {
                self.early.push_back(letter);
                continue;
            }
            let from = letter.from;
            let opening = Opening::read(&letter.payload, &self.name(from))?;
            if opening.key.party_id() != self.ids[from] {
                let why = format!("{} opens with a key that is not its own", self.ids[from]);
                return Err(Error::new(ErrorCode::Conflict, why));
            }
            if !self.terms.purpose.fits(&opening.purpose) {
                return Err(disagreement(&self.name(from), &opening.purpose, &self.terms.purpose));
            }
            openings[from] = Some(opening);
        }
        Ok(openings.into_iter().flatten().collect())
    }

    /// What is signed, once all agree to the one proposal.
    fn agree(&mut self, openings: &[Opening]) -> Result<Option<Digest>> {
        let Purpose::Sign { proposal: mine, .. } = &self.terms.purpose else { return Ok(None) };
        let mut proposals = openings.iter().filter_map(|opening| match &opening.purpose {
            Purpose::Sign { proposal, .. } => proposal.as_ref(),
            Purpose::Keygen { .. } => None,
        });
        let Some(proposal) = proposals.next() else {
            let why = "no device proposes what to sign; start the signature on one of them";
            return Err(Error::new(ErrorCode::InvalidRequest, why));
        };
        if proposals.any(|other| other != proposal) {
            let why = "the devices propose different things to sign; start it on one of them only";
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        if mine.is_none() && !(self.hooks.approve)(proposal) {
            let why = format!("{} did not agree to sign this", self.worker.id());
            return Err(Error::new(ErrorCode::Forbidden, why));
        }
        Ok(Some(proposal.digest()))
    }

    /// The session as the protocol is to see it.
    async fn view(
        &self,
        session: SessionId,
        openings: &[Opening],
        digest: Option<Digest>,
    ) -> Result<SessionView> {
        let participant = |(index, opening): (u16, &Opening)| ParticipantView {
            party_id: opening.key.party_id(),
            party_index: PartyIndex(index),
            status: ParticipantStatus::Computing,
            device: DeviceInfo::default(),
            hello: Some(opening.hello()),
        };
        let mut view = SessionView {
            tenant: Tenant::default(),
            session_id: session,
            kind: SessionKind::Keygen,
            scheme: Scheme::default(),
            status: SessionStatus::InProgress,
            threshold: Threshold::new(2, 2)?,
            key_id: None,
            public_key: None,
            holders: Vec::new(),
            digest,
            participants: (0..).zip(openings).map(participant).collect(),
            outcome: None,
            failure: None,
            created_at: Timestamp(0),
            expires_at: Timestamp(0),
        };
        match &self.terms.purpose {
            Purpose::Keygen { scheme, threshold } => {
                (view.scheme, view.threshold) = (*scheme, *threshold);
            }
            Purpose::Sign { key_id, .. } => {
                let key = self.worker.keyring.key(*key_id, &self.worker.compute).await?;
                let key = key.ok_or_else(|| Error::not_found("key", key_id))?;
                let record = &key.stored.record;
                view.kind = SessionKind::Sign;
                (view.scheme, view.threshold) = (record.scheme, record.threshold);
                view.key_id = Some(*key_id);
                view.public_key = Some(record.public_key.clone());
                view.holders = record.holders.clone();
            }
        }
        Ok(view)
    }

    async fn compute(
        &mut self,
        view: &SessionView,
        introduction: (Hello, HelloSecret),
    ) -> Result<PartyOutcome> {
        let ids: Vec<_> = view.participants.iter().map(|p| p.party_id.clone()).collect();
        let mut transport =
            Letters { mail: &mut self.mail, early: &mut self.early, ids: &ids, gate: Gate::open() };
        let (stage, hooks) = (&mut self.stage, &mut *self.hooks);
        let progress = |round| {
            *stage = Stage::Round(round);
            (hooks.progress)(stage.clone());
        };
        compute_with_peers(self.worker, view, introduction, &mut transport, progress)
            .await
            .map_err(of_failure)
    }

    /// Says that we have our result, and waits for the others to say so.
    async fn confirm(&mut self, outcome: &PartyOutcome) -> Result<()> {
        let result = match outcome {
            PartyOutcome::PublicKey(bytes) | PartyOutcome::Signature { bytes, .. } => bytes.clone(),
            PartyOutcome::Failure(failure) => return Err(of_failure(failure.clone())),
        };
        let mut missing: Vec<_> =
            (0..self.terms.members).filter(|at| *at != self.terms.me).collect();
        for from in &missing {
            self.mail.expect(Slot::Done, *from).await?;
        }
        self.mail.send(Slot::Done, None, result.clone().into()).await?;
        self.mail.flush().await?;
        let until = Instant::now() + DONE_GRACE;
        while !missing.is_empty() {
            self.tell(Stage::Confirming(missing.iter().map(|at| self.name(*at)).collect()));
            let next = match self.early.iter().position(|letter| letter.slot == Slot::Done) {
                Some(at) => self.early.remove(at).map(Ok),
                None => tokio::time::timeout_at(until, self.next()).await.ok(),
            };
            let letter = match next {
                Some(Ok(letter)) => letter,
                // It needs nobody's word: a signature verifies, and of a key each holder has signed
                // that it keeps its share.
                Some(Err(_)) | None => return Ok(()),
            };
            if letter.slot != Slot::Done {
                continue;
            }
            if letter.payload != result {
                let who = self.name(letter.from);
                let why = format!("{who} has another result than this device; do not use it");
                let blame = Blame { party_id: who, reason: "another result".into() };
                return Err(Error::new(ErrorCode::Conflict, why).blaming(blame));
            }
            missing.retain(|at| *at != letter.from);
        }
        Ok(())
    }

    /// The next letter that is not a farewell.
    async fn next(&mut self) -> Result<Letter> {
        let letter = self.mail.receive().await?;
        match letter.slot {
            Slot::Abort => Err(gave_up(&self.name(letter.from), &letter.payload)),
            _ => Ok(letter),
        }
    }

    fn tell(&mut self, stage: Stage) {
        if self.stage != stage {
            self.stage = stage.clone();
            (self.hooks.progress)(stage);
        }
    }

    fn name(&self, at: usize) -> PartyId {
        self.ids[at].clone()
    }

    fn late(&self) -> Error {
        let relay = match self.mail.trouble() {
            Some(why) => format!("; the relay is out of reach: {why}"),
            None => String::new(),
        };
        let list = |who: &[PartyId]| who.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ");
        let (why, who) = match &self.stage {
            Stage::Gathering(who) => (
                format!(
                    "the time is over and nothing came from {}; start again on all devices",
                    list(who)
                ),
                who.clone(),
            ),
            Stage::Round(round) => {
                (format!("the time was over in round {round}; start again"), Vec::new())
            }
            Stage::Confirming(who) => ("the time is over".into(), who.clone()),
        };
        Error::new(ErrorCode::SessionExpired, format!("{why}{relay}")).waiting_for(who)
    }
}

fn disagreement(who: &PartyId, theirs: &Purpose, ours: &Purpose) -> Error {
    let words = |purpose: &Purpose| match purpose {
        Purpose::Keygen { threshold, .. } => {
            format!("make a {}-of-{} key", threshold.signers(), threshold.parties())
        }
        Purpose::Sign { key_id, .. } => format!("sign with key {key_id}"),
    };
    let why = format!("{who} wants to {}, this device to {}", words(theirs), words(ours));
    Error::new(ErrorCode::Conflict, why)
}

fn gave_up(who: &PartyId, reason: &[u8]) -> Error {
    let reason = String::from_utf8_lossy(&reason[..reason.len().min(MAX_REASON)]);
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    let blame = Blame { party_id: who.clone(), reason: reason.clone() };
    Error::new(ErrorCode::Conflict, format!("{who} gave up: {reason}")).blaming(blame)
}

fn of_failure(failure: Failure) -> Error {
    let mut error = Error::new(ErrorCode::Conflict, failure.message.clone());
    if let [party] = failure.parties.as_slice() {
        error = error.blaming(Blame { party_id: party.clone(), reason: failure.message });
    }
    error
}

/// The engine's transport over a run's mail.
struct Letters<'a> {
    mail: &'a mut Mail,
    early: &'a mut VecDeque<Letter>,
    ids: &'a [PartyId],
    gate: Gate,
}

impl Letters<'_> {
    fn place(&self, party: &PartyId) -> Result<usize> {
        self.ids.iter().position(|id| id == party).ok_or_else(Error::internal)
    }

    fn take(&mut self, letter: Letter) -> Result<Option<Incoming>> {
        match letter.slot {
            Slot::Round { .. } => Ok(Some(self.incoming(letter))),
            Slot::Abort => Err(gave_up(&self.ids[letter.from], &letter.payload)),
            Slot::Done => {
                self.early.push_back(letter);
                Ok(None)
            }
            Slot::Opening => Ok(None),
        }
    }

    fn incoming(&self, letter: Letter) -> Incoming {
        Incoming {
            message_id: MessageId(uuid::Uuid::nil()),
            from: self.ids[letter.from].clone(),
            payload: letter.payload,
        }
    }

    fn early(&mut self) -> Option<Incoming> {
        let round = |letter: &Letter| matches!(letter.slot, Slot::Round { .. });
        let at = self.early.iter().position(round)?;
        self.early.remove(at).map(|letter| self.incoming(letter))
    }
}

#[async_trait]
impl Transport for Letters<'_> {
    async fn expect(&mut self, expected: &[Expected]) -> Result<()> {
        for Expected { from, round, direct } in expected {
            let slot = Slot::Round { round: *round, direct: *direct };
            self.mail.expect(slot, self.place(from)?).await?;
        }
        Ok(())
    }

    fn guard(&mut self, gate: &Gate) {
        self.gate = gate.clone();
    }

    async fn send(&mut self, outgoing: Outgoing) -> Result<()> {
        let Outgoing { to, round, payload } = outgoing;
        let to = to.map(|party| self.place(&party)).transpose()?;
        let slot = Slot::Round { round, direct: to.is_some() };
        self.mail.send_through(self.gate.clone(), slot, to, payload).await
    }

    async fn receive(&mut self) -> Result<Incoming> {
        if let Some(farewell) = self.early.iter().find(|letter| letter.slot == Slot::Abort) {
            return Err(gave_up(&self.ids[farewell.from], &farewell.payload));
        }
        if let Some(incoming) = self.early() {
            return Ok(incoming);
        }
        loop {
            let letter = self.mail.receive().await?;
            if let Some(incoming) = self.take(letter)? {
                return Ok(incoming);
            }
        }
    }

    fn try_receive(&mut self) -> Option<Incoming> {
        if let Some(incoming) = self.early() {
            return Some(incoming);
        }
        // What ends the run is left for `receive`, which looks there first.
        match self.mail.try_receive()? {
            Ok(letter) if letter.slot == Slot::Abort => {
                self.early.push_back(letter);
                None
            }
            Ok(letter) => self.take(letter).ok().flatten(),
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
