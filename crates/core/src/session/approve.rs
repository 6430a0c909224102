//! Requests that wait for approvals, and the approvals that come in.

use std::sync::Arc;

use quorate_types::*;

use super::{Durability, Effects, Reply, Session, index};

impl Session {
    /// How a session stands whose parties come together.
    pub(super) fn before_start(&self) -> SessionStatus {
        let any = |wanted: &[ParticipantStatus]| {
            self.participants.iter().any(|party| wanted.contains(&party.status))
        };
        if any(&[ParticipantStatus::AwaitingApproval]) {
            SessionStatus::AwaitingApproval
        } else if any(&[ParticipantStatus::Joined, ParticipantStatus::Ready]) {
            SessionStatus::Waiting
        } else {
            SessionStatus::Created
        }
    }

    /// A party says that it joins once there are more approvals. Nothing is kept of it: after a
    /// restart of the coordinator it says so again.
    pub(super) fn await_approval(
        &mut self,
        now: Timestamp,
        party: &PartyId,
        token_hash: &[u8; 32],
        effects: &mut Effects,
    ) -> Result<Reply> {
        let at = self.proven(party, token_hash)?;
        self.refuse_overdue(now)?;
        self.refuse_ended()?;
        if self.participants[at].status == ParticipantStatus::Waiting {
            self.participants[at].status = ParticipantStatus::AwaitingApproval;
            self.status = self.before_start();
            self.note(now, Some(party), "awaits approval");
            effects.events.push(EventKind::AwaitingApproval);
        }
        Ok(Reply::Joined { party_index: index(at) })
    }

    /// Takes an approval; the same approver's again changes nothing.
    pub(super) fn approve(
        &mut self,
        now: Timestamp,
        approval: Approval,
        effects: &mut Effects,
    ) -> Result<Reply> {
        self.refuse_ended()?;
        let Some(authorization) = &mut self.authorization else {
            let why = "the request of this session is not signed: there is nothing to approve";
            return Err(Error::new(ErrorCode::Conflict, why));
        };
        let approvals = &authorization.approvals;
        if approvals.iter().any(|known| known.approver == approval.approver) {
            return Ok(Reply::Done);
        }
        if approvals.len() >= MAX_APPROVALS {
            let why = format!("a request has at most {MAX_APPROVALS} approvals");
            return Err(Error::new(ErrorCode::RateLimited, why));
        }
        let approver = approval.approver.to_string();
        Arc::make_mut(authorization).approvals.push(approval);
        self.note(now, None, &format!("approved by {approver}"));
        effects.persist(Durability::Now);
        effects.events.push(EventKind::ApprovalAdded);
        Ok(Reply::Done)
    }
}
