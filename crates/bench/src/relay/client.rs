//! A client that costs little: frames are made beforehand, and what comes back is only counted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use quorate_types::RelayId;
use quorate_wire::relay::{HEADER, Ttl, ask, publish};

/// The handshake of every client.
pub(crate) fn handshake(address: &str) -> String {
    format!(
        "GET /v1/msg-relay HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A blocking connection, for round trips.
pub(crate) struct Pinger {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Pinger {
    pub(crate) fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.write_all(handshake(address).as_bytes()).expect("it reads");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("it answers");
            head.push(byte[0]);
        }
        Self { stream, buffer: vec![0; 1 << 20] }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it reads");
    }

    /// Reads so many bytes.
    pub(crate) fn receive(&mut self, length: usize) {
        self.stream.read_exact(&mut self.buffer[..length]).expect("it answers");
    }

    /// All that was sent is handled: a ping has come back.
    pub(crate) fn settle(&mut self) {
        self.send(PING);
        self.receive(PONG_LENGTH);
    }
}

/// A masked ping, and how long its answer is.
pub(crate) const PING: &[u8] = &[0x89, 0x80, 0, 0, 0, 0];
pub(crate) const PONG_LENGTH: usize = 2;

/// The id of a message: who sends it, and its number.
pub(crate) fn id(sender: u64, number: u64) -> RelayId {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&sender.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    RelayId(bytes)
}

/// Adds a question as a WebSocket frame.
pub(crate) fn put_ask(to: &mut Vec<u8>, id: RelayId) {
    put(to, &ask(id, Ttl(60)));
}

/// Adds a message of so many bytes in all as a WebSocket frame.
pub(crate) fn put_publish(to: &mut Vec<u8>, id: RelayId, ttl: Ttl, length: usize) {
    put(to, &publish(id, ttl, 0, &vec![7; length.saturating_sub(HEADER).max(1)]));
}

/// Masked with zeros, which costs the server as much as any mask.
fn put(to: &mut Vec<u8>, payload: &[u8]) {
    to.push(0x82);
    match payload.len() {
        short @ 0..126 => to.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            to.push(0xfe);
            to.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            to.push(0xff);
            to.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    to.extend_from_slice(&[0; 4]);
    to.extend_from_slice(payload);
}

/// How long a frame of so many bytes is when the server sends it.
pub(crate) fn on_the_wire(length: usize) -> usize {
    length
        + match length {
            0..126 => 2,
            126..65_536 => 4,
            _ => 10,
        }
}
