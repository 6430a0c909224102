//! Random calls of clients that come and go: named invariants hold after each.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use quorate_core::groups::*;
use quorate_types::{ClientAddress, GroupId, GroupKind, SessionId, Timestamp};
use uuid::Uuid;

const CLIENTS: usize = 5;
const PARTIES: u16 = 3;

#[derive(Clone, Debug)]
enum Step {
    Create {
        by: usize,
    },
    Join {
        by: usize,
        group: usize,
    },
    Open {
        by: usize,
        group: usize,
        kind: GroupKind,
    },
    Signup {
        by: usize,
        session: usize,
        kind: GroupKind,
    },
    Load {
        by: usize,
        session: usize,
        kind: GroupKind,
        number: u16,
    },
    Participant {
        by: usize,
        session: usize,
        index: u16,
        number: u16,
    },
    Say {
        by: usize,
        session: usize,
        round: u16,
        sender: u16,
        receiver: Option<u16>,
    },
    Finish {
        by: usize,
        session: usize,
        number: u16,
    },
    Propose {
        by: usize,
        session: usize,
    },
    Signed {
        by: usize,
        session: usize,
    },
    Token {
        by: usize,
    },
    /// Breaks; the last `lost` events were not written.
    Break {
        by: usize,
        lost: u64,
    },
    Resume {
        by: usize,
    },
    Pass {
        millis: i64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (by, group, session) = (0..CLIENTS, 0..3_usize, 0..4_usize);
    let kind = prop_oneof![3 => Just(GroupKind::Keygen), 2 => Just(GroupKind::Sign)];
    let number = 0..PARTIES + 2;
    let at = (by.clone(), session.clone());
    prop_oneof![
        2 => by.clone().prop_map(|by| Step::Create { by }),
        6 => (by.clone(), group.clone()).prop_map(|(by, group)| Step::Join { by, group }),
        3 => (by.clone(), group, kind.clone())
            .prop_map(|(by, group, kind)| Step::Open { by, group, kind }),
        9 => (at.clone(), kind.clone())
            .prop_map(|((by, session), kind)| Step::Signup { by, session, kind }),
        4 => (at.clone(), kind, number.clone())
            .prop_map(|((by, session), kind, number)| Step::Load { by, session, kind, number }),
        3 => (at.clone(), number.clone(), number.clone())
            .prop_map(|((by, session), index, number)| Step::Participant { by, session, index, number }),
        12 => (at.clone(), 0..3_u16, number.clone(), prop::option::of(number.clone())).prop_map(
            |((by, session), round, sender, receiver)| Step::Say { by, session, round, sender, receiver }),
        5 => (at.clone(), number)
            .prop_map(|((by, session), number)| Step::Finish { by, session, number }),
        1 => at.clone().prop_map(|(by, session)| Step::Propose { by, session }),
        1 => at.prop_map(|(by, session)| Step::Signed { by, session }),
        2 => by.clone().prop_map(|by| Step::Token { by }),
        2 => (by.clone(), 0..3_u64).prop_map(|(by, lost)| Step::Break { by, lost }),
        3 => by.prop_map(|by| Step::Resume { by }),
        1 => prop_oneof![Just(1), Just(60_000), Just(3_600_000)].prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Restart),
    ]
}

fn caller(connection: ConnectionId) -> quorate_core::groups::Peer {
    quorate_core::groups::Peer { connection, address: ClientAddress::default() }
}

/// A client as it sees itself.
#[derive(Default)]
struct Peer {
    connection: ConnectionId,
    token: Option<TokenHash>,
    /// Its connection has the place of its token.
    attached: bool,
    /// Events since its token, as far as it has them.
    seen: u64,
}

struct World {
    strict: bool,
    core: Groups,
    now: Timestamp,
    last: u64,
    peers: Vec<Peer>,
    groups: Vec<GroupId>,
    sessions: Vec<(Place, GroupKind)>,
    started: HashSet<SessionId>,
    closed: HashSet<SessionId>,
    /// What a store would have.
    clients: BTreeMap<ClientId, TokenHash>,
    group_rows: BTreeMap<GroupId, GroupRecord>,
    session_rows: BTreeMap<SessionId, (Place, SessionRecord)>,
}

fn rules(strict: bool) -> Rules {
    let compat = if strict { Compat::Strict } else { Compat::Original };
    Rules { compat, ..Rules::default() }
}

