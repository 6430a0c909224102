//! What ends when nobody uses it: places of broken connections, sessions, groups.

use quorate_types::{GroupId, Timestamp};

use super::Groups;
use super::model::*;

/// What an entry of the timetable is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The place of a broken connection.
    Place(ClientId),
    /// A session that nobody has used for its time to live.
    Session(Place),
    /// A group that nobody has used for its time to live.
    Group(GroupId),
}

impl Groups {
    /// When [`Groups::expire`] has something to look at.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Ends all whose time is over.
    pub fn expire(&mut self, now: Timestamp, effects: &mut Effects) {
        while let Some(&(at, due)) = self.due.first() {
            if at > now {
                return;
            }
            self.due.pop_first();
            match due {
                Due::Place(id) => self.expire_place(now, id, effects),
                Due::Session(place) => self.expire_session(now, place, effects),
                Due::Group(id) => self.expire_group(now, id, effects),
            }
        }
    }

    fn expire_place(&mut self, now: Timestamp, id: ClientId, effects: &mut Effects) {
        // It may be back, or have broken again since: then a later entry counts.
        let away = self.clients.get(&id).filter(|client| client.connection.is_none());
        if away.is_some_and(|client| client.until <= now) {
            self.give_up(id, effects);
        }
    }

    fn expire_session(&mut self, now: Timestamp, place: Place, effects: &mut Effects) {
        let group = self.groups.get(&place.group);
        let Some(session) = group.and_then(|group| group.sessions.get(&place.session)) else {
            return;
        };
        if later(session.used_at, self.rules.idle_session) > now {
            self.watch_session(place);
        } else {
            self.forget_session(place, effects);
        }
    }

    fn expire_group(&mut self, now: Timestamp, id: GroupId, effects: &mut Effects) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        if later(group.used_at, self.rules.idle_group) > now {
            self.watch_group(id);
        } else {
            self.forget_group(id, effects);
        }
    }

    /// Puts a session into the timetable, for when it ends if nobody uses it from now on.
    pub(super) fn watch_session(&mut self, place: Place) {
        let group = self.groups.get_mut(&place.group);
        if let Some(session) = group.and_then(|group| group.sessions.get_mut(&place.session)) {
            session.due_at = later(session.used_at, self.rules.idle_session);
            self.due.insert((session.due_at, Due::Session(place)));
        }
    }

    /// Puts a group into the timetable.
    pub(super) fn watch_group(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.due_at = later(group.used_at, self.rules.idle_group);
            self.due.insert((group.due_at, Due::Group(id)));
        }
    }

    pub(super) fn forget_session(&mut self, place: Place, effects: &mut Effects) {
        let Some(group) = self.groups.get_mut(&place.group) else {
            return;
        };
        if let Some(session) = group.sessions.remove(&place.session) {
            self.held.forget_session(&session);
            self.due.remove(&(session.due_at, Due::Session(place)));
            if group.kept {
                effects.changes.push(Change::ForgetSession(place.session));
            }
        }
    }

    pub(super) fn forget_group(&mut self, id: GroupId, effects: &mut Effects) {
        let Some(group) = self.groups.remove(&id) else {
            return;
        };
        self.due.remove(&(group.due_at, Due::Group(id)));
        self.held.groups.give_back(&group.address, 1);
        for session in group.sessions.values() {
            self.held.forget_session(session);
            let place = Place { group: id, session: session.id };
            self.due.remove(&(session.due_at, Due::Session(place)));
        }
        for member in &group.members {
            if let Some(client) = self.clients.get_mut(member) {
                client.groups.retain(|of| *of != id);
            }
        }
        if group.kept {
            effects.changes.push(Change::ForgetGroup(id));
        }
    }
}

fn later(from: Timestamp, millis: i64) -> Timestamp {
    Timestamp(from.0.saturating_add(millis))
}
