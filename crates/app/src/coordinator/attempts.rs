//! Signatures that finish: who is silent, and who takes its place.

use std::time::Duration;

use quorate_core::choice::Pair;
use quorate_core::session::{Command, Effects, Reply, Session};
use quorate_types::*;

use super::CoordinatorApp;
use super::state::{KEYS_CACHED, Seats, State};
use crate::lock;
use crate::tokens::JoinTokens;

/// A party that works for others is waited for so long at the most.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The two holders that do not sign together any more.
fn pair(ban: &ReportedBan) -> Pair {
    (ban.reporter.clone(), ban.peer.clone())
}

/// The party that a command is of, with the failure that it reports.
fn speaker(command: &Command) -> Option<(&PartyId, Option<&Failure>)> {
    match command {
        Command::Join { party, .. }
        | Command::AwaitApproval { party, .. }
        | Command::Ready { party }
        | Command::Progress { party, .. } => Some((party, None)),
        Command::Report { party, outcome, .. } => Some((
            party,
            match outcome {
                PartyOutcome::Failure(failure) => Some(failure),
                _ => None,
            },
        )),
        _ => None,
    }
}

impl State {
    /// Remembers what a command that was taken tells of its party.
    pub(super) fn note(&mut self, id: SessionId, command: &Command, monotonic: Duration) {
        let Self { sessions, health, .. } = self;
        let Some(entry) = sessions.get_mut(&id) else { return };
        let took = monotonic.saturating_sub(entry.moved);
        let Some((party, failure)) = speaker(command) else { return };
        // Of others than server parties nothing is remembered: any caller can name some.
        if entry.session.servers().contains(party) {
            match (command, failure) {
                (Command::AwaitApproval { .. }, _) => health.heard(monotonic, party),
                (_, None) => health.answered(monotonic, party, took),
                (_, Some(failure)) => {
                    health.heard(monotonic, party);
                    // Who blames another may be wrong; of itself a party says the truth.
                    let own = failure.parties.iter().all(|blamed| blamed == party);
                    if let (true, Some(key)) = (own, entry.session.ceremony().key()) {
                        health.failed(monotonic, party, key.key_id);
                    }
                }
            }
        }
        entry.moved = monotonic;
    }

    /// Looks at a session later, if there are others for whom it waits for.
    pub(super) fn watch(&mut self, id: SessionId, monotonic: Duration) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        if entry.looked_at.is_some() || entry.ending {
            return;
        }
        let awaited = entry.session.awaited();
        if !awaited.is_empty() {
            let at = monotonic.saturating_add(self.health.patience(&awaited));
            entry.looked_at = Some(at);
            self.looks.insert((at, id));
        }
    }

    /// The session that is to be looked at now, and who of it is silent. One that waits for others
    /// than silent ones is looked at again.
    fn silent(&mut self, monotonic: Duration) -> Option<(SessionId, Vec<PartyId>)> {
        loop {
            let (at, id) = self.looks.first().copied().filter(|(at, _)| *at <= monotonic)?;
            self.looks.remove(&(at, id));
            let Self { sessions, health, looks, .. } = self;
            let Some(entry) = sessions.get_mut(&id) else { continue };
            entry.looked_at = None;
            let awaited = entry.session.awaited();
            let patience = health.patience(&awaited);
            // Who works for other sessions is slow, and not silent.
            let limit = |party: &PartyId| {
                let heard = health.last_heard(party).max(entry.moved);
                (heard + patience).min(entry.moved + patience.max(LONGEST_WAIT))
            };
            let silent: Vec<_> =
                awaited.iter().filter(|party| limit(party) <= monotonic).cloned().collect();
            if silent.is_empty() {
                if let Some(at) = awaited.iter().map(limit).min() {
                    entry.looked_at = Some(at);
                    looks.insert((at, id));
                }
                continue;
            }
            for party in &silent {
                health.silent(party);
            }
            return Some((id, silent));
        }
    }

    /// Takes bans into account that parties have reported.
    pub(super) fn ban(&mut self, bans: &[ReportedBan]) {
        for ban in bans {
            if let Some(known) = self.banned.get_mut(&(ban.key_id, ban.epoch)) {
                known.push(pair(ban));
            }
        }
    }
}

