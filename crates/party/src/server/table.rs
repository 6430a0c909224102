//! The sessions a server party knows: running ones, left ones, and messages that came early.

use std::collections::{HashMap, HashSet, VecDeque};

use quorate_types::*;
use tokio::sync::{mpsc, watch};

use crate::follow::advance;
use crate::session::{Feed, INBOX_LEN};

/// Most sessions with a task. Each costs some kilobytes while it waits; the compute pool bounds
/// what runs. More than this cannot be done before their deadlines on any machine of today.
const RUNNING_LEN: usize = 4096;

/// Ids of left sessions kept, so that an event that comes again does not look like a restart.
const LEFT_LEN: usize = 4096;

/// Sessions whose messages may come before their event, and messages kept of each. The two
/// streams of a party are moments apart, not minutes; what is dropped stays unacknowledged.
const EARLY_SESSIONS: usize = 64;
const EARLY_MESSAGES: usize = 64;

struct Entry {
    views: watch::Sender<Option<SessionView>>,
    /// `None` once it overflowed: the session fails when it has read what is in it.
    inbox: Option<mpsc::Sender<Message>>,
}

/// What an event asks for.
pub(super) enum Asked {
    /// Nothing, or the session's task has been told.
    Nothing,
    /// A task for this session.
    TakePart { feed: Feed, token: JoinToken },
    /// A word to the coordinator: the session runs and this process knows nothing of it.
    Disown,
}

#[derive(Default)]
pub(super) struct Table {
    running: HashMap<SessionId, Entry>,
    left: HashSet<SessionId>,
    left_order: VecDeque<SessionId>,
    early: VecDeque<(SessionId, Vec<Message>)>,
}

impl Table {
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.running.keys().copied().collect()
    }

    /// Shows a session's task how it stands.
    pub(super) fn view(&self, session: SessionView) {
        if let Some(entry) = self.running.get(&session.session_id) {
            advance(&entry.views, session);
        }
    }

    /// Takes an event. Idempotent: the last event of a session comes again after a reconnect.
    pub(super) fn event(&mut self, me: &PartyId, mut event: SessionEvent, draining: bool) -> Asked {
        let session = event.session.session_id;
        if self.running.contains_key(&session) {
            self.view(event.session);
            return Asked::Nothing;
        }
        if self.left.contains(&session) || event.session.status.is_final() {
            self.early.retain(|(id, _)| *id != session);
            return Asked::Nothing;
        }
        let mut seats = event.session.participants.iter();
        let Some(seat) = seats.find(|p| p.party_id == *me) else { return Asked::Nothing };
        if event.session.status == SessionStatus::InProgress {
            let done =
                matches!(seat.status, ParticipantStatus::Completed | ParticipantStatus::Failed);
            self.leave(session);
            return if done { Asked::Nothing } else { Asked::Disown };
        }
        let Some(token) = event.join_tokens.remove(me) else { return Asked::Nothing };
        if draining || self.running.len() >= RUNNING_LEN {
            tracing::warn!(%session, draining, "not taking part in a new session");
            return Asked::Nothing;
        }
        Asked::TakePart { feed: self.enter(session, event.session), token }
    }

    fn enter(&mut self, session: SessionId, view: SessionView) -> Feed {
        let (views, view_out) = watch::channel(Some(view));
        let (inbox, inbox_out) = mpsc::channel(INBOX_LEN);
        let early = self.early.iter().position(|(id, _)| *id == session);
        if let Some((_, messages)) = early.and_then(|position| self.early.remove(position)) {
            for message in messages {
                // EARLY_MESSAGES is less than INBOX_LEN.
                let _ = inbox.try_send(message);
            }
        }
        self.running.insert(session, Entry { views, inbox: Some(inbox) });
        Feed { views: view_out, inbox: inbox_out }
    }

    /// Hands a message to its session's task, or keeps it for a session not heard of yet.
    pub(super) fn message(&mut self, message: Message) {
        let session = message.session_id;
        if let Some(entry) = self.running.get_mut(&session) {
            let full = entry.inbox.as_ref().is_some_and(|inbox| {
                matches!(inbox.try_send(message), Err(mpsc::error::TrySendError::Full(_)))
            });
            if full {
                tracing::warn!(%session, "the session's inbox is full: giving the session up");
                entry.inbox = None;
            }
            return;
        }
        if self.left.contains(&session) {
            return;
        }
        match self.early.iter_mut().find(|(id, _)| *id == session) {
            Some((_, messages)) if messages.len() < EARLY_MESSAGES => messages.push(message),
            Some(_) => {}
            None => {
                if self.early.len() >= EARLY_SESSIONS {
                    self.early.pop_front();
                }
                self.early.push_back((session, vec![message]));
            }
        }
    }

    /// Forgets a session but for its id.
    pub(super) fn leave(&mut self, session: SessionId) {
        self.running.remove(&session);
        self.early.retain(|(id, _)| *id != session);
        if self.left.insert(session) {
            self.left_order.push_back(session);
        }
        if self.left_order.len() > LEFT_LEN
            && let Some(oldest) = self.left_order.pop_front()
        {
            self.left.remove(&oldest);
        }
    }
}
