//! What survives a restart: groups in which somebody has a token, their sessions, and the tokens.
//!
//! A group of which nobody can prove to have been a member is of no use to anybody afterwards, so
//! clients that never ask for a token never wait for a disk.

use std::collections::HashMap;

use quorate_types::{ClientAddress, GroupId, Timestamp};

use super::model::*;
use super::session::Session;
use super::{Group, Groups};

impl Groups {
    /// Puts back what was kept. Places are kept for the grace time from `now`; what no place leads
    /// to is forgotten. Who made it is not known any more: it counts for an address of its own.
    pub fn restore(&mut self, now: Timestamp, kept: Kept, effects: &mut Effects) {
        for (id, token) in kept.clients {
            self.restore_client(now, id, token);
        }
        for (id, record) in kept.groups {
            self.restore_group(now, id, record, effects);
        }
        for (place, record) in kept.sessions {
            let Some(group) = self.groups.get_mut(&place.group) else {
                effects.changes.push(Change::ForgetSession(place.session));
                continue;
            };
            let mut session = Session::restore(place.session, record, now);
            let strangers: Vec<_> = {
                let owners = session.signups.iter().map(|(_, owner)| *owner);
                owners.filter(|owner| !group.members.contains(owner)).collect()
            };
            if self.rules.compat == Compat::Strict {
                for stranger in strangers {
                    session.vacate(stranger);
                }
            }
            self.held.add_session(&session);
            group.sessions.insert(place.session, session);
            self.watch_session(place);
        }
    }

    fn restore_group(
        &mut self,
        now: Timestamp,
        id: GroupId,
        record: GroupRecord,
        effects: &mut Effects,
    ) {
        let mut members = record.members;
        members.retain(|member| self.clients.contains_key(member));
        if members.is_empty() {
            effects.changes.push(Change::ForgetGroup(id));
            return;
        }
        for member in &members {
            if let Some(client) = self.clients.get_mut(member) {
                client.groups.push(id);
            }
        }
        let group = Group {
            address: ClientAddress::default(),
            label: record.label,
            params: record.params,
            members,
            sessions: HashMap::new(),
            used_at: now,
            due_at: now,
            kept: true,
        };
        self.held.groups.add(&group.address, 1);
        self.groups.insert(id, group);
        self.watch_group(id);
    }

    /// The largest number of a client that was kept: connections count on from here.
    pub fn last_client(&self) -> ClientId {
        self.clients.keys().copied().max().unwrap_or(0)
    }

    /// Keeps a group if this member of it has a token.
    pub(super) fn keep_group(&mut self, member: ClientId, id: GroupId, effects: &mut Effects) {
        let has_token = self.clients.get(&member).is_some_and(|client| client.token.is_some());
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.kept || has_token) else {
            return;
        };
        let first = !std::mem::replace(&mut group.kept, true);
        let mut sessions: Vec<_> = group.sessions.keys().copied().collect();
        sessions.sort_unstable();
        self.note_group(id, effects);
        if first {
            for session in sessions {
                self.keep_session(Place { group: id, session }, effects);
            }
        }
    }

    /// Notes a kept group as it is now.
    pub(super) fn note_group(&self, id: GroupId, effects: &mut Effects) {
        if let Some(group) = self.groups.get(&id).filter(|group| group.kept) {
            let record = GroupRecord {
                label: group.label.clone(),
                params: group.params,
                members: group.members.clone(),
            };
            effects.changes.push(Change::Group(id, record));
        }
    }

    /// Notes a session of a kept group as it is now.
    pub(super) fn keep_session(&self, place: Place, effects: &mut Effects) {
        let group = self.groups.get(&place.group).filter(|group| group.kept);
        if let Some(session) = group.and_then(|group| group.sessions.get(&place.session)) {
            effects.changes.push(Change::Session(place, session.record()));
        }
    }
}
