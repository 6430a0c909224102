//! One attempt at a session, from the view with which it starts to this party's outcome. The same
//! for a session that a coordinator leads and for one among devices.
//!
//! ```text
//! check the view → (activate late) → start the run → check identities → turn ⇄ messages
//!   → keep the share → turn ⇄ messages → activate → pin → outcome
//! ```

use std::sync::Arc;

use quorate_engine::{Expected, Fault, HandshakeSecret, Outgoing, Output, Run, Share};
use quorate_types::*;

use crate::Me;
use crate::check::{self, Late, Peer, confused};
use crate::computation::{Computation, Computed, Done, Incoming, Start, Turn, Turned, Work};
use crate::failure::{could_not, of_error, of_fault};
use crate::gate::{Ended, Gate};
use crate::key::{NewShare, OpenKey};
use crate::session::Allowed;
use crate::vault::{VaultAction, VaultAnswer};

/// The epoch of a key that a keygen has just made.
const FIRST_EPOCH: u32 = 0;

/// What a machine asks of its runtime. Actions are carried out in their order; at most the last of
/// a list is answered, by the event that it names. An action with the messages that fails is
/// answered by [`Event::Broken`], and what comes behind it is dropped.
pub enum Action {
    /// Read or write the vault: [`Event::Vault`]. Never cut off.
    Vault(VaultAction),
    /// Compute on the pool: [`Event::Computed`].
    Compute(Computation),
    /// These messages will be needed: a relay that delivers only what was asked for is asked.
    Expect(Vec<Expected>),
    /// What is queued from now on asks this gate again right before it leaves.
    Guard(Gate),
    /// Hand a message over, in order, without waiting until it is delivered.
    Send(Outgoing),
    /// The run has taken a message: acknowledge it with the next message or flush.
    Accepted(MessageId),
    /// The run has refused a message: acknowledge it as failed.
    Refused(MessageId),
    /// Nothing is sent for now: acknowledge what was accepted, in the background.
    Flush,
    /// All before this was handed over: [`Event::Passed`].
    Fence,
    /// The run is lost: flush, for a second at the most and whatever comes of it.
    Leave,
    /// Take what messages there are, one at least: [`Event::Messages`].
    Receive,
    /// Tell whoever watches.
    Tell(Progress),
}

/// How far a run is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// It waits for messages of this round.
    Round {
        /// The round of the message, from 1.
        round: u16,
        /// Who has not sent its message of it.
        waiting_for: Vec<PartyId>,
    },
    /// A message was refused; the run goes on as if it had not come.
    Refused {
        /// Who the router says sent it.
        from: PartyId,
        /// What is wrong with it, and whether it ends the attempt.
        fault: Fault,
    },
}

/// What has come of an action.
pub enum Event {
    /// The vault's answer.
    Vault(Result<VaultAnswer>),
    /// The result of a computation.
    Computed(Box<Computed>),
    /// Messages that have come, each once.
    Messages(Vec<Incoming>),
    /// All was handed over.
    Passed,
    /// The messages cannot go on or another run has banned a signer: the action under way was left.
    Broken(Ended),
}

/// What follows from an event.
pub(crate) enum Next {
    /// To be done; the attempt goes on.
    Do(Vec<Action>),
    /// The attempt is over.
    Over(Result<PartyOutcome, Failure>),
}

type Step = std::result::Result<Next, Failure>;

/// One attempt at one session.
pub(crate) struct Attempt {
    me: Me,
    session: SessionId,
    /// The handshake this attempt joined with.
    handshake: Handshake,
    view: Box<SessionView>,
    /// What the party's authority has allowed. Among devices their users have.
    allowed: Option<Arc<dyn Allowed>>,
    /// What is signed with.
    key: Option<Arc<OpenKey>>,
    gate: Gate,
    /// All participants, this party among them, in the order of the view.
    peers: Vec<Peer>,
    /// The epoch that this attempt makes.
    next_epoch: u32,
    /// The share that this attempt has made and kept.
    made: Option<Arc<OpenKey>>,
    /// The round that was told last.
    round: Option<u16>,
    stage: Stage,
}

