//! One session: created → waiting → in progress → completed, failed or expired.
//!
//! Every command is applied at a given time and leaves the session whole. `ready` and `complete`
//! commute: in whichever order the parties' commands arrive, the session ends the same.

mod approve;
mod attempts;
mod create;
mod delegate;
mod end;
mod enter;
mod keygen;
mod refresh;
mod report;
mod sign;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

pub use attempts::Reserve;
use attempts::Retry;
use create::{check_input, check_participants};
pub use delegate::Submission;
use enter::Joiner;
use quorate_types::*;
use serde::{Deserialize, Serialize};

/// Entries kept of a session's history: 16 parties in 8 rounds and every step of theirs fit.
const MAX_TIMELINE: usize = 256;
/// Longest text accepted from a party that reports a failure, in bytes.
const MAX_FAILURE_TEXT: usize = 512;
/// Longest handshake accepted, in bytes. Every view and event carries those of all parties; the
/// engine's take about 200 bytes.
const MAX_HANDSHAKE: usize = 4_096;

/// What creates a session.
pub struct NewSession {
    /// The session's id, which is the key's id too after a keygen.
    pub session_id: SessionId,
    /// Who owns it.
    pub tenant: Tenant,
    /// What it does.
    pub ceremony: Ceremony,
    /// The parties, each with the SHA-256 of its join token.
    pub participants: Vec<(NewParticipant, [u8; 32])>,
    /// Those of them that are server parties.
    pub servers: Vec<PartyId>,
    /// With whom a signature may be tried again; `None` where it is tried once.
    pub reserve: Option<Reserve>,
    /// What the initiator has signed.
    pub authorization: Option<Arc<Authorization>>,
    /// What the key is called that it makes or refreshes.
    pub label: Option<KeyLabel>,
    /// When it is created.
    pub now: Timestamp,
    /// Moment at which the session expires unless it has ended.
    pub expires_at: Timestamp,
}

/// What can be done to a session.
#[derive(Clone, Debug)]
pub enum Command {
    /// A party joins with its token.
    Join {
        /// The participant that joins.
        party: PartyId,
        /// SHA-256 of the token it gave.
        token_hash: [u8; 32],
        /// The device from which it takes part.
        device: DeviceInfo,
        /// Its signed handshake, where it computes with Quorate's engine.
        handshake: Option<Handshake>,
        /// Whether it is ready at once.
        ready: bool,
        /// The attempt that it joins.
        attempt: u32,
    },
    /// A party with its token does not join before the request has more approvals.
    AwaitApproval {
        /// The participant that waits for approvals.
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
        /// The participant that is ready.
        party: PartyId,
    },
    /// Somebody asks for the start.
    Start,
    /// The server parties have places for this keygen or refresh, whose parties are all ready.
    Admit,
    /// A party reports its end.
    Report {
        /// The participant that reports.
        party: PartyId,
        /// The attempt of which it tells.
        attempt: u32,
        /// What came out.
        outcome: PartyOutcome,
    },
    /// A delegate hands in the package of its user.
    Submit(Submission),
    /// After a setback: the session goes on with others, or ends. Right after the command that
    /// told of the setback.
    TryAgain {
        /// The session's reserve, the best first, each with the SHA-256 of its join token.
        ranked: Vec<(PartyId, [u8; 32])>,
    },
    /// Participants have been silent for too long: the session goes on with others, if there are some.
    Without {
        /// The silent participants.
        silent: Vec<PartyId>,
        /// As in [`Command::TryAgain`].
        ranked: Vec<(PartyId, [u8; 32])>,
    },
    /// The router has seen a party's first message of a round.
    Progress {
        /// The participant that sent it.
        party: PartyId,
        /// The protocol's round, from 1.
        round: i32,
    },
    /// The owner gives up.
    Close,
    /// The owner has frozen the key.
    Freeze,
    /// The deadline has passed.
    Expire,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Answer to joining.
    Joined {
        /// The party's place.
        party_index: PartyIndex,
    },
    /// Answer to becoming ready.
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
    /// A package was taken in: it is to be stored with the session.
    pub package: bool,
    /// Pairs of holders that sign no more, as one of them says.
    pub bans: Vec<ReportedBan>,
    /// All parties of a keygen or refresh are ready, and it waits to be admitted.
    pub ready: bool,
    /// The attempt cannot go on: [`Command::TryAgain`] comes next.
    pub set_back: bool,
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
    #[serde(with = "text")]
    token_hash: [u8; 32],
    device: DeviceInfo,
    // Its name in rows of the first version.
    #[serde(default, alias = "hello", with = "text::optional")]
    handshake: Option<Handshake>,
    status: ParticipantStatus,
    last_round: i32,
    /// For whom it takes the seat, where it is a delegate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<OnBehalfOf>,
    /// SHA-256 of the package that it has handed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package: Option<[u8; 32]>,
    /// It has reported its result, and its user's package is not in yet.
    #[serde(skip)]
    reported: bool,
}

impl Participant {
    fn is_ready(&self) -> bool {
        matches!(
            self.status,
            ParticipantStatus::Ready | ParticipantStatus::Computing | ParticipantStatus::Completed
        )
    }

    /// As it is before it joins.
    fn forget(&mut self) {
        self.handshake = None;
        self.status = ParticipantStatus::Waiting;
        self.last_round = -1;
    }
}

/// The state of a session: its participants, their steps and its outcome.
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
    /// Of a signature that may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Box<Retry>>,
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
    /// The session as it is kept once it has ended: without what only its parties needed.
    #[must_use]
    pub fn for_archive(&self) -> Self {
        let mut kept = self.clone();
        for participant in &mut kept.participants {
            participant.handshake = None;
        }
        kept
    }

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
            on_behalf_of: new.on_behalf_of,
            package: None,
            reported: false,
        };
        let mut session = Self {
            session_id: new.session_id,
            tenant: new.tenant,
            ceremony: new.ceremony,
            participants: new.participants.into_iter().map(participant).collect(),
            servers: new.servers,
            retry: new.reserve.map(Retry::new).map(Box::new),
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
            Command::Join { party, token_hash, device, handshake, ready, attempt } => {
                let joiner = Joiner { party, token_hash, device, handshake, ready, attempt };
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
            Command::Report { party, attempt, outcome } => {
                self.report(now, &party, attempt, outcome, effects)
            }
            Command::Submit(submission) => self.submit(now, submission, effects),
            Command::TryAgain { ranked } => self.try_again(now, &ranked, effects),
            Command::Without { silent, ranked } => self.without(now, &silent, &ranked, effects),
            Command::Progress { party, round } => self.progress(now, &party, round),
            Command::Close => self.close(now, effects),
            Command::Freeze => self.freeze(now, effects),
            Command::Expire => self.expire(now, effects),
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

    fn note(&mut self, at: Timestamp, party: Option<&PartyId>, what: &str) {
        // The last place is kept for how it ended.
        let room = MAX_TIMELINE - usize::from(!self.status.is_final());
        if self.timeline.len() < room {
            let entry = TimelineEntry { at, party_id: party.cloned(), what: what.to_owned() };
            self.timeline.push(entry);
        }
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
