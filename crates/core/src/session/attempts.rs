//! A signature that some of its parties cannot finish is tried again with other holders of the key,
//! until its deadline.
//!
//! Before the start a party is replaced within the attempt: those that have joined need not know.
//! Once the parties compute, the next attempt begins: all join it anew, with fresh handshakes, and
//! what they send in it has another execution id.

use quorate_types::*;
use serde::{Deserialize, Serialize};

use super::{Durability, Effects, Participant, Reply, Session};
use crate::choice::{Pair, choose};

/// Attempts of one session at most: a bound on work, also where parties lie about each other.
const MAX_ATTEMPTS: u32 = 8;

/// With whom a signature may be tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// Holders of the key that may take the place of a participant: server parties.
    pub holders: Vec<PartyId>,
    /// Participants that keep their place, whatever happens.
    pub fixed: Vec<PartyId>,
}

/// What a session that may be tried again remembers of its attempts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Retry {
    #[serde(flatten)]
    reserve: Reserve,
    /// The attempt under way, from 0.
    attempt: u32,
    /// Who took part and does no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<PartyId>,
    /// Pairs of which one has blamed the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    apart: Vec<Pair>,
    /// Who cannot sign this, as it says itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    out: Vec<PartyId>,
    /// Replacements so far, within attempts or by new ones.
    changes: u32,
    /// Why the attempt cannot go on, between the command that says so and the next.
    #[serde(skip)]
    setback: Option<Failure>,
}

impl Retry {
    pub(super) fn new(reserve: Reserve) -> Self {
        Self {
            reserve,
            attempt: 0,
            replaced: Vec::new(),
            apart: Vec::new(),
            out: Vec::new(),
            changes: 0,
            setback: None,
        }
    }
}

impl Session {
    /// The attempt under way, or the last one, from 0.
    pub fn attempt(&self) -> u32 {
        self.retry.as_ref().map_or(0, |retry| retry.attempt)
    }

    /// Who took part in an earlier attempt and does not in this one.
    pub fn replaced(&self) -> &[PartyId] {
        self.retry.as_ref().map_or(&[], |retry| &retry.replaced)
    }

    /// Holders that may take the place of a participant.
    pub fn reserve(&self) -> &[PartyId] {
        self.retry.as_ref().map_or(&[], |retry| &retry.reserve.holders)
    }

    /// Whom the session waits for, and nobody else: of those that compute, who is in the earliest
    /// round; before, who has not joined. Who waits for approvals keeps nobody waiting.
    pub fn behind(&self) -> Vec<PartyId> {
        let computing = |p: &&Participant| p.status == ParticipantStatus::Computing;
        let earliest = self.participants.iter().filter(computing).map(|p| p.last_round).min();
        let behind = |p: &&Participant| match self.status {
            SessionStatus::InProgress => computing(p) && Some(p.last_round) == earliest,
            status if status.is_unstarted() => {
                matches!(p.status, ParticipantStatus::Waiting | ParticipantStatus::Joined)
            }
            _ => false,
        };
        self.participants.iter().filter(behind).map(|p| p.party_id.clone()).collect()
    }

    /// For whom the session waits a limited time: those behind whose places others may take, and
    /// all of them once a signature has been verified.
    pub fn awaited(&self) -> Vec<PartyId> {
        let Some(retry) = &self.retry else { return Vec::new() };
        let mut behind = self.behind();
        if self.outcome.is_none() {
            let fixed = |party: &PartyId| retry.reserve.fixed.contains(party);
            behind.retain(|party| self.may_change() && !fixed(party));
        }
        behind
    }

    /// Whether other parties may go on with it. A party that has joined without a handshake knows
    /// of no attempts.
    fn may_change(&self) -> bool {
        let knows = |p: &Participant| {
            p.status == ParticipantStatus::Waiting
                || p.handshake.is_some()
                || self.servers.contains(&p.party_id)
        };
        self.retry.as_ref().is_some_and(|retry| retry.changes < MAX_ATTEMPTS)
            && self.outcome.is_none()
            && !self.status.is_final()
            && self.participants.iter().all(knows)
    }

    /// Takes up the number of an attempt of which only its parties still know, because it began
    /// right before a crash.
    pub(super) fn catch_up(&mut self, attempt: u32) {
        if let Some(retry) = self.retry.as_mut().filter(|_| attempt < MAX_ATTEMPTS) {
            retry.attempt = retry.attempt.max(attempt);
        }
    }

    /// A party has reported a failure. Answers with it where the session cannot be tried again.
    pub(super) fn set_back(
        &mut self,
        reporter: &PartyId,
        failure: Failure,
        effects: &mut Effects,
    ) -> Option<Failure> {
        if !self.may_change() {
            return Some(failure);
        }
        let Some(retry) = &mut self.retry else { return Some(failure) };
        let restarted = failure.reason == FailureReason::PartyRestarted;
        let others = failure.parties.iter().filter(|blamed| *blamed != reporter);
        let pairs: Vec<_> = others.map(|blamed| (reporter.clone(), blamed.clone())).collect();
        // A device that was restarted does not come back by itself.
        let back = restarted && self.servers.contains(reporter);
        if pairs.is_empty() && !back {
            retry.out.push(reporter.clone());
        }
        retry.apart.extend(pairs);
        retry.setback = Some(failure);
        effects.set_back = true;
        None
    }

