//! The shape of every protocol: it says what it needs, takes it, and steps.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::fault::{FaultCode, Severity};
use crate::run::Output;

/// A party's place in the session, from 0.
pub(crate) type Position = usize;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Broadcast,
    Direct,
}

/// The messages without which a machine cannot step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) round: u16,
    /// From these positions, one broadcast each.
    pub(crate) broadcasts: Vec<Position>,
    /// From these positions, one direct message each.
    pub(crate) directs: Vec<Position>,
}

/// What a machine needed, by sender.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) broadcasts: BTreeMap<Position, Zeroizing<Vec<u8>>>,
    pub(crate) directs: BTreeMap<Position, Zeroizing<Vec<u8>>>,
}

/// A message to send.
pub(crate) struct OutboundMessage {
    pub(crate) round: u16,
    /// `None`: to all others.
    pub(crate) to: Option<Position>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// What a step gives.
#[derive(Default)]
pub(crate) struct Stepped {
    pub(crate) sends: Vec<OutboundMessage>,
    pub(crate) output: Option<Output>,
}

/// A fault as a machine knows it: by position.
#[derive(Clone, Debug)]
pub(crate) struct MachineFault {
    pub(crate) code: FaultCode,
    pub(crate) severity: Severity,
    pub(crate) blame: Option<Position>,
    pub(crate) message: String,
}

impl MachineFault {
    /// Something on this side that no other party is to blame for.
    pub(crate) fn ours(message: impl Into<String>) -> Self {
        Self {
            code: FaultCode::BadInput,
            severity: Severity::Recoverable,
            blame: None,
            message: message.into(),
        }
    }

    /// An authentic message that breaks the protocol. The message goes on after the sender's name.
    pub(crate) fn violation(position: Position, message: impl Into<String>) -> Self {
        Self {
            code: FaultCode::ProtocolViolation,
            severity: Severity::Recoverable,
            blame: Some(position),
            message: message.into(),
        }
    }
}

/// A protocol as one party runs it. Steps are heavy; everything else is cheap.
pub(crate) trait Machine: std::marker::Send {
    /// What the next step needs. Nothing for the first.
    fn need(&self) -> Need;

    /// Takes exactly what was needed and goes one round on.
    fn step(&mut self, input: Input) -> Result<Stepped, MachineFault>;

    /// Whether such a message of this sender belongs to this protocol at all, at any time.
    fn expects(&self, round: u16, kind: Kind, from: Position) -> bool;
}

/// Encodes a message body.
///
/// Room for all of it is taken at once: a buffer that grows leaves unwiped copies behind.
pub(crate) fn encode(message: &impl serde::Serialize) -> Zeroizing<Vec<u8>> {
    const PLAIN: &str = "protocol messages are plain data";
    let length = postcard::experimental::serialized_size(message).expect(PLAIN);
    let body = Vec::with_capacity(length);
    Zeroizing::new(postcard::to_extend(message, body).expect(PLAIN))
}

/// Decodes a message body; all of it, and nothing behind it.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(
    position: Position,
    body: &[u8],
) -> Result<T, MachineFault> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(MachineFault::violation(position, "sent a message that cannot be decoded")),
    }
}
