//! What parties report at their end: results that must agree and verify, or why there is none.

use quorate_types::*;

use super::{Effects, MAX_FAILURE_TEXT, Reply, Session, keygen, refresh, sign};

impl Session {
    pub(super) fn report(
        &mut self,
        now: Timestamp,
        party: &PartyId,
        attempt: u32,
        outcome: PartyOutcome,
        effects: &mut Effects,
    ) -> Result<Reply> {
        if self.replaced().contains(party) || attempt < self.attempt() {
            return self.report_late(now, party, outcome, effects);
        }
        let at = self.member(party)?;
        if let PartyOutcome::Failure(failure) = outcome {
            self.catch_up(attempt);
            return self.give_up(now, at, failure, effects);
        }
        match self.status {
            SessionStatus::Failed | SessionStatus::Expired => return Err(self.ended()),
            status if status.is_unstarted() => {
                let status = self.status.name();
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!("the session is {status}; a result can come once it runs"),
                )
                .waiting_for(self.view().waiting_for()));
            }
            _ => {}
        }
        let outcome = match self.checked(outcome) {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.refuse_result(now, at, error, effects)),
        };
        let Checked { outcome, attestation, epoch } = outcome;
        if self.outcome.as_ref().is_some_and(|known| *known != outcome)
            || self.differs(attestation.as_ref())
        {
            return self.differ(now, at, effects);
        }
        self.outcome.get_or_insert(outcome);
        self.attestation = self.attestation.take().or(attestation);
        self.epoch = self.epoch.or(epoch);
        self.take_result(now, at, effects);
        Ok(Reply::Done)
    }

    /// What a party reports of an attempt that is over: a signature that verifies is the result
    /// whichever attempt has made it, and a failure tells nothing new.
    fn report_late(
        &mut self,
        now: Timestamp,
        party: &PartyId,
        outcome: PartyOutcome,
        effects: &mut Effects,
    ) -> Result<Reply> {
        if self.status.is_final() || matches!(outcome, PartyOutcome::Failure(_)) {
            return Ok(Reply::Done);
        }
        let Checked { outcome, .. } = self.checked(outcome)?;
        self.note(now, Some(party), "completed an earlier attempt");
        self.outcome.get_or_insert(outcome);
        self.complete(now, effects);
        Ok(Reply::Done)
    }

    /// Whether this attestation is of another run or of other identities than the known one. The
    /// signatures need not be the same: a holder may sign twice.
    fn differs(&self, attestation: Option<&Attestation>) -> bool {
        let about = |of: &Attestation| (of.execution, of.identities.clone());
        match (&self.attestation, attestation) {
            (Some(known), Some(shown)) => about(known) != about(shown),
            _ => false,
        }
    }

    /// A party's result in canonical form. Signatures and attestations are verified, unless they
    /// repeat what has been.
    fn checked(&self, outcome: PartyOutcome) -> Result<Checked> {
        match (outcome, &self.ceremony) {
            (
                PartyOutcome::Key { public_key, attestation, epoch },
                Ceremony::Keygen { scheme, .. },
            ) => {
                epoch.map_or(Ok(()), keygen::check_epoch)?;
                self.attested(keygen::check_result(*scheme, &public_key)?, attestation, epoch)
            }
            (PartyOutcome::Key { public_key, attestation, epoch }, Ceremony::Refresh { key }) => {
                epoch.map_or(Ok(()), |epoch| refresh::check_epoch(key, epoch))?;
                self.attested(refresh::check_result(key, &public_key)?, attestation, epoch)
            }
            (PartyOutcome::Signature { bytes, recovery_id }, Ceremony::Sign { key, input }) => {
                let reported = (&*bytes, recovery_id);
                sign::check_result(key, input, self.outcome.as_ref(), reported)
                    .map(|signature| Checked::without_key(Outcome::Signature(signature)))
            }
            (_, ceremony) => {
                let kind = ceremony.kind();
                let expected = if kind.makes_shares() { "public_key" } else { "signature" };
                Err(Error::invalid_field(
                    expected,
                    format!("a {} session is completed with {expected}", kind.name()),
                ))
            }
        }
    }

    /// A key with what its holders have signed of the epoch that this session makes. Its number is
    /// theirs to say, so it counts where they have signed it.
    fn attested(
        &self,
        public_key: PublicKey,
        attestation: Option<Box<Attestation>>,
        epoch: Option<u32>,
    ) -> Result<Checked> {
        if let Some(attestation) = &attestation {
            quorate_schemes::check_attestation(&self.made(&public_key, epoch), attestation)?;
        }
        let epoch = attestation.is_some().then_some(epoch).flatten();
        let outcome = Outcome::PublicKey(public_key);
        Ok(Checked { outcome, attestation: attestation.map(|boxed| *boxed), epoch })
    }

    /// A result that cannot be right: its reporter has failed, and the session ends, completed if
    /// another party's signature has been verified. What a party reported first stands.
    fn refuse_result(
        &mut self,
        now: Timestamp,
        at: usize,
        error: Error,
        effects: &mut Effects,
    ) -> Error {
        let wrong_signature = self.kind() == SessionKind::Sign
            && error.details.fields.contains_key("signature")
            && error.message.contains("does not verify");
        if self.status != SessionStatus::InProgress || !wrong_signature {
            return error;
        }
        if self.participants[at].status == ParticipantStatus::Completed {
            return first_stands();
        }
        let party = self.participants[at].party_id.clone();
        self.participants[at].status = ParticipantStatus::Failed;
        self.note(now, Some(&party), "reported a signature that does not verify");
        let failure = Failure {
            reason: FailureReason::SignatureInvalid,
            message: format!("{party} reported a signature that does not verify under the key"),
            parties: vec![party.clone()],
        };
        self.end_or_retry(now, &party, failure, effects);
        error.blaming(Blame { party_id: party, reason: "signature does not verify".into() })
    }

    /// Two parties report different results: one of them lies or is broken, and nothing tells
    /// which, so that even a signature that verifies is not handed out.
    fn differ(&mut self, now: Timestamp, at: usize, effects: &mut Effects) -> Result<Reply> {
        let party = self.participants[at].party_id.clone();
        let repeats = self.participants[at].status == ParticipantStatus::Completed;
        if self.status == SessionStatus::Completed || repeats {
            return Err(first_stands());
        }
        let mut parties: Vec<_> = self
            .participants
            .iter()
            .filter(|p| p.status == ParticipantStatus::Completed || p.package.is_some())
            .map(|p| p.party_id.clone())
            .filter(|known| *known != party)
            .collect();
        parties.push(party.clone());
        self.note(now, Some(&party), "reported a different result");
        let names: Vec<_> = parties.iter().map(PartyId::as_str).collect();
        let failure = Failure {
            reason: FailureReason::ResultsDiffer,
            message: format!("the results of {} differ", names.join(", ")),
            parties,
        };
        self.fail(now, SessionStatus::Failed, failure, effects);
        Err(Error::new(
            ErrorCode::SessionExpired,
            "this differs from another party's result, so the session has failed",
        ))
    }

    /// Takes a result that agrees with the known one. Repeats change nothing.
    pub(super) fn take_result(&mut self, now: Timestamp, at: usize, effects: &mut Effects) {
        // Who has failed stays so, also when it repeats the others' result afterwards.
        if self.participants[at].status != ParticipantStatus::Computing {
            return;
        }
        if self.participants[at].owes_package() {
            if !std::mem::replace(&mut self.participants[at].reported, true) {
                let party = self.participants[at].party_id.clone();
                self.note(now, Some(&party), "completed, without its user's package");
            }
            return;
        }
        self.participants[at].status = ParticipantStatus::Completed;
        if self.status == SessionStatus::Completed {
            return;
        }
        let party = self.participants[at].party_id.clone();
        self.note(now, Some(&party), "completed");
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
        // A reporter that got no answer asks again.
        if self.participants[at].status == ParticipantStatus::Failed {
            return Ok(Reply::Done);
        }
        self.refuse_ended()?;
        if self.participants[at].status == ParticipantStatus::Completed {
            return Err(Error::new(ErrorCode::Conflict, "you have reported a result; it stands"));
        }
        self.participants[at].status = ParticipantStatus::Failed;
        let mut text = failure.message;
        while text.len() > MAX_FAILURE_TEXT {
            text.pop();
        }
        failure.message = format!("{party}: {text}");
        // Those who compute call a delegated seat by its holder.
        let seated =
            |name: &PartyId| Some(self.participants[self.place_of(name)?].party_id.clone());
        failure.parties = failure.parties.iter().filter_map(seated).collect();
        failure.parties.sort_unstable();
        failure.parties.dedup();
        if failure.parties.is_empty() {
            failure.parties.push(party.clone());
        }
        // Only these are a party's to say.
        let own = [
            FailureReason::PartyCheated,
            FailureReason::PolicyDenied,
            FailureReason::PartyRestarted,
        ];
        if !own.contains(&failure.reason) {
            failure.reason = FailureReason::PartyFailed;
        }
        self.note(now, Some(&party), &format!("failed: {text}"));
        effects.bans = self.bans(now, &party, &failure, text);
        self.end_or_retry(now, &party, failure, effects);
        Ok(Reply::Done)
    }

    /// A participant has failed: others try again where that can be, or this is the end.
    fn end_or_retry(
        &mut self,
        now: Timestamp,
        party: &PartyId,
        failure: Failure,
        effects: &mut Effects,
    ) {
        if let Some(failure) = self.set_back(party, failure, effects) {
            self.end_with(now, SessionStatus::Failed, failure, effects);
        }
    }

    /// The bans that a failure of a signature means. Where shares are made, who cheated did so with
    /// those that are dropped now.
    fn bans(
        &self,
        now: Timestamp,
        reporter: &PartyId,
        failure: &Failure,
        reason: String,
    ) -> Vec<ReportedBan> {
        let cheated = failure.reason == FailureReason::PartyCheated;
        let Ceremony::Sign { key, .. } = &self.ceremony else { return Vec::new() };
        if !cheated {
            return Vec::new();
        }
        let others = failure.parties.iter().filter(|peer| *peer != reporter);
        // Bans are between holders, whoever computes for them.
        let holder = |name: &PartyId| match self.place(name) {
            Some(at) => self.participants[at].holder().clone(),
            None => name.clone(),
        };
        let ban = |peer: &PartyId| ReportedBan {
            key_id: key.key_id,
            epoch: key.epoch,
            reporter: holder(reporter),
            peer: holder(peer),
            reason: reason.clone(),
            session_id: self.session_id,
            at: now,
        };
        others.map(ban).collect()
    }
}

/// A party's result in canonical form.
struct Checked {
    outcome: Outcome,
    attestation: Option<Attestation>,
    /// The epoch that the attestation is of, as far as the party has said.
    epoch: Option<u32>,
}

impl Checked {
    fn without_key(outcome: Outcome) -> Self {
        Self { outcome, attestation: None, epoch: None }
    }
}

fn first_stands() -> Error {
    Error::new(
        ErrorCode::Conflict,
        "this differs from the result that was reported before; the first one stands",
    )
}
