//! Routed messages and their delivery.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::ids::{MessageId, PartyId, SessionId};
use crate::time::Timestamp;
use crate::words::words;

/// What a party hands to the router.
#[derive(Clone, Debug)]
pub struct RouteRequest {
    /// The session both ends belong to.
    pub session_id: SessionId,
    /// The id of the sending party.
    pub from_party: PartyId,
    /// The recipients; empty means all others of the session.
    pub to_parties: Vec<PartyId>,
    /// The protocol's round, ≥ 0.
    pub round: i32,
    /// Free text of the protocol.
    pub message_type: String,
    /// Opaque to the router.
    pub payload: Bytes,
    /// Messages the sender has received and is done with: acknowledged in the same call.
    pub acknowledges: Vec<MessageId>,
    /// The sender goes on without the answer, so it may come a quarter of a second later, when
    /// most messages have been acknowledged and need not be kept.
    pub patient: bool,
}

/// A message as its recipient sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One id for all recipients.
    pub message_id: MessageId,
    /// The id of the session.
    pub session_id: SessionId,
    /// The id of the sending party.
    pub from_party: PartyId,
    /// Whether it went to all others.
    pub is_broadcast: bool,
    /// The protocol's round.
    pub round: i32,
    /// Free text of the protocol.
    pub message_type: String,
    /// Opaque to the router.
    pub payload: Bytes,
    /// When the router accepted it.
    pub created_at: Timestamp,
}

words! {
    /// Where one recipient's copy is.
    DeliveryState("status") {
        /// Not handed over yet.
        Pending = "pending",
        /// Handed to a stream or a poll; not acknowledged.
        Delivered = "delivered",
        /// Acknowledged as processed.
        Acknowledged = "acknowledged",
        /// Acknowledged as failed.
        Failed = "failed",
    }
}

/// Delivery of one message to one party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The id of the receiving party.
    pub party_id: PartyId,
    /// Where its copy is.
    pub state: DeliveryState,
    /// First handed over.
    pub delivered_at: Option<Timestamp>,
    /// When it was acknowledged; `None` until then.
    pub acknowledged_at: Option<Timestamp>,
    /// Times it was handed over again after the first.
    pub retry_count: u32,
}

/// A party's word that it needs a message no more, or cannot use it.
#[derive(Clone, Debug)]
pub struct Acknowledge {
    /// The id of the message.
    pub message_id: MessageId,
    /// The id of the party that acknowledges.
    pub party_id: PartyId,
    /// The session it belongs to.
    pub session_id: SessionId,
    /// False when the recipient could not use it: it is not redelivered, and shown as failed.
    pub success: bool,
}

/// A message with its recipients, shared between the inboxes and the store.
#[derive(Debug)]
pub struct MessageRow {
    /// The message; `is_broadcast` and body as accepted.
    pub message: Message,
    /// The router's order over all messages.
    pub sequence: u64,
    /// All its recipients.
    pub recipients: Vec<PartyId>,
    settled: AtomicBool,
}

impl MessageRow {
    /// A message that nobody has acknowledged.
    pub fn new(message: Message, sequence: u64, recipients: Vec<PartyId>) -> Self {
        Self { message, sequence, recipients, settled: AtomicBool::new(false) }
    }

    /// All recipients have acknowledged: it need never touch the disk.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// Whether all recipients have acknowledged.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }
}
