//! How a session ends: closed, overdue, without a result or with one.

use std::sync::Arc;

use quorate_types::*;

use super::{Durability, Effects, Reply, Session, refresh};

impl Session {
    pub(super) fn close(&mut self, now: Timestamp, effects: &mut Effects) -> Result<Reply> {
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

    /// Ends the session, since nothing is to be made with its key.
    pub(super) fn freeze(&mut self, now: Timestamp, effects: &mut Effects) -> Result<Reply> {
        if !self.status.is_final() {
            let failure = Failure {
                reason: FailureReason::KeyFrozen,
                message: "the key was frozen by its owner".into(),
                parties: Vec::new(),
            };
            self.fail(now, SessionStatus::Failed, failure, effects);
        }
        Ok(Reply::Done)
    }

    pub(super) fn expire(&mut self, now: Timestamp, effects: &mut Effects) -> Result<Reply> {
        if self.status.is_final() || now < self.expires_at {
            return Ok(Reply::Done);
        }
        let status = match self.status {
            SessionStatus::InProgress => SessionStatus::Failed,
            _ => SessionStatus::Expired,
        };
        let silent = match self.status {
            SessionStatus::InProgress => self.behind(),
            _ => self.view().waiting_for(),
        };
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
    pub(super) fn end_with(
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
    pub(super) fn fail(
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

    pub(super) fn complete(&mut self, now: Timestamp, effects: &mut Effects) {
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
            let record = KeyRecord { key, tenant, created_at: now, label, frozen: None };
            effects.key = Some((record, epoch));
        }
        effects.persist(Durability::Now);
        effects.events.push(EventKind::SessionCompleted);
        effects.ended = true;
    }

    /// The epoch that a session makes which ends with this public key; `epoch` is the number that
    /// its holders have signed.
    pub(super) fn made(&self, public_key: &PublicKey, epoch: Option<u32>) -> KeyEpoch {
        if let Ceremony::Refresh { key } = &self.ceremony {
            return refresh::made(key, epoch);
        }
        KeyEpoch {
            key_id: self.session_id.into(),
            epoch: 0,
            scheme: self.ceremony.scheme(),
            threshold: self.ceremony.threshold(),
            public_key: public_key.clone(),
            holders: self.participants.iter().map(|p| p.holder().clone()).collect(),
        }
    }
}
