//! From the creation to the start: parties join, say ready, and the last one starts the session.

use quorate_types::*;
use subtle::ConstantTimeEq;

use super::create::check_device;
use super::{Durability, Effects, MAX_HANDSHAKE, Reply, Session, index};

/// Who joins, as it says.
pub(super) struct Joiner {
    pub(super) party: PartyId,
    pub(super) token_hash: [u8; 32],
    pub(super) device: DeviceInfo,
    pub(super) handshake: Option<Handshake>,
    pub(super) ready: bool,
    pub(super) attempt: u32,
}

impl Session {
    pub(super) fn join(
        &mut self,
        now: Timestamp,
        joiner: Joiner,
        effects: &mut Effects,
    ) -> Result<Reply> {
        let at = self.proven(&joiner.party, &joiner.token_hash)?;
        let party_index = index(at);
        self.refuse_overdue(now)?;
        self.refuse_ended()?;
        if joiner.attempt != self.attempt() {
            let problem =
                format!("the session is at attempt {}; join that one", self.attempt() + 1);
            return Err(Error::new(ErrorCode::Conflict, problem));
        }
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

    pub(super) fn ready(
        &mut self,
        now: Timestamp,
        party: &PartyId,
        effects: &mut Effects,
    ) -> Result<Reply> {
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

    pub(super) fn begin(&mut self, now: Timestamp, effects: &mut Effects) {
        self.status = SessionStatus::InProgress;
        for participant in &mut self.participants {
            participant.status = ParticipantStatus::Computing;
        }
        self.note(now, None, "started");
        effects.persist(Durability::Queued);
        effects.events.push(EventKind::SessionStarted);
    }

    pub(super) fn ready_count(&self) -> ReadyCount {
        let ready = self.participants.iter().filter(|p| p.is_ready()).count();
        let small = |n| u16::try_from(n).expect("at most MAX_PARTIES");
        ReadyCount { ready: small(ready), total: small(self.participants.len()) }
    }

    pub(super) fn start(&self) -> Result<Reply> {
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

    /// The place of a party that shows its token.
    pub(super) fn proven(&self, party: &PartyId, token_hash: &[u8; 32]) -> Result<usize> {
        let genuine = |at: &usize| bool::from(self.participants[*at].token_hash.ct_eq(token_hash));
        self.place(party).filter(genuine).ok_or_else(|| {
            Error::new(
                ErrorCode::Unauthorized,
                "this join token is not the one made for this party in this session",
            )
        })
    }
}
