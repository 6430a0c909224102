//! Groups of the JSON-RPC relay: who is in which, who signed up for what, and who hears of it.
//!
//! [`Groups::apply`] takes one call of one connection and answers at once; whom to tell and what to
//! keep comes back as [`Effects`]. A connection that asked for a token can break: its place, its
//! numbers and the events it misses are kept for a while, and another connection takes them over.

mod calls;
mod client;
mod expiry;
mod keep;
mod model;
mod places;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use quorate_types::{GroupId, SessionId, Timestamp};

use self::client::Client;
use self::expiry::Due;
pub use self::model::*;
use self::session::Session;

struct Group {
    label: Arc<str>,
    params: Parameters,
    /// In the order of their coming.
    members: Vec<ClientId>,
    sessions: HashMap<SessionId, Session>,
    used_at: Timestamp,
    /// Its entry in the timetable.
    due_at: Timestamp,
    /// Some member can resume, so the group is kept on the disk.
    kept: bool,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Groups.
    pub groups: usize,
    /// Sessions of all groups.
    pub sessions: usize,
    /// Places with a token, connected or not.
    pub tokens: usize,
}

/// All groups of the relay.
pub struct Groups {
    rules: Rules,
    groups: HashMap<GroupId, Group>,
    clients: HashMap<ClientId, Client>,
    connections: HashMap<ConnectionId, ClientId>,
    tokens: HashMap<TokenHash, ClientId>,
    sessions: usize,
    /// Bytes of the values of all sessions.
    value_bytes: usize,
    /// Bytes of the events kept for all clients.
    missed_bytes: usize,
    /// When to look after what. An entry may be early: what was used since is put off then.
    due: BTreeSet<(Timestamp, Due)>,
}

impl Groups {
    /// No groups, under these rules.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            groups: HashMap::new(),
            clients: HashMap::new(),
            connections: HashMap::new(),
            tokens: HashMap::new(),
            sessions: 0,
            value_bytes: 0,
            missed_bytes: 0,
            due: BTreeSet::new(),
        }
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts { groups: self.groups.len(), sessions: self.sessions, tokens: self.tokens.len() }
    }

    /// Takes one call of a connection. A refusal changes nothing, but its group counts as used.
    pub fn apply(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        command: Command,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        let client = *self.connections.entry(connection).or_insert(connection);
        self.clients.entry(client).or_insert_with(|| Client::new(connection));
        let mut call = calls::Call { core: self, now, client, effects };
        match command {
            Command::GroupCreate { id, label, params } => call.group_create(id, label, params),
            Command::GroupJoin(group) => call.group_join(group),
            Command::SessionCreate { group, id, kind, value } => {
                call.session_create(group, id, kind, value)
            }
            Command::SessionJoin(place, kind) => call.session_join(place, kind),
            Command::SessionSignup(place, kind) => call.session_signup(place, kind),
            Command::SessionLoad(place, kind, number) => call.session_load(place, kind, number),
            Command::SessionParticipant { place, index, number } => {
                call.session_participant(place, index, number)
            }
            Command::SessionMessage { place, kind, round, sender, receiver, frame } => {
                let words = calls::Words { kind, round, sender, receiver, frame };
                call.session_message(place, words)
            }
            Command::SessionFinish(place, number) => call.session_finish(place, number),
            Command::NotifyProposal(place, frame) => call.notify_proposal(place, frame),
            Command::NotifySigned(place, frame) => call.notify_signed(place, frame),
            Command::Token(hash) => call.token(hash),
            Command::Resume { token, seen } => self.resume(connection, token, seen, effects),
        }
    }

    /// Tells these clients, each once for every time it is named.
    fn tell(
        &mut self,
        clients: impl IntoIterator<Item = ClientId>,
        event: Event,
        effects: &mut Effects,
    ) {
        let (limits, total) = (&self.rules.limits, &mut self.missed_bytes);
        let all = &mut self.clients;
        let told =
            clients.into_iter().filter_map(|id| all.get_mut(&id)?.tell(&event, limits, total));
        let to = told.collect();
        effects.deliver(event, to);
    }
}
