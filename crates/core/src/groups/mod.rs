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

use quorate_types::{ClientAddress, GroupId, SessionId, Timestamp};

use crate::budget::Budget;

use self::client::Client;
use self::expiry::Due;
pub use self::model::*;
use self::session::Session;

struct Group {
    /// Who made it.
    address: ClientAddress,
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
    /// Groups of all clients.
    pub groups: usize,
    /// Sessions of all groups.
    pub sessions: usize,
    /// Places with a token, connected or not.
    pub tokens: usize,
}

/// What the clients of each address have made.
struct Held {
    groups: Budget<ClientAddress>,
    sessions: Budget<ClientAddress>,
    /// Bytes of the values of sessions.
    values: Budget<ClientAddress>,
    tokens: Budget<ClientAddress>,
    /// Bytes of the events kept for clients.
    missed: Budget<ClientAddress>,
}

impl Held {
    fn new(limits: &GroupLimits) -> Self {
        Self {
            groups: Budget::new(limits.groups),
            sessions: Budget::new(limits.sessions),
            values: Budget::new(limits.value_total_bytes),
            tokens: Budget::new(limits.tokens),
            missed: Budget::new(limits.missed_total_bytes),
        }
    }

    fn add_session(&mut self, session: &Session) {
        self.sessions.add(&session.address, 1);
        self.values.add(&session.address, session.value.len());
    }

    fn forget_session(&mut self, session: &Session) {
        self.sessions.give_back(&session.address, 1);
        self.values.give_back(&session.address, session.value.len());
    }
}

/// All groups of the relay.
pub struct Groups {
    rules: Rules,
    groups: HashMap<GroupId, Group>,
    clients: HashMap<ClientId, Client>,
    connections: HashMap<ConnectionId, ClientId>,
    tokens: HashMap<TokenHash, ClientId>,
    held: Held,
    /// When to look after what. An entry may be early: what was used since is put off then.
    due: BTreeSet<(Timestamp, Due)>,
}

impl Groups {
    /// No groups, under these rules.
    pub fn new(rules: Rules) -> Self {
        Self {
            held: Held::new(&rules.limits),
            rules,
            groups: HashMap::new(),
            clients: HashMap::new(),
            connections: HashMap::new(),
            tokens: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        let (groups, sessions) = (self.groups.len(), self.held.sessions.used());
        Counts { groups, sessions, tokens: self.tokens.len() }
    }

    /// Takes one call of a peer. A error changes nothing, but its group counts as used.
    pub fn apply(
        &mut self,
        now: Timestamp,
        peer: Peer,
        command: Command,
        effects: &mut Effects,
    ) -> Result<Reply, CallError> {
        let Peer { connection, address } = peer;
        let client = *self.connections.entry(connection).or_insert(connection);
        self.clients.entry(client).or_insert_with(|| Client::new(peer));
        let mut call = calls::Call { core: self, now, client, address, effects };
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
            Command::Resume { token, seen } => self.resume(peer, token, seen, effects),
        }
    }

    /// Tells these clients, each once for every time it is named.
    fn tell(
        &mut self,
        clients: impl IntoIterator<Item = ClientId>,
        event: Event,
        effects: &mut Effects,
    ) {
        let (limits, missed) = (&self.rules.limits, &mut self.held.missed);
        let all = &mut self.clients;
        let told =
            clients.into_iter().filter_map(|id| all.get_mut(&id)?.tell(&event, limits, missed));
        let to = told.collect();
        effects.deliver(event, to);
    }
}