impl CoordinatorApp {
    /// The holders of a key that do not sign together in this epoch.
    pub(super) async fn banned_pairs(&self, key: &KeyEpoch) -> Result<Vec<Pair>> {
        let epoch = (key.key_id, key.epoch);
        if let Some(known) = lock(&self.0.state).banned.get(&epoch) {
            return Ok(known.clone());
        }
        let bans = self.0.parts.store.bans(key.key_id).await?;
        let of_epoch = bans.iter().filter(|ban| ban.epoch == key.epoch);
        let mut state = lock(&self.0.state);
        if state.banned.len() >= KEYS_CACHED {
            state.banned.clear();
        }
        // What was reported meanwhile is kept.
        Ok(state.banned.entry(epoch).or_insert_with(|| of_epoch.map(pair).collect()).clone())
    }

    /// The reserve of a session, the best first, with what its tokens are known by.
    fn rank_reserve(
        &self,
        state: &State,
        session: &Session,
        monotonic: Duration,
    ) -> Vec<(PartyId, [u8; 32])> {
        let mut parties = session.reserve().to_vec();
        let key = session.ceremony().key().map(|key| key.key_id);
        state.health.rank(monotonic, key, &mut parties, |party| state.busy(party));
        let token = |party: PartyId| {
            let token = self.0.parts.join_tokens.token(session.id(), &party);
            (party, JoinTokens::hash(&token))
        };
        parties.into_iter().map(token).collect()
    }

    /// Applies a command, and after a setback the one that tries again.
    pub(super) fn act(
        &self,
        state: &mut State,
        id: SessionId,
        command: &Command,
        monotonic: Duration,
        effects: &mut Effects,
    ) -> Result<Reply> {
        let Some(entry) = state.sessions.get_mut(&id) else {
            return Err(Error::not_found("session", id));
        };
        let changes = matches!(command, Command::Report { .. } | Command::Without { .. });
        let before = changes.then(|| Seats::of(&entry.session));
        let now = entry.time(monotonic);
        let mut reply = entry.session.apply(now, command.clone(), effects);
        if reply.is_ok() {
            state.note(id, command, monotonic);
        }
        if effects.set_back
            && let Some(entry) = state.sessions.get(&id)
        {
            let command =
                Command::TryAgain { ranked: self.rank_reserve(state, &entry.session, monotonic) };
            if let Some(entry) = state.sessions.get_mut(&id) {
                // Also where the command was refused: a false signature is.
                let again = entry.session.apply(now, command, effects);
                reply = reply.and_then(|first| again.map(|_| first));
            }
        }
        if let (Some(before), Some(entry)) = (before, state.sessions.get_mut(&id)) {
            let after = Seats::of(&entry.session);
            if before != after {
                entry.moved = monotonic;
                state.give_back(&before);
                state.take(&after);
            }
        }
        state.watch(id, monotonic);
        state.ban(&effects.bans);
        reply
    }

    /// Lets sessions go on without the parties that have been silent for too long.
    ///
    /// # Errors
    /// What kept the first one from it.
    pub async fn replace_silent(&self) -> Result<()> {
        loop {
            let monotonic = self.0.parts.clock.monotonic();
            let found = {
                let mut state = lock(&self.0.state);
                let found = state.silent(monotonic);
                found.and_then(|(id, silent)| {
                    let session = &state.sessions.get(&id)?.session;
                    let ranked = self.rank_reserve(&state, session, monotonic);
                    Some((id, Command::Without { silent, ranked }))
                })
            };
            let Some((id, command)) = found else { return Ok(()) };
            self.execute(id, command).await?;
        }
    }
}
