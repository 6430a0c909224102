//! Frames of the group relay: parsed, applied to the core in both modes, answered.
//!
//! An input is lines. The first character of a line is the number of a connection, 0 to 7; what
//! follows is a frame, or a sign and a number: `-` ends the connection, which has written so many
//! events; `!` says that so many have arrived; `+` lets so many milliseconds pass. New ids and
//! tokens are numbered, so that a later line can name them.

use std::collections::{BTreeMap, HashMap};

use quorate_core::groups::{
    CallError, Change, ClientId, Command, Compat, ConnectionId, Counts, Effects, GroupLimits,
    GroupRecord, Groups, Kept, Peer, Place, Rules, SessionRecord, TokenHash,
};
use quorate_front_jsonrpc::translate::{self, Asked};
use quorate_types::{ClientAddress, GroupId, SessionId, Timestamp};
use quorate_wire::jsonrpc::{RpcError, RpcRequest};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Notes;

/// Pieces of frames.
pub(crate) const WORDS: &[&str] = &[
    "\n0",
    "\n1",
    "\n2",
    "\n0-0",
    "\n1-9",
    "\n0+70000",
    "\n2+4000000",
    "\n1!3",
    "\n",
    r#"{"jsonrpc":"2.0","id":1,"method":""#,
    r#""params":"#,
    r#""id":"#,
    "null",
    "[]",
    "[null]",
    "Group.create",
    "Group.join",
    "Session.create",
    "Session.join",
    "Session.signup",
    "Session.load",
    "Session.participant",
    "Session.message",
    "Session.finish",
    "Notify.proposal",
    "Notify.signed",
    "Connection.token",
    "Connection.resume",
    "keygen",
    "sign",
    "00000000-0000-0000-0000-000000000001",
    "00000000-0000-0000-0000-000000000002",
    "00000000-0000-0000-0000-000000000003",
    r#""token-1""#,
    r#""token-2""#,
    r#"{"parties":3,"threshold":1}"#,
    r#"{"round":0,"sender":1,"receiver":2,"uuid":"u","body":"#,
    "\"",
    "\\u0000",
    "\\ud800",
    "1e400",
    "18446744073709551616",
    "[[[[[[[[",
    "{\"a\":",
    "}",
    "]",
];

/// Bounds that an input can reach.
const LIMITS: GroupLimits = GroupLimits {
    groups: 4,
    groups_per_client: 3,
    parties: 8,
    sessions_per_group: 3,
    sessions: 7,
    label_bytes: 32,
    value_bytes: 256,
    value_total_bytes: 512,
    signups: 12,
    missed_events: 4,
    missed_bytes: 2_048,
    missed_total_bytes: 4_096,
    tokens: 3,
};

/// After this nothing is left of anything.
const FOREVER: i64 = 1 << 50;

/// Runs an input.
pub(crate) fn run(input: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(input);
    let mut notes = Notes::default();
    for compat in [Compat::Strict, Compat::Original] {
        let mut world = World::new(compat);
        for line in text.lines() {
            world.line(line, &mut notes);
        }
        world.end();
    }
    notes.end()
}

/// What a store would have.
#[derive(Default)]
struct Mirror {
    clients: BTreeMap<ClientId, TokenHash>,
    groups: BTreeMap<GroupId, GroupRecord>,
    sessions: BTreeMap<SessionId, (Place, SessionRecord)>,
}

impl Mirror {
    fn keep(&mut self, change: Change) {
        match change {
            Change::Client(id, token) => drop(self.clients.insert(id, token)),
            Change::ForgetClient(id) => drop(self.clients.remove(&id)),
            Change::Group(id, record) => drop(self.groups.insert(id, record)),
            Change::ForgetGroup(id) => {
                self.groups.remove(&id);
                self.sessions.retain(|_, (place, _)| place.group != id);
            }
            Change::Session(place, record) => {
                self.sessions.insert(place.session, (place, record));
            }
            Change::ForgetSession(id) => drop(self.sessions.remove(&id)),
        }
    }

    fn kept(&self) -> Kept {
        Kept {
            clients: self.clients.iter().map(|(id, token)| (*id, *token)).collect(),
            groups: self.groups.iter().map(|(id, record)| (*id, record.clone())).collect(),
            sessions: self.sessions.values().cloned().collect(),
        }
    }
}

