//! Many connections at once.
//!
//! Connections come in pairs. In each turn both send a window of messages to each other, with the
//! questions for the next turn in front, and then read the other's window. So every message finds
//! its question waiting, and no question waits for a timer.

use quorate_wire::relay::{HEADER, Ttl};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::client::{id, put_ask, put_publish};
use crate::sockets::client::{PING, PONG_LENGTH, on_the_wire};
use crate::sockets::idle::connect;
use crate::sockets::server::{Kinds, Server};

/// Messages that are under way at once, over all connections.
const UNDER_WAY: usize = 2_048;

/// Bytes that are under way at once on a connection.
const WINDOW_BYTES: usize = 400_000;

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) length: usize,
    pub(crate) messages: usize,
    pub(crate) round: usize,
}

/// Connections that are ready to begin.
pub(crate) struct Clients {
    load: Load,
    streams: Vec<TcpStream>,
    echo: bool,
}

impl Load {
    fn window(&self) -> usize {
        let most = (WINDOW_BYTES / self.length).clamp(1, 64);
        (UNDER_WAY / self.connections).clamp(1, most)
    }

    fn turns(&self) -> usize {
        (self.messages / (self.connections * self.window())).max(2)
    }

    /// The id of a message.
    fn id(&self, sender: usize, turn: usize, at: usize) -> quorate_types::RelayId {
        let sender = ((self.round * 8 + 1) << 40) + (self.connections << 20) + sender;
        id((sender as u64) << 1 | u64::from(self.length > 10_000), (turn * 1_000 + at) as u64)
    }

    /// Connects, and lets every connection ask for its first window.
    pub(crate) async fn connect(self, server: &Server) -> Clients {
        let echo = server.kind == Kinds::Echo;
        let mut streams = Vec::new();
        for number in 0..self.connections {
            let mut stream = connect(&server.endpoint).await;
            let mut bytes = Vec::new();
            for at in (0..self.window()).filter(|_| !echo) {
                put_ask(&mut bytes, self.id(number ^ 1, 0, at));
            }
            bytes.extend_from_slice(PING);
            stream.write_all(&bytes).await.expect("it reads");
            stream.read_exact(&mut [0; PONG_LENGTH]).await.expect("it answers");
            streams.push(stream);
        }
        Clients { load: self, streams, echo }
    }
}

impl Clients {
    /// Sends everything and waits until it has arrived; how many messages that were.
    pub(crate) async fn run(self) -> usize {
        let Self { load, streams, echo } = self;
        let mut tasks = JoinSet::new();
        for (number, stream) in streams.into_iter().enumerate() {
            tasks.spawn(one(load, stream, number, echo));
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("a client");
        }
        load.connections * load.window() * load.turns()
    }
}

/// What a connection sends in a turn: made once, then only the ids change, so that the load costs
/// little beside what it measures.
struct Turn {
    bytes: Vec<u8>,
    /// Where the ids of the questions and of the messages lie.
    asks: Vec<usize>,
    publishes: Vec<usize>,
}

impl Turn {
    fn new(load: Load, echo: bool) -> Self {
        let (mut bytes, mut asks, mut publishes) = (Vec::new(), Vec::new(), Vec::new());
        let any = id(0, 0);
        for _ in (0..load.window()).filter(|_| !echo) {
            put_ask(&mut bytes, any);
            asks.push(bytes.len() - HEADER);
        }
        for _ in 0..load.window() {
            put_publish(&mut bytes, any, Ttl(0), load.length);
            publishes.push(bytes.len() - load.length);
        }
        Self { bytes, asks, publishes }
    }

    /// The bytes of a turn.
    fn bytes(&mut self, load: Load, number: usize, turn: usize) -> &[u8] {
        for (at, place) in self.asks.iter().enumerate() {
            let id = load.id(number ^ 1, turn + 1, at);
            self.bytes[*place..*place + 32].copy_from_slice(&id.0);
        }
        for (at, place) in self.publishes.iter().enumerate() {
            let id = load.id(number, turn, at);
            self.bytes[*place..*place + 32].copy_from_slice(&id.0);
        }
        &self.bytes
    }
}

async fn one(load: Load, mut stream: TcpStream, number: usize, echo: bool) {
    let mut buffer = vec![0; 64 << 10];
    let mut prepared = Turn::new(load, echo);
    for turn in 0..load.turns() {
        let bytes = prepared.bytes(load, number, turn);
        let (mut reading, mut writing) = stream.split();
        let mut missing = load.window() * on_the_wire(load.length);
        let receive = async {
            while missing > 0 {
                let most = missing.min(buffer.len());
                let read = reading.read(&mut buffer[..most]).await.expect("it answers");
                assert!(read > 0, "the server closed a connection");
                missing -= read;
            }
        };
        let send = async { writing.write_all(bytes).await.expect("it reads") };
        tokio::join!(send, receive);
    }
}
