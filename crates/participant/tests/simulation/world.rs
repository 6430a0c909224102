//! The scheduler: it chooses by its seed what happens next, and lets time pass when nothing can.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::session::{self, Command, Effects, NewSession, Reply};
use quorate_engine::{Identity, Outgoing};
use quorate_participant::{Incoming, Input, restarted};
use quorate_testkit::Seeded;
use quorate_types::vault::ShareState;
use quorate_types::*;

use crate::disk::Disk;
use crate::process::{Death, Done, Process};

/// How long a session may take, in milliseconds.
const LIFE: i64 = 60_000;

/// The seeds of a test: so many, or the one that the environment names.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("QUORATE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).collect(),
    }
}

/// What the network does to messages, in percent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Network {
    pub(crate) repeats: usize,
    pub(crate) loses: usize,
}

/// Whose process dies, and when.
pub(crate) type Crash = (&'static str, Death);

/// Lets each of three processes die before and after each action of its vault, of which there are
/// `least` or more. `crashed` runs a session with a seed, and says whether somebody died in it.
pub(crate) fn at_each_death(least: usize, crashed: impl Fn(u64, Crash) -> bool) {
    for seed in seeds(4) {
        for name in ["a", "b", "c"] {
            let mut at = 0;
            while crashed(seed, (name, Death::Before(at))) {
                assert!(crashed(seed, (name, Death::After(at))), "the same process");
                at += 1;
            }
            assert!(at >= least, "{name}: {at} actions of its vault were tried");
        }
    }
}

/// A machine that runs processes.
pub(crate) struct Holder {
    pub(crate) identity: Secret<[u8; 32]>,
    pub(crate) disk: Disk,
    /// How many processes it has run.
    processes: u8,
}

pub(crate) struct World {
    pub(crate) holders: BTreeMap<PartyId, Holder>,
    pub(crate) network: Network,
    /// The owner of a session closes it after so many things have happened.
    pub(crate) close_after: Option<usize>,
    seeded: Seeded,
    now: i64,
    sessions: u128,
}

/// How a session went.
pub(crate) struct Ran {
    pub(crate) view: SessionView,
    /// Who died.
    pub(crate) died: Vec<PartyId>,
}

/// A session that runs.
struct Running {
    session: session::Session,
    processes: BTreeMap<PartyId, Process>,
    /// Views on their way.
    views: BTreeMap<PartyId, SessionView>,
    /// Messages on their way, with their recipients.
    messages: Vec<(PartyId, Incoming)>,
    sent: u128,
    died: Vec<PartyId>,
}

enum Choice {
    Step(PartyId),
    Write(PartyId),
    View(PartyId),
    Deliver(usize),
}

pub(crate) fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

impl World {
    pub(crate) fn new(seed: u64, names: &[&str]) -> Self {
        let (network, seeded) = (Network::default(), Seeded(seed));
        let mut world = Self {
            holders: BTreeMap::new(),
            network,
            close_after: None,
            seeded,
            now: 1,
            sessions: 0,
        };
        for name in names {
            let identity = Identity::generate().secret();
            let holder = Holder { identity, disk: Disk::default(), processes: 0 };
            world.holders.insert(party(name), holder);
        }
        world
    }

    /// Gives the next session the id of the first.
    pub(crate) fn rewind(&mut self) {
        self.sessions = 0;
    }

    /// As if so many sessions had been here.
    pub(crate) fn skip_sessions(&mut self, count: u128) {
        self.sessions += count;
    }

    pub(crate) fn disk(&self, name: &str) -> &Disk {
        &self.holders[&party(name)].disk
    }

    /// Runs a session that makes a key of all holders.
    pub(crate) fn keygen(&mut self, scheme: Scheme, signers: i64, crash: Option<Crash>) -> Ran {
        let parties = i64::try_from(self.holders.len()).unwrap();
        let threshold = Threshold::new(signers, parties).unwrap();
        let names: Vec<_> = self.holders.keys().cloned().collect();
        self.run(Ceremony::Keygen { scheme, threshold }, &names, crash)
    }

    /// Runs a session that signs.
    pub(crate) fn sign(&mut self, key: KeyId, names: &[&str], crash: Option<Crash>) -> Ran {
        let record = self.holders.values().find_map(|holder| holder.disk.share(key)).unwrap();
        let key = record.record.key.clone();
        let input = match key.scheme {
            Scheme::Ed25519 => SignInput::Message(vec![9; 40].into()),
            _ => SignInput::Digest(Digest([9; 32])),
        };
        let names: Vec<_> = names.iter().map(|name| party(name)).collect();
        self.run(Ceremony::Sign { key, input }, &names, crash)
    }

    /// Runs a session that refreshes the epoch of a key that the coordinator believes active.
    pub(crate) fn refresh(&mut self, key: KeyId, epoch: u32, crash: Option<Crash>) -> Ran {
        let share = self.holders.values().find_map(|holder| holder.disk.share(key)).unwrap();
        let key = KeyEpoch { epoch, ..(*share.record.key).clone() };
        let names = key.holders.clone();
        self.run(Ceremony::Refresh { key: Arc::new(key) }, &names, crash)
    }

    /// Runs a session to its end, and its processes to theirs.
    pub(crate) fn run(
        &mut self,
        ceremony: Ceremony,
        names: &[PartyId],
        crash: Option<Crash>,
    ) -> Ran {
        let mut running = self.create(ceremony, names, crash);
        let mut turns = 0;
        while self.turn(&mut running) {
            self.now += 1;
            turns += 1;
            if self.close_after == Some(turns) && !running.session.status().is_final() {
                self.apply(&mut running, Command::Close).unwrap();
            }
        }
        assert!(running.session.status().is_final(), "a session ends");
        Ran { view: running.session.view(), died: running.died }
    }

    fn create(&mut self, ceremony: Ceremony, names: &[PartyId], crash: Option<Crash>) -> Running {
        self.sessions += 1;
        let participant = |name: &PartyId| {
            let new = NewParticipant {
                party_id: name.clone(),
                device: DeviceInfo::default(),
                on_behalf_of: None,
            };
            (new, [0; 32])
        };
        let new = NewSession {
            session_id: format!("{:032x}", self.sessions).parse().unwrap(),
            tenant: Tenant::default(),
            ceremony,
            participants: names.iter().map(participant).collect(),
            servers: names.to_vec(),
            reserve: None,
            authorization: None,
            now: Timestamp(self.now),
            expires_at: Timestamp(self.now + LIFE),
            label: None,
        };
        let session = session::Session::create(new, &mut Effects::default()).unwrap();
        let mut processes = BTreeMap::new();
        for name in names {
            let death = crash.and_then(|(who, death)| (party(who) == *name).then_some(death));
            let holder = self.holders.get_mut(name).unwrap();
            holder.processes += 1;
            let (identity, number) = (&holder.identity, holder.processes);
            let process = Process::begin(name, identity, number, session.view(), death);
            processes.insert(name.clone(), process);
        }
        Running {
            session,
            processes,
            views: BTreeMap::new(),
            messages: Vec::new(),
            sent: 0,
            died: Vec::new(),
        }
    }

    /// Lets one thing happen; `false` when all is over.
    fn turn(&mut self, running: &mut Running) -> bool {
        let mut choices = Vec::new();
        for (name, process) in &running.processes {
            if process.can_step() {
                choices.push(Choice::Step(name.clone()));
                choices.push(Choice::Write(name.clone()));
            }
        }
        choices.extend(running.views.keys().cloned().map(Choice::View));
        choices.extend((0..running.messages.len()).map(Choice::Deliver));
        if choices.is_empty() {
            return self.pass_time(running);
        }
        match choices.swap_remove(self.seeded.below(choices.len())) {
            Choice::Step(name) => self.step(running, &name),
            Choice::Write(name) => {
                let holder = self.holders.get_mut(&name).unwrap();
                running.processes.get_mut(&name).unwrap().write(&mut holder.disk);
            }
            Choice::View(name) => {
                let view = running.views.remove(&name).unwrap();
                if let Some(process) = running.processes.get_mut(&name) {
                    let done = process.feed(Input::View(Box::new(view)), self.now);
                    self.done(running, &name, done);
                }
            }
            Choice::Deliver(at) => self.deliver(running, at),
        }
        true
    }

    fn deliver(&mut self, running: &mut Running, at: usize) {
        let chance = self.seeded.below(100);
        let (to, message) = match chance < self.network.repeats {
            true => running.messages[at].clone(),
            false => running.messages.swap_remove(at),
        };
        if self.seeded.below(100) < self.network.loses {
            return;
        }
        if let Some(process) = running.processes.get_mut(&to) {
            process.inbox.push_back(message);
        }
    }

    /// Nothing can happen: the next deadline passes.
    fn pass_time(&mut self, running: &mut Running) -> bool {
        if !running.session.status().is_final() {
            self.now = self.now.max(running.session.expires_at().0);
            self.apply(running, Command::Expire).unwrap();
            return true;
        }
        let late = running
            .processes
            .iter()
            .find_map(|(name, process)| Some((process.deadline?, name.clone())));
        let Some((deadline, name)) = late else {
            assert!(running.processes.is_empty(), "everybody has left");
            return false;
        };
        self.now = self.now.max(deadline);
        let process = running.processes.get_mut(&name).unwrap();
        process.deadline = None;
        let done = process.feed(Input::Late, self.now);
        self.done(running, &name, done);
        true
    }

    fn step(&mut self, running: &mut Running, name: &PartyId) {
        let holder = self.holders.get_mut(name).unwrap();
        let process = running.processes.get_mut(name).unwrap();
        let done = process.step(&mut holder.disk, self.now);
        self.done(running, name, done);
    }

    fn done(&mut self, running: &mut Running, name: &PartyId, done: Done) {
        match done {
            Done::Nothing | Done::Waits => {}
            Done::Sent(outgoing) => running.send(name, outgoing),
            Done::Join { handshake, ready } => {
                let joined = self.join(running, name, handshake, ready);
                self.feed(running, name, Input::Joined(joined.map(Box::new)));
            }
            Done::Report(outcome) => {
                let view = self.report(running, name, outcome);
                self.feed(running, name, Input::Reported(view.map(Box::new)));
            }
            Done::Died => {
                running.leave(name);
                running.died.push(name.clone());
                // It comes back, at once or after the session, and says that it knows nothing.
                if self.seeded.below(2) == 0 {
                    let _ = self.report(running, name, PartyOutcome::Failure(restarted(name)));
                }
            }
            Done::Left => running.leave(name),
        }
    }

    fn feed(&mut self, running: &mut Running, name: &PartyId, input: Input) {
        if let Some(process) = running.processes.get_mut(name) {
            let done = process.feed(input, self.now);
            self.done(running, name, done);
        }
    }

    fn apply(&mut self, running: &mut Running, command: Command) -> Result<Reply> {
        let mut effects = Effects::default();
        let reply = running.session.apply(Timestamp(self.now), command, &mut effects);
        if effects.ready {
            // A place for the keygen is free at once.
            let admitted = running.session.apply(Timestamp(self.now), Command::Admit, &mut effects);
            admitted.unwrap();
        }
        let view = running.session.view();
        for name in running.processes.keys() {
            running.views.insert(name.clone(), view.clone());
        }
        reply
    }

    fn join(
        &mut self,
        running: &mut Running,
        name: &PartyId,
        handshake: Handshake,
        ready: bool,
    ) -> Result<JoinedSession> {
        let command = Command::Join {
            party: name.clone(),
            token_hash: [0; 32],
            device: DeviceInfo::default(),
            handshake: Some(handshake),
            ready,
            attempt: 0,
        };
        let Reply::Joined { party_index } = self.apply(running, command)? else {
            panic!("a join is answered by a place");
        };
        Ok(JoinedSession { party_index, session: running.session.view() })
    }

    fn report(
        &mut self,
        running: &mut Running,
        name: &PartyId,
        outcome: PartyOutcome,
    ) -> Result<SessionView> {
        match self.apply(running, Command::Report { party: name.clone(), attempt: 0, outcome }) {
            Ok(_) => Ok(running.session.view()),
            // A session that has ended takes no report; its view is the answer.
            Err(error) if error.code == ErrorCode::SessionExpired => Ok(running.session.view()),
            Err(error) => Err(error),
        }
    }

    /// Lets the share of an epoch sign at one holder, with the confirmations of all: as if the others
    /// had sent it theirs.
    pub(crate) fn certify(&mut self, key: KeyId, epoch: u32, name: &str) {
        let identities: BTreeMap<_, _> = self
            .holders
            .iter()
            .map(|(name, holder)| (name.clone(), Identity::from_secret(&holder.identity)))
            .collect();
        let holder = self.holders.get_mut(&party(name)).unwrap();
        holder.disk.certify(&party(name), &identities, (key, epoch));
    }

    /// The state of each holder's share of a key.
    pub(crate) fn states(&self, key: KeyId) -> Vec<Option<ShareState>> {
        let state = |holder: &Holder| holder.disk.share(key).map(|share| share.state);
        self.holders.values().map(state).collect()
    }
}

impl Running {
    fn send(&mut self, from: &PartyId, outgoing: Outgoing) {
        let everybody: Vec<_> =
            self.processes.keys().filter(|name| *name != from).cloned().collect();
        let to = outgoing.to.map_or(everybody, |to| vec![to]);
        for to in to {
            self.sent += 1;
            let message_id = MessageId(format!("{:032x}", self.sent).parse().unwrap());
            let payload = outgoing.payload.clone();
            self.messages.push((to, Incoming { message_id, from: from.clone(), payload }));
        }
    }

    fn leave(&mut self, name: &PartyId) {
        self.processes.remove(name);
        self.views.remove(name);
        self.messages.retain(|(to, _)| to != name);
    }
}
