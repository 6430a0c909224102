//! All inboxes of the router: per-recipient order, acknowledgement, redelivery, bounds.
//!
//! A message is stored once and shared by its recipients. A recipient's box is ordered by the
//! router's sequence; streams read it with a cursor, so none sees a message twice and a slow one
//! costs nothing more than the box itself.

mod sessions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use quorate_types::*;

use crate::budget::{Budget, Over};

/// Ended sessions whose delivery records are kept for late questions.
const ENDED_KEPT: usize = 256;
/// Delivery records kept of all ended sessions together: at 16 parties about 1.5 KiB each.
const ENDED_RECORDS_KEPT: usize = 100_000;

/// What a waiting message takes beside its payload, in bytes: its row, places in boxes and indexes.
pub const MESSAGE_COST: usize = 1_024;
/// Bytes of messages in one answer to who asks for them: what every wire and client takes.
pub const PAGE_BYTES: usize = 3 << 20;
/// Seconds after which one that was refused for want of room may try again.
const RETRY_SECONDS: u32 = 5;

/// Bounds of the inboxes. A tenant has at most half of what holds for all sessions, and its fair
/// share once that is three quarters used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Bytes of one payload. Keygen's largest message is 150 kB.
    pub message_bytes: usize,
    /// Messages of one session from its start to its end, because their delivery records stay:
    /// 16 parties, 8 rounds, every pair, twice over.
    pub session_messages: usize,
    /// Bytes of one session's messages that wait for acknowledgement, [`MESSAGE_COST`] included.
    pub session_bytes: usize,
    /// The same of all sessions together.
    pub total_bytes: usize,
    /// Delivery records of all open sessions: each up to 1.5 KiB until its session ends.
    pub records: usize,
    /// Bytes of a message type.
    pub type_bytes: usize,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            session_messages: 4_096,
            session_bytes: 64 << 20,
            total_bytes: 1 << 30,
            records: 1_000_000,
            type_bytes: 64,
        }
    }
}

/// An accepted message.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What is stored and delivered.
    pub row: Arc<MessageRow>,
    /// Whether it is its sender's first message of this round.
    pub first_of_round: bool,
}

/// What an acknowledgement led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// It is this recipient's first acknowledgement of the message.
    pub first: bool,
    /// All recipients have acknowledged now.
    pub all: bool,
}

struct Record {
    /// Dropped when all have acknowledged.
    row: Option<Arc<MessageRow>>,
    bytes: usize,
    sequence: u64,
    deliveries: Vec<Delivery>,
}

impl Record {
    fn delivery(&mut self, party: &PartyId) -> Option<&mut Delivery> {
        self.deliveries.iter_mut().find(|delivery| delivery.party_id == *party)
    }
}

#[derive(Default)]
struct Conversation {
    /// Who owns the session; messages written before that was known are the default tenant's.
    tenant: Tenant,
    attempt: u32,
    members: Vec<PartyId>,
    /// Who was one before another took its place.
    former: Vec<PartyId>,
    ended: bool,
    bytes: usize,
    messages: HashMap<MessageId, Record>,
    rounds: HashSet<(PartyId, i32)>,
    /// When its last message was accepted.
    last_at: Timestamp,
}

#[derive(Default)]
struct Inbox {
    entries: BTreeMap<u64, Arc<MessageRow>>,
    by_session: HashMap<SessionId, BTreeSet<u64>>,
    /// The latest time that any of its messages was accepted.
    latest: Timestamp,
}

impl Inbox {
    fn insert(&mut self, row: &Arc<MessageRow>) {
        self.latest = self.latest.max(row.message.created_at);
        self.entries.insert(row.sequence, row.clone());
        self.by_session.entry(row.message.session_id).or_default().insert(row.sequence);
    }

    fn remove(&mut self, session: SessionId, sequence: u64) {
        self.entries.remove(&sequence);
        if let Some(sequences) = self.by_session.get_mut(&session) {
            sequences.remove(&sequence);
            if sequences.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }
}

/// The inboxes of all parties.
pub struct Inboxes {
    limits: InboxLimits,
    sessions: HashMap<SessionId, Conversation>,
    ended: VecDeque<SessionId>,
    ended_records: usize,
    boxes: HashMap<PartyId, Inbox>,
    last_sequence: u64,
    bytes: Budget<Tenant>,
    records: Budget<Tenant>,
}

impl Inboxes {
    /// Empty inboxes with these bounds.
    pub fn new(limits: InboxLimits) -> Self {
        Self {
            limits,
            sessions: HashMap::new(),
            ended: VecDeque::new(),
            ended_records: 0,
            boxes: HashMap::new(),
            last_sequence: 0,
            bytes: Budget::new(limits.total_bytes),
            records: Budget::new(limits.records),
        }
    }

