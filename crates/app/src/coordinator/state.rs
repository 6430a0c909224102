//! The sessions in memory: the open ones with their deadlines, and those that ended lately.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::admission::Admission;
use quorate_core::budget::{Budget, Over};
use quorate_core::session::Session;
use quorate_core::tally::Tally;
use quorate_ports::store::IdempotencyRow;
use quorate_types::*;
use tokio::sync::watch;

use crate::ENDED_KEPT;

/// Keys kept in memory for signing; about 0.5 KiB each. When full, the cache starts afresh.
const KEYS_CACHED: usize = 10_000;

/// A session in memory.
pub(super) struct SessionEntry {
    pub(super) session: Session,
    /// Its deadline on the monotonic clock.
    pub(super) ends: Duration,
    pub(super) changed: watch::Sender<()>,
    /// Its creation is on the disk.
    pub(super) created: bool,
    /// The end is decided and not yet durable: nobody is told before it is.
    pub(super) ending: bool,
    /// The idempotency key that made it.
    pub(super) idempotency: Option<(Tenant, String)>,
}

impl SessionEntry {
    /// A session that is not on the disk yet and ends `lifetime` milliseconds from now.
    pub(super) fn new(
        session: Session,
        monotonic: Duration,
        idempotency: Option<(Tenant, String)>,
    ) -> Self {
        let lifetime = session.expires_at().millis_since(session.created_at());
        let ends = monotonic.saturating_add(Duration::from_millis(lifetime));
        let changed = watch::Sender::new(());
        Self { session, ends, changed, created: false, ending: false, idempotency }
    }

    /// A session found at start: it has what is left of its lifetime by the wall clock, and never
    /// more than the whole, also when the clock has been set back meanwhile.
    pub(super) fn restored(session: Session, now: Timestamp, monotonic: Duration) -> Self {
        let left = session.expires_at().millis_since(now);
        let mut entry = Self { created: true, ..Self::new(session, monotonic, None) };
        entry.ends = entry.ends.min(monotonic.saturating_add(Duration::from_millis(left)));
        entry
    }

    /// The session's own time: what the wall clock would show, had nobody set it meanwhile.
    pub(super) fn time(&self, monotonic: Duration) -> Timestamp {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let deadline = self.session.expires_at().0;
        match self.ends.checked_sub(monotonic).filter(|left| !left.is_zero()) {
            // A started millisecond is left, so that the deadline is not reached early.
            Some(left) => {
                let left = left.saturating_add(Duration::from_nanos(999_999));
                Timestamp(deadline.saturating_sub(millis(left)))
            }
            None => Timestamp(deadline.saturating_add(millis(monotonic.saturating_sub(self.ends)))),
        }
    }
}

/// Sessions in which one server party may wait for people. A party has 4 096 places: what remains
/// is for sessions that server parties do by themselves.
const WAITING_AT_PARTY: usize = 3_072;

pub(super) struct State {
    pub(super) sessions: HashMap<SessionId, SessionEntry>,
    /// Open sessions by tenant.
    pub(super) open: Budget<Tenant>,
    /// Which keygens run.
    pub(super) admission: Admission,
    /// Open sessions in which a server party waits for people, by tenant.
    waiting: HashMap<PartyId, Budget<Tenant>>,
    /// Open sessions of each server party.
    busy: Tally<PartyId>,
    /// Ended sessions that are still in memory, oldest first.
    ended: VecDeque<SessionId>,
    /// Open sessions by their monotonic deadline.
    pub(super) deadlines: BTreeSet<(Duration, SessionId)>,
    pub(super) idempotency: HashMap<(Tenant, String), IdempotencyRow>,
    pub(super) keys: HashMap<KeyId, Arc<KeyRecord>>,
    /// Keys whose shares are being refreshed, each by one session.
    refreshing: HashMap<KeyId, SessionId>,
}

impl State {
    /// No sessions yet, and at most `max_open` open ones later.
    pub(super) fn new(max_open: usize, keygens_at_once: usize) -> Self {
        Self {
            sessions: HashMap::new(),
            open: Budget::new(max_open),
            admission: Admission::new(keygens_at_once),
            waiting: HashMap::new(),
            busy: Tally::default(),
            ended: VecDeque::new(),
            deadlines: BTreeSet::new(),
            idempotency: HashMap::new(),
            keys: HashMap::new(),
            refreshing: HashMap::new(),
        }
    }

