//! The words of the group relay's core: what goes in, what comes out, and its bounds.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{ClientAddress, ErrorCode, GroupId, GroupKind, SessionId};
use serde::{Deserialize, Serialize};

use crate::budget::Over;

/// A WebSocket of the shell. Numbers count from 1 and are never used again.
pub type ConnectionId = u64;

/// A place at the relay: the number of the connection that first had it. It outlives the connection
/// when that asked for a token.
pub type ClientId = u64;

/// The caller: a connection, and the address to which it counts.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The WebSocket on which the call came.
    pub connection: ConnectionId,
    /// Where that comes from: what the peer makes counts for this address.
    pub address: ClientAddress,
}

/// SHA-256 of a resume token. The token itself is nobody's but its client's.
pub type TokenHash = [u8; 32];

/// Which rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// A member speaks for itself only, and nothing is delivered twice.
    #[default]
    Strict,
    /// As lax as the software that older clients were written against.
    Original,
}

/// Bounds of the relay. Of what is bounded in all, one address may have half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Groups in all: with their sessions about 4 KiB each.
    pub groups: usize,
    /// Groups one client is a member of; its end is told to each.
    pub groups_per_client: usize,
    /// Members of a group (`parties`). Every broadcast is copied to all of them.
    pub parties: u16,
    /// Sessions of a group: an hour of one signature every fifteen seconds.
    pub sessions_per_group: usize,
    /// Sessions of all groups: about 1 KiB each without their values.
    pub sessions: usize,
    /// Bytes of a group's label, which is for people.
    pub label_bytes: usize,
    /// Bytes of a session's value as JSON: a transaction to sign, with room.
    pub value_bytes: usize,
    /// Bytes of the values of all sessions: memory of a small server.
    pub value_total_bytes: usize,
    /// Signups of one session in [`Compat::Original`], where one connection may have many.
    pub signups: usize,
    /// Events kept for one connection that may resume: rounds of 16 parties, ten times over.
    pub missed_events: usize,
    /// Bytes of these events: what 16 parties send to one of them in a keygen.
    pub missed_bytes: usize,
    /// Bytes of these events for all connections: memory of a small server.
    pub missed_total_bytes: usize,
    /// Clients with a resume token: each is a row of the store.
    pub tokens: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self {
            groups: 10_000,
            groups_per_client: 64,
            parties: 256,
            sessions_per_group: 256,
            sessions: 100_000,
            label_bytes: 256,
            value_bytes: 64 << 10,
            value_total_bytes: 256 << 20,
            signups: 1_024,
            missed_events: 1_024,
            missed_bytes: 4 << 20,
            missed_total_bytes: 1 << 30,
            tokens: 100_000,
        }
    }
}

/// How the core behaves.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which rules hold.
    pub compat: Compat,
    /// How much is kept, in all and per owner.
    pub limits: GroupLimits,
    /// Milliseconds for which the place of a broken connection with a token is kept.
    pub grace: i64,
    /// Milliseconds after which a group that nobody uses is forgotten.
    pub idle_group: i64,
    /// Milliseconds after which a session that nobody uses is forgotten.
    pub idle_session: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            compat: Compat::Strict,
            limits: GroupLimits::default(),
            grace: 60_000,
            idle_group: 24 * 3_600_000,
            idle_session: 3_600_000,
        }
    }
}

/// What a group is made for. `threshold` is the wire's: one less than the signers needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Members, and parties of a keygen.
    pub parties: u16,
    /// Signers needed, less one.
    pub threshold: u16,
}

/// Where a call belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The id of the group that is meant.
    pub group: GroupId,
    /// The id of the session in that group.
    pub session: SessionId,
}

/// A call of a connection. New ids and token hashes come with it.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes a group of which the caller is the first member.
    GroupCreate {
        /// Its id, fresh.
        id: GroupId,
        /// A name for people.
        label: String,
        /// What it is made for.
        params: Parameters,
    },
    /// Enters a group.
    GroupJoin(GroupId),
    /// Makes a session.
    SessionCreate {
        /// The group it happened in.
        group: GroupId,
        /// Its id, fresh.
        id: SessionId,
        /// What it makes.
        kind: GroupKind,
        /// What its members are to know, as JSON text.
        value: Bytes,
    },
    /// Looks at a session.
    SessionJoin(Place, GroupKind),
    /// Takes the next number.
    SessionSignup(Place, GroupKind),
    /// Takes this number.
    SessionLoad(Place, GroupKind, u16),
    /// Says which index the party with a number has among the signers.
    SessionParticipant {
        /// The group and session it happened in.
        place: Place,
        /// The index that messages are addressed to.
        index: u16,
        /// The number it stands for.
        number: u16,
    },
    /// Relays a message.
    SessionMessage {
        /// The group and session it happened in.
        place: Place,
        /// The kind of the session.
        kind: GroupKind,
        /// The protocol's round, as the sender numbers it.
        round: u16,
        /// Who says it.
        sender: u16,
        /// To whom; nobody is everybody.
        receiver: Option<u16>,
        /// The event as it is sent.
        frame: Bytes,
    },
    /// Says that the party with this number is done.
    SessionFinish(Place, u16),
    /// Tells the other members of a proposal.
    NotifyProposal(Place, Bytes),
    /// Tells the members that were not signers.
    NotifySigned(Place, Bytes),
    /// Makes the caller's place one that can be resumed.
    Token(TokenHash),
    /// Takes over the place of an earlier connection.
    Resume {
        /// Hash of the token whose place is resumed.
        token: TokenHash,
        /// Events that the caller has seen since it got its token, when it counted them.
        seen: Option<u64>,
    },
}

