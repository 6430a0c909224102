//! Connections that come back, and those that go for good.

use quorate_types::{ClientAddress, GroupId, Timestamp};

use super::client::{Client, Log};
use super::expiry::Due;
use super::model::*;
use super::{Group, Groups};

impl Groups {
    /// The connection that has the place of this token just now.
    pub fn connection_of(&self, token: &TokenHash) -> Option<ConnectionId> {
        self.clients.get(self.tokens.get(token)?)?.connection
    }

    /// A connection's peer has everything up to the event with this number.
    pub fn arrived(&mut self, connection: ConnectionId, event: u64) {
        let client = self.connections.get(&connection).and_then(|id| self.clients.get_mut(id));
        if let Some(client) = client {
            client.arrived(event, &mut self.held.missed);
        }
    }

    /// A connection has written events up to this number.
    pub fn wrote(&mut self, connection: ConnectionId, written: u64) {
        let client = self.connections.get(&connection).and_then(|id| self.clients.get_mut(id));
        if let Some(client) = client {
            client.log.written = client.log.written.max(written);
        }
    }

    /// A connection is gone, having written events up to this number. Its place is kept for the
    /// grace time if it has a token, and free at once if not.
    pub fn disconnect(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        written: u64,
        effects: &mut Effects,
    ) {
        self.wrote(connection, written);
        let Some(id) = self.connections.remove(&connection) else {
            return;
        };
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.connection = None;
        if client.token.is_none() {
            self.give_up(id, effects);
            return;
        }
        client.until = Timestamp(now.0.saturating_add(self.rules.grace));
        self.due.insert((client.until, Due::Place(id)));
    }

    pub(super) fn resume(
        &mut self,
        peer: Peer,
        token: TokenHash,
        seen: Option<u64>,
        effects: &mut Effects,
    ) -> Result<Reply, CallError> {
        let Peer { connection, address } = peer;
        let own = self.connections.get(&connection).and_then(|id| self.clients.get(id));
        if own.is_some_and(|own| own.token.is_some() || !own.groups.is_empty()) {
            return Err(CallError::PlaceTaken);
        }
        let id = *self.tokens.get(&token).ok_or(CallError::UnknownToken)?;
        let client = self.clients.get_mut(&id).ok_or(CallError::UnknownToken)?;
        client.log.count_from(seen.unwrap_or(0));
        let seen = seen.unwrap_or(client.log.written);
        if seen > client.log.total() {
            return Err(CallError::SeenTooMany(client.log.total()));
        }
        let missed = client.log.after(seen).ok_or(CallError::MissedTooMuch(client.log.total()))?;
        client.arrived(seen, &mut self.held.missed);
        client.log.written = client.log.written.max(seen);
        self.held.tokens.give_back(&client.address, 1);
        self.held.tokens.add(&address, 1);
        client.moves(address, &mut self.held.missed);
        match client.connection.replace(connection) {
            Some(old) => {
                self.connections.remove(&old);
                effects.replaced.push(old);
            }
            None => drop(self.due.remove(&(client.until, Due::Place(id)))),
        }
        if let Some(own) = self.connections.insert(connection, id) {
            self.clients.remove(&own);
        }
        let count = missed.len() as u64;
        effects.missed = missed;
        Ok(Reply::Resumed(count))
    }

    /// Removes a client from everything.
    pub(super) fn give_up(&mut self, id: ClientId, effects: &mut Effects) {
        let Some(mut client) = self.clients.remove(&id) else {
            return;
        };
        client.arrived(u64::MAX, &mut self.held.missed);
        if let Some(token) = client.token {
            self.tokens.remove(&token);
            self.held.tokens.give_back(&client.address, 1);
            effects.changes.push(Change::ForgetClient(id));
        }
        for group in client.groups {
            self.leave(id, group, effects);
        }
    }

    fn leave(&mut self, id: ClientId, group_id: GroupId, effects: &mut Effects) {
        let Some(group) = self.groups.get_mut(&group_id) else {
            return;
        };
        group.members.retain(|member| *member != id);
        if group.members.is_empty() {
            self.forget_group(group_id, effects);
            return;
        }
        let vacated = match self.rules.compat {
            Compat::Strict => vacate(group, id),
            Compat::Original => Vec::new(),
        };
        self.note_group(group_id, effects);
        for session in vacated {
            self.keep_session(Place { group: group_id, session }, effects);
        }
    }

    /// A client that was found in the store, away until somebody resumes.
    pub(super) fn restore_client(&mut self, now: Timestamp, id: ClientId, token: TokenHash) {
        let until = Timestamp(now.0.saturating_add(self.rules.grace));
        let log = Log::uncounted();
        let peer = Peer { connection: id, address: ClientAddress::default() };
        let client =
            Client { connection: None, token: Some(token), until, log, ..Client::new(peer) };
        self.held.tokens.add(&peer.address, 1);
        self.clients.insert(id, client);
        self.tokens.insert(token, id);
        self.due.insert((until, Due::Place(id)));
    }
}

/// Frees the numbers of a client in sessions that have not started, and names those.
fn vacate(group: &mut Group, id: ClientId) -> Vec<quorate_types::SessionId> {
    let mut vacated = Vec::new();
    for session in group.sessions.values_mut() {
        if session.vacate(id) {
            vacated.push(session.id);
        }
    }
    vacated.sort_unstable();
    vacated
}