    /// Goes on with the earliest of `ranked` that may, after a setback, or ends by it.
    pub(super) fn try_again(
        &mut self,
        now: Timestamp,
        ranked: &[(PartyId, [u8; 32])],
        effects: &mut Effects,
    ) -> Result<Reply> {
        let Some(retry) = &mut self.retry else { return Ok(Reply::Done) };
        let Some(failure) = retry.setback.take() else { return Ok(Reply::Done) };
        match self.roster(&failure.parties, ranked, true) {
            Some(roster) => self.go_on(now, &roster, ranked, effects),
            None => self.fail(now, SessionStatus::Failed, failure, effects),
        }
        Ok(Reply::Done)
    }

    /// Goes on without parties that were silent for too long, where others can take their places.
    /// With a verified signature at hand nobody is waited for.
    pub(super) fn without(
        &mut self,
        now: Timestamp,
        silent: &[PartyId],
        ranked: &[(PartyId, [u8; 32])],
        effects: &mut Effects,
    ) -> Result<Reply> {
        if self.outcome.is_some() && self.status == SessionStatus::InProgress {
            self.complete(now, effects);
            return Ok(Reply::Done);
        }
        let awaited = self.awaited();
        let silent: Vec<_> =
            silent.iter().filter(|party| awaited.contains(party)).cloned().collect();
        if silent.is_empty() {
            return Ok(Reply::Done);
        }
        if let Some(roster) = self.roster(&silent, ranked, false) {
            for party in &silent {
                self.note(now, Some(party), "silent");
            }
            self.go_on(now, &roster, ranked, effects);
        }
        Ok(Reply::Done)
    }

    /// Who signs next: first who takes part without fault, then the others as they are ranked, and
    /// who is at fault at the end, where it may come back at all.
    fn roster(
        &self,
        at_fault: &[PartyId],
        ranked: &[(PartyId, [u8; 32])],
        back: bool,
    ) -> Option<Vec<PartyId>> {
        let retry = self.retry.as_ref()?;
        let fixed = &retry.reserve.fixed;
        if fixed.iter().any(|party| retry.out.contains(party)) {
            return None;
        }
        let current = || self.participants.iter().map(|p| &p.party_id);
        let faulty = |party: &&PartyId| at_fault.contains(party);
        let ranked = || ranked.iter().map(|(party, _)| party).filter(|p| self.place(p).is_none());
        let earlier = |party: &&PartyId| retry.replaced.contains(party);
        let mut order: Vec<&PartyId> = current().filter(|party| !faulty(party)).collect();
        order.extend(ranked().filter(|party| !faulty(party) && !earlier(party)));
        order.extend(ranked().filter(|party| !faulty(party) && earlier(party)));
        if back {
            order.extend(current().filter(faulty));
        }
        order.retain(|party| !fixed.contains(party) && !retry.out.contains(party));
        let others: Vec<_> = order.into_iter().cloned().collect();
        choose(fixed, &others, self.participants.len(), &retry.apart)
    }

    /// Goes on with these parties: before the start in the same attempt, later in the next.
    fn go_on(
        &mut self,
        now: Timestamp,
        roster: &[PartyId],
        tokens: &[(PartyId, [u8; 32])],
        effects: &mut Effects,
    ) {
        let again = self.status == SessionStatus::InProgress;
        let Some(retry) = &mut self.retry else { return };
        retry.changes += 1;
        retry.attempt += u32::from(again);
        let attempt = retry.attempt;
        let (coming, leaving) = self.reseat(roster, tokens, again);
        self.exchange(&coming, &leaving);
        let joined = self.participants.iter().any(|p| p.status != ParticipantStatus::Waiting);
        self.status = if joined { self.before_start() } else { SessionStatus::Created };
        let names =
            |all: &[PartyId]| all.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ");
        let change = match coming.is_empty() {
            true => "the same parties".to_owned(),
            false => format!("{} for {}", names(&coming), names(&leaving)),
        };
        self.note(now, None, &format!("attempt {}: {change}", attempt + 1));
        effects.persist(Durability::Queued);
        effects.events.push(EventKind::SessionCreated);
    }

    /// Gives each newcomer the place of one that leaves, and answers with both. In another attempt
    /// all join anew.
    fn reseat(
        &mut self,
        roster: &[PartyId],
        tokens: &[(PartyId, [u8; 32])],
        again: bool,
    ) -> (Vec<PartyId>, Vec<PartyId>) {
        let comes = |party: &&PartyId| self.participants.iter().all(|p| p.party_id != **party);
        let coming: Vec<_> = roster.iter().filter(comes).cloned().collect();
        let mut newcomers = coming.iter();
        let mut leaving = Vec::new();
        for participant in &mut self.participants {
            if !roster.contains(&participant.party_id)
                && let Some(party) = newcomers.next()
            {
                let token = tokens.iter().find(|(one, _)| one == party);
                leaving.push(std::mem::replace(&mut participant.party_id, party.clone()));
                participant.token_hash = token.map(|(_, hash)| *hash).unwrap_or_default();
                participant.device =
                    DeviceInfo { device_type: "server".into(), ..DeviceInfo::default() };
                participant.on_behalf_of = None;
                participant.forget();
            } else if again || participant.status == ParticipantStatus::Failed {
                participant.forget();
            }
        }
        (coming, leaving)
    }

    /// Takes the newcomers out of the reserve, and those that leave into it: server parties only,
    /// since nobody else comes when called.
    fn exchange(&mut self, coming: &[PartyId], leaving: &[PartyId]) {
        let Some(retry) = &mut self.retry else { return };
        retry.replaced.retain(|party| !coming.contains(party));
        retry.replaced.extend_from_slice(leaving);
        let servers = leaving.iter().filter(|party| self.servers.contains(party));
        retry.reserve.holders.retain(|party| !coming.contains(party));
        retry.reserve.holders.extend(servers.cloned());
        self.servers.retain(|party| !leaving.contains(party));
        self.servers.extend_from_slice(coming);
    }
}
