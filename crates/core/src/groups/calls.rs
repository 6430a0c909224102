//! The rules of each call.

use std::collections::HashMap;

use bytes::Bytes;
use quorate_types::{ClientAddress, GroupId, GroupKind, SessionId, Timestamp};

use super::model::*;
use super::session::{Session, Taken};
use super::{Group, Groups};

/// A call under way.
pub(super) struct Call<'a> {
    pub(super) core: &'a mut Groups,
    pub(super) now: Timestamp,
    pub(super) client: ClientId,
    pub(super) address: ClientAddress,
    pub(super) effects: &'a mut Effects,
}

/// A message on its way.
pub(super) struct Words {
    pub(super) kind: GroupKind,
    pub(super) round: u16,
    pub(super) sender: u16,
    pub(super) receiver: Option<u16>,
    pub(super) frame: Bytes,
}

type Answer = Result<Reply, CallError>;

impl Call<'_> {
    fn strict(&self) -> bool {
        self.core.rules.compat == Compat::Strict
    }

    /// A group that the caller is a member of.
    fn group(&mut self, id: GroupId) -> Result<&mut Group, CallError> {
        let group = self.core.groups.get_mut(&id).ok_or(CallError::NoGroup(id))?;
        if !group.members.contains(&self.client) {
            return Err(CallError::NotMember(self.client, id));
        }
        group.used_at = self.now;
        Ok(group)
    }

    /// A session of a group that the caller is a member of.
    fn session(&mut self, place: Place) -> Result<(Parameters, &mut Session), CallError> {
        let (now, compat) = (self.now, self.core.rules.compat);
        let group = self.group(place.group)?;
        let params = group.params;
        let session = group
            .sessions
            .get_mut(&place.session)
            .ok_or(CallError::NoSession(place.session, compat))?;
        session.used_at = now;
        Ok((params, session))
    }

    /// A session of the kind that the call names.
    fn session_of(
        &mut self,
        place: Place,
        kind: GroupKind,
    ) -> Result<(Parameters, &mut Session), CallError> {
        let strict = self.strict();
        let (params, session) = self.session(place)?;
        if strict && session.kind != kind {
            return Err(CallError::WrongKind(session.id, session.kind));
        }
        Ok((params, session))
    }

    pub(super) fn group_create(
        &mut self,
        id: GroupId,
        label: String,
        params: Parameters,
    ) -> Answer {
        if params.parties <= 1 {
            return Err(CallError::PartiesTooSmall);
        }
        if params.threshold == 0 {
            return Err(CallError::ThresholdTooSmall);
        }
        if params.threshold >= params.parties {
            return Err(CallError::ThresholdRange);
        }
        let limits = self.core.rules.limits;
        if params.parties > limits.parties {
            return Err(CallError::Limit("parties are in a group", limits.parties.into()));
        }
        if label.len() > limits.label_bytes {
            return Err(CallError::TooLarge("a label", limits.label_bytes));
        }
        let over = |over| CallError::over(over, "groups are open at once", limits.groups);
        self.core.held.groups.check(&self.address, 1).map_err(over)?;
        self.enter(id)?;
        let group = Group {
            address: self.address,
            label: label.into(),
            params,
            members: vec![self.client],
            sessions: HashMap::new(),
            used_at: self.now,
            due_at: self.now,
            kept: false,
        };
        self.core.held.groups.add(&self.address, 1);
        self.core.groups.insert(id, group);
        self.core.watch_group(id);
        self.core.keep_group(self.client, id, self.effects);
        Ok(Reply::Created(id))
    }

    /// Notes a group with the caller.
    fn enter(&mut self, id: GroupId) -> Result<(), CallError> {
        let most = self.core.rules.limits.groups_per_client;
        let client = self.core.clients.get_mut(&self.client).expect("the caller has a place");
        if client.groups.len() >= most {
            return Err(CallError::Limit("groups are open to a connection", most));
        }
        client.groups.push(id);
        Ok(())
    }

    pub(super) fn group_join(&mut self, id: GroupId) -> Answer {
        let group = self.core.groups.get(&id).ok_or(CallError::NoGroup(id))?;
        let member = group.members.contains(&self.client);
        let full = group.members.len() >= group.params.parties.into();
        if full && !(member && self.strict()) {
            return Err(CallError::GroupFull(id));
        }
        if !member {
            self.enter(id)?;
        }
        let now = self.now;
        let group = self.core.groups.get_mut(&id).expect("found before");
        group.used_at = now;
        let reply = Reply::Group { id, label: group.label.clone(), params: group.params };
        if !member {
            group.members.push(self.client);
            self.core.keep_group(self.client, id, self.effects);
        }
        Ok(reply)
    }

    pub(super) fn session_create(
        &mut self,
        id: GroupId,
        session: SessionId,
        kind: GroupKind,
        value: Bytes,
    ) -> Answer {
        let (now, limits, address) = (self.now, self.core.rules.limits, self.address);
        let sessions = self.core.held.sessions.check(&address, 1);
        let values = self.core.held.values.check(&address, value.len());
        let group = self.group(id)?;
        if value.len() > limits.value_bytes {
            return Err(CallError::TooLarge("a session's value", limits.value_bytes));
        }
        let over = |over| CallError::over(over, "sessions are open at once", limits.sessions);
        sessions.map_err(over)?;
        let (what, most) = ("bytes are the values of all sessions", limits.value_total_bytes);
        values.map_err(|over| CallError::over(over, what, most))?;
        if group.sessions.len() >= limits.sessions_per_group {
            // One that is over is not missed.
            let closed = group.sessions.values().filter(|session| session.closed);
            let oldest = closed.min_by_key(|session| (session.used_at, session.id)).map(|s| s.id);
            let Some(oldest) = oldest else {
                let most = limits.sessions_per_group;
                return Err(CallError::Limit("sessions are open in a group", most));
            };
            self.core.forget_session(Place { group: id, session: oldest }, self.effects);
        }
        let session = Session::new(session, address, kind, value, now);
        let view = session.view();
        let place = Place { group: id, session: view.id };
        self.core.held.add_session(&session);
        let group = self.core.groups.get_mut(&id).expect("found before");
        group.sessions.insert(view.id, session);
        let others: Vec<_> = group.members.iter().copied().filter(|m| *m != self.client).collect();
        self.core.watch_session(place);
        self.core.keep_session(place, self.effects);
        if kind == GroupKind::Keygen {
            self.core.tell(others, Event::SessionCreate(view.clone()), self.effects);
        }
        Ok(Reply::Session(view))
    }

    pub(super) fn session_join(&mut self, place: Place, kind: GroupKind) -> Answer {
        Ok(Reply::Session(self.session_of(place, kind)?.1.view()))
    }

    pub(super) fn session_signup(&mut self, place: Place, kind: GroupKind) -> Answer {
        let (rules, client) = (self.core.rules, self.client);
        let (params, session) = self.session_of(place, kind)?;
        let taken = session.signup(&rules, params, kind, client)?;
        self.taken(place, taken, Event::SessionSignup(place.session))
    }

    pub(super) fn session_load(&mut self, place: Place, kind: GroupKind, number: u16) -> Answer {
        let (rules, client) = (self.core.rules, self.client);
        let (params, session) = self.session_of(place, kind)?;
        let taken = session.load(&rules, params, kind, client, number)?;
        self.taken(place, taken, Event::SessionLoad(place.session))
    }

    fn taken(&mut self, place: Place, taken: Taken, event: Event) -> Answer {
        if taken.fresh {
            self.core.keep_session(place, self.effects);
        }
        if taken.quorum {
            let all = self.signed_up(place, None)?;
            self.core.tell(all, event, self.effects);
        }
        Ok(Reply::Number(taken.number))
    }

    /// All that signed up but one client.
    fn signed_up(
        &mut self,
        place: Place,
        but: Option<ClientId>,
    ) -> Result<Vec<ClientId>, CallError> {
        let signups = &self.session(place)?.1.signups;
        let owners = signups.iter().map(|(_, owner)| *owner);
        Ok(owners.filter(|owner| Some(*owner) != but).collect())
    }

    pub(super) fn session_participant(&mut self, place: Place, index: u16, number: u16) -> Answer {
        let (rules, client) = (self.core.rules, self.client);
        if self.session(place)?.1.participant(&rules, client, index, number)? {
            self.core.keep_session(place, self.effects);
        }
        Ok(Reply::Done)
    }

    pub(super) fn session_message(&mut self, place: Place, words: Words) -> Answer {
        let (strict, client) = (self.strict(), self.client);
        let session = self.session_of(place, words.kind)?.1;
        if strict && !session.may_speak(client, words.sender, words.round) {
            return Err(CallError::BadParty(words.sender));
        }
        let event = Event::Frame(words.frame);
        let to = match words.receiver {
            None => self.signed_up(place, Some(client))?,
            Some(receiver) => {
                let owner = session.resolve(receiver).filter(|owner| !strict || *owner != client);
                vec![owner.ok_or(CallError::NoReceiver(receiver))?]
            }
        };
        self.core.tell(to, event, self.effects);
        Ok(Reply::Done)
    }

    pub(super) fn session_finish(&mut self, place: Place, number: u16) -> Answer {
        let (rules, client) = (self.core.rules, self.client);
        let finished = self.session(place)?.1.finish(&rules, client, number)?;
        if finished.fresh {
            self.core.keep_session(place, self.effects);
        }
        if let Some(numbers) = finished.all {
            let all = self.signed_up(place, None)?;
            self.core.tell(all, Event::SessionClosed(numbers), self.effects);
        }
        Ok(Reply::Done)
    }

    /// The group and, where it must exist, the session of a notification. The original asks neither
    /// for membership nor for the session of a proposal.
    fn notified(&mut self, place: Place) -> Result<&Group, CallError> {
        if self.strict() {
            self.session(place)?;
        }
        let group =
            self.core.groups.get_mut(&place.group).ok_or(CallError::NoGroup(place.group))?;
        group.used_at = self.now;
        Ok(group)
    }

    pub(super) fn notify_proposal(&mut self, place: Place, frame: Bytes) -> Answer {
        let client = self.client;
        let members = &self.notified(place)?.members;
        let others: Vec<_> = members.iter().copied().filter(|member| *member != client).collect();
        self.core.tell(others, Event::Frame(frame), self.effects);
        Ok(Reply::Done)
    }

    pub(super) fn notify_signed(&mut self, place: Place, frame: Bytes) -> Answer {
        let (strict, client, compat) = (self.strict(), self.client, self.core.rules.compat);
        let group = self.notified(place)?;
        let session = group
            .sessions
            .get(&place.session)
            .ok_or(CallError::NoSession(place.session, compat))?;
        let outside = |member: &ClientId| {
            session.number_of(*member).is_none() && !(strict && *member == client)
        };
        let others: Vec<_> = group.members.iter().copied().filter(outside).collect();
        self.core.tell(others, Event::Frame(frame), self.effects);
        Ok(Reply::Done)
    }

    pub(super) fn token(&mut self, hash: TokenHash) -> Answer {
        let most = self.core.rules.limits.tokens;
        let client = self.core.clients.get_mut(&self.client).expect("the caller has a place");
        if client.token.is_none() {
            let over = |over| CallError::over(over, "places have a token", most);
            self.core.held.tokens.take(&client.address, 1).map_err(over)?;
        }
        if let Some(old) = client.token.replace(hash) {
            self.core.tokens.remove(&old);
        }
        let groups = client.groups.clone();
        self.core.tokens.insert(hash, self.client);
        self.effects.changes.push(Change::Client(self.client, hash));
        for group in groups {
            self.core.keep_group(self.client, group, self.effects);
        }
        Ok(Reply::Token)
    }
}