/// A session as its members see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The session's id at the relay.
    pub id: SessionId,
    /// What it makes.
    pub kind: GroupKind,
    /// What its members are to know, as JSON text.
    pub value: Bytes,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The call is carried out and answers nothing.
    Done,
    /// The new group.
    Created(GroupId),
    /// The group that was entered.
    Group {
        /// The group's id, which the relay chose.
        id: GroupId,
        /// A name for people.
        label: Arc<str>,
        /// What it is made for.
        params: Parameters,
    },
    /// The session as it stands after the call.
    Session(SessionView),
    /// A party number.
    Number(u16),
    /// The token is in force.
    Token,
    /// The place is the caller's; so many missed events follow.
    Resumed(u64),
}

/// What a connection is told without having asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A keygen session was made.
    SessionCreate(SessionView),
    /// All have signed up.
    SessionSignup(SessionId),
    /// All have loaded their numbers.
    SessionLoad(SessionId),
    /// All have finished: their numbers, sorted.
    SessionClosed(Arc<[u16]>),
    /// Somebody's words, as they are sent.
    Frame(Bytes),
}

impl Event {
    /// About what it weighs in memory.
    pub(super) fn bytes(&self) -> usize {
        let own = match self {
            Self::SessionCreate(view) => view.value.len(),
            Self::Frame(frame) => frame.len(),
            Self::SessionSignup(_) | Self::SessionLoad(_) => 0,
            Self::SessionClosed(numbers) => 2 * numbers.len(),
        };
        own + size_of::<Self>()
    }
}

/// Where an event goes: the connection, and the event's number for it when it may resume (else 0).
pub type Recipient = (ConnectionId, u64);

/// What a command or the passing of time leads to besides the reply.
#[derive(Debug, Default)]
pub struct Effects {
    /// Events and who gets them, in order.
    pub deliveries: Vec<(Event, Vec<Recipient>)>,
    /// Events that the caller missed before it resumed, by their numbers. They come before all
    /// others, and are bounded by what is kept.
    pub missed: Vec<(u64, Event)>,
    /// Connections whose place another one has taken.
    pub replaced: Vec<ConnectionId>,
    /// What must be kept, in order, before anything is answered or delivered.
    pub changes: Vec<Change>,
}

impl Effects {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
            && self.missed.is_empty()
            && self.replaced.is_empty()
            && self.changes.is_empty()
    }

    pub(super) fn deliver(&mut self, event: Event, to: Vec<Recipient>) {
        if !to.is_empty() {
            self.deliveries.push((event, to));
        }
    }
}

/// A change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A client has this token now.
    Client(ClientId, TokenHash),
    /// A client's place is given up.
    ForgetClient(ClientId),
    /// A group as it is now.
    Group(GroupId, GroupRecord),
    /// A group and all its sessions are gone.
    ForgetGroup(GroupId),
    /// A session as it is now.
    Session(Place, SessionRecord),
    /// A session is gone.
    ForgetSession(SessionId),
}

/// A group as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// A name for people.
    pub label: Arc<str>,
    /// What it is made for.
    pub params: Parameters,
    /// Members; only those with a token come back.
    pub members: Vec<ClientId>,
}

/// A session as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// What it makes.
    pub kind: GroupKind,
    /// What its members are to know, as JSON text.
    pub value: String,
    /// Numbers and who has them, in the order of their taking.
    pub signups: Vec<(u16, ClientId)>,
    /// Index and number of each participant.
    pub participants: Vec<(u16, u16)>,
    /// Numbers that are done.
    pub finished: Vec<u16>,
    /// Whether its quorum was reached and told.
    pub started: bool,
    /// Whether its end was told.
    pub closed: bool,
}

/// All that was kept, as it is found at start.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Clients and their tokens.
    pub clients: Vec<(ClientId, TokenHash)>,
    /// Each group with its members.
    pub groups: Vec<(GroupId, GroupRecord)>,
    /// Each session of these groups.
    pub sessions: Vec<(Place, SessionRecord)>,
}

