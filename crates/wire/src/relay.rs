//! Frames of the binary relay, and the message ids its device clients use.
//!
//! ```text
//! offset size
//! 0      32   message id
//! 32     2    ttl, u16 LE: below 256 seconds, else (v - 255) * 10 + 250 seconds
//! 34     2    flags, u16 LE
//! 36     n    body; a frame without one asks, a frame with one publishes
//! ```

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::RelayId;
use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

/// Bytes before the body.
pub const HEADER: usize = 36;
/// Flag of a message that goes to exactly one asker and is then forgotten.
pub const ONE_RECEIVER: u16 = 0x8000;
/// Tag of the message with which a device says that it gave up.
pub const ABORT_TAG: u64 = u64::MAX;

/// How long a question or a message lives, in the two bytes it has on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(pub u16);

impl Ttl {
    /// The longest time the two bytes can say: a little more than a week.
    pub const MAX: Self = Self(u16::MAX);

    /// The time to live that the header gives.
    pub fn duration(self) -> Duration {
        let value = u64::from(self.0);
        Duration::from_secs(if value < 256 { value } else { (value - 255) * 10 + 250 })
    }

    /// The shortest ttl that lasts at least this many seconds, or [`Ttl::MAX`].
    pub fn from_secs(seconds: u64) -> Self {
        let value = if seconds < 256 { seconds } else { (seconds - 250).div_ceil(10) + 255 };
        u16::try_from(value).map_or(Self::MAX, Self)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked for or published.
    pub id: RelayId,
    /// For how long.
    pub ttl: Ttl,
    /// All 16 bits as they came; see [`ONE_RECEIVER`].
    pub flags: u16,
}

/// What a frame wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A frame without a body: the sender wants the message of this id.
    Ask,
    /// A frame with a body: this is the message of this id.
    Publish,
}

impl Header {
    /// Reads the head of a frame; `None` when the frame is too short to have one.
    pub fn parse(frame: &[u8]) -> Option<(Self, Kind)> {
        let (head, body) = frame.split_first_chunk::<HEADER>()?;
        let (id, rest) = head.split_first_chunk::<32>()?;
        let header = Self {
            id: RelayId(*id),
            ttl: Ttl(u16::from_le_bytes([rest[0], rest[1]])),
            flags: u16::from_le_bytes([rest[2], rest[3]]),
        };
        Some((header, if body.is_empty() { Kind::Ask } else { Kind::Publish }))
    }

    /// Whether the message is for one asker only.
    pub fn one_receiver(&self) -> bool {
        self.flags & ONE_RECEIVER != 0
    }

    /// The head as bytes.
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32..34].copy_from_slice(&self.ttl.0.to_le_bytes());
        bytes[34..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }
}

/// A frame that asks.
pub fn ask(id: RelayId, ttl: Ttl) -> Bytes {
    Bytes::copy_from_slice(&Header { id, ttl, flags: 0 }.to_bytes())
}

/// A frame that publishes `body`, which must not be empty: without one the frame would ask.
pub fn publish(id: RelayId, ttl: Ttl, flags: u16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + body.len());
    frame.put_slice(&Header { id, ttl, flags }.to_bytes());
    frame.put_slice(body);
    frame.freeze()
}

/// The id under which device clients publish: a hash over the step of the protocol, who sends,
/// who receives (nobody in a broadcast) and the run of the protocol. Keys are verifying keys in
/// the encoding their owners sign with.
pub fn message_id(
    tag: u64,
    sender: &[u8],
    receiver: Option<&[u8]>,
    instance: &[u8; 32],
) -> RelayId {
    let mut hash = Sha256::new();
    hash.update(tag.to_le_bytes());
    hash.update(sender);
    hash.update(receiver.unwrap_or_default());
    hash.update(instance);
    RelayId(hash.finalize().into())
}