struct World {
    rules: Rules,
    core: Groups,
    mirror: Mirror,
    now: Timestamp,
    /// The connection behind each number, if it has been used, and the event it was told last.
    seats: [Option<(ConnectionId, u64)>; 8],
    last_connection: ConnectionId,
    last_id: u64,
    last_token: u64,
}

impl World {
    fn new(compat: Compat) -> Self {
        let rules = Rules { compat, limits: LIMITS, ..Rules::default() };
        Self {
            rules,
            core: Groups::new(rules),
            mirror: Mirror::default(),
            now: Timestamp(0),
            seats: [None; 8],
            last_connection: 0,
            last_id: 0,
            last_token: 0,
        }
    }

    fn line(&mut self, line: &str, notes: &mut Notes) {
        let digit = line.chars().next().and_then(|first| first.to_digit(8));
        let seat = digit.map_or(0, |digit| digit as usize);
        let rest = digit.map_or(line, |_| &line[1..]);
        let number = |text: &str| text.trim().parse::<u32>().unwrap_or(1);
        let id = self.seats[seat].map(|(id, _)| id);
        if let Some(written) = rest.strip_prefix('-') {
            self.leave(seat, number(written).into());
        } else if let Some(event) = rest.strip_prefix('!') {
            id.into_iter().for_each(|id| self.core.arrived(id, number(event).into()));
        } else if let Some(time) = rest.strip_prefix('+') {
            let mut effects = Effects::default();
            self.now.0 += i64::from(number(time));
            self.core.expire(self.now, &mut effects);
            self.carry_out(None, effects, notes);
        } else {
            let answer = self.frame(seat, rest, notes);
            check_answer(self.rules.compat, rest, answer.as_deref());
        }
    }

    /// The connection behind a number.
    fn connection(&mut self, seat: usize) -> ConnectionId {
        if let Some((id, _)) = self.seats[seat] {
            return id;
        }
        self.last_connection += 1;
        self.seats[seat] = Some((self.last_connection, 0));
        self.last_connection
    }

    fn leave(&mut self, seat: usize, written: u64) {
        if let Some((id, _)) = self.seats[seat].take() {
            let mut effects = Effects::default();
            self.core.disconnect(self.now, id, written, &mut effects);
            self.carry_out(None, effects, &mut Notes::default());
        }
    }

    /// As the relay takes a frame; what it answers.
    fn frame(&mut self, seat: usize, text: &str, notes: &mut Notes) -> Option<String> {
        let connection = self.connection(seat);
        let mut request = RpcRequest::parse(text);
        let call = std::mem::replace(&mut request.call, Err(RpcError::new(0, "")));
        let Asked { mut command, mut token } = match call.and_then(translate::command) {
            Ok(asked) => asked,
            Err(error) => {
                notes.note(error.code);
                let silent = error.is_no_request() && self.rules.compat == Compat::Original;
                return (!silent).then(|| request.refuse(&error));
            }
        };
        self.number(&mut command, &mut token);
        notes.note(std::mem::discriminant(&command));
        let mut effects = Effects::default();
        let address = ClientAddress::of([127, 0, 0, (seat % 2) as u8].into());
        let peer = Peer { connection, address };
        match self.core.apply(self.now, peer, command, &mut effects) {
            Ok(reply) => {
                notes.note(std::mem::discriminant(&reply));
                let answer = request.answer(translate::result(&reply, token).as_ref());
                self.carry_out(Some(seat), effects, notes);
                answer
            }
            Err(refusal) => {
                notes.note(std::mem::discriminant(&refusal));
                self.refused(seat, &refusal, &effects);
                Some(request.refuse(&translate::error(&refusal)))
            }
        }
    }

    fn refused(&mut self, seat: usize, refusal: &CallError, effects: &Effects) {
        assert!(effects.is_empty(), "{refusal} came with {effects:?}");
        if refusal.closes() {
            self.leave(seat, 0);
        }
    }

    /// Puts numbered ids and tokens for random ones.
    fn number(&mut self, command: &mut Command, token: &mut Option<String>) {
        match command {
            Command::GroupCreate { id: GroupId(id), .. }
            | Command::SessionCreate { id: SessionId(id), .. } => {
                self.last_id += 1;
                let numbered = format!("{:032x}", self.last_id).parse::<SessionId>();
                *id = numbered.expect("32 hex digits").0;
            }
            Command::Token(hash) => {
                self.last_token += 1;
                let text = format!("token-{}", self.last_token);
                *hash = Sha256::digest(&text).into();
                *token = Some(text);
            }
            _ => {}
        }
    }