/// Why a call was refused. Its text is what the caller reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Fewer than two parties.
    PartiesTooSmall,
    /// A threshold of zero.
    ThresholdTooSmall,
    /// A threshold that cannot be met.
    ThresholdRange,
    /// All places of a group are taken; the caller is sent away.
    GroupFull(GroupId),
    /// No such group.
    NoGroup(GroupId),
    /// No such session. The original calls it a group, and so does [`Compat::Original`].
    NoSession(SessionId, Compat),
    /// Nobody has this number.
    NoParty(u16),
    /// The number is not the caller's.
    BadParty(u16),
    /// Nobody is behind the receiver's number.
    NoReceiver(u16),
    /// The caller is not a member.
    NotMember(ClientId, GroupId),
    /// Party numbers count from 1.
    ZeroNumber,
    /// A number above `parties`.
    NumberRange,
    /// The number has an owner.
    NumberTaken(SessionId),
    /// The session has all its parties.
    SessionFull(SessionId),
    /// The call names another kind than the session's.
    WrongKind(SessionId, GroupKind),
    /// No place belongs to this token.
    UnknownToken,
    /// A connection that has a place already cannot take another.
    PlaceTaken,
    /// The caller claims to have seen events that were never sent.
    SeenTooMany(u64),
    /// More was missed than is kept. So many events were sent.
    MissedTooMuch(u64),
    /// A bound of the relay: what, and how many.
    Limit(&'static str, usize),
    /// The caller's address has its share of what is bounded so.
    Share(&'static str, usize),
    /// Something is larger than its bound: what, and how many bytes.
    TooLarge(&'static str, usize),
}

impl CallError {
    /// A bound is reached: of the whole, or of the caller's address.
    pub(super) fn over(over: Over, what: &'static str, most: usize) -> Self {
        match over {
            Over::Whole => Self::Limit(what, most),
            Over::Share => Self::Share(what, most),
        }
    }

    /// Its code on all wires.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Limit(..) | Self::Share(..) => ErrorCode::RateLimited,
            Self::TooLarge(..) => ErrorCode::MessageTooLarge,
            Self::UnknownToken => ErrorCode::Unauthorized,
            Self::GroupFull(_) | Self::SessionFull(_) => ErrorCode::SessionFull,
            Self::NoGroup(_) | Self::NoSession(..) | Self::NoParty(_) | Self::NoReceiver(_) => {
                ErrorCode::NotFound
            }
            _ => ErrorCode::Conflict,
        }
    }

    /// Whether the caller's connection is closed after the answer.
    pub fn closes(&self) -> bool {
        matches!(self, Self::GroupFull(_))
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartiesTooSmall => f.write_str("parties must be greater than one"),
            Self::ThresholdTooSmall => f.write_str("threshold must be greater than zero"),
            Self::ThresholdRange => f.write_str("threshold must be less than parties"),
            Self::GroupFull(id) => write!(f, "group {id} is full, cannot accept new connections"),
            Self::NoGroup(id) => write!(f, "group {id} does not exist"),
            Self::NoSession(id, Compat::Strict) => write!(f, "session {id} does not exist"),
            Self::NoSession(id, Compat::Original) => write!(f, "group {id} does not exist"),
            Self::NoParty(number) => write!(f, "party {number} does not exist"),
            Self::BadParty(number) => write!(f, "party {number} is not valid in this context"),
            Self::NoReceiver(number) => {
                write!(f, "receiver {number} for peer to peer message does not exist")
            }
            Self::NotMember(client, id) => {
                write!(f, "client {client} does not belong to the group {id}")
            }
            Self::ZeroNumber => f.write_str("party number may not be zero"),
            Self::NumberRange => f.write_str("party number is out of range"),
            Self::NumberTaken(id) => write!(f, "party number already exists for session {id}"),
            Self::SessionFull(id) => write!(f, "session {id} is full"),
            Self::WrongKind(id, kind) => write!(f, "session {id} is a {} session", kind.name()),
            Self::UnknownToken => f.write_str(
                "no place belongs to this token: it was never given or its time is over",
            ),
            Self::PlaceTaken => {
                f.write_str("this connection has a place already; resume on a new connection")
            }
            Self::SeenTooMany(sent) => write!(f, "only {sent} events were sent to this place"),
            Self::MissedTooMuch(sent) => write!(
                f,
                "more events were missed than are kept; resume with {sent} to go on without them"
            ),
            Self::Limit(what, most) => write!(f, "at most {most} {what}; try again later"),
            Self::Share(what, most) => write!(
                f,
                "at most {most} {what}, and this address has its share of that; end some of its \
                 own or try again later"
            ),
            Self::TooLarge(what, most) => write!(f, "{what} is at most {most} bytes"),
        }
    }
}
