//! The sessions a server party knows: running ones, left ones, and messages that came early.

use std::collections::{HashMap, VecDeque};

use quorate_types::*;
use tokio::sync::mpsc;

use crate::follow::Views;
use crate::session::{Feed, INBOX_LEN};

/// Most sessions with a task. Each costs some kilobytes while it waits; the compute pool bounds
/// what runs. More than this cannot be done before their deadlines on any machine of today.
const RUNNING_LEN: usize = 4096;

/// Keygens that wait for a place, some kilobytes each. Signatures do not: others can sign.
const POSTPONED_LEN: usize = 1024;

/// Ids of left sessions kept, so that an event that comes again does not look like a restart.
const LEFT_LEN: usize = 4096;

/// Sessions whose messages may come before their event, and messages kept of each. The two
/// streams of a party are moments apart, not minutes; what is dropped stays unacknowledged.
const EARLY_SESSIONS: usize = 64;
const EARLY_MESSAGES: usize = 64;

struct Entry {
    views: Views,
    /// `None` once it overflowed: the session fails when it has read what is in it.
    inbox: Option<mpsc::Sender<Message>>,
}

/// What an event asks for.
pub(super) enum Asked {
    /// Nothing, or the session's task has been told.
    Nothing,
    /// A task for this session.
    TakePart { feed: Feed, token: JoinToken },
    /// A word to the coordinator: this attempt runs and this process knows nothing of it.
    Disown(u32),
    /// A word to the coordinator: there is no place for this attempt.
    Busy(u32),
}

pub(super) struct Table {
    places: usize,
    running: HashMap<SessionId, Entry>,
    /// Keygens that came while all places were taken, oldest first.
    postponed: VecDeque<SessionEvent>,
    /// Attempts that were left, the last one of each session.
    left: HashMap<SessionId, u32>,
    left_order: VecDeque<SessionId>,
    early: VecDeque<(SessionId, Vec<Message>)>,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(RUNNING_LEN)
    }
}