enum Stage {
    /// The vault is asked for what the view needs.
    Checking(HandshakeSecret),
    /// A share that missed confirmations becomes active.
    Reviving(HandshakeSecret),
    /// The run is being prepared.
    Starting,
    /// The vault is asked who the peers are.
    Identifying(Box<Run>),
    /// It remembers how far their vaults have come.
    Witnessing(Box<Run>),
    /// A turn is being computed.
    Computing,
    /// Messages are awaited.
    Receiving(Box<Run>),
    /// What led to an output is being handed over.
    Leaving(Box<Run>, Output, Timestamp),
    /// The new share is being written.
    Keeping(Box<Run>),
    /// It becomes active.
    Activating,
    /// The holders' names are being pinned.
    Pinning,
    /// Bans are being written before the end is told.
    Settling(Ended),
    Over,
}

impl Attempt {
    /// Begins with the view of the start, which counts: what was shown before may differ.
    pub(crate) fn begin(
        me: &Me,
        (handshake, secret): (Handshake, HandshakeSecret),
        view: Box<SessionView>,
        allowed: Option<Arc<dyn Allowed>>,
    ) -> (Self, Vec<Action>) {
        let question = check::question(&view);
        let attempt = Self {
            me: me.clone(),
            session: view.session_id,
            handshake,
            view,
            allowed,
            key: None,
            gate: Gate::open(),
            peers: Vec::new(),
            next_epoch: FIRST_EPOCH,
            made: None,
            round: None,
            stage: Stage::Checking(secret),
        };
        (attempt, vec![Action::Vault(question)])
    }

    /// Takes what came of the last action.
    pub(crate) fn handle(&mut self, event: Event) -> Next {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let next = match (stage, event) {
            (Stage::Checking(secret), Event::Vault(answer)) => self.checked(secret, answer),
            (Stage::Starting, Event::Computed(computed)) => self.started(*computed),
            (Stage::Identifying(run), Event::Vault(answer)) => self.identified(run, answer),
            (Stage::Witnessing(run), Event::Vault(answer)) => {
                self.answered(answer).map(|_| self.begin_turns(run))
            }
            (Stage::Reviving(secret), Event::Vault(answer)) => self.revived(secret, answer),
            (Stage::Computing, Event::Computed(computed)) => self.turned(*computed),
            (Stage::Receiving(run), Event::Messages(batch)) => Ok(self.turn(run, batch, false)),
            (Stage::Leaving(run, output, at), Event::Passed) => self.put_out(run, output, at),
            (Stage::Keeping(run), Event::Vault(answer)) => self.kept(run, answer),
            (Stage::Activating, Event::Vault(answer)) => self.activated(answer),
            (Stage::Pinning, Event::Vault(answer)) => self.pinned(answer),
            (Stage::Settling(ended), Event::Vault(answer)) => Err(self.settled(ended, answer)),
            (Stage::Settling(ended), Event::Passed) => Err(self.failure(ended)),
            (Stage::Starting, Event::Broken(ended)) => Err(self.failure(ended)),
            (Stage::Computing | Stage::Receiving(_) | Stage::Leaving(..), Event::Broken(ended)) => {
                self.settle(ended, Vec::new())
            }
            _ => Err(confused(&self.me)),
        };
        next.unwrap_or_else(|failure| Next::Over(Err(failure)))
    }

    /// The vault's answer, where only its own failing is of interest.
    fn answered(&self, answer: Result<VaultAnswer>) -> Result<VaultAnswer, Failure> {
        answer.map_err(|error| of_error(&self.me.party, error))
    }

    fn key_of(&self, answer: VaultAnswer) -> Result<Arc<OpenKey>, Failure> {
        match answer {
            VaultAnswer::Key(Some(key)) => Ok(key),
            _ => Err(confused(&self.me)),
        }
    }

