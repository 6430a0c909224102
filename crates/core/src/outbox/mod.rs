//! The outbox: what is due for whom, what is under way, and what becomes of it.
//!
//! A notification is a row that is written with its session and has an id that stays: the provider
//! gets it at least once, under the same id. The caller writes the [`Change`]s that come out, and
//! sends what [`Outbox::take`] gives.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

pub use plan::{END_LASTS, Planned, backoff};
use quorate_types::*;

use crate::budget::{Budget, Over};
use crate::tally::Tally;

/// Recipients of open sessions at once; each has at most five notifications of about 0.5 KiB.
const RECIPIENTS: usize = 20_000;
/// Notifications under way at once.
pub const UNDER_WAY: usize = 64;
/// And of one tenant: a webhook that answers slowly holds up its own tenant only.
const UNDER_WAY_OF_TENANT: usize = 4;

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Inserts or replaces the row.
    Write(Notification),
    /// It is pointless now.
    Forget(NotificationId),
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// To be sent; its outcome goes to [`Outbox::settle`] or [`Outbox::skip`].
    Send(Notification),
    /// Nothing to send any more.
    Settled(Change),
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The provider has taken it.
    Sent,
    /// It may be taken later.
    Failed(String),
    /// It will never be taken.
    Refused(String),
}

#[derive(Clone, Debug)]
struct Entry {
    row: Notification,
    /// When it is due, on the monotonic clock; none until its session has ended.
    at: Option<Duration>,
    /// When it is given up.
    until: Duration,
    /// Commits that it waits for: that of its session's creation, that of its end.
    held: u8,
    under_way: bool,
    /// Its session has ended meanwhile: it is not tried again.
    recalled: bool,
}

impl Entry {
    fn new(now: Moment, row: Notification, held: u8) -> Self {
        let left = |at: Timestamp| Duration::from_millis(at.millis_since(now.wall));
        let at = row.due_at.map(|at| now.monotonic.saturating_add(left(at)));
        let until = now.monotonic.saturating_add(left(row.until));
        Self { row, at, until, held, under_way: false, recalled: false }
    }

    /// When it can be taken.
    fn ready(&self) -> Option<Duration> {
        self.at.filter(|_| self.held == 0 && !self.under_way)
    }

    fn settle(&mut self, now: Moment, state: NotificationState, error: Option<String>) -> Change {
        let row = &mut self.row;
        (row.state, row.due_at, row.settled_at) = (state, None, Some(now.wall));
        row.last_error = error;
        if row.recipient.channel != Medium::Webhook {
            row.recipient.address.clear();
        }
        Change::Write(row.clone())
    }
}

/// All notifications that are not settled.
#[derive(Clone, Debug)]
pub struct Outbox {
    entries: HashMap<NotificationId, Entry>,
    sessions: HashMap<SessionId, Vec<NotificationId>>,
    /// Those that can be taken, by tenant and time.
    ready: BTreeMap<Tenant, BTreeSet<(Duration, NotificationId)>>,
    under_way: usize,
    of_tenant: Tally<Tenant>,
    recipients: Budget<Tenant>,
    /// Whose turn it was last.
    last: Option<Tenant>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            sessions: HashMap::new(),
            ready: BTreeMap::new(),
            under_way: 0,
            of_tenant: Tally::default(),
            recipients: Budget::new(RECIPIENTS),
            last: None,
        }
    }
}

impl Outbox {
    /// Refuses a session that would tell more recipients than there is room for.
    ///
    /// # Errors
    /// Whether all or this tenant have too many.
    pub fn check(&self, tenant: &Tenant, recipients: usize) -> Result<(), Over> {
        self.recipients.check(tenant, recipients)
    }

    /// Takes the notifications of a new session in; nothing is sent before [`Outbox::release`].
    pub fn enter(&mut self, now: Moment, rows: Vec<Notification>) {
        for row in rows {
            self.insert(Entry::new(now, row, 1));
        }
    }

