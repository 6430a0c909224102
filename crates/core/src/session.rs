//! One session: created → waiting → in progress → completed, failed or expired.
//!
//! Every command is applied at a given time and leaves the session whole. `ready` and `complete`
//! commute: in whichever order the parties' commands arrive, the session ends the same.

mod approve;
mod create;
mod keygen;
mod refresh;
mod report;
mod sign;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use create::{check_device, check_input, check_participants};
use quorate_types::*;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// Entries kept of a session's history: 16 parties in 8 rounds and every step of theirs fit.
const MAX_TIMELINE: usize = 256;
/// Longest text accepted from a party that reports a failure, in bytes.
const MAX_FAILURE_TEXT: usize = 512;
/// Longest handshake accepted, in bytes. Every view and event carries those of all parties; the
/// engine's take about 200 bytes.
const MAX_HANDSHAKE: usize = 4_096;

/// What creates a session.
pub struct NewSession {
    /// Its id.
    pub session_id: SessionId,
    /// Who owns it.
    pub tenant: Tenant,
    /// What it does.
    pub ceremony: Ceremony,
    /// The parties, each with the SHA-256 of its join token.
    pub participants: Vec<(NewParticipant, [u8; 32])>,
    /// Those of them that are server parties.
    pub servers: Vec<PartyId>,
    /// What the initiator has signed.
    pub authorization: Option<Arc<Authorization>>,
    /// What the key is called that it makes or refreshes.
    pub label: Option<KeyLabel>,
    /// Now.
    pub now: Timestamp,
    /// The deadline.
    pub expires_at: Timestamp,
}

/// What can be done to a session.
#[derive(Clone, Debug)]
pub enum Command {
    /// A party joins with its token.
    Join {
        /// Who.
        party: PartyId,
        /// SHA-256 of the token it gave.
        token_hash: [u8; 32],
        /// Its device.
        device: DeviceInfo,
        /// Its handshake.
        handshake: Option<Handshake>,
        /// Whether it is ready at once.
        ready: bool,
    },
    /// A party with its token does not join before the request has more approvals.
    AwaitApproval {
        /// Who.
        party: PartyId,
        /// SHA-256 of the token it gave.
        token_hash: [u8; 32],
    },
    /// Somebody approves of the request. The signature has been verified.
    Approve {
        /// By this signature.
        approval: Approval,
    },
    /// A party is ready.
    Ready {
        /// Who.
        party: PartyId,
    },
    /// Somebody asks for the start.
    Start,
    /// The server parties have places for this keygen or refresh, whose parties are all ready.
    Admit,
    /// A party reports its end.
    Report {
        /// Who.
        party: PartyId,
        /// What came out.
        outcome: PartyOutcome,
    },
    /// The router has seen a party's first message of a round.
    Progress {
        /// Who.
        party: PartyId,
        /// The round.
        round: i32,
    },
    /// The owner gives up.
    Close,
    /// The deadline has passed.
    Expire,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To join.
    Joined {
        /// The party's place.
        party_index: PartyIndex,
    },
    /// To ready.
    Ready(ReadyCount),
    /// To everything else.
    Done,
}

/// How soon a change must be on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing is written: nothing changed, or only what the parties do again when a coordinator
    /// has forgotten it, which is to join, to say ready and to report a result.
    #[default]
    None,
    /// It is written in its order, and nobody waits for it.
    Queued,
    /// On the disk before the answer.
    Now,
}

/// What a command brings about outside the session. Only ever added to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// How soon the session must be written.
    pub persist: Durability,
    /// What to tell the parties, in this order.
    pub events: Vec<EventKind>,
    /// The key that a completed keygen or refresh made, with how it came to that epoch.
    pub key: Option<(KeyRecord, EpochRecord)>,
    /// Pairs of holders that sign no more, as one of them says.
    pub bans: Vec<ReportedBan>,
    /// All parties of a keygen or refresh are ready, and it waits to be admitted.
    pub ready: bool,
    /// The session has ended by this command.
    pub ended: bool,
}

