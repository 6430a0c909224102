//! Frames of the binary relay.

use quorate_types::RelayId;
use quorate_wire::relay::{HEADER, Ttl, ask, publish};

use crate::sockets::client::{BINARY, put};

/// The id of a message: who sends it, and its number.
pub(crate) fn id(sender: u64, number: u64) -> RelayId {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&sender.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    RelayId(bytes)
}

/// Adds a question as a WebSocket frame.
pub(crate) fn put_ask(to: &mut Vec<u8>, id: RelayId) {
    put(to, BINARY, &ask(id, Ttl(60)));
}

/// Adds a message of so many bytes in all as a WebSocket frame.
pub(crate) fn put_publish(to: &mut Vec<u8>, id: RelayId, ttl: Ttl, length: usize) {
    put(to, BINARY, &publish(id, ttl, 0, &vec![7; length.saturating_sub(HEADER).max(1)]));
}
