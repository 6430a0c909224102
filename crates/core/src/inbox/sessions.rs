//! The sessions whose messages are taken: who is in them, and what goes when they end.

use std::collections::HashSet;

use quorate_types::*;

use super::{Conversation, ENDED_KEPT, ENDED_RECORDS_KEPT, Inboxes, Record, stranger};

impl Inboxes {
    /// Opens a session for its members. Opening it again for the same changes nothing; with others
    /// they take the places of those before, and in a new attempt the messages of the one before
    /// go. Answers with those that not all had acknowledged.
    pub fn open_session(
        &mut self,
        session: SessionId,
        tenant: &Tenant,
        attempt: u32,
        members: &[PartyId],
    ) -> Vec<MessageId> {
        let conversation = self.sessions.entry(session).or_insert_with(|| Conversation {
            tenant: tenant.clone(),
            attempt,
            members: members.to_vec(),
            ..Conversation::default()
        });
        if conversation.ended || attempt < conversation.attempt {
            return Vec::new();
        }
        let mut gone = Vec::new();
        if attempt > conversation.attempt {
            conversation.attempt = attempt;
            gone = self.drop_messages(session);
        }
        if let Some(conversation) = self.sessions.get_mut(&session)
            && conversation.members != members
        {
            let left = std::mem::replace(&mut conversation.members, members.to_vec());
            let left = left.into_iter().filter(|party| !members.contains(party));
            conversation.former.retain(|party| !members.contains(party));
            conversation.former.extend(left);
        }
        gone
    }

    /// Drops the messages of a session; answers with those that not all had acknowledged.
    fn drop_messages(&mut self, session: SessionId) -> Vec<MessageId> {
        self.undeliver(session);
        let Some(conversation) = self.sessions.get_mut(&session) else {
            return Vec::new();
        };
        let messages = std::mem::take(&mut conversation.messages);
        let waited = |(id, record): (MessageId, Record)| record.row.map(|_| id);
        messages.into_iter().filter_map(waited).collect()
    }

    /// Delivers no message of a session any more, and gives back what they took up.
    fn undeliver(&mut self, session: SessionId) {
        let Some(conversation) = self.sessions.get_mut(&session) else {
            return;
        };
        conversation.rounds = HashSet::new();
        self.bytes.give_back(&conversation.tenant, std::mem::take(&mut conversation.bytes));
        self.records.give_back(&conversation.tenant, conversation.messages.len());
        for member in conversation.members.clone() {
            self.clear_box(&member, session);
        }
    }

    fn clear_box(&mut self, member: &PartyId, session: SessionId) {
        let Some(inbox) = self.boxes.get_mut(member) else {
            return;
        };
        for sequence in inbox.by_session.remove(&session).into_iter().flatten() {
            inbox.entries.remove(&sequence);
        }
        if inbox.entries.is_empty() {
            self.boxes.remove(member);
        }
    }

    /// Closes a session: its messages go, its delivery records stay for a while. Answers with the
    /// messages that not all had acknowledged.
    pub fn close_session(&mut self, session: SessionId) -> Vec<MessageId> {
        if !self.is_open(session) {
            return Vec::new();
        }
        self.undeliver(session);
        let Some(conversation) = self.sessions.get_mut(&session) else {
            return Vec::new();
        };
        conversation.ended = true;
        let records = &mut conversation.messages;
        let waited = |(id, record): (&MessageId, &mut Record)| record.row.take().map(|_| *id);
        let gone = records.iter_mut().filter_map(waited).collect();
        self.ended_records += records.len();
        self.ended.push_back(session);
        self.forget_ended();
        gone
    }

    /// Forgets a closed session at once, so that another may be opened under its id.
    pub fn forget_session(&mut self, session: SessionId) {
        if let Some(at) = self.ended.iter().position(|ended| *ended == session) {
            self.ended.remove(at);
            if let Some(conversation) = self.sessions.remove(&session) {
                self.ended_records -= conversation.messages.len();
            }
        }
    }

    fn forget_ended(&mut self) {
        while self.ended.len() > ENDED_KEPT || self.ended_records > ENDED_RECORDS_KEPT {
            let Some(oldest) = self.ended.pop_front() else {
                return;
            };
            if let Some(conversation) = self.sessions.remove(&oldest) {
                self.ended_records -= conversation.messages.len();
            }
        }
    }

    /// Who owns a session that is known here.
    pub fn owner(&self, session: SessionId) -> Option<&Tenant> {
        self.sessions.get(&session).map(|conversation| &conversation.tenant)
    }

    /// Whether a party is or was in a session that is known here.
    pub fn has_member(&self, session: SessionId, party: &PartyId) -> bool {
        let was =
            |known: &Conversation| known.members.contains(party) || known.former.contains(party);
        self.sessions.get(&session).is_some_and(was)
    }

    /// Whether messages of this session are taken and delivered.
    pub fn is_open(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|conversation| !conversation.ended)
    }

    /// Refuses a party that is not in the session, and a session that is not open.
    pub fn check_member(&self, session: SessionId, party: &PartyId) -> Result<()> {
        let conversation = self.open(session)?;
        if conversation.members.contains(party) { Ok(()) } else { Err(stranger(session, party)) }
    }

    pub(super) fn open(&self, session: SessionId) -> Result<&Conversation> {
        match self.sessions.get(&session) {
            None => Err(Error::not_found("session", session)),
            Some(conversation) if conversation.ended => Err(Error::new(
                ErrorCode::SessionExpired,
                format!("session {session} is over; its messages are gone"),
            )),
            Some(conversation) => Ok(conversation),
        }
    }
}