impl Effects {
    fn persist(&mut self, durability: Durability) {
        self.persist = self.persist.max(durability);
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Participant {
    party_id: PartyId,
    token_hash: [u8; 32],
    device: DeviceInfo,
    // Its name in rows of the first version.
    #[serde(alias = "hello")]
    handshake: Option<Handshake>,
    status: ParticipantStatus,
    last_round: i32,
}

impl Participant {
    fn is_ready(&self) -> bool {
        matches!(
            self.status,
            ParticipantStatus::Ready | ParticipantStatus::Computing | ParticipantStatus::Completed
        )
    }
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    session_id: SessionId,
    tenant: Tenant,
    #[serde(flatten)]
    ceremony: Ceremony,
    participants: Vec<Participant>,
    /// The server parties among them; unknown in sessions of the first version.
    #[serde(default)]
    servers: Vec<PartyId>,
    status: SessionStatus,
    /// What the initiator has signed; unknown in sessions of the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authorization: Option<Arc<Authorization>>,
    /// What the key is called that it makes or refreshes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<KeyLabel>,
    /// The result that is known so far; final once the session has completed.
    outcome: Option<Outcome>,
    /// What the holders of the key that it makes have signed of it, once one of them has shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attestation: Option<Attestation>,
    /// The epoch that they have signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    failure: Option<Failure>,
    created_at: Timestamp,
    expires_at: Timestamp,
    timeline: Vec<TimelineEntry>,
}

impl Session {
    /// Creates a session after checking everything its creator said.
    pub fn create(new: NewSession, effects: &mut Effects) -> Result<Self> {
        check_input(&new.ceremony)?;
        check_participants(&new)?;
        if new.expires_at <= new.now {
            return Err(Error::invalid_field("expires_in_seconds", "the deadline is in the past"));
        }
        let participant = |(new, token_hash): (NewParticipant, [u8; 32])| Participant {
            party_id: new.party_id,
            token_hash,
            device: new.device,
            handshake: None,
            status: ParticipantStatus::Waiting,
            last_round: -1,
        };
        let mut session = Self {
            session_id: new.session_id,
            tenant: new.tenant,
            ceremony: new.ceremony,
            participants: new.participants.into_iter().map(participant).collect(),
            servers: new.servers,
            status: SessionStatus::Created,
            authorization: new.authorization,
            label: new.label,
            outcome: None,
            attestation: None,
            epoch: None,
            failure: None,
            created_at: new.now,
            expires_at: new.expires_at,
            timeline: Vec::new(),
        };
        session.note(new.now, None, "created");
        effects.persist(Durability::Now);
        effects.events.push(EventKind::SessionCreated);
        Ok(session)
    }

    /// Applies a command. A refusal may still have ended the session: a false signature does.
    pub fn apply(
        &mut self,
        now: Timestamp,
        command: Command,
        effects: &mut Effects,
    ) -> Result<Reply> {
        // A join is refused for its token first, so that nobody without one learns anything.
        if !matches!(
            command,
            Command::Expire | Command::Join { .. } | Command::AwaitApproval { .. }
        ) {
            self.refuse_overdue(now)?;
        }
        match command {
            Command::Join { party, token_hash, device, handshake, ready } => {
                let joiner = Joiner { party, token_hash, device, handshake, ready };
                self.join(now, joiner, effects)
            }
            Command::AwaitApproval { party, token_hash } => {
                self.await_approval(now, &party, &token_hash, effects)
            }
            Command::Approve { approval } => self.approve(now, approval, effects),
            Command::Ready { party } => self.ready(now, &party, effects),
            Command::Start => self.start(),
            Command::Admit => {
                if self.ready_count().all_ready() && self.status == SessionStatus::Waiting {
                    self.begin(now, effects);
                }
                Ok(Reply::Done)
            }
            Command::Report { party, outcome } => self.report(now, &party, outcome, effects),
            Command::Progress { party, round } => self.progress(now, &party, round),
            Command::Close => self.close(now, effects),
            Command::Expire => self.expire(now, effects),
        }
    }

    fn join(&mut self, now: Timestamp, joiner: Joiner, effects: &mut Effects) -> Result<Reply> {
        let at = self.proven(&joiner.party, &joiner.token_hash)?;
        let party_index = index(at);
        self.refuse_overdue(now)?;
        self.refuse_ended()?;
        check_device(&joiner.device)?;
        if joiner.handshake.as_ref().is_some_and(|handshake| handshake.len() > MAX_HANDSHAKE) {
            let problem = format!("handshake is at most {MAX_HANDSHAKE} bytes");
            return Err(Error::invalid_field("hello", problem));
        }
        let known = self.participants[at].handshake.clone();
        let changed = joiner.handshake.is_some() && known != joiner.handshake;
        if self.status == SessionStatus::InProgress {
            if changed {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    "the session runs already with your earlier handshake; if you lost its \
                     state, report a failure so that the others need not wait",
                ));
            }
            return Ok(Reply::Joined { party_index });
        }
        let first = matches!(
            self.participants[at].status,
            ParticipantStatus::Waiting | ParticipantStatus::AwaitingApproval
        );
        let participant = &mut self.participants[at];
        if first || changed {
            participant.device = joiner.device;
            participant.handshake = joiner.handshake.or(known);
            participant.status = ParticipantStatus::Joined;
        }
        if first {
            self.status = self.before_start();
            self.note(now, Some(&joiner.party), "joined");
            effects.events.push(EventKind::PartyJoined);
        } else if changed {
            self.note(now, Some(&joiner.party), "joined again");
        }
        if joiner.ready {
            self.ready(now, &joiner.party, effects)?;
        }
        Ok(Reply::Joined { party_index })
    }