impl World {
    fn new(strict: bool) -> Self {
        let mut world = Self {
            strict,
            core: Groups::new(rules(strict)),
            now: Timestamp(0),
            last: 0,
            peers: Vec::new(),
            groups: Vec::new(),
            sessions: Vec::new(),
            started: HashSet::new(),
            closed: HashSet::new(),
            clients: BTreeMap::new(),
            group_rows: BTreeMap::new(),
            session_rows: BTreeMap::new(),
        };
        for _ in 0..CLIENTS {
            let connection = world.next();
            world.peers.push(Peer { connection, ..Peer::default() });
        }
        world
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn place(&self, session: usize) -> Option<Place> {
        let back = self.sessions.len().checked_sub(session + 1)?;
        Some(self.sessions[back].0)
    }

    fn group(&self, group: usize) -> Option<GroupId> {
        Some(self.groups[self.groups.len().checked_sub(group + 1)?])
    }

    /// The command of a step that is a call, and who makes it.
    fn command(&mut self, step: &Step) -> Option<(usize, Command)> {
        let frame = bytes::Bytes::from_static(b"words");
        Some(match *step {
            Step::Create { by } => {
                let id = GroupId(Uuid::from_u128(self.next().into()));
                self.groups.push(id);
                let params = Parameters { parties: PARTIES, threshold: 1 };
                (by, Command::GroupCreate { id, label: "g".into(), params })
            }
            Step::Join { by, group } => (by, Command::GroupJoin(self.group(group)?)),
            Step::Open { by, group, kind } => {
                let (group, id) =
                    (self.group(group)?, SessionId(Uuid::from_u128(self.next().into())));
                self.sessions.push((Place { group, session: id }, kind));
                (by, Command::SessionCreate { group, id, kind, value: "1".into() })
            }
            Step::Signup { by, session, kind } => {
                (by, Command::SessionSignup(self.place(session)?, kind))
            }
            Step::Load { by, session, kind, number } => {
                (by, Command::SessionLoad(self.place(session)?, kind, number))
            }
            Step::Participant { by, session, index, number } => {
                let place = self.place(session)?;
                (by, Command::SessionParticipant { place, index, number })
            }
            Step::Say { by, session, round, sender, receiver } => {
                let place = self.place(session)?;
                let kind = self.sessions.iter().find(|(at, _)| *at == place)?.1;
                (by, Command::SessionMessage { place, kind, round, sender, receiver, frame })
            }
            Step::Finish { by, session, number } => {
                (by, Command::SessionFinish(self.place(session)?, number))
            }
            Step::Propose { by, session } => {
                (by, Command::NotifyProposal(self.place(session)?, frame))
            }
            Step::Signed { by, session } => {
                (by, Command::NotifySigned(self.place(session)?, frame))
            }
            Step::Token { by } => (by, Command::Token(self.token())),
            _ => return None,
        })
    }

    fn token(&mut self) -> TokenHash {
        let mut token = [0; 32];
        token[..8].copy_from_slice(&self.next().to_be_bytes());
        token
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        if let Some((by, command)) = self.command(step) {
            return self.call(by, command);
        }
        let mut effects = Effects::default();
        match *step {
            Step::Break { by, lost } => {
                let connection = self.next();
                let peer = &mut self.peers[by];
                let mut written = 0;
                if std::mem::take(&mut peer.attached) {
                    peer.seen = peer.seen.saturating_sub(lost);
                    written = peer.seen;
                }
                let old = std::mem::replace(&mut peer.connection, connection);
                self.core.disconnect(self.now, old, written, &mut effects);
            }
            Step::Resume { by } => return self.resume(by),
            Step::Pass { millis } => {
                self.now.0 += millis;
                self.core.expire(self.now, &mut effects);
                prop_assert!(self.core.next_expiry().is_none_or(|next| next > self.now));
            }
            Step::Restart => self.restart(&mut effects),
            _ => return Ok(()),
        }
        self.check(None, &effects)?;
        self.keep(effects.changes)
    }

    fn call(&mut self, by: usize, command: Command) -> Result<(), TestCaseError> {
        let connection = self.peers[by].connection;
        let speech =
            matches!(command, Command::SessionMessage { .. } | Command::NotifyProposal(..));
        let signed = matches!(command, Command::NotifySigned(..)) && self.strict;
        let token = if let Command::Token(token) = command { Some(token) } else { None };
        let mut effects = Effects::default();
        let reply = self.core.apply(self.now, caller(connection), command.clone(), &mut effects);
        if reply.is_err() {
            prop_assert!(effects.is_empty(), "a refusal has no effect");
            return Ok(());
        }
        if let Some(token) = token {
            let peer = &mut self.peers[by];
            if !std::mem::replace(&mut peer.attached, true) {
                peer.seen = 0;
            }
            peer.token = Some(token);
        }
        // In the original mode a party may write to itself.
        let to_itself =
            !self.strict && matches!(command, Command::SessionMessage { receiver: Some(_), .. });
        let quiet = (speech || signed) && !to_itself;
        self.check(quiet.then_some(connection), &effects)?;
        self.keep(effects.changes)
    }

    fn resume(&mut self, by: usize) -> Result<(), TestCaseError> {
        let Some(token) = self.peers[by].token else {
            return Ok(());
        };
        let connection = self.next();
        let old = self.peers[by].connection;
        let seen = self.peers[by].seen;
        let mut effects = Effects::default();
        let command = Command::Resume { token, seen: Some(seen) };
        if self.core.apply(self.now, caller(connection), command, &mut effects).is_err() {
            let mut gone = Effects::default();
            self.core.disconnect(self.now, connection, 0, &mut gone);
            return self.keep(gone.changes);
        }
        for (number, _) in &effects.missed {
            self.peers[by].seen += 1;
            prop_assert_eq!(*number, self.peers[by].seen, "missed events are contiguous");
        }
        prop_assert!(effects.replaced.iter().all(|replaced| *replaced == old));
        self.core.disconnect(self.now, old, seen, &mut effects);
        self.peers[by].connection = connection;
        self.peers[by].attached = true;
        self.keep(effects.changes)
    }

    /// What holds for all that is told.
    fn check(
        &mut self,
        quiet: Option<ConnectionId>,
        effects: &Effects,
    ) -> Result<(), TestCaseError> {
        for (event, to) in &effects.deliveries {
            let mut once = BTreeSet::new();
            for (connection, number) in to {
                let twice = !once.insert(*connection);
                prop_assert!(!(self.strict && twice), "no duplicate deliveries");
                prop_assert!(quiet != Some(*connection), "no echo to the sender");
                let peer = self.peers.iter_mut().find(|peer| peer.connection == *connection);
                let Some(peer) = peer else {
                    return Err(TestCaseError::fail("an event for nobody"));
                };
                if peer.token.is_some() && *number > 0 {
                    peer.seen += 1;
                    prop_assert_eq!(*number, peer.seen, "events are numbered without a gap");
                }
            }
            if let (true, Event::SessionSignup(id) | Event::SessionLoad(id)) = (self.strict, event)
            {
                prop_assert!(self.started.insert(*id), "a quorum is told once");
            }
        }
        Ok(())
    }

    /// Keeps changes as a store would, and looks at the records.
    fn keep(&mut self, changes: Vec<Change>) -> Result<(), TestCaseError> {
        for change in changes {
            match change {
                Change::Client(id, token) => drop(self.clients.insert(id, token)),
                Change::ForgetClient(id) => drop(self.clients.remove(&id)),
                Change::Group(id, record) => {
                    let once: BTreeSet<_> = record.members.iter().collect();
                    prop_assert_eq!(once.len(), record.members.len(), "a member is in once");
                    prop_assert!(once.len() <= PARTIES.into(), "a group is never overfull");
                    self.group_rows.insert(id, record);
                }
                Change::ForgetGroup(id) => {
                    self.group_rows.remove(&id);
                    self.session_rows.retain(|_, (place, _)| place.group != id);
                }
                Change::Session(place, record) => {
                    self.look(place, &record)?;
                    self.session_rows.insert(place.session, (place, record));
                }
                Change::ForgetSession(id) => drop(self.session_rows.remove(&id)),
            }
        }
        Ok(())
    }

    fn look(&mut self, place: Place, record: &SessionRecord) -> Result<(), TestCaseError> {
        if !self.strict {
            return Ok(());
        }
        let numbers: BTreeSet<_> = record.signups.iter().map(|(number, _)| *number).collect();
        let owners: BTreeSet<_> = record.signups.iter().map(|(_, owner)| *owner).collect();
        prop_assert_eq!(numbers.len(), record.signups.len(), "numbers are unique");
        prop_assert_eq!(owners.len(), record.signups.len(), "a client has one number");
        prop_assert!(numbers.iter().all(|number| (1..=PARTIES).contains(number)));
        let quorum = if record.kind == GroupKind::Keygen { PARTIES.into() } else { 2 };
        prop_assert!(numbers.len() <= quorum, "never more than the quorum");
        prop_assert_eq!(
            record.started,
            self.started.contains(&place.session) || numbers.len() == quorum
        );
        prop_assert!(record.finished.iter().all(|number| numbers.contains(number)));
        if record.closed {
            self.closed.insert(place.session);
        }
        prop_assert_eq!(record.closed, self.closed.contains(&place.session), "the end is final");
        Ok(())
    }

    /// All connections break and the relay starts anew from what was kept.
    fn restart(&mut self, effects: &mut Effects) {
        self.core = Groups::new(rules(self.strict));
        let kept = Kept {
            clients: self.clients.iter().map(|(id, token)| (*id, *token)).collect(),
            groups: self.group_rows.iter().map(|(id, row)| (*id, row.clone())).collect(),
            sessions: self.session_rows.values().cloned().collect(),
        };
        self.core.restore(self.now, kept, effects);
        for peer in 0..CLIENTS {
            let connection = self.next();
            let Peer { token, seen, .. } = self.peers[peer];
            self.peers[peer] = Peer { connection, token, seen, attached: false };
        }
    }

    /// When all are gone and all time is over, nothing is left.
    fn end(mut self) -> Result<(), TestCaseError> {
        for by in 0..CLIENTS {
            self.run(&Step::Break { by, lost: 0 })?;
        }
        self.run(&Step::Pass { millis: 60_000 })?;
        prop_assert_eq!(self.core.counts(), Counts::default());
        prop_assert_eq!(self.core.next_expiry(), None);
        prop_assert!(self.clients.is_empty() && self.group_rows.is_empty());
        prop_assert!(self.session_rows.is_empty());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn invariants_hold_under_both_modes(steps in prop::collection::vec(step(), 1..120), strict: bool) {
        let mut world = World::new(strict);
        for step in &steps {
            world.run(step)?;
        }
        world.end()?;
    }
}