    /// Goes on counting behind messages that were found in the store, before any of them is put
    /// back: a new message must not take the place of an old one.
    pub fn continue_after(&mut self, sequence: u64) {
        self.last_sequence = self.last_sequence.max(sequence);
    }

    /// Takes a message in and puts it into its recipients' boxes.
    ///
    /// Within a session every message gets a later time than the one before, also when the clock
    /// stands or goes back: `after` the last one seen then means all that came later. By the bound
    /// on a session's messages that is at most a few seconds ahead of the clock.
    pub fn accept(
        &mut self,
        now: Timestamp,
        id: MessageId,
        request: RouteRequest,
    ) -> Result<Accepted> {
        let recipients = self.check(&request)?;
        let conversation = self.sessions.get(&request.session_id).expect("checked to be open");
        if conversation.messages.contains_key(&id) {
            return Err(Error::new(ErrorCode::Conflict, format!("message {id} already exists")));
        }
        let round = (request.from_party.clone(), request.round);
        let first_of_round = !conversation.rounds.contains(&round);
        let next_instant = Timestamp(conversation.last_at.0.saturating_add(1));
        self.last_sequence += 1;
        let is_broadcast = request.to_parties.is_empty();
        let message = Message {
            message_id: id,
            session_id: request.session_id,
            from_party: request.from_party,
            is_broadcast,
            round: request.round,
            message_type: request.message_type,
            payload: request.payload,
            created_at: now.max(next_instant),
        };
        let row = Arc::new(MessageRow::new(message, self.last_sequence, recipients));
        self.put(&row, &[]);
        Ok(Accepted { row, first_of_round })
    }

    /// Puts back a message found in the store; one that is here or that nobody waits for changes
    /// nothing.
    pub fn restore(&mut self, row: Arc<MessageRow>, acknowledged: &[PartyId]) {
        self.last_sequence = self.last_sequence.max(row.sequence);
        let Some(conversation) = self.sessions.get(&row.message.session_id) else {
            return;
        };
        let known = conversation.messages.contains_key(&row.message.message_id);
        let awaited = row.recipients.iter().any(|party| !acknowledged.contains(party));
        if !conversation.ended && !known && awaited {
            self.put(&row, acknowledged);
        }
    }

    fn put(&mut self, row: &Arc<MessageRow>, acknowledged: &[PartyId]) {
        let bytes = row.message.payload.len() + MESSAGE_COST;
        let delivery = |party: &PartyId| Delivery {
            party_id: party.clone(),
            state: match acknowledged.contains(party) {
                true => DeliveryState::Acknowledged,
                false => DeliveryState::Pending,
            },
            delivered_at: None,
            acknowledged_at: None,
            retry_count: 0,
        };
        let record = Record {
            row: Some(row.clone()),
            bytes,
            sequence: row.sequence,
            deliveries: row.recipients.iter().map(delivery).collect(),
        };
        for party in row.recipients.iter().filter(|party| !acknowledged.contains(party)) {
            self.boxes.entry(party.clone()).or_default().insert(row);
        }
        if let Some(conversation) = self.sessions.get_mut(&row.message.session_id) {
            let message = &row.message;
            conversation.bytes += bytes;
            conversation.last_at = conversation.last_at.max(message.created_at);
            conversation.rounds.insert((message.from_party.clone(), message.round));
            conversation.messages.insert(row.message.message_id, record);
            self.bytes.add(&conversation.tenant, bytes);
            self.records.add(&conversation.tenant, 1);
        }
    }

    fn check(&self, request: &RouteRequest) -> Result<Vec<PartyId>> {
        let session = request.session_id;
        let conversation = self.open(session)?;
        let from = &request.from_party;
        if !conversation.members.contains(from) {
            return Err(stranger(session, from));
        }
        let limits = &self.limits;
        let bytes = request.payload.len();
        if bytes > limits.message_bytes {
            return Err(Error::new(
                ErrorCode::MessageTooLarge,
                format!(
                    "the payload is {bytes} bytes; at most {} are routed",
                    limits.message_bytes
                ),
            ));
        }
        if request.round < 0 {
            return Err(Error::invalid_field("round", "round is 0 or more"));
        }
        if request.message_type.len() > limits.type_bytes {
            let problem = format!("message_type is at most {} bytes", limits.type_bytes);
            return Err(Error::invalid_field("message_type", problem));
        }
        let recipients = recipients(conversation, request)?;
        if conversation.messages.len() >= limits.session_messages {
            return Err(Error::new(
                ErrorCode::RateLimited,
                format!(
                    "session {session} has routed its {} messages; close it and create another",
                    limits.session_messages
                ),
            ));
        }
        self.check_room(session, conversation, bytes + MESSAGE_COST)?;
        Ok(recipients)
    }

