//! The sessions in memory: the open ones with their deadlines, and those that ended lately.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::admission::Admission;
use quorate_core::budget::{Budget, Over};
use quorate_core::choice::Pair;
use quorate_core::health::Health;
use quorate_core::key::refuse_frozen;
use quorate_core::session::Session;
use quorate_core::tally::Tally;
use quorate_ports::store::{IdempotencyRow, Overtaken};
use quorate_types::*;
use tokio::sync::watch;

use super::lending;
use crate::ENDED_KEPT;

/// Keys kept in memory for signing, and epochs with their bans; about 0.5 KiB each. When full, the
/// cache starts afresh.
pub(super) const KEYS_CACHED: usize = 10_000;

/// A session in memory.
pub(super) struct SessionEntry {
    pub(super) session: Session,
    /// Its deadline on the monotonic clock.
    pub(super) ends: Duration,
    /// When it last moved, on the monotonic clock.
    pub(super) moved: Duration,
    /// When it is looked at whether its parties are silent.
    pub(super) looked_at: Option<Duration>,
    /// The state that was submitted last, where nobody waits until it is written.
    pub(super) interim: Option<Overtaken>,
    pub(super) changed: watch::Sender<()>,
    /// Its creation is on the disk.
    pub(super) created: bool,
    /// The end is decided and not yet durable: nobody is told before it is.
    pub(super) ending: bool,
    /// The share that is lent in it, until it ends.
    pub(super) lent: Option<LentShare>,
    /// The idempotency key that made it.
    pub(super) idempotency: Option<(Tenant, String)>,
}

impl SessionEntry {
    /// A session that is not on the disk yet and ends `lifetime` milliseconds from now.
    pub(super) fn new(
        session: Session,
        monotonic: Duration,
        lent: Option<LentShare>,
        idempotency: Option<(Tenant, String)>,
    ) -> Self {
        let lifetime = session.expires_at().millis_since(session.created_at());
        let ends = monotonic.saturating_add(Duration::from_millis(lifetime));
        let changed = watch::Sender::new(());
        let (moved, looked_at, interim) = (monotonic, None, None);
        let (created, ending) = (false, false);
        Self {
            session,
            ends,
            moved,
            looked_at,
            interim,
            changed,
            created,
            ending,
            lent,
            idempotency,
        }
    }

    /// A session found at start: it has what is left of its lifetime by the wall clock, and never
    /// more than the whole, also when the clock has been set back meanwhile.
    pub(super) fn restored(
        session: Session,
        lent: Option<LentShare>,
        now: Timestamp,
        monotonic: Duration,
    ) -> Self {
        let left = session.expires_at().millis_since(now);
        let mut entry = Self { created: true, ..Self::new(session, monotonic, lent, None) };
        entry.ends = entry.ends.min(monotonic.saturating_add(Duration::from_millis(left)));
        entry
    }

