//! One test per rule.

mod places;
mod rules;

use quorate_types::{ErrorCode, GroupKind};
use uuid::Uuid;

use super::*;

/// A relay with a clock that stands, and what came of each call.
struct Bench {
    core: Groups,
    now: Timestamp,
    ids: u128,
    changes: Vec<Change>,
}

type Told = Vec<(ConnectionId, Event)>;

impl Bench {
    fn new(compat: Compat, limits: GroupLimits) -> Self {
        let core = Groups::new(Rules { compat, limits, ..Rules::default() });
        Self { core, now: Timestamp(1_000), ids: 0, changes: Vec::new() }
    }

    fn strict() -> Self {
        Self::new(Compat::Strict, GroupLimits::default())
    }

    fn original() -> Self {
        Self::new(Compat::Original, GroupLimits::default())
    }

    fn uuid(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn after(&mut self, effects: Effects) -> Told {
        self.changes.extend(effects.changes);
        let copies = |(event, to): (Event, Vec<Recipient>)| {
            to.into_iter().map(move |(connection, _)| (connection, event.clone()))
        };
        effects.deliveries.into_iter().flat_map(copies).collect()
    }

    fn call(&mut self, connection: u64, command: Command) -> (Result<Reply, CallError>, Told) {
        let mut effects = Effects::default();
        let reply = self.core.apply(self.now, peer(connection), command, &mut effects);
        if reply.is_err() {
            assert!(effects.is_empty(), "a refusal changes nothing");
        }
        (reply, self.after(effects))
    }

    fn ask(&mut self, connection: u64, command: Command) -> Reply {
        self.call(connection, command).0.unwrap()
    }

    fn refused(&mut self, connection: u64, command: Command) -> CallError {
        self.call(connection, command).0.unwrap_err()
    }

    fn create(&mut self, by: u64, parties: u16, threshold: u16) -> Result<GroupId, CallError> {
        let id = GroupId(self.uuid());
        let params = Parameters { parties, threshold };
        self.call(by, Command::GroupCreate { id, label: "g".into(), params }).0.map(|_| id)
    }

    /// Connections 1 to `parties` in a group, and a session in it.
    fn session(&mut self, parties: u16, threshold: u16, kind: GroupKind) -> Place {
        let group = self.create(1, parties, threshold).unwrap();
        for member in 2..=parties.into() {
            self.ask(member, Command::GroupJoin(group));
        }
        Place { group, session: self.open(1, group, kind).unwrap() }
    }

    fn open(&mut self, by: u64, group: GroupId, kind: GroupKind) -> Result<SessionId, CallError> {
        let id = SessionId(self.uuid());
        let value = "null".into();
        self.call(by, Command::SessionCreate { group, id, kind, value }).0.map(|_| id)
    }

    fn signup(
        &mut self,
        by: u64,
        place: Place,
        kind: GroupKind,
    ) -> (Result<Reply, CallError>, Told) {
        self.call(by, Command::SessionSignup(place, kind))
    }

    fn leave(&mut self, connection: u64, written: u64) {
        let mut effects = Effects::default();
        self.core.disconnect(self.now, connection, written, &mut effects);
        self.after(effects);
    }

    fn pass(&mut self, millis: i64) {
        self.now.0 += millis;
        let mut effects = Effects::default();
        self.core.expire(self.now, &mut effects);
        self.after(effects);
    }
}

/// A connection, and an address that it shares with one whose number is 100 higher.
fn peer(connection: u64) -> Peer {
    let last = u8::try_from(connection % 100).unwrap();
    Peer { connection, address: ClientAddress::of([10, 0, 0, last].into()) }
}

/// A message under a number.
fn say(place: Place, kind: GroupKind, round: u16, sender: u16, receiver: Option<u16>) -> Command {
    let frame = "m".into();
    Command::SessionMessage { place, kind, round, sender, receiver, frame }
}

/// Who was told, in order.
fn whom(told: &Told) -> Vec<u64> {
    told.iter().map(|(connection, _)| *connection).collect()
}
