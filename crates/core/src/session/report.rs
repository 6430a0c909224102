//! What parties report at their end: results that must agree and verify, or why there is none.

use quorate_types::*;

use super::{Durability, Effects, MAX_FAILURE_TEXT, Reply, Session};

impl Session {
    pub(super) fn report(
        &mut self,
        now: Timestamp,
        party: &PartyId,
        outcome: PartyOutcome,
        effects: &mut Effects,
    ) -> Result<Reply> {
        let at = self.member(party)?;
        if let PartyOutcome::Failure(failure) = outcome {
            self.refuse_ended()?;
            return self.give_up(now, at, failure, effects);
        }
        let outcome = self.checked(outcome);
        if matches!(self.status, SessionStatus::Failed | SessionStatus::Expired) {
            return Err(self.ended());
        }
        if matches!(self.status, SessionStatus::Created | SessionStatus::Waiting) {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("the session is {}; a result can come once it runs", self.status.name()),
            )
            .waiting_for(self.view().waiting_for()));
        }
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.refuse_result(now, at, error, effects)),
        };
        match &self.outcome {
            Some(known) if *known != outcome => self.differ(now, at, effects),
            known => {
                let news = known.is_none();
                self.outcome = Some(outcome);
                self.take_result(now, at, news, effects);
                Ok(Reply::Done)
            }
        }
    }

    /// A party's result in canonical form. Signatures are verified, unless they repeat the one
    /// that has been.
    fn checked(&self, outcome: PartyOutcome) -> Result<Outcome> {
        match (outcome, self.kind) {
            (PartyOutcome::PublicKey(bytes), SessionKind::Keygen) => {
                quorate_schemes::normalize_public_key(self.scheme, &bytes).map(Outcome::PublicKey)
            }
            (PartyOutcome::Signature { bytes, recovery_id }, SessionKind::Sign) => {
                let signature = quorate_schemes::parse_signature(self.scheme, &bytes, recovery_id)?;
                if let Some(Outcome::Signature(known)) = &self.outcome
                    && known.bytes == signature.bytes
                    && signature.recovery_id.is_none_or(|id| Some(id) == known.recovery_id)
                {
                    return Ok(Outcome::Signature(known.clone()));
                }
                let (Some(key), Some(digest)) = (&self.key, &self.digest) else {
                    return Err(Error::internal());
                };
                quorate_schemes::complete_signature(self.scheme, &key.public_key, digest, signature)
                    .map(Outcome::Signature)
            }
            (_, kind) => {
                let expected = if kind == SessionKind::Keygen { "public_key" } else { "signature" };
                Err(Error::invalid_field(
                    expected,
                    format!("a {} session is completed with {expected}", kind.name()),
                ))
            }
        }
    }

    /// A result that cannot be right: its reporter has failed, and the session with it unless a
    /// verified result is there already.
    fn refuse_result(
        &mut self,
        now: Timestamp,
        at: usize,
        error: Error,
        effects: &mut Effects,
    ) -> Error {
        let wrong_signature = self.kind == SessionKind::Sign
            && error.details.fields.contains_key("signature")
            && error.message.contains("does not verify");
        if self.status != SessionStatus::InProgress || !wrong_signature {
            return error;
        }
        let party = self.participants[at].party_id.clone();
        self.participants[at].status = ParticipantStatus::Failed;
        self.note(now, Some(&party), "reported a signature that does not verify");
        let failure = Failure {
            reason: FailureReason::SignatureInvalid,
            message: format!("{party} reported a signature that does not verify under the key"),
            parties: vec![party.clone()],
        };
        self.end_with(now, failure, effects);
        error.blaming(Blame { party_id: party, reason: "signature does not verify".into() })
    }

    /// Two parties report different results: one of them lies or is broken.
    fn differ(&mut self, now: Timestamp, at: usize, effects: &mut Effects) -> Result<Reply> {
        let party = self.participants[at].party_id.clone();
        let conflict = Error::new(
            ErrorCode::Conflict,
            "this differs from the result that was reported before; the first one stands",
        );
        let repeats = self.participants[at].status == ParticipantStatus::Completed;
        if self.status == SessionStatus::Completed || repeats {
            return Err(conflict);
        }
        let mut parties: Vec<_> = self
            .participants
            .iter()
            .filter(|p| p.status == ParticipantStatus::Completed)
            .map(|p| p.party_id.clone())
            .collect();
        parties.push(party.clone());
        self.note(now, Some(&party), "reported a different result");
        let names: Vec<_> = parties.iter().map(PartyId::as_str).collect();
        let failure = Failure {
            reason: FailureReason::ResultsDiffer,
            message: format!("the results of {} differ", names.join(", ")),
            parties,
        };
        self.outcome = None;
        self.end_with(now, failure, effects);
        Err(conflict)
    }

    fn take_result(&mut self, now: Timestamp, at: usize, news: bool, effects: &mut Effects) {
        if self.participants[at].status == ParticipantStatus::Completed
            || self.status == SessionStatus::Completed
        {
            // A late or repeated report of the same result changes the reporter at most.
            self.participants[at].status = ParticipantStatus::Completed;
            return;
        }
        self.participants[at].status = ParticipantStatus::Completed;
        let party = self.participants[at].party_id.clone();
        self.note(now, Some(&party), "completed");
        // A verified signature must survive even when the others never report.
        let keep = if news && self.kind == SessionKind::Sign {
            Durability::Lazy
        } else {
            Durability::None
        };
        effects.persist(keep);
        if self.participants.iter().all(|p| p.status == ParticipantStatus::Completed) {
            self.complete(now, effects);
        }
    }

    fn give_up(
        &mut self,
        now: Timestamp,
        at: usize,
        mut failure: Failure,
        effects: &mut Effects,
    ) -> Result<Reply> {
        let party = self.participants[at].party_id.clone();
        if self.participants[at].status == ParticipantStatus::Completed {
            return Err(Error::new(ErrorCode::Conflict, "you have reported a result; it stands"));
        }
        self.participants[at].status = ParticipantStatus::Failed;
        let mut text = failure.message;
        while text.len() > MAX_FAILURE_TEXT {
            text.pop();
        }
        failure.message = format!("{party}: {text}");
        failure.parties.retain(|blamed| self.place(blamed).is_some());
        if failure.parties.is_empty() {
            failure.parties.push(party.clone());
        }
        // Only these two are a party's to say.
        if failure.reason != FailureReason::PartyCheated {
            failure.reason = FailureReason::PartyFailed;
        }
        self.note(now, Some(&party), &format!("failed: {text}"));
        self.end_with(now, failure, effects);
        Ok(Reply::Done)
    }
}
