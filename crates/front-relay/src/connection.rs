//! One connection: a single task that reads, takes its steps in the rendezvous, and writes.
//!
//! It reads while it writes, so a peer that sends much before it reads is served; it stops reading
//! while much waits for the peer, so that nobody can fill our memory with questions. A peer is alive
//! that answers our pings, sends messages or takes what waits; its own pings prove nothing.

use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_core::budget::Over;
use quorate_core::rendezvous::Rejection;
use quorate_wire::relay::{Header, Kind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::metrics::{add, one};
use crate::relay::{ConnectionGuard, Incomplete, Shared};
use crate::send_queue::{Cut, SendQueue};
use crate::websocket::{CLOSE, Fault, Incoming, Out, PING, PONG, Payload, Reader, Writer};

/// Rounds before other tasks get their turn.
const ROUNDS: usize = 16;

/// Pings a peer may leave unanswered.
const UNANSWERED: u8 = 2;

/// What must come of a long message between two pings for its sender to be alive, in bytes: it
/// cannot answer a ping meanwhile, and one that sends a byte at a time holds what it has sent.
const PROGRESS: usize = 128 << 10;

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The peer is gone.
    Gone,
    /// The peer has closed the connection.
    Closed,
    /// We close the connection.
    Refused(u16, &'static str),
    /// It is cut from outside.
    Cut(Cut),
}

impl End {
    fn close_frame(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::Gone => None,
            Self::Closed => Some((1000, "")),
            Self::Refused(code, reason) => Some((*code, reason)),
            Self::Cut(Cut::Slow) => Some((1013, "too much waits for this connection to read it")),
            Self::Cut(Cut::Crowded(Over::Share)) => {
                Some((1013, "too much waits for the connections of this address to read it"))
            }
            Self::Cut(Cut::Crowded(Over::Whole)) => {
                Some((1013, "too much waits for others to read it; try again later"))
            }
            Self::Cut(Cut::Stopping) => Some((1012, "the relay stops; connect again")),
        }
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Gone => Self::Gone,
            Fault::Protocol(reason) => Self::Refused(1002, reason),
            Fault::TooLarge => {
                Self::Refused(Rejection::TooLarge.close_code(), Rejection::TooLarge.reason())
            }
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(io: S, guard: ConnectionGuard) {
    let relay = guard.relay().clone();
    let send_queue = guard.send_queue().clone();
    let desk = Desk {
        relay: relay.clone(),
        send_queue,
        writer: Writer::default(),
        backlog: (0, 0),
        incoming: guard.incoming(),
        unanswered: 0,
        nonces: RandomState::new(),
        nonce: 0,
        held: 0,
        end: None,
    };
    let reader = Reader::new(relay.config().limits.message_bytes);
    let mut connection = Connection { io, reader, desk };
    let end = {
        let mut beat = pin!(sleep(relay.config().ping_every));
        poll_fn(|cx| connection.poll(cx, beat.as_mut())).await
    };
    let Connection { io, reader, mut desk } = connection;
    drop(reader);
    if matches!(end, End::Cut(cut) if cut.drops()) {
        one(&relay.counters().slow_reader);
        desk.writer.cut();
    } else {
        // What was answered before the end comes before the close frame.
        desk.send_queue.take(&mut desk.writer);
    }
    // What is left to say needs no more of the connection's state, and is counted until it is said.
    let Desk { writer, incoming, send_queue, .. } = desk;
    let rest = send_queue.end(&writer);
    drop((incoming, guard));
    let _ = timeout(relay.config().grace, finish(io, writer, end)).await;
    drop(rest);
}

/// The part of a connection that frames are handed to.
struct Desk {
    relay: Arc<Shared>,
    send_queue: Arc<SendQueue>,
    writer: Writer,
    /// Bytes and messages that wait for the peer.
    backlog: (usize, usize),
    /// What has come of a message that is not whole.
    incoming: Incomplete,
    /// Pings since the peer gave a sign of life.
    unanswered: u8,
    /// Makes the nonces of pings, which only a peer that reads can know.
    nonces: RandomState,
    /// That of the last ping.
    nonce: u64,
    /// What had come of an incomplete message at the last ping.
    held: usize,
    /// Set by a frame that ends the connection.
    end: Option<End>,
}

struct Connection<S> {
    io: S,
    reader: Reader,
    desk: Desk,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Works until nothing moves. Whenever this is `Pending`, the socket or the send_queue wakes it.
    fn poll(&mut self, cx: &mut Context<'_>, mut beat: Pin<&mut Sleep>) -> Poll<End> {
        for _ in 0..ROUNDS {
            let mut moved = false;
            let (bytes, messages) = self.desk.send_queue.begin();
            self.desk.backlog = (bytes, messages.max(self.desk.writer.len()));
            if !self.desk.is_behind() {
                moved = match self.read(cx) {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(end)) => return Poll::Ready(end),
                    Poll::Pending => false,
                };
            }
            if let Some(cut) = self.desk.send_queue.take(&mut self.desk.writer) {
                return Poll::Ready(End::Cut(cut));
            }
            match self.write(cx) {
                Ok(wrote) => moved |= wrote,
                Err(end) => return Poll::Ready(end),
            }
            if moved {
                continue;
            }
            if beat.as_mut().poll(cx).is_ready() {
                beat.as_mut().reset(Instant::now() + self.desk.relay.config().ping_every);
                if let Some(end) = self.desk.beat() {
                    return Poll::Ready(end);
                }
            } else {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Self { io, reader, desk } = self;
        let now = desk.relay.now();
        let read = reader.poll(io, cx, &mut |incoming| desk.hear(incoming, now));
        if let Poll::Ready(Err(Fault::TooLarge)) = read {
            desk.relay.counters().refused(Rejection::TooLarge);
        }
        if let Err(over) = desk.incoming.set(reader.held()) {
            let refusal = Rejection::from(over);
            desk.relay.counters().refused(refusal);
            desk.end = Some(End::Refused(refusal.close_code(), refusal.reason()));
        }
        read.map(|read| {
            add(&desk.relay.counters().bytes_in, read?);
            desk.end.take().map_or(Ok(()), Err)
        })
    }

    /// Writes what it can; whether anything left.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Self { io, desk, .. } = self;
        let (mut moved, mut bytes, mut messages) = (false, 0, 0);
        let mut now = None;
        let (relay, writer) = (&desk.relay, &mut desk.writer);
        let written = writer.poll(io, cx, &mut moved, |frame| {
            if let Some(since) = frame.since {
                let now = *now.get_or_insert_with(|| relay.now());
                relay.counters().delivered(now.saturating_sub(since));
                bytes += frame.payload.len();
                messages += 1;
            }
        });
        if moved && (messages > 0 || writer.len() > 0) {
            // It takes what it asked for, so it lives; its answer to a ping may wait behind that.
            desk.unanswered = 0;
        }
        add(&relay.counters().bytes_out, bytes);
        let more = desk.send_queue.settle(cx, bytes, messages);
        match written {
            Poll::Ready(Err(_)) => Err(End::Gone),
            _ => Ok(moved || more),
        }
    }
}

impl Desk {
    /// Handles what the peer says. `Break` when no more should be handled for now.
    fn hear(&mut self, incoming: Incoming<'_>, now: Duration) -> ControlFlow<()> {
        match incoming {
            Incoming::Binary(frame) => {
                self.unanswered = 0;
                if let Err(refusal) = self.frame(frame, now) {
                    self.relay.counters().refused(refusal);
                    self.end = Some(End::Refused(refusal.close_code(), refusal.reason()));
                }
            }
            Incoming::Text => one(&self.relay.counters().junk),
            Incoming::Ping(payload) => self.send_queue.control(PONG, payload.into_bytes()),
            Incoming::Pong(payload) => {
                if payload.as_slice() == self.nonce.to_be_bytes() {
                    self.unanswered = 0;
                }
            }
            Incoming::Close => self.end = Some(End::Closed),
        }
        if self.end.is_some() || self.is_behind() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn frame(&mut self, frame: Payload<'_>, now: Duration) -> Result<(), Rejection> {
        match Header::parse(frame.as_slice()) {
            None => one(&self.relay.counters().junk),
            Some((header, Kind::Ask)) => {
                if let Some(frame) = self.relay.ask(now, header, &self.send_queue)? {
                    self.backlog.0 += frame.len();
                    self.backlog.1 += 1;
                    // Through the send_queue: what was published before must come before.
                    self.send_queue.deliver(&frame, now, true);
                }
            }
            Some((header, Kind::Publish)) => {
                self.relay.publish(now, header, frame.into_bytes(), &self.send_queue)?;
            }
        }
        Ok(())
    }

    /// Whether the peer should read before it is read from: half of its bounds are left to what
    /// others send it.
    fn is_behind(&self) -> bool {
        let config = self.relay.config();
        let (bytes, messages) = self.backlog;
        bytes > config.queue_bytes / 2 || messages > config.queue_messages / 2
    }

    /// Pings the peer, or gives it up.
    fn beat(&mut self) -> Option<End> {
        let held = self.incoming.bytes();
        if held >= self.held + PROGRESS {
            self.unanswered = 0;
        }
        self.held = held;
        if self.unanswered >= UNANSWERED {
            let reading = self.writer.len() == 0;
            return Some(if reading { End::Gone } else { End::Cut(Cut::Slow) });
        }
        self.unanswered += 1;
        if self.writer.len() == 0 {
            self.nonce = self.nonces.hash_one(self.nonce);
            self.writer.push(control(PING, Bytes::copy_from_slice(&self.nonce.to_be_bytes())));
        }
        None
    }
}

fn control(opcode: u8, payload: Bytes) -> Out {
    Out { opcode, payload, since: None }
}

/// Sends a close frame, and lets the peer answer so that it sees the reason and not a reset.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, mut writer: Writer, end: End) {
    let Some((code, reason)) = end.close_frame() else {
        return;
    };
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    payload.put_u16(code);
    payload.put_slice(reason.as_bytes());
    writer.push(control(CLOSE, payload.freeze()));
    let written = poll_fn(|cx| writer.poll(&mut io, cx, &mut false, |_| {})).await;
    if written.is_err() || io.shutdown().await.is_err() {
        return;
    }
    let mut rest = BytesMut::with_capacity(4 << 10);
    while let Ok(1..) = io.read_buf(&mut rest).await {
        rest.clear();
    }
}