    /// Refuses a message for which its session, its tenant or the router has no room.
    fn check_room(&self, session: SessionId, of: &Conversation, bytes: usize) -> Result<()> {
        let over = if of.bytes + bytes > self.limits.session_bytes {
            Err(format!("session {session}"))
        } else {
            let records = self.records.check(&of.tenant, 1);
            records.and_then(|()| self.bytes.check(&of.tenant, bytes)).map_err(|over| match over {
                Over::Whole => "the router".into(),
                Over::Share => "this tenant".into(),
            })
        };
        over.map_err(|what| self.full(&what, session, of))
    }

    /// Names the parties whose boxes hold messages of the session, the fullest first.
    fn full(&self, what: &str, session: SessionId, conversation: &Conversation) -> Error {
        let waiting = |party: &PartyId| {
            let sequences = self.boxes.get(party)?.by_session.get(&session)?;
            Some((std::cmp::Reverse(sequences.len()), party.clone()))
        };
        let mut behind: Vec<_> = conversation.members.iter().filter_map(waiting).collect();
        behind.sort_unstable();
        let whose = match behind.first() {
            Some((_, party)) => format!("; the box of {party} is the fullest"),
            None => String::new(),
        };
        let problem =
            format!("{what} has as many messages waiting as it may{whose}: wait and try again");
        let error = Error::rate_limited(problem, RETRY_SECONDS);
        error.waiting_for(behind.into_iter().map(|(_, party)| party).collect())
    }

    /// The next messages for a stream: of one session or all, behind its last sequence (0 at
    /// first) and accepted after a moment, of the owners that its caller `sees`.
    pub fn next(
        &mut self,
        now: Timestamp,
        party: &PartyId,
        (session, cursor, after): (Option<SessionId>, u64, Timestamp),
        sees: impl Fn(&Tenant) -> bool,
        max: usize,
    ) -> Vec<(u64, Message)> {
        let rows = self.peek(party, (session, cursor, after), sees, max);
        let deliver = |row: Arc<MessageRow>| {
            self.delivered(now, party, &row);
            (row.sequence, row.message.clone())
        };
        rows.into_iter().map(deliver).collect()
    }

    /// The rows of [`Inboxes::next`], which are not delivered by that.
    fn peek(
        &self,
        party: &PartyId,
        (session, cursor, after): (Option<SessionId>, u64, Timestamp),
        sees: impl Fn(&Tenant) -> bool,
        max: usize,
    ) -> Vec<Arc<MessageRow>> {
        // A stream that has seen all that is later need not look through what is earlier.
        let Some(inbox) = self.boxes.get(party).filter(|inbox| inbox.latest > after) else {
            return Vec::new();
        };
        let behind = (Bound::Excluded(cursor), Bound::Unbounded);
        let fits = |row: &&Arc<MessageRow>| {
            let owner = self.sessions.get(&row.message.session_id).map(|c| &c.tenant);
            row.message.created_at > after && owner.is_some_and(&sees)
        };
        match session {
            None => inbox
                .entries
                .range(behind)
                .map(|(_, row)| row)
                .filter(fits)
                .take(max)
                .cloned()
                .collect(),
            Some(session) => inbox
                .by_session
                .get(&session)
                .into_iter()
                .flat_map(|sequences| sequences.range(behind))
                .filter_map(|sequence| inbox.entries.get(sequence))
                .filter(fits)
                .take(max)
                .cloned()
                .collect(),
        }
    }

    fn delivered(&mut self, now: Timestamp, party: &PartyId, row: &MessageRow) {
        let delivery = self
            .sessions
            .get_mut(&row.message.session_id)
            .and_then(|conversation| conversation.messages.get_mut(&row.message.message_id))
            .and_then(|record| record.delivery(party));
        if let Some(delivery) = delivery {
            if delivery.delivered_at.is_some() {
                delivery.retry_count += 1;
            } else {
                delivery.delivered_at = Some(now);
                delivery.state = DeliveryState::Delivered;
            }
        }
    }

