//! A client that costs little: frames are made beforehand, and what comes back is only counted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::server::Endpoint;

/// WebSocket opcodes of RFC 6455, section 5.2.
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;

/// A masked ping, and how long its answer is.
pub(crate) const PING: &[u8] = &[0x89, 0x80, 0, 0, 0, 0];
pub(crate) const PONG_LENGTH: usize = 2;

impl Endpoint {
    /// The handshake of every client.
    pub(super) fn handshake(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.path, self.address
        )
    }
}

/// A blocking connection.
pub(crate) struct Pinger {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Pinger {
    pub(crate) fn connect(endpoint: &Endpoint) -> Self {
        let mut stream = TcpStream::connect(&endpoint.address).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.write_all(endpoint.handshake().as_bytes()).expect("it reads");
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

    /// Reads one frame; its payload.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("it answers");
        let length = match head[1] {
            126 => self.number::<2>(),
            127 => self.number::<8>(),
            short => short.into(),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).expect("it answers");
        payload
    }

    fn number<const N: usize>(&mut self) -> usize {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("it answers");
        bytes.iter().fold(0, |all, byte| all << 8 | usize::from(*byte))
    }

    /// All that was sent is handled: a ping has come back.
    pub(crate) fn settle(&mut self) {
        self.send(PING);
        self.receive(PONG_LENGTH);
    }
}

/// Masked with zeros, which costs the server as much as any mask.
pub(crate) fn put(to: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    to.push(0x80 | opcode);
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