    /// Refuses a session with an epoch that was replaced while it was being created, and a second
    /// refresh of one key at once: both would make the same epoch.
    pub(super) fn check_epoch(&self, session: &Session) -> Result<()> {
        let Some(key) = session.ceremony().key() else { return Ok(()) };
        let id = key.key_id;
        if self.keys.get(&id).is_some_and(|known| known.epoch != key.epoch) {
            let problem = format!("key {id} has just been refreshed; ask again");
            return Err(Error::new(ErrorCode::StaleEpoch, problem));
        }
        match self.refreshing.get(&id) {
            Some(other) if session.kind() == SessionKind::Refresh => {
                let problem = format!("key {id} is being refreshed by session {other}");
                Err(Error::new(ErrorCode::Conflict, problem).with_field("key_id"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a session that would take more than its tenant's share of a server party's places.
    pub(super) fn check_waiting(&self, session: &Session) -> Result<(), (PartyId, Over)> {
        if !session.waits_for_people() {
            return Ok(());
        }
        for party in session.servers() {
            if let Some(waiting) = self.waiting.get(party) {
                waiting.check(session.tenant(), 1).map_err(|over| (party.clone(), over))?;
            }
        }
        Ok(())
    }

    /// Takes an open session in.
    pub(super) fn insert(&mut self, entry: SessionEntry, monotonic: Duration) {
        let session = &entry.session;
        let id = session.id();
        self.deadlines.insert((entry.ends, id));
        self.open.add(session.tenant(), 1);
        for party in session.servers() {
            self.busy.add(party.clone());
            if session.waits_for_people() {
                let waiting = self.waiting.entry(party.clone());
                let waiting = waiting.or_insert_with(|| Budget::new(WAITING_AT_PARTY));
                waiting.add(session.tenant(), 1);
            }
        }
        if let Ceremony::Refresh { key } = session.ceremony() {
            self.refreshing.insert(key.key_id, id);
        }
        if session.kind().makes_shares() && !session.servers().is_empty() {
            let (tenant, servers) = (session.tenant(), session.servers());
            match session.status() {
                SessionStatus::InProgress => self.admission.runs(monotonic, id, tenant, servers),
                _ if session.waits_for_people() => {}
                _ => self.admission.expect(id, tenant, servers),
            }
        }
        self.sessions.insert(id, entry);
    }

    /// A session has ended: gives back what it held as an open one.
    pub(super) fn ended(&mut self, id: SessionId, monotonic: Duration) {
        let Some(entry) = self.sessions.get(&id) else { return };
        let session = &entry.session;
        self.deadlines.remove(&(entry.ends, id));
        if let Ceremony::Refresh { key } = session.ceremony() {
            self.refreshing.remove(&key.key_id);
        }
        self.open.give_back(session.tenant(), 1);
        self.admission.leave(monotonic, id, session.status() == SessionStatus::Completed);
        for party in session.servers() {
            self.busy.remove(party);
            if session.waits_for_people()
                && let Some(waiting) = self.waiting.get_mut(party)
            {
                waiting.give_back(session.tenant(), 1);
            }
        }
    }

    /// Open sessions of a server party.
    pub(super) fn busy(&self, party: &PartyId) -> usize {
        self.busy.of(party)
    }

    /// A new session is on the disk.
    pub(super) fn created(&mut self, id: SessionId) {
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.created = true;
            entry.changed.send_replace(());
        }
    }

    /// A session turned out to have lost its idempotency key to another.
    pub(super) fn unclaim(&mut self, id: SessionId) {
        if let Some(key) = self.sessions.get_mut(&id).and_then(|entry| entry.idempotency.take()) {
            self.idempotency.remove(&key);
        }
    }

    /// An end is on the disk: it may be told, and the oldest ended session be forgotten.
    pub(super) fn retire(&mut self, id: SessionId) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        entry.ending = false;
        entry.changed.send_replace(());
        self.ended.push_back(id);
        while self.ended.len() > ENDED_KEPT {
            let oldest = self.ended.pop_front().expect("longer than the bound");
            if let Some(key) = self.sessions.remove(&oldest).and_then(|entry| entry.idempotency) {
                self.idempotency.remove(&key);
            }
        }
    }
}

pub(super) fn remember_key(keys: &mut HashMap<KeyId, Arc<KeyRecord>>, record: Arc<KeyRecord>) {
    if keys.len() >= KEYS_CACHED {
        keys.clear();
    }
    keys.insert(record.key_id, record);
}

#[cfg(test)]
mod tests {
    use quorate_core::session::{Effects, NewSession};

    use super::*;

    fn session(id: u128, ceremony: Ceremony) -> Session {
        let holders = ceremony.key().map(|key| key.holders.clone()).unwrap_or_default();
        let participant = |party_id: PartyId| {
            (NewParticipant { party_id, device: DeviceInfo::default() }, [0; 32])
        };
        let new = NewSession {
            session_id: format!("{id:032x}").parse().unwrap(),
            tenant: Tenant::default(),
            ceremony,
            participants: holders.into_iter().map(participant).collect(),
            servers: Vec::new(),
            authorization: None,
            now: Timestamp(0),
            expires_at: Timestamp(1_000),
            label: None,
        };
        Session::create(new, &mut Effects::default()).unwrap()
    }

    #[test]
    fn a_session_that_was_created_with_an_epoch_of_before_is_refused() {
        let epoch = |epoch| {
            Arc::new(KeyEpoch {
                key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
                epoch,
                scheme: Scheme::EcdsaSecp256k1,
                threshold: Threshold::new(2, 2).unwrap(),
                public_key: PublicKey(vec![4; 65]),
                holders: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            })
        };
        let (tenant, created_at) = (Tenant::default(), Timestamp(0));
        let mut state = State::new(10, 1);
        remember_key(
            &mut state.keys,
            Arc::new(KeyRecord { key: epoch(1), tenant, created_at, label: None }),
        );
        let input = SignInput::Digest(Digest([7; 32]));
        for ceremony in [
            Ceremony::Refresh { key: epoch(0) },
            Ceremony::Sign { key: epoch(0), input: input.clone() },
        ] {
            let refused = state.check_epoch(&session(1, ceremony)).unwrap_err();
            assert_eq!(refused.code, ErrorCode::StaleEpoch);
        }
        for ceremony in
            [Ceremony::Refresh { key: epoch(1) }, Ceremony::Sign { key: epoch(1), input }]
        {
            state.check_epoch(&session(2, ceremony)).unwrap();
        }
    }
}