    /// Unacknowledged messages of a session accepted after `after`, the oldest first: one at least,
    /// and no more than fit into [`PAGE_BYTES`]. Takes nothing away. Times differ, so who asks for
    /// what comes after the last one, or acknowledges and asks again, gets all.
    pub fn pending(
        &mut self,
        now: Timestamp,
        session: SessionId,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<Vec<Message>> {
        self.check_member(session, party)?;
        let (mut cursor, mut left, mut page) = (0, PAGE_BYTES, Vec::new());
        loop {
            let from = (Some(session), cursor, after);
            let next = self.peek(party, from, |_| true, 1).into_iter().next();
            let Some(row) = next else { return Ok(page) };
            let bytes = row.message.payload.len() + MESSAGE_COST;
            if bytes > left && !page.is_empty() {
                return Ok(page);
            }
            left = left.saturating_sub(bytes);
            cursor = row.sequence;
            self.delivered(now, party, &row);
            page.push(row.message.clone());
        }
    }

    /// Acknowledges a message for one recipient.
    pub fn acknowledge(&mut self, now: Timestamp, ack: &Acknowledge) -> Result<Acked> {
        let conversation = self
            .sessions
            .get_mut(&ack.session_id)
            .ok_or_else(|| Error::not_found("session", ack.session_id))?;
        let record = conversation
            .messages
            .get_mut(&ack.message_id)
            .ok_or_else(|| Error::not_found("message", ack.message_id))?;
        let sequence = record.sequence;
        let delivery = record.delivery(&ack.party_id).ok_or_else(|| {
            Error::new(
                ErrorCode::Forbidden,
                format!("message {} was not sent to {}", ack.message_id, ack.party_id),
            )
        })?;
        let first = is_waiting(delivery);
        if first {
            delivery.state = match ack.success {
                true => DeliveryState::Acknowledged,
                false => DeliveryState::Failed,
            };
            delivery.acknowledged_at = Some(now);
        }
        let all = !record.deliveries.iter().any(is_waiting);
        if all && let Some(row) = record.row.take() {
            row.settle();
            conversation.bytes -= record.bytes;
            self.bytes.give_back(&conversation.tenant, record.bytes);
        }
        if let Some(inbox) = self.boxes.get_mut(&ack.party_id) {
            inbox.remove(ack.session_id, sequence);
            if inbox.entries.is_empty() {
                self.boxes.remove(&ack.party_id);
            }
        }
        Ok(Acked { first, all })
    }

    /// Where each recipient's copy of a message is.
    pub fn status(&self, session: SessionId, message: MessageId) -> Result<Vec<Delivery>> {
        let conversation =
            self.sessions.get(&session).ok_or_else(|| Error::not_found("session", session))?;
        let record = conversation.messages.get(&message);
        record
            .map(|record| record.deliveries.clone())
            .ok_or_else(|| Error::not_found("message", message))
    }

    /// Messages that wait for a party.
    pub fn pending_count(&self, party: &PartyId) -> u32 {
        let waiting = self.boxes.get(party).map_or(0, |inbox| inbox.entries.len());
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// Bytes of all messages that wait for acknowledgement.
    pub fn held_bytes(&self) -> usize {
        self.bytes.used()
    }
}

fn is_waiting(delivery: &Delivery) -> bool {
    matches!(delivery.state, DeliveryState::Pending | DeliveryState::Delivered)
}

fn stranger(session: SessionId, party: &PartyId) -> Error {
    Error::new(ErrorCode::Forbidden, format!("{party} does not take part in session {session}"))
}

/// Whom a message is for: those named, once each, or all others.
fn recipients(conversation: &Conversation, request: &RouteRequest) -> Result<Vec<PartyId>> {
    let from = &request.from_party;
    if request.to_parties.is_empty() {
        return Ok(conversation.members.iter().filter(|member| *member != from).cloned().collect());
    }
    let mut recipients = Vec::with_capacity(request.to_parties.len());
    for party in &request.to_parties {
        if party == from {
            return Err(Error::invalid_field("to_parties", "a party does not send to itself"));
        }
        if !conversation.members.contains(party) {
            return Err(Error::not_found("recipient", party).with_field("to_parties"));
        }
        if !recipients.contains(party) {
            recipients.push(party.clone());
        }
    }
    Ok(recipients)
}