    /// The share that the vault has made the active one: nothing of an earlier epoch leaves any
    /// more.
    fn now_active(&self, answer: VaultAnswer) -> Result<Arc<OpenKey>, Failure> {
        let key = self.key_of(answer)?;
        self.me.bans.advance(key.stored.key_id, key.stored.epoch);
        Ok(key)
    }

    fn others(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.party != self.me.party)
    }

    /// Those whose names are theirs: what a delegate makes for a user has an identity for one key
    /// only, under which it stays known.
    fn named(&self) -> impl Iterator<Item = &Peer> {
        self.others().filter(|peer| !peer.delegated)
    }

    fn checked(&mut self, secret: HandshakeSecret, answer: Result<VaultAnswer>) -> Step {
        self.key = check::judge(&self.me, &self.view, answer)?;
        let Some(key) = &self.key else { return self.start(secret) };
        match check::late_confirmations(&self.me, &self.view, key)? {
            Some(Late { key, confirmations }) => {
                self.stage = Stage::Reviving(secret);
                Ok(Next::Do(vec![Action::Vault(VaultAction::Activate { key, confirmations })]))
            }
            None => self.start(secret),
        }
    }

    fn revived(&mut self, secret: HandshakeSecret, answer: Result<VaultAnswer>) -> Step {
        let answer = self.answered(answer)?;
        let key = self.now_active(answer)?;
        self.key = Some(key);
        self.start(secret)
    }

    fn start(&mut self, secret: HandshakeSecret) -> Step {
        if let (Ceremony::Refresh { .. }, Some(key)) = (&self.view.ceremony, &self.key) {
            match check::next_epoch(&self.me, &self.view, key)? {
                Some(next) => self.next_epoch = next,
                None => return Ok(Next::Over(Ok(outcome(key)))),
            }
        }
        let start = Start {
            party: self.me.party.clone(),
            identity: Arc::clone(&self.me.identity),
            secret,
            session: self.session,
            attempt: self.view.attempt,
            task: check::task(&self.me, &self.view.ceremony, self.key.as_deref())?,
            roster: check::roster(&self.me, &self.handshake, &self.view)?,
        };
        self.stage = Stage::Starting;
        Ok(Next::Do(vec![Action::Compute(Computation(Work::Start(Box::new(start))))]))
    }

    fn started(&mut self, computed: Computed) -> Step {
        let Done::Started(run) = computed.result else { return Err(confused(&self.me)) };
        let run = run.map_err(of_fault)?;
        let shown = run.identities().into_iter().zip(run.shown().cloned());
        let peer = |(seat, (identity, shown)): (&ParticipantView, _)| Peer {
            party: seat.party_id.clone(),
            identity,
            delegated: seat.on_behalf_of.is_some(),
            shown,
            handshake: seat.handshake.clone().unwrap_or_default(),
        };
        self.peers = self.view.participants.iter().zip(shown).map(peer).collect();
        if let Some(allowed) = &self.allowed {
            let held = self.key.as_ref().map(|key| &*key.stored.record.key);
            let identities: Vec<_> = self.peers.iter().map(|peer| peer.identity).collect();
            allowed.check(&self.view, held, &identities)?;
        }
        let peers = self.others().map(|peer| (peer.party.clone(), peer.identity)).collect();
        let tenant = self.view.tenant.clone();
        self.stage = Stage::Identifying(run);
        Ok(Next::Do(vec![Action::Vault(VaultAction::FindPeers { tenant, peers })]))
    }

    fn identified(&mut self, run: Box<Run>, answer: Result<VaultAnswer>) -> Step {
        let VaultAnswer::Peers(known) = self.answered(answer)? else {
            return Err(confused(&self.me));
        };
        let checked = check::identities(self.others(), &known, self.key.as_deref());
        let witnessed = checked.map_err(|error| of_error(&self.me.party, error))?;
        if witnessed.is_empty() {
            return Ok(self.begin_turns(run));
        }
        self.stage = Stage::Witnessing(run);
        Ok(Next::Do(vec![Action::Vault(VaultAction::Witness(witnessed))]))
    }

    fn begin_turns(&mut self, run: Box<Run>) -> Next {
        // What is made here has no bans yet, and a refresh ends those of the epoch before.
        if let (Ceremony::Sign { .. }, Some(key)) = (&self.view.ceremony, &self.key) {
            self.gate = Gate::new(&self.me.bans, key, check::parties(&self.view));
        }
        let mut actions = vec![Action::Expect(run.expected()), Action::Guard(self.gate.clone())];
        if let Next::Do(turn) = self.turn(run, Vec::new(), true) {
            actions.extend(turn);
        }
        Next::Do(actions)
    }

    fn turn(&mut self, run: Box<Run>, batch: Vec<Incoming>, first: bool) -> Next {
        self.stage = Stage::Computing;
        let turn = Turn { run, batch, first, gate: self.gate.clone() };
        Next::Do(vec![Action::Compute(Computation(Work::Turn(Box::new(turn))))])
    }

    fn turned(&mut self, computed: Computed) -> Step {
        let Done::Turned(turned) = computed.result else { return Err(confused(&self.me)) };
        let Turned { run, refused, accepted, step } = turned;
        let step = match step {
            Ok(step) => step,
            // A peer that waits for its acknowledgement learns it anyway.
            Err(ended) => return self.settle(ended, vec![Action::Leave]),
        };
        let mut actions: Vec<_> = accepted.into_iter().map(Action::Accepted).collect();
        for (Incoming { message_id, from, .. }, fault) in refused {
            actions.push(Action::Refused(message_id));
            actions.push(Action::Tell(Progress::Refused { from, fault }));
        }
        actions.extend(step.outgoing.into_iter().map(Action::Send));
        if let Some(output) = step.output {
            // Nothing needs an acknowledgement any more: the messages go with the session.
            actions.push(Action::Fence);
            self.stage = Stage::Leaving(run, output, computed.at);
            return Ok(Next::Do(actions));
        }
        actions.push(Action::Flush);
        let round = run.round();
        if self.round.replace(round) != Some(round) {
            let waiting_for = run.waiting_for();
            actions.push(Action::Tell(Progress::Round { round, waiting_for }));
        }
        actions.push(Action::Receive);
        self.stage = Stage::Receiving(run);
        Ok(Next::Do(actions))
    }

    fn put_out(&mut self, run: Box<Run>, output: Output, at: Timestamp) -> Step {
        if let Err(ended) = self.gate.pass() {
            return self.settle(ended, Vec::new());
        }
        match (output, &self.view.ceremony, &self.made) {
            (Output::Key { share, public_key }, _, None) if !self.gate.guards() => {
                Ok(self.keep(run, share, public_key, at))
            }
            (Output::Confirmed(confirmations), _, Some(made)) => {
                let key = Arc::clone(made);
                self.stage = Stage::Activating;
                Ok(Next::Do(vec![Action::Vault(VaultAction::Activate { key, confirmations })]))
            }
            (Output::Signature(signature), Ceremony::Sign { .. }, _) => {
                let (bytes, recovery_id) = (signature.bytes().to_vec(), signature.recovery_id());
                Ok(Next::Over(Ok(PartyOutcome::Signature { bytes, recovery_id })))
            }
            _ => {
                let message = "the protocol made something else than was asked for";
                Err(could_not(&self.me.party, message))
            }
        }
    }

    /// Puts the new share on disk, before anybody hears of it.
    fn keep(&mut self, run: Box<Run>, share: Share, public_key: PublicKey, at: Timestamp) -> Next {
        let record = match &self.key {
            None => KeyRecord {
                key: Arc::new(KeyEpoch {
                    key_id: self.session.into(),
                    epoch: self.next_epoch,
                    scheme: self.view.ceremony.scheme(),
                    threshold: self.view.ceremony.threshold(),
                    public_key,
                    holders: check::parties(&self.view),
                }),
                tenant: self.view.tenant.clone(),
                created_at: at,
                label: self.allowed.as_ref().and_then(|allowed| allowed.label()),
                frozen: None,
            },
            Some(before) => {
                let record = before.stored.record.clone();
                let next = KeyEpoch { epoch: self.next_epoch, public_key, ..(*record.key).clone() };
                KeyRecord { key: Arc::new(next), ..record }
            }
        };
        let identities = self.peers.iter().map(|peer| peer.identity).collect();
        let new = NewShare { share, record, identities, execution: run.execution() };
        self.stage = Stage::Keeping(run);
        Next::Do(vec![Action::Vault(VaultAction::KeepShare(Box::new(new)))])
    }

    fn kept(&mut self, mut run: Box<Run>, answer: Result<VaultAnswer>) -> Step {
        let me = &self.me.party;
        let answer =
            answer.map_err(|_| could_not(me, format!("{me} could not store its share")))?;
        let made = self.key_of(answer)?;
        run.kept(made.statement());
        self.made = Some(made);
        Ok(self.turn(run, Vec::new(), true))
    }

    fn activated(&mut self, answer: Result<VaultAnswer>) -> Step {
        let answer = self.answered(answer)?;
        let made = self.now_active(answer)?;
        if self.key.is_some() {
            return Ok(Next::Over(Ok(outcome(&made))));
        }
        // Only now: a keygen that fails must not bind a name for good.
        let tenant = made.stored.record.tenant.clone();
        let peers = self.named().map(|peer| (peer.party.clone(), peer.identity)).collect();
        self.made = Some(made);
        self.stage = Stage::Pinning;
        Ok(Next::Do(vec![Action::Vault(VaultAction::Pin { tenant, peers })]))
    }

    fn pinned(&mut self, answer: Result<VaultAnswer>) -> Step {
        let (VaultAnswer::Pinned(pins), Some(made)) = (self.answered(answer)?, &self.made) else {
            return Err(confused(&self.me));
        };
        for (peer, pin) in self.named().zip(pins) {
            let pinned = check::pin(&peer.party, peer.identity, Some(pin));
            pinned.map_err(|error| of_error(&self.me.party, error))?;
        }
        Ok(Next::Over(Ok(outcome(made))))
    }

    /// Ends the run. The bans of its key are on disk before the end is told, whichever run of the
    /// key has made them.
    fn settle(&mut self, ended: Ended, mut actions: Vec<Action>) -> Step {
        actions.push(match self.key.as_ref().filter(|_| self.gate.guards()) {
            Some(key) => Action::Vault(VaultAction::StoreBans(Arc::clone(key))),
            None => Action::Fence,
        });
        self.stage = Stage::Settling(ended);
        Ok(Next::Do(actions))
    }

    /// How a run ended, as it is reported. A run that a ban has not ended itself says so too if
    /// there is one by now.
    fn settled(&mut self, ended: Ended, stored: Result<VaultAnswer>) -> Failure {
        let cheated = matches!(self.gate.last_word(ended.clone()), Ended::Fault(_));
        let mut failure = self.failure(ended);
        if stored.is_err() && cheated {
            failure.message.push_str(
                "; the ban could not be stored: until it is, the key is locked for all its holders",
            );
        }
        failure
    }

    fn failure(&self, ended: Ended) -> Failure {
        match self.gate.last_word(ended) {
            Ended::Fault(fault) => of_fault(fault),
            Ended::Locked(error) | Ended::Transport(error) => of_error(&self.me.party, error),
        }
    }
}

/// What is reported of a key that all holders have confirmed.
fn outcome(made: &OpenKey) -> PartyOutcome {
    PartyOutcome::Key {
        epoch: Some(made.stored.epoch),
        public_key: made.stored.record.public_key.0.clone(),
        attestation: made.stored.attestation().map(Box::new),
    }
}