    /// Takes one in that was found at start.
    pub fn restore(&mut self, now: Moment, row: Notification) {
        self.insert(Entry::new(now, row, 0));
    }

    fn insert(&mut self, entry: Entry) {
        let (id, session) = (entry.row.id, entry.row.session_id);
        if !entry.row.step.asks() {
            self.recipients.add(&entry.row.tenant, 1);
        }
        self.sessions.entry(session).or_default().push(id);
        self.entries.insert(id, entry);
        self.queue(id);
    }

    fn queue(&mut self, id: NotificationId) {
        let Some(entry) = self.entries.get(&id) else { return };
        if let Some(at) = entry.ready() {
            self.ready.entry(entry.row.tenant.clone()).or_default().insert((at, id));
        }
    }

    fn unqueue(&mut self, id: NotificationId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let (Some(at), tenant) = (entry.at, &entry.row.tenant) else { return };
        if let Some(ready) = self.ready.get_mut(tenant) {
            ready.remove(&(at, id));
            if ready.is_empty() {
                self.ready.remove(tenant);
            }
        }
    }

    fn remove(&mut self, id: NotificationId) -> Option<Entry> {
        self.unqueue(id);
        let entry = self.entries.remove(&id)?;
        if !entry.row.step.asks() {
            self.recipients.give_back(&entry.row.tenant, 1);
        }
        if let Some(ids) = self.sessions.get_mut(&entry.row.session_id) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.sessions.remove(&entry.row.session_id);
            }
        }
        Some(entry)
    }

    /// What was written of a session at its creation, or at its end, is on the disk: what waited for
    /// that may be sent.
    pub fn release(&mut self, session: SessionId) {
        for id in self.sessions.get(&session).cloned().unwrap_or_default() {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.held = entry.held.saturating_sub(1);
            }
            self.queue(id);
        }
    }

    /// A session turned out not to be: its notifications were never written.
    pub fn withdraw(&mut self, session: SessionId) {
        for id in self.sessions.get(&session).cloned().unwrap_or_default() {
            self.remove(id);
        }
    }

    /// A session has ended: nobody is asked any more, all are told. Nothing of it is sent before
    /// [`Outbox::release`].
    pub fn ended(
        &mut self,
        now: Moment,
        session: SessionId,
        step: NotificationStep,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in self.sessions.get(&session).cloned().unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.row.step == NotificationStep::SessionEnded {
                entry.row.step = step;
                entry.row.due_at = Some(now.wall);
                entry.row.until = now.wall.plus_seconds(END_LASTS.as_secs());
                entry.at = Some(now.monotonic);
                entry.until = now.monotonic.saturating_add(END_LASTS);
                entry.held += 1;
                changes.push(Change::Write(entry.row.clone()));
            } else if entry.under_way {
                entry.recalled = true;
            } else if entry.row.step.asks() {
                self.remove(id);
                changes.push(Change::Forget(id));
            }
        }
        changes
    }

    /// When something can be taken next, on the monotonic clock.
    pub fn next(&self) -> Option<Duration> {
        if self.under_way >= UNDER_WAY {
            return None;
        }
        let first = |ready: &BTreeSet<(Duration, NotificationId)>| ready.first().map(|(at, _)| *at);
        let free = self.ready.iter().filter(|(tenant, _)| self.has_place(tenant));
        free.filter_map(|(_, ready)| first(ready)).min()
    }

    fn has_place(&self, tenant: &Tenant) -> bool {
        self.of_tenant.of(tenant) < UNDER_WAY_OF_TENANT
    }

    /// The next that is due, the tenants in turns.
    pub fn take(&mut self, now: Moment) -> Option<Taken> {
        if self.under_way >= UNDER_WAY {
            return None;
        }
        let id = self.whose_turn(now.monotonic)?;
        if self.is_overtaken(now.monotonic, id) {
            self.remove(id);
            return Some(Taken::Settled(Change::Forget(id)));
        }
        let out_of_time = self.entries.get(&id).is_some_and(|entry| entry.until <= now.monotonic);
        if out_of_time {
            let mut entry = self.remove(id)?;
            let error = entry.row.last_error.take();
            let error = error.unwrap_or_else(|| "it could not be sent in time".to_owned());
            let change = entry.settle(now, NotificationState::Dead, Some(error));
            return Some(Taken::Settled(change));
        }
        self.unqueue(id);
        let entry = self.entries.get_mut(&id)?;
        entry.under_way = true;
        self.under_way += 1;
        self.of_tenant.add(entry.row.tenant.clone());
        Some(Taken::Send(entry.row.clone()))
    }

    /// The first that is due of the next tenant that has a place.
    fn whose_turn(&mut self, now: Duration) -> Option<NotificationId> {
        let after = match &self.last {
            Some(last) => (Bound::Excluded(last.clone()), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let (tenant, id) = {
            let due = |(tenant, ready): (&Tenant, &BTreeSet<(Duration, NotificationId)>)| {
                let (at, id) = *ready.first()?;
                (at <= now && self.has_place(tenant)).then(|| (tenant.clone(), id))
            };
            let later = self.ready.range::<Tenant, _>(after);
            later.chain(self.ready.iter()).find_map(due)?
        };
        self.last = Some(tenant);
        Some(id)
    }

    /// Whether a reminder lies behind a later one to the same recipient, after a long pause.
    fn is_overtaken(&self, now: Duration, id: NotificationId) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        let Some(quarter) = entry.row.step.quarter().filter(|quarter| *quarter > 0) else {
            return false;
        };
        let others = self.sessions.get(&entry.row.session_id).into_iter().flatten();
        others.filter_map(|other| self.entries.get(other)).any(|other| {
            other.row.recipient == entry.row.recipient
                && other.row.step.quarter().is_some_and(|later| later > quarter)
                && other.at.is_some_and(|at| at <= now)
        })
    }

    fn arrived(&mut self, id: NotificationId) -> Option<()> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.under_way)?;
        entry.under_way = false;
        self.under_way -= 1;
        self.of_tenant.remove(&entry.row.tenant);
        Some(())
    }

    /// One that was taken need not be sent: its recipient has joined.
    pub fn skip(&mut self, id: NotificationId) -> Option<Change> {
        self.arrived(id)?;
        self.remove(id)?;
        Some(Change::Forget(id))
    }

    /// What an attempt came to. After a failure it is tried again, until it is out of time; how
    /// much later depends on `jitter`.
    pub fn settle(
        &mut self,
        now: Moment,
        id: NotificationId,
        attempt: Attempt,
        jitter: u16,
    ) -> Option<Change> {
        self.arrived(id)?;
        let entry = self.entries.get_mut(&id)?;
        entry.row.attempts = entry.row.attempts.saturating_add(1);
        let pause = backoff(entry.row.attempts, jitter);
        let again = now.monotonic.saturating_add(pause);
        match attempt {
            Attempt::Failed(_) if entry.recalled => {
                self.remove(id)?;
                Some(Change::Forget(id))
            }
            Attempt::Failed(error) if again < entry.until => {
                let millis = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                entry.row.due_at = Some(Timestamp(now.wall.0.saturating_add(millis)));
                entry.row.last_error = Some(error);
                entry.at = Some(again);
                let change = Change::Write(entry.row.clone());
                self.queue(id);
                Some(change)
            }
            Attempt::Failed(error) | Attempt::Refused(error) => {
                let mut entry = self.remove(id)?;
                Some(entry.settle(now, NotificationState::Dead, Some(error)))
            }
            Attempt::Sent => {
                let mut entry = self.remove(id)?;
                Some(entry.settle(now, NotificationState::Sent, None))
            }
        }
    }

    /// How many are not settled.
    pub fn waiting(&self) -> usize {
        self.entries.len()
    }
}