    /// Bytes of the share that is lent in it.
    fn lent_bytes(&self) -> usize {
        self.lent.as_ref().map_or(0, |lent| lent.package.len())
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

/// The places of an open session at server parties.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Seats {
    tenant: Tenant,
    servers: Vec<PartyId>,
    /// Whether they wait for people there.
    wait: bool,
}

impl Seats {
    pub(super) fn of(session: &Session) -> Self {
        let (tenant, servers) = (session.tenant().clone(), session.servers().to_vec());
        Self { tenant, servers, wait: session.waits_for_people() }
    }
}

/// How many open sessions there are.
#[derive(Default)]
pub(super) struct OpenSessions {
    pub(super) open: u64,
    pub(super) started: u64,
    pub(super) refreshing: u64,
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
    /// Seats that delegates take for users in open sessions, by tenant. Their bound is of what waits.
    delegated: Budget<Tenant>,
    /// Bytes of shares that are lent in open sessions, by tenant.
    pub(super) lent: Budget<Tenant>,
    /// Ended sessions that are still in memory, oldest first.
    ended: VecDeque<SessionId>,
    /// Open sessions by their monotonic deadline.
    pub(super) deadlines: BTreeSet<(Duration, SessionId)>,
    /// When it is looked at whether the parties of an open session are silent.
    pub(super) looks: BTreeSet<(Duration, SessionId)>,
    /// How server parties have done.
    pub(super) health: Health,
    /// Holders of a key that do not sign together in an epoch; of keys that have been signed with.
    pub(super) banned: HashMap<(KeyId, u32), Vec<Pair>>,
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
            delegated: Budget::new(usize::MAX),
            lent: Budget::new(lending::IN_ALL),
            ended: VecDeque::new(),
            deadlines: BTreeSet::new(),
            looks: BTreeSet::new(),
            health: Health::default(),
            banned: HashMap::new(),
            idempotency: HashMap::new(),
            keys: HashMap::new(),
            refreshing: HashMap::new(),
        }
    }

    /// Refuses a session of a key that was frozen or an epoch that was replaced while it was being
    /// created, and a second refresh of one key at once: both would make the same epoch.
    pub(super) fn check_epoch(&self, session: &Session) -> Result<()> {
        let Some(key) = session.ceremony().key() else { return Ok(()) };
        let id = key.key_id;
        let known = self.keys.get(&id);
        known.map_or(Ok(()), |known| refuse_frozen(known))?;
        if known.is_some_and(|known| known.epoch != key.epoch) {
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
        self.delegated.add(session.tenant(), session.delegated().count());
        self.lent.add(session.tenant(), entry.lent_bytes());
        let seats = Seats::of(session);
        self.take(&seats);
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
        self.watch(id, monotonic);
    }

    /// Counts the places that a session takes at server parties.
    pub(super) fn take(&mut self, seats: &Seats) {
        for party in &seats.servers {
            self.busy.add(party.clone());
            if seats.wait {
                let waiting = self.waiting.entry(party.clone());
                let waiting = waiting.or_insert_with(|| Budget::new(WAITING_AT_PARTY));
                waiting.add(&seats.tenant, 1);
            }
        }
    }

    /// Gives them back.
    pub(super) fn give_back(&mut self, seats: &Seats) {
        for party in &seats.servers {
            self.busy.remove(party);
            if seats.wait
                && let Some(waiting) = self.waiting.get_mut(party)
            {
                waiting.give_back(&seats.tenant, 1);
            }
        }
    }

    /// A session has ended: gives back what it held as an open one.
    pub(super) fn ended(&mut self, id: SessionId, monotonic: Duration) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let lent = entry.lent_bytes();
        entry.lent = None;
        let session = &entry.session;
        self.lent.give_back(session.tenant(), lent);
        self.deadlines.remove(&(entry.ends, id));
        if let Some(at) = entry.looked_at {
            self.looks.remove(&(at, id));
        }
        if let Ceremony::Refresh { key } = session.ceremony() {
            self.refreshing.remove(&key.key_id);
        }
        self.open.give_back(session.tenant(), 1);
        self.delegated.give_back(session.tenant(), session.delegated().count());
        self.admission.leave(monotonic, id, session.status() == SessionStatus::Completed);
        let seats = Seats::of(session);
        self.give_back(&seats);
    }

    /// When a deadline passes next or a session is to be looked at, on the monotonic clock.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let first = |all: &BTreeSet<(Duration, SessionId)>| all.first().map(|(at, _)| *at);
        first(&self.deadlines).into_iter().chain(first(&self.looks)).min()
    }

    pub(super) fn open_sessions(&self) -> OpenSessions {
        let started = |entry: &&SessionEntry| entry.session.status() == SessionStatus::InProgress;
        OpenSessions {
            open: self.open.used() as u64,
            started: self.sessions.values().filter(started).count() as u64,
            refreshing: self.refreshing.len() as u64,
        }
    }

    /// Seats of a tenant's open sessions that delegates take for users.
    pub(super) fn delegated(&self, tenant: &Tenant) -> u64 {
        self.delegated.used_by(tenant) as u64
    }

    /// Open sessions that use a key.
    pub(super) fn open_with(&self, key: KeyId) -> Vec<SessionId> {
        let uses = |entry: &&SessionEntry| {
            let session = &entry.session;
            !session.status().is_final()
                && session.ceremony().key().is_some_and(|used| used.key_id == key)
        };
        self.sessions.values().filter(uses).map(|entry| entry.session.id()).collect()
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
        // A session that is being created has to find that its key was frozen.
        keys.retain(|_, key| key.frozen.is_some());
        if keys.len() >= KEYS_CACHED {
            keys.clear();
        }
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
            (
                NewParticipant { party_id, device: DeviceInfo::default(), on_behalf_of: None },
                [0; 32],
            )
        };
        let new = NewSession {
            session_id: format!("{id:032x}").parse().unwrap(),
            tenant: Tenant::default(),
            ceremony,
            participants: holders.into_iter().map(participant).collect(),
            servers: Vec::new(),
            reserve: None,
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
            Arc::new(KeyRecord { key: epoch(1), tenant, created_at, label: None, frozen: None }),
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