    fn ready(&mut self, now: Timestamp, party: &PartyId, effects: &mut Effects) -> Result<Reply> {
        let at = self.member(party)?;
        if self.status != SessionStatus::Completed {
            self.refuse_ended()?;
        }
        match self.participants[at].status {
            ParticipantStatus::Waiting | ParticipantStatus::AwaitingApproval => {
                return Err(Error::invalid_field(
                    "party_id",
                    "join the session before saying ready",
                ));
            }
            ParticipantStatus::Joined => {
                self.participants[at].status = ParticipantStatus::Ready;
                self.note(now, Some(party), "ready");
                effects.events.push(EventKind::PartyReady);
            }
            _ => {}
        }
        let count = self.ready_count();
        if count.all_ready() && self.status == SessionStatus::Waiting {
            if self.kind().makes_shares() && !self.servers.is_empty() {
                effects.ready = true;
            } else {
                self.begin(now, effects);
            }
        }
        Ok(Reply::Ready(count))
    }

    fn begin(&mut self, now: Timestamp, effects: &mut Effects) {
        self.status = SessionStatus::InProgress;
        for participant in &mut self.participants {
            participant.status = ParticipantStatus::Computing;
        }
        self.note(now, None, "started");
        effects.persist(Durability::Queued);
        effects.events.push(EventKind::SessionStarted);
    }

    fn ready_count(&self) -> ReadyCount {
        let ready = self.participants.iter().filter(|p| p.is_ready()).count();
        let small = |n| u16::try_from(n).expect("at most MAX_PARTIES");
        ReadyCount { ready: small(ready), total: small(self.participants.len()) }
    }

    fn start(&self) -> Result<Reply> {
        match self.status {
            SessionStatus::InProgress | SessionStatus::Completed => Ok(Reply::Done),
            SessionStatus::Waiting if self.ready_count().all_ready() => Ok(Reply::Done),
            status if status.is_unstarted() => Err(Error::new(
                ErrorCode::ThresholdNotMet,
                "not all parties are ready; the session starts by itself when the last one is",
            )
            .waiting_for(self.view().waiting_for())),
            _ => Err(self.ended()),
        }
    }

    fn progress(&mut self, now: Timestamp, party: &PartyId, round: i32) -> Result<Reply> {
        let at = self.member(party)?;
        self.refuse_ended()?;
        if round > self.participants[at].last_round {
            self.participants[at].last_round = round;
            self.note(now, Some(party), &format!("round {round}"));
        }
        Ok(Reply::Done)
    }

    fn close(&mut self, now: Timestamp, effects: &mut Effects) -> Result<Reply> {
        if !self.status.is_final() {
            let failure = Failure {
                reason: FailureReason::Closed,
                message: "closed by its owner".into(),
                parties: Vec::new(),
            };
            self.fail(now, SessionStatus::Failed, failure, effects);
        }
        Ok(Reply::Done)
    }

    fn expire(&mut self, now: Timestamp, effects: &mut Effects) -> Result<Reply> {
        if self.status.is_final() || now < self.expires_at {
            return Ok(Reply::Done);
        }
        let status = match self.status {
            SessionStatus::InProgress => SessionStatus::Failed,
            _ => SessionStatus::Expired,
        };
        let silent = self.view().waiting_for();
        let names: Vec<_> = silent.iter().map(PartyId::as_str).collect();
        let awaited = match names.is_empty() {
            true => "a free place at the server parties".to_owned(),
            false => names.join(", "),
        };
        let failure = Failure {
            reason: FailureReason::DeadlinePassed,
            message: format!("the deadline passed while waiting for {awaited}"),
            parties: silent,
        };
        self.end_with(now, status, failure, effects);
        Ok(Reply::Done)
    }