    /// Notes and checks what happened.
    fn carry_out(&mut self, caller: Option<usize>, effects: Effects, notes: &mut Notes) {
        for change in effects.changes {
            notes.note(std::mem::discriminant(&change));
            self.mirror.keep(change);
        }
        for old in effects.replaced {
            let seat = self.seats.iter().position(|seat| seat.is_some_and(|(id, _)| id == old));
            self.leave(seat.expect("a replaced connection was there"), 0);
        }
        let mut last_missed = 0;
        for (number, event) in &effects.missed {
            assert!(*number > last_missed, "missed events are in order");
            last_missed = *number;
            check_event(&translate::event(event));
        }
        if let Some((_, last)) = caller.and_then(|seat| self.seats[seat].as_mut()) {
            *last = last_missed.max(*last);
        }
        for (event, recipients) in &effects.deliveries {
            notes.note(std::mem::discriminant(event));
            check_event(&translate::event(event));
            for (id, number) in recipients {
                let mut seats = self.seats.iter_mut().flatten();
                let seat = seats.find(|(seat, _)| seat == id).expect("only those present are told");
                assert!(*number == 0 || *number > seat.1, "events are numbered upwards");
                seat.1 = *number;
            }
        }
        check_counts(self.core.counts());
    }

    /// What was kept comes back, and when all have gone nothing is left.
    fn end(mut self) {
        let mut effects = Effects::default();
        let mut restored = Groups::new(self.rules);
        restored.restore(self.now, self.mirror.kept(), &mut effects);
        assert_eq!(restored.counts().tokens, self.core.counts().tokens, "every token is kept");
        for seat in 0..self.seats.len() {
            self.leave(seat, u64::MAX);
        }
        self.now.0 += FOREVER;
        for core in [&mut self.core, &mut restored] {
            core.expire(self.now, &mut effects);
            assert_eq!((core.counts(), core.next_expiry()), (Counts::default(), None));
        }
    }
}

fn check_counts(counts: Counts) {
    assert!(counts.groups <= LIMITS.groups, "{counts:?}");
    assert!(counts.sessions <= LIMITS.sessions, "{counts:?}");
    assert!(counts.tokens <= LIMITS.tokens, "{counts:?}");
}

fn check_event(frame: &[u8]) {
    let frame: Value = serde_json::from_slice(frame).expect("an event is JSON");
    assert_eq!(frame["id"], 0, "an event has the id 0");
}

/// A frame with an id has exactly one answer, which has that id; one without has at most a refusal.
fn check_answer(compat: Compat, text: &str, answer: Option<&str>) {
    // What the relay only passes on need not be readable: half of a surrogate pair, or a number that
    // nothing here can hold. So it is compared as it was
    // written.
    type Members<'a> = HashMap<String, &'a RawValue>;
    let answer: Option<Members<'_>> =
        answer.map(|answer| serde_json::from_str(answer).expect("JSON is answered"));
    let members: Members<'_> = serde_json::from_str(text).unwrap_or_default();
    let method = members.get("method");
    let named = method.is_some_and(|raw| serde_json::from_str::<String>(raw.get()).is_ok());
    if !named {
        assert_eq!(answer.is_none(), compat == Compat::Original, "only one mode is silent");
    }
    let id = members.get("id").filter(|id| id.get() != "null" && named);
    match (id, answer) {
        (Some(id), answer) => {
            let answer = answer.expect("a frame with an id is answered");
            let answered = answer.get("id").map(|id| id.get()).unwrap_or_default();
            let read = |text: &str| serde_json::from_str::<Value>(text).ok();
            let same = match (read(answered), read(id.get())) {
                (Some(answered), Some(id)) => answered == id,
                _ => answered == id.get(),
            };
            assert!(same, "the answer has the id of the frame: {answered}");
            let both = answer.contains_key("result") && answer.contains_key("error");
            assert!(!both, "one of them at most");
        }
        (None, Some(answer)) => {
            let error: Value = serde_json::from_str(answer["error"].get()).expect("an error");
            assert!(error["code"].is_i64() && !answer.contains_key("id"));
        }
        (None, None) => {}
    }
}
