//! The task of one connection: it reads, asks the relay, and writes what waits.
//!
//! Reading and writing go on side by side in one task. What is ready is read before anything is
//! written, so that the answers to many calls leave in few writes; a single frame leaves at once. A
//! peer that reads too little is not read from; one that falls behind the events is cut. A peer is
//! alive that answers our pings, calls, or takes what it kept waiting; its own pings prove nothing.

use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_core::groups::Peer;
use quorate_types::ClientAddress;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::metrics::{DropReason, add};
use crate::relay::{NoPlace, Relay, Shared};
use crate::send_queue::{Next, SendQueue};

/// Bytes of a ping: the events before it, and a nonce that only a peer that reads can know.
const PING_BYTES: usize = 16;

/// Pings without a sign of life after which a peer is gone.
const SILENT_PINGS: u32 = 3;

/// Time to send a close frame and to let the peer answer.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Calls that are taken before their answers are written.
const READ_BATCH: usize = 32;

/// Bytes that are written before what has come meanwhile is read.
const WRITE_BATCH: usize = 64 << 10;

/// A connection's place in the relay. Dropping it gives the place up.
pub(crate) struct ConnectionGuard {
    relay: Arc<Shared>,
    peer: Peer,
    send_queue: Arc<SendQueue>,
}

impl ConnectionGuard {
    /// Takes a place for a connection from this address.
    pub(crate) fn take(relay: &Relay, address: ClientAddress) -> Result<Self, NoPlace> {
        let (peer, send_queue) = relay.0.connect(address)?;
        Ok(Self { relay: relay.0.clone(), peer, send_queue })
    }
}

impl std::ops::Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.relay.disconnect(self.peer);
    }
}

struct Connection {
    guard: ConnectionGuard,
    socket: WebSocket,
    ping: Interval,
    heard: Instant,
    /// Something was given to the socket that it has not sent.
    dirty: bool,
    /// What was to be sent had to wait for the peer.
    blocked: bool,
    /// A pong of ours waits: its sender is not read from until it has left.
    ponging: bool,
    /// Makes the nonces of pings.
    nonces: RandomState,
    /// That of the last ping.
    nonce: u64,
    /// Events given to the socket.
    fed: u64,
    /// Events that the peer has, as its pongs tell.
    arrived: u64,
}