impl Table {
    /// A table with room for so many sessions.
    fn new(places: usize) -> Self {
        Self {
            places,
            running: HashMap::new(),
            postponed: VecDeque::new(),
            left: HashMap::new(),
            left_order: VecDeque::new(),
            early: VecDeque::new(),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Sessions that have started.
    pub(super) fn started(&self) -> usize {
        self.running.values().filter(|entry| entry.views.started()).count()
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.running.keys().copied().collect()
    }

    /// Whether this is the attempt of a session that has a task.
    pub(super) fn runs(&self, session: SessionId, attempt: u32) -> bool {
        self.running.get(&session).is_some_and(|entry| entry.views.attempt() == attempt)
    }

    /// Shows a session's task how it stands.
    pub(super) fn view(&mut self, session: SessionView) {
        let id = session.session_id;
        let Some(entry) = self.running.get(&id) else { return };
        if entry.views.overtaken_by(&session) {
            self.running.remove(&id);
        } else {
            entry.views.now(session);
        }
    }

    /// Takes an event. Idempotent: the last event of a session comes again after a reconnect.
    pub(super) fn event(&mut self, me: &PartyId, mut event: SessionEvent, draining: bool) -> Asked {
        let (session, attempt) = (event.session.session_id, event.session.attempt);
        if let Some(entry) = self.running.get(&session) {
            if !entry.views.overtaken_by(&event.session) {
                entry.views.event(event);
                return Asked::Nothing;
            }
            self.running.remove(&session);
        }
        let waits = self.postponed.iter().position(|kept| kept.session.session_id == session);
        let left = self.left.get(&session).is_some_and(|left| *left >= attempt);
        if left || event.session.status.is_final() {
            waits.map(|at| self.postponed.remove(at));
            self.early.retain(|(id, _)| *id != session);
            return Asked::Nothing;
        }
        let mut seats = event.session.participants.iter();
        let Some(seat) = seats.find(|p| p.party_id == *me) else { return Asked::Nothing };
        if event.session.status == SessionStatus::InProgress {
            let done =
                matches!(seat.status, ParticipantStatus::Completed | ParticipantStatus::Failed);
            waits.map(|at| self.postponed.remove(at));
            self.leave(session, attempt);
            return if done { Asked::Nothing } else { Asked::Disown(attempt) };
        }
        if waits.is_some() || !event.join_tokens.contains_key(me) {
            return Asked::Nothing;
        }
        if draining {
            tracing::warn!(%session, "stopping: not taking part in a new session");
            return Asked::Nothing;
        }
        if self.running.len() >= self.places {
            return self.postpone(event);
        }
        let Some(token) = event.join_tokens.remove(me) else { return Asked::Nothing };
        Asked::TakePart { feed: self.enter(me, event), token }
    }

    /// Keeps a keygen or refresh until a place is free; for anything else there is none.
    fn postpone(&mut self, event: SessionEvent) -> Asked {
        let session = event.session.session_id;
        let waits = event.session.ceremony.kind().makes_shares();
        if waits && self.postponed.len() < POSTPONED_LEN {
            tracing::warn!(%session, "all places are taken: what makes shares waits for one");
            self.postponed.push_back(event);
            return Asked::Nothing;
        }
        let attempt = event.session.attempt;
        self.leave(session, attempt);
        Asked::Busy(attempt)
    }

    /// Takes up the oldest keygen that waits, now that a place may be free.
    pub(super) fn take_up(
        &mut self,
        me: &PartyId,
        draining: bool,
    ) -> Option<(SessionId, JoinToken, Feed)> {
        if draining || self.running.len() >= self.places {
            return None;
        }
        let mut event = self.postponed.pop_front()?;
        let token = event.join_tokens.remove(me)?;
        let session = event.session.session_id;
        Some((session, token, self.enter(me, event)))
    }

    fn enter(&mut self, me: &PartyId, event: SessionEvent) -> Feed {
        let SessionEvent { session: view, lent, .. } = event;
        let session = view.session_id;
        let attempt = view.attempt;
        let (views, view_out, unjoined) = Views::new(me.clone(), attempt, Some(view));
        let (inbox, inbox_out) = mpsc::channel(INBOX_LEN);
        let early = self.early.iter().position(|(id, _)| *id == session);
        if let Some((_, messages)) = early.and_then(|position| self.early.remove(position)) {
            for message in messages {
                // EARLY_MESSAGES is less than INBOX_LEN.
                let _ = inbox.try_send(message);
            }
        }
        self.running.insert(session, Entry { views, inbox: Some(inbox) });
        Feed { attempt, views: view_out, unjoined, inbox: inbox_out, lent }
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
        if self.left.contains_key(&session) {
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

    /// The task of an attempt has ended. One that was overtaken is gone already, and its party may
    /// be chosen again.
    pub(super) fn ended(&mut self, session: SessionId, attempt: u32) {
        if self.runs(session, attempt) {
            self.leave(session, attempt);
        }
    }

    /// Forgets an attempt but for its number.
    fn leave(&mut self, session: SessionId, attempt: u32) {
        self.running.remove(&session);
        self.early.retain(|(id, _)| *id != session);
        let known = self.left.entry(session).or_insert_with(|| {
            self.left_order.push_back(session);
            attempt
        });
        *known = attempt.max(*known);
        if self.left_order.len() > LEFT_LEN
            && let Some(oldest) = self.left_order.pop_front()
        {
            self.left.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    fn party(name: &str) -> PartyId {
        name.parse().unwrap()
    }

    fn event(status: SessionStatus) -> SessionEvent {
        let mut session = quorate_testkit::session();
        for (seat, name) in session.participants.iter_mut().zip(["a", "b"]) {
            seat.party_id = party(name);
        }
        session.session_id = SessionId(uuid::Uuid::from_u128(1));
        session.status = status;
        let token = Secret::new("token".to_owned());
        SessionEvent {
            event_id: EventId(uuid::Uuid::nil()),
            kind: EventKind::SessionCreated,
            session,
            join_tokens: [(party("a"), token)].into(),
            lent: None,
            created_at: Timestamp(0),
        }
    }

    fn message(session: u128, number: u128) -> Message {
        Message {
            message_id: MessageId(uuid::Uuid::from_u128(number)),
            session_id: SessionId(uuid::Uuid::from_u128(session)),
            from_party: party("b"),
            is_broadcast: true,
            round: 1,
            message_type: String::new(),
            payload: bytes::Bytes::new(),
            created_at: Timestamp(0),
        }
    }

    fn enter(table: &mut Table) -> Feed {
        match table.event(&party("a"), event(SessionStatus::Created), false) {
            Asked::TakePart { feed, .. } => feed,
            _ => panic!("not asked to take part"),
        }
    }

    #[test]
    fn an_event_that_comes_again_starts_nothing() {
        let mut table = Table::default();
        let feed = enter(&mut table);
        for status in [SessionStatus::Created, SessionStatus::InProgress, SessionStatus::Waiting] {
            let asked = table.event(&party("a"), event(status), false);
            assert!(matches!(asked, Asked::Nothing), "{status:?}");
        }
        // The view went forward and did not come back.
        let seen = feed.views.borrow().as_ref().unwrap().status;
        assert_eq!(seen, SessionStatus::InProgress);
        table.ended(event(SessionStatus::Created).session.session_id, 0);
        assert_eq!(table.running(), 0);
        let asked = table.event(&party("a"), event(SessionStatus::InProgress), false);
        assert!(matches!(asked, Asked::Nothing), "a session that was left is known");
    }

    fn of_attempt(attempt: u32, status: SessionStatus) -> SessionEvent {
        let mut event = event(status);
        event.session.attempt = attempt;
        event
    }

    #[test]
    fn a_new_attempt_ends_the_one_before_and_nothing_leads_back() {
        let mut table = Table::default();
        let feed = enter(&mut table);
        let next = of_attempt(1, SessionStatus::Created);
        let Asked::TakePart { feed: second, .. } = table.event(&party("a"), next, false) else {
            panic!("asked to take part in the second attempt");
        };
        assert!(feed.views.has_changed().is_err(), "the first has ended");
        assert_eq!((second.attempt, table.running()), (1, 1));
        let id = event(SessionStatus::Created).session.session_id;
        table.ended(id, 0);
        assert_eq!(table.running(), 1, "the first's task leaves the first only");
        for (attempt, status) in [(0, SessionStatus::InProgress), (1, SessionStatus::Created)] {
            let asked = table.event(&party("a"), of_attempt(attempt, status), false);
            assert!(matches!(asked, Asked::Nothing));
            let seen = second.views.borrow().as_ref().unwrap().clone();
            assert_eq!((seen.attempt, seen.status), (1, SessionStatus::Created));
        }
        table.ended(id, 1);
        let asked = table.event(&party("a"), of_attempt(1, SessionStatus::Created), false);
        assert!(matches!(asked, Asked::Nothing), "an attempt that was left is known");
        let asked = table.event(&party("a"), of_attempt(2, SessionStatus::InProgress), false);
        assert!(matches!(asked, Asked::Disown(2)), "one that nobody knows of is not");
    }

    #[test]
    fn a_party_whose_place_another_has_taken_leaves() {
        let mut table = Table::default();
        let feed = enter(&mut table);
        let mut replaced = event(SessionStatus::Created);
        replaced.session.participants[0].party_id = party("c");
        replaced.session.replaced = vec![party("a")];
        assert!(matches!(table.event(&party("a"), replaced.clone(), false), Asked::Nothing));
        assert!(feed.views.has_changed().is_err());
        let _second = enter(&mut table);
        table.view(replaced.session);
        assert_eq!(table.running(), 0, "and when it learns so by asking");
        table.ended(event(SessionStatus::Created).session.session_id, 0);
        let _third = enter(&mut table);
    }

    #[test]
    fn a_session_that_has_forgotten_our_joining_says_so() {
        let mut table = Table::default();
        let feed = enter(&mut table);
        let told = || feed.unjoined.notified().now_or_never().is_some();
        let mut other = event(SessionStatus::Waiting);
        other.kind = EventKind::PartyJoined;
        table.event(&party("a"), other, false);
        assert!(!told(), "another's joining may have been before ours");
        table.event(&party("a"), event(SessionStatus::InProgress), false);
        assert!(!told());
        table.event(&party("a"), event(SessionStatus::Created), false);
        assert!(told());
        let mut seated = event(SessionStatus::Waiting);
        seated.session.participants[0].status = ParticipantStatus::Ready;
        table.view(seated.session);
        assert!(!told());
    }

    #[test]
    fn a_running_session_that_nobody_knows_is_disowned_once() {
        let mut table = Table::default();
        let running = || event(SessionStatus::InProgress);
        assert!(matches!(table.event(&party("a"), running(), false), Asked::Disown(0)));
        assert!(matches!(table.event(&party("a"), running(), false), Asked::Nothing));
    }

    #[test]
    fn a_running_session_in_which_our_part_is_done_is_left_alone() {
        let mut done = event(SessionStatus::InProgress);
        done.session.participants[0].status = ParticipantStatus::Completed;
        assert!(matches!(Table::default().event(&party("a"), done, false), Asked::Nothing));
    }

    #[test]
    fn no_new_session_starts_while_draining_or_without_a_token() {
        let mut table = Table::default();
        let created = || event(SessionStatus::Created);
        assert!(matches!(table.event(&party("a"), created(), true), Asked::Nothing));
        assert!(matches!(table.event(&party("b"), created(), false), Asked::Nothing));
        assert!(matches!(table.event(&party("z"), created(), false), Asked::Nothing));
    }

    fn numbered(n: u128, kind: SessionKind) -> SessionEvent {
        let mut event = event(SessionStatus::Created);
        event.session.session_id = SessionId(uuid::Uuid::from_u128(n));
        if kind == SessionKind::Sign {
            let key = quorate_testkit::key_view(event.session.session_id.into()).record.key;
            let input = SignInput::Digest(Digest([9; 32]));
            event.session.ceremony = Ceremony::Sign { key, input };
        }
        event
    }

    #[test]
    fn a_full_party_says_so_to_signers_and_lets_keygens_wait() {
        let (mut table, me) = (Table::new(1), party("a"));
        let ask = |table: &mut Table, n, kind| table.event(&me, numbered(n, kind), false);
        let first = ask(&mut table, 1, SessionKind::Sign);
        assert!(matches!(first, Asked::TakePart { .. }));
        assert!(matches!(ask(&mut table, 2, SessionKind::Sign), Asked::Busy(0)));
        assert!(matches!(ask(&mut table, 2, SessionKind::Sign), Asked::Nothing), "it was told");
        for n in [3, 4, 3] {
            assert!(matches!(ask(&mut table, n, SessionKind::Keygen), Asked::Nothing));
        }
        assert!(table.take_up(&me, false).is_none(), "no place is free yet");
        let mut ended = numbered(4, SessionKind::Keygen);
        ended.session.status = SessionStatus::Expired;
        table.event(&me, ended, false);
        table.ended(SessionId(uuid::Uuid::from_u128(1)), 0);
        assert!(table.take_up(&me, true).is_none(), "not while draining");
        let (session, _, _feed) = table.take_up(&me, false).expect("a place is free");
        assert_eq!(session.0.as_u128(), 3);
        table.ended(session, 0);
        assert!(table.take_up(&me, false).is_none(), "4 has ended meanwhile");
        for n in 0..=POSTPONED_LEN as u128 {
            let asked = ask(&mut table, 10 + n, SessionKind::Keygen);
            assert_eq!(matches!(asked, Asked::TakePart { .. }), n == 0);
        }
        assert!(matches!(ask(&mut table, 9, SessionKind::Keygen), Asked::Busy(0)), "bounded");
    }

    #[test]
    fn early_messages_are_kept_within_bounds_and_given_to_their_session() {
        let mut table = Table::default();
        for number in 0..1000 {
            table.message(message(1, number));
        }
        let mut feed = enter(&mut table);
        let mut kept = 0;
        while feed.inbox.try_recv().is_ok() {
            kept += 1;
        }
        assert_eq!(kept, EARLY_MESSAGES);
        for session in 100..1000 {
            table.message(message(session, 1));
        }
        assert_eq!(table.early.len(), EARLY_SESSIONS);
    }

    #[test]
    fn a_flooded_inbox_is_closed_and_the_others_feel_nothing() {
        let mut table = Table::default();
        let mut feed = enter(&mut table);
        for number in 0..=INBOX_LEN as u128 {
            table.message(message(1, number));
        }
        for _ in 0..INBOX_LEN {
            assert!(feed.inbox.try_recv().is_ok());
        }
        assert_eq!(feed.inbox.try_recv().err(), Some(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(table.running(), 1);
    }

    #[test]
    fn the_ids_of_left_sessions_are_bounded() {
        let mut table = Table::default();
        for number in 0..2 * LEFT_LEN as u128 {
            table.leave(SessionId(uuid::Uuid::from_u128(number)), 0);
        }
        assert_eq!((table.left.len(), table.left_order.len()), (LEFT_LEN, LEFT_LEN));
    }
}
