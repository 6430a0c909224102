//! One session of a group: numbers, participants, and who is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{ClientAddress, GroupKind, SessionId, Timestamp};

use super::model::*;

pub(super) struct Session {
    pub(super) id: SessionId,
    /// Who made it.
    pub(super) address: ClientAddress,
    pub(super) kind: GroupKind,
    pub(super) value: Bytes,
    /// In the order of their taking. Under [`Compat::Original`] a client may be here twice.
    pub(super) signups: Vec<(u16, ClientId)>,
    participants: BTreeMap<u16, u16>,
    finished: BTreeSet<u16>,
    started: bool,
    pub(super) closed: bool,
    pub(super) used_at: Timestamp,
    /// Its entry in the timetable.
    pub(super) due_at: Timestamp,
}

/// A number was given; perhaps it was the last one needed.
pub(super) struct Taken {
    pub(super) number: u16,
    /// It is new.
    pub(super) fresh: bool,
    /// The quorum is reached now.
    pub(super) quorum: bool,
}

/// A party is done.
pub(super) struct Finished {
    /// It was not before.
    pub(super) fresh: bool,
    /// All are done: their sorted numbers.
    pub(super) all: Option<Arc<[u16]>>,
}

/// How many parties a kind of session needs.
pub(super) fn quorum(kind: GroupKind, params: Parameters) -> usize {
    match kind {
        GroupKind::Keygen => params.parties.into(),
        GroupKind::Sign => usize::from(params.threshold) + 1,
    }
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        address: ClientAddress,
        kind: GroupKind,
        value: Bytes,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            address,
            kind,
            value,
            signups: Vec::new(),
            participants: BTreeMap::new(),
            finished: BTreeSet::new(),
            started: false,
            closed: false,
            used_at: now,
            due_at: now,
        }
    }

    pub(super) fn view(&self) -> SessionView {
        SessionView { id: self.id, kind: self.kind, value: self.value.clone() }
    }

    pub(super) fn record(&self) -> SessionRecord {
        SessionRecord {
            kind: self.kind,
            value: String::from_utf8_lossy(&self.value).into_owned(),
            signups: self.signups.clone(),
            participants: self
                .participants
                .iter()
                .map(|(&index, &number)| (index, number))
                .collect(),
            finished: self.finished.iter().copied().collect(),
            started: self.started,
            closed: self.closed,
        }
    }

    /// One that was found in the store, which does not know who made it.
    pub(super) fn restore(id: SessionId, record: SessionRecord, now: Timestamp) -> Self {
        Self {
            id,
            address: ClientAddress::default(),
            kind: record.kind,
            value: record.value.into(),
            signups: record.signups,
            participants: record.participants.into_iter().collect(),
            finished: record.finished.into_iter().collect(),
            started: record.started,
            closed: record.closed,
            used_at: now,
            due_at: now,
        }
    }

    /// The first number of a client.
    pub(super) fn number_of(&self, client: ClientId) -> Option<u16> {
        self.signups.iter().find(|(_, owner)| *owner == client).map(|(number, _)| *number)
    }

    pub(super) fn owner_of(&self, number: u16) -> Option<ClientId> {
        self.signups.iter().find(|(taken, _)| *taken == number).map(|(_, owner)| *owner)
    }

    /// Who is meant by a receiver: a number in a keygen, a participant's index in a signature.
    pub(super) fn resolve(&self, receiver: u16) -> Option<ClientId> {
        let number = match self.kind {
            GroupKind::Keygen => receiver,
            GroupKind::Sign => *self.participants.get(&receiver)?,
        };
        self.owner_of(number)
    }

    /// Whether a client may call itself `sender`. The signers of a session tell each other their
    /// key indices in round 0, then speak under their index in it.
    pub(super) fn may_speak(&self, client: ClientId, sender: u16, round: u16) -> bool {
        let Some(number) = self.number_of(client) else {
            return false;
        };
        number == sender
            || self.kind == GroupKind::Sign
                && (round == 0 || self.participants.get(&sender) == Some(&number))
    }

    /// Gives the next number.
    pub(super) fn signup(
        &mut self,
        rules: &Rules,
        params: Parameters,
        kind: GroupKind,
        client: ClientId,
    ) -> Result<Taken, CallError> {
        let next = self.signups.last().map_or(1, |(number, _)| number.saturating_add(1));
        if rules.compat == Compat::Original {
            return self.take(rules, quorum(kind, params), next, client);
        }
        if let Some(number) = self.number_of(client) {
            return Ok(Taken { number, fresh: false, quorum: false });
        }
        let needed = quorum(self.kind, params);
        if self.started || self.signups.len() >= needed {
            return Err(CallError::SessionFull(self.id));
        }
        // After loaded numbers the next one may be taken or out of range.
        let free = |number: &u16| self.owner_of(*number).is_none();
        let number = (next..=params.parties).chain(1..=params.parties).find(free);
        self.take(rules, needed, number.ok_or(CallError::SessionFull(self.id))?, client)
    }

    /// Gives this number.
    pub(super) fn load(
        &mut self,
        rules: &Rules,
        params: Parameters,
        kind: GroupKind,
        client: ClientId,
        number: u16,
    ) -> Result<Taken, CallError> {
        let strict = rules.compat == Compat::Strict;
        if number == 0 {
            return Err(CallError::ZeroNumber);
        }
        if number > params.parties {
            return Err(CallError::NumberRange);
        }
        if strict && self.owner_of(number) == Some(client) {
            return Ok(Taken { number, fresh: false, quorum: false });
        }
        if self.owner_of(number).is_some() {
            return Err(CallError::NumberTaken(self.id));
        }
        if strict && self.number_of(client).is_some() {
            return Err(CallError::BadParty(number));
        }
        let kind = if strict { self.kind } else { kind };
        let needed = quorum(kind, params);
        if strict && (self.started || self.signups.len() >= needed) {
            return Err(CallError::SessionFull(self.id));
        }
        self.take(rules, needed, number, client)
    }

    fn take(
        &mut self,
        rules: &Rules,
        needed: usize,
        number: u16,
        client: ClientId,
    ) -> Result<Taken, CallError> {
        if self.signups.len() >= rules.limits.signups {
            return Err(CallError::Limit("signups are taken in a session", rules.limits.signups));
        }
        self.signups.push((number, client));
        let quorum = self.signups.len() == needed;
        self.started |= quorum;
        Ok(Taken { number, fresh: true, quorum })
    }

    /// Maps an index to a number. Whether that is news.
    pub(super) fn participant(
        &mut self,
        rules: &Rules,
        client: ClientId,
        index: u16,
        number: u16,
    ) -> Result<bool, CallError> {
        if rules.compat == Compat::Strict {
            if self.owner_of(number) != Some(client) {
                return Err(CallError::BadParty(number));
            }
            // An index that stands for another party stays with it.
            if self.participants.get(&index).is_some_and(|owner| *owner != number) {
                return Err(CallError::BadParty(index));
            }
        }
        let known = self.participants.contains_key(&index);
        if !known && self.participants.len() >= rules.limits.signups {
            return Err(CallError::Limit("participants of a session", rules.limits.signups));
        }
        Ok(self.participants.insert(index, number) != Some(number))
    }

    /// Notes that a party is done. That all are is told once.
    pub(super) fn finish(
        &mut self,
        rules: &Rules,
        client: ClientId,
        number: u16,
    ) -> Result<Finished, CallError> {
        let owner = self.owner_of(number).ok_or(CallError::NoParty(number))?;
        if owner != client {
            return Err(CallError::BadParty(number));
        }
        let fresh = self.finished.insert(number);
        let mut signed: Vec<u16> = self.signups.iter().map(|(number, _)| *number).collect();
        signed.sort_unstable();
        let told = self.closed && rules.compat == Compat::Strict;
        if told || !signed.iter().eq(&self.finished) {
            return Ok(Finished { fresh, all: None });
        }
        self.closed = true;
        Ok(Finished { fresh, all: Some(signed.into()) })
    }

    /// Frees the number of a client that left before the session had all its parties; later its
    /// number stays, because the others compute with it. Whether anything changed.
    pub(super) fn vacate(&mut self, client: ClientId) -> bool {
        if self.started {
            return false;
        }
        let Some(number) = self.number_of(client) else {
            return false;
        };
        self.signups.retain(|(_, owner)| *owner != client);
        self.participants.retain(|_, of| *of != number);
        self.finished.remove(&number);
        true
    }
}