/// Runs a connection to its end.
pub(crate) async fn run(guard: ConnectionGuard, socket: WebSocket) {
    let every = guard.relay.config.ping;
    let mut ping = interval_at(Instant::now() + every, every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let heard = Instant::now();
    let mut connection = Connection {
        guard,
        socket,
        ping,
        heard,
        dirty: false,
        blocked: false,
        ponging: false,
        nonces: RandomState::new(),
        nonce: 0,
        fed: 0,
        arrived: 0,
    };
    let end = poll_fn(|cx| connection.poll(cx)).await;
    connection.guard.relay.counters.dropped(end);
    let Connection { guard, socket, .. } = connection;
    // The place is free, or can be resumed, before the close frame.
    drop(guard);
    close(socket, end).await;
}

/// Nothing to do until woken, or the end.
type Step<T> = Result<T, DropReason>;

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DropReason> {
        self.guard.send_queue.listen(cx.waker());
        match self.work(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Reads and writes until both wait.
    fn work(&mut self, cx: &mut Context<'_>) -> Step<()> {
        loop {
            if self.guard.send_queue.is_cut() {
                return Err(DropReason::Slow);
            }
            self.tick(cx)?;
            let more_to_read = self.read(cx)?;
            let more_to_write = self.write(cx)?;
            // Reading may have paused for what has been written since.
            let more = more_to_read && !self.is_busy() && !self.ponging;
            if !more && !more_to_write {
                return Ok(());
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.guard.send_queue.is_busy(&self.guard.relay.config.limits)
    }

    fn tick(&mut self, cx: &mut Context<'_>) -> Step<()> {
        while self.ping.poll_tick(cx).is_ready() {
            if self.heard.elapsed() > self.guard.relay.config.ping * SILENT_PINGS {
                // It does not read, or it is not there.
                return Err(if self.dirty { DropReason::Slow } else { DropReason::Gone });
            }
            if let Poll::Ready(ready) = self.socket.poll_ready_unpin(cx) {
                ready.map_err(|_| DropReason::Gone)?;
                // Its pong tells that the peer has all events before it.
                self.nonce = self.nonces.hash_one(self.nonce);
                let payload = [self.fed.to_be_bytes(), self.nonce.to_be_bytes()].concat();
                let ping = Message::Ping(payload.into());
                self.socket.start_send_unpin(ping).map_err(|_| DropReason::Gone)?;
                self.dirty = true;
            }
        }
        Ok(())
    }

    /// Takes calls. True when it stopped before the socket was empty.
    fn read(&mut self, cx: &mut Context<'_>) -> Step<bool> {
        for _ in 0..READ_BATCH {
            if self.is_busy() || self.ponging {
                return Ok(true);
            }
            let Poll::Ready(frame) = self.socket.poll_next_unpin(cx) else {
                return Ok(false);
            };
            match frame {
                Some(Ok(Message::Text(text))) => {
                    self.heard = Instant::now();
                    let ConnectionGuard { relay, peer, send_queue } = &self.guard;
                    relay.call(*peer, send_queue, &text);
                }
                Some(Ok(Message::Binary(_))) => add(&self.guard.relay.counters.ignored, 1),
                Some(Ok(Message::Ping(_))) => {
                    self.dirty = true;
                    self.ponging = true;
                }
                Some(Ok(Message::Pong(payload))) => self.pong(&payload),
                Some(Ok(Message::Close(_))) | None => return Err(DropReason::Closed),
                Some(Err(error)) => return Err(broken(error)),
            }
        }
        Ok(true)
    }

    /// The peer has all that was written before the ping.
    fn pong(&mut self, payload: &[u8]) {
        let Some((told, nonce)) = payload
            .first_chunk::<PING_BYTES>()
            .map(|bytes| bytes.as_chunks::<8>().0)
            .map(|parts| (u64::from_be_bytes(parts[0]), u64::from_be_bytes(parts[1])))
        else {
            return;
        };
        if nonce == self.nonce {
            self.heard = Instant::now();
        }
        if told > self.arrived && told <= self.fed {
            self.arrived = told;
            self.guard.relay.arrived(self.guard.peer.connection, told);
        }
    }

    /// Writes what waits, then flushes once. True when it stopped before the queue was empty.
    fn write(&mut self, cx: &mut Context<'_>) -> Step<bool> {
        let mut bytes = 0;
        let mut close = None;
        while bytes < WRITE_BATCH {
            match self.socket.poll_ready_unpin(cx) {
                Poll::Ready(ready) => ready.map_err(|_| DropReason::Gone)?,
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(false);
                }
            }
            match self.guard.send_queue.next() {
                Next::Write(entry) => {
                    bytes += entry.frame.len();
                    self.fed = self.fed.max(entry.number);
                    let message = Message::Text(entry.frame);
                    self.socket.start_send_unpin(message).map_err(|_| DropReason::Gone)?;
                    self.dirty = true;
                }
                Next::Wait => break,
                Next::Close(why) => {
                    close = Some(why);
                    break;
                }
            }
        }
        add(&self.guard.relay.counters.bytes_out, bytes);
        if self.dirty {
            match self.socket.poll_flush_unpin(cx) {
                Poll::Ready(flushed) => flushed.map_err(|_| DropReason::Gone)?,
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(false);
                }
            }
            (self.dirty, self.ponging) = (false, false);
            if std::mem::take(&mut self.blocked) {
                // It has taken what it kept waiting; its pong may stand behind that.
                self.heard = Instant::now();
            }
            self.guard.send_queue.wrote(self.fed);
        }
        match close {
            Some(why) => Err(why),
            None => Ok(bytes >= WRITE_BATCH),
        }
    }
}

fn broken(error: axum::Error) -> DropReason {
    match error.into_inner().downcast_ref() {
        Some(SocketError::Capacity(_)) => DropReason::TooLarge,
        Some(SocketError::Utf8(_)) => DropReason::NotUtf8,
        // A connection that just ends is no fault of the protocol.
        Some(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            DropReason::Gone
        }
        Some(SocketError::Protocol(_)) => DropReason::Protocol,
        _ => DropReason::Gone,
    }
}

/// Says why, and lets the peer answer, so that it sees the reason and not a reset.
async fn close(mut socket: WebSocket, end: DropReason) {
    if end == DropReason::Gone {
        return;
    }
    let frame = end.frame().map(|(code, reason)| CloseFrame { code, reason: reason.into() });
    let talk = async {
        if end != DropReason::Closed && socket.send(Message::Close(frame)).await.is_err() {
            return;
        }
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = timeout(CLOSE_LIMIT, talk).await;
}