    /// Ends the session: with the signature, where one is known and verified, else without.
    fn end_with(
        &mut self,
        now: Timestamp,
        status: SessionStatus,
        failure: Failure,
        effects: &mut Effects,
    ) {
        if self.kind() == SessionKind::Sign && self.outcome.is_some() {
            self.complete(now, effects);
        } else {
            self.fail(now, status, failure, effects);
        }
    }

    /// Ends the session without a result: as failed or as expired.
    fn fail(
        &mut self,
        now: Timestamp,
        status: SessionStatus,
        failure: Failure,
        effects: &mut Effects,
    ) {
        self.outcome = None;
        self.status = status;
        self.note(now, None, &format!("{}: {}", status.name(), failure.message));
        self.failure = Some(failure);
        effects.persist(Durability::Now);
        effects.events.push(match status {
            SessionStatus::Expired => EventKind::SessionExpired,
            _ => EventKind::SessionFailed,
        });
        effects.ended = true;
    }

    fn complete(&mut self, now: Timestamp, effects: &mut Effects) {
        self.status = SessionStatus::Completed;
        self.note(now, None, "completed");
        if let Some(Outcome::PublicKey(public_key)) = &self.outcome {
            let key = Arc::new(self.made(public_key, self.epoch));
            let epoch = EpochRecord {
                epoch: key.epoch,
                session_id: self.session_id,
                made_at: now,
                attestation: self.attestation.take(),
            };
            let (tenant, label) = (self.tenant.clone(), self.label.clone());
            let record = KeyRecord { key, tenant, created_at: now, label };
            effects.key = Some((record, epoch));
        }
        effects.persist(Durability::Now);
        effects.events.push(EventKind::SessionCompleted);
        effects.ended = true;
    }

    /// The epoch that a session makes which ends with this public key; `epoch` is the number that
    /// its holders have signed.
    fn made(&self, public_key: &PublicKey, epoch: Option<u32>) -> KeyEpoch {
        if let Ceremony::Refresh { key } = &self.ceremony {
            return refresh::made(key, epoch);
        }
        KeyEpoch {
            key_id: self.session_id.into(),
            epoch: 0,
            scheme: self.ceremony.scheme(),
            threshold: self.ceremony.threshold(),
            public_key: public_key.clone(),
            holders: self.participants.iter().map(|p| p.party_id.clone()).collect(),
        }
    }

    fn note(&mut self, at: Timestamp, party: Option<&PartyId>, what: &str) {
        // The last place is kept for how it ended.
        let room = MAX_TIMELINE - usize::from(!self.status.is_final());
        if self.timeline.len() < room {
            let entry = TimelineEntry { at, party_id: party.cloned(), what: what.to_owned() };
            self.timeline.push(entry);
        }
    }

    /// The place of a party that shows its token.
    fn proven(&self, party: &PartyId, token_hash: &[u8; 32]) -> Result<usize> {
        let genuine = |at: &usize| bool::from(self.participants[*at].token_hash.ct_eq(token_hash));
        self.place(party).filter(genuine).ok_or_else(|| {
            Error::new(
                ErrorCode::Unauthorized,
                "this join token is not the one made for this party in this session",
            )
        })
    }

    fn place(&self, party: &PartyId) -> Option<usize> {
        self.participants.iter().position(|p| p.party_id == *party)
    }

    fn member(&self, party: &PartyId) -> Result<usize> {
        self.place(party).ok_or_else(|| {
            Error::new(
                ErrorCode::Forbidden,
                format!("{party} does not take part in session {}", self.session_id),
            )
        })
    }

    fn refuse_ended(&self) -> Result<()> {
        if self.status.is_final() { Err(self.ended()) } else { Ok(()) }
    }

    fn refuse_overdue(&self, now: Timestamp) -> Result<()> {
        if now >= self.expires_at && !self.status.is_final() {
            return Err(self.over("its deadline has passed"));
        }
        Ok(())
    }

    fn ended(&self) -> Error {
        let name = self.status.name();
        match &self.failure {
            Some(failure) => self.over(&format!("it has {name}: {}", failure.message)),
            None => self.over(&format!("it has {name}")),
        }
    }

    fn over(&self, why: &str) -> Error {
        Error::new(ErrorCode::SessionExpired, format!("session {} is over: {why}", self.session_id))
    }
}

fn index(at: usize) -> PartyIndex {
    PartyIndex(u16::try_from(at).expect("at most MAX_PARTIES"))
}

struct Joiner {
    party: PartyId,
    token_hash: [u8; 32],
    device: DeviceInfo,
    handshake: Option<Handshake>,
    ready: bool,
}
