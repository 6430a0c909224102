//! The shape of every protocol: it says what it needs, takes it, and steps.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::fault::{FaultCode, Severity};
use crate::task::Output;

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
    /// What convicts whom it blames, where that is not in the messages of the step.
    pub(crate) evidence: Vec<Bytes>,
}

impl MachineFault {
    /// Something on this side that no other party is to blame for.
    pub(crate) fn ours(message: impl Into<String>) -> Self {
        Self {
            code: FaultCode::BadInput,
            severity: Severity::Recoverable,
            blame: None,
            message: message.into(),
            evidence: Vec::new(),
        }
    }

    /// An authentic message that breaks the protocol. The message goes on after the sender's name.
    pub(crate) fn violation(position: Position, message: impl Into<String>) -> Self {
        Self { code: FaultCode::ProtocolViolation, blame: Some(position), ..Self::ours(message) }
    }

    /// A cheat after which the two parties must not sign together again until a refresh.
    pub(crate) fn ban(
        code: FaultCode,
        blame: Option<Position>,
        message: impl Into<String>,
    ) -> Self {
        Self { code, severity: Severity::Ban, blame, ..Self::ours(message) }
    }

    /// The protocol has ended with a signature that does not verify.
    pub(crate) fn result_invalid(message: impl Into<String>) -> Self {
        Self { code: FaultCode::ResultInvalid, ..Self::ours(message) }
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

    /// The last round in which a message may be sent or taken.
    fn rounds(&self) -> u16;

    /// The first round whose messages may tell something of the result.
    fn telling(&self) -> u16 {
        2
    }

    /// The earlier rounds whose broadcasts all parties must have seen alike before a message of
    /// this round is used. The run sees to it: see the module `echo`.
    fn echoed(&self, _round: u16) -> Option<RangeInclusive<u16>> {
        None
    }
}

/// Encodes a message body.
///
/// Room for all of it is taken at once: a buffer that grows leaves unwiped copies behind.
pub(crate) fn encode(message: &impl serde::Serialize) -> Zeroizing<Vec<u8>> {
    encode_behind(&[], message)
}

/// Encodes a message behind some bytes.
pub(crate) fn encode_behind(front: &[u8], message: &impl serde::Serialize) -> Zeroizing<Vec<u8>> {
    const PLAIN: &str = "messages and shares are plain data";
    let length = postcard::experimental::serialized_size(message).expect(PLAIN);
    let mut body = Vec::with_capacity(front.len() + length);
    body.extend_from_slice(front);
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

/// Refuses what two parties cannot both have made. Who repeated the other is not known.
pub(crate) fn check_distinct<T: PartialEq>(
    values: impl Iterator<Item = (Position, T)>,
    what: &str,
) -> Result<(), MachineFault> {
    let values: Vec<_> = values.collect();
    for (at, (position, value)) in values.iter().enumerate() {
        if let Some((other, _)) = values[..at].iter().find(|(_, other)| other == value) {
            return Err(MachineFault {
                code: FaultCode::ProtocolViolation,
                ..MachineFault::ours(format!(
                    "the parties at places {other} and {position} show the same {what}: one of them \
                     repeats the other"
                ))
            });
        }
    }
    Ok(())
}
