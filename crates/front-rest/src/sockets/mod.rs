//! WebSockets: one loop for all, which pulls what it sends and keeps requests in their order.
//!
//! There is no queue between the service's stream and the socket: a reader that is slow fills its
//! own socket, then the loop waits, then the service sees a stream that nobody pulls. A peer is alive
//! that answers our pings, sends requests or takes what it kept waiting; its own pings prove nothing.

pub(crate) mod events;
pub(crate) mod messages;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, SinkExt, StreamExt};
use quorate_ports::BoxStream;
use quorate_types::{Error, ErrorCode, Result};
use quorate_wire::close_reason;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_util::sync::CancellationToken;

use crate::answer::ApiError;
use crate::common::MESSAGE_BODY;
use crate::lapse::Lapse;

/// Read buffer per connection: most frames are small, and thousands of sockets are idle.
const READ_BUFFER: usize = 4 << 10;

/// Most bytes that wait for one socket: a message of the largest size beside a batch. Without a
/// bound a client that pings and never reads makes the server keep every pong.
const WRITE_BUFFER: usize = 2 * MESSAGE_BODY;

/// The server pings this often, below what proxies and address translators forget.
const PING_EVERY: Duration = Duration::from_secs(20);

/// A peer that has sent nothing for three pings is gone, and so is one that takes no byte.
const SILENCE: Duration = Duration::from_secs(60);

/// Time to finish what is under way when a socket ends.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Requests of one socket under way at once: more wait unread in the socket. A party sends a few
/// messages a round; this many keep a group commit busy.
const MAX_UNDER_WAY: usize = 64;

/// Frames that are ready are written together up to about this many bytes, then flushed.
const BATCH: usize = 16 << 10;

/// Close code after frames that the protocol does not know.
const PROTOCOL_ERROR: u16 = 1002;

/// Close code after text that is not UTF-8.
const NOT_UTF8: u16 = 1007;

/// Close code of a server that goes away and is expected back.
const RESTARTING: u16 = 1012;

/// Answers to requests, in the order of the requests; `None` says nothing.
type ApiResult = BoxFuture<'static, Option<String>>;

/// A write that took so long had to wait for the peer to read.
const WAITED: Duration = Duration::from_secs(1);

/// A WebSocket handshake, its limits set.
pub(crate) struct Upgrade {
    handshake: WebSocketUpgrade,
    stop: CancellationToken,
    lapse: Lapse,
}

impl Upgrade {
    /// Answers the handshake, and lets `serve` have the socket and the word that the service stops.
    pub(crate) fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response {
        let Self { handshake, stop, lapse } = self;
        handshake.on_upgrade(move |socket| serve(Socket { socket, stop, lapse }))
    }
}

/// An open WebSocket.
pub(crate) struct Socket {
    socket: WebSocket,
    /// The service stops. A server puts its token among a request's extensions.
    stop: CancellationToken,
    lapse: Lapse,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match WebSocketUpgrade::from_request_parts(parts, state).await {
            Ok(handshake) => Ok(Self {
                handshake: handshake
                    .read_buffer_size(READ_BUFFER)
                    .write_buffer_size(BATCH)
                    .max_write_buffer_size(WRITE_BUFFER)
                    .max_message_size(MESSAGE_BODY)
                    .max_frame_size(MESSAGE_BODY),
                stop: parts.extensions.get().cloned().unwrap_or_default(),
                lapse: parts.extensions.get().cloned().unwrap_or_default(),
            }),
            Err(rejection) => {
                let message = format!("this path is a WebSocket: {}", rejection.body_text());
                Err(ApiError(Error::invalid(message)))
            }
        }
    }
}

/// Why a socket ends.
enum End {
    /// The peer is gone, or takes nothing any more.
    Gone,
    /// The peer has closed the connection.
    Closed,
    /// We close the connection with an error.
    Refused(Error),
    /// The peer broke the WebSocket protocol: a close code and its reason.
    Broken(u16, &'static str),
    /// The service stops.
    Stopping,
}

/// Runs a socket to its end: sends `frames`, and hands each text frame to `serve`.
pub(crate) async fn run(
    socket: Socket,
    mut frames: BoxStream<Result<String>>,
    mut serve: impl FnMut(Utf8Bytes) -> ApiResult + Send,
) {
    let Socket { mut socket, stop, lapse } = socket;
    let lapsed = lapse.over();
    tokio::pin!(lapsed);
    let mut answers = FuturesOrdered::new();
    let mut beat = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut life = Life::default();
    let end = loop {
        let mut since = Instant::now();
        let step = tokio::select! {
            Some(answer) = answers.next(), if !answers.is_empty() => {
                since = Instant::now();
                match answer {
                    Some(text) => write(&mut socket, text).await,
                    None => Ok(()),
                }
            },
            frame = socket.recv(), if answers.len() < MAX_UNDER_WAY => {
                since = Instant::now();
                match read(frame, &mut life) {
                    Ok(Heard::Text(text)) => {
                        answers.push_back(serve(text));
                        Ok(())
                    }
                    // Its sender is not read from until our pong has left.
                    Ok(Heard::Ping) => flush(&mut socket).await,
                    Ok(Heard::Pong) => Ok(()),
                    Err(end) => Err(end),
                }
            }
            frame = frames.next() => {
                since = Instant::now();
                deliver(&mut socket, frame, &mut frames).await
            }
            _ = beat.tick() => {
                since = Instant::now();
                if life.heard.elapsed() > SILENCE {
                    Err(End::Gone)
                } else {
                    let ping = life.next_ping();
                    send(&mut socket, Message::Ping(ping)).await
                }
            }
            () = stop.cancelled() => Err(End::Stopping),
            error = &mut lapsed => Err(End::Refused(error)),
        };
        if since.elapsed() >= WAITED {
            // It has taken what it kept waiting; its pong may stand behind that.
            life.heard = Instant::now();
        }
        if let Err(end) = step {
            break end;
        }
    };
    // What the peer asked for before it left is still done: an acknowledgement must not be lost.
    let rest = async { while answers.next().await.is_some() {} };
    let _ = timeout(CLOSE_LIMIT, rest).await;
    finish(socket, end).await;
}

/// When a peer was last known to be there.
struct Life {
    heard: Instant,
    /// Makes the nonces of pings, which only a peer that reads can know.
    nonces: RandomState,
    nonce: u64,
}

impl Default for Life {
    fn default() -> Self {
        Self { heard: Instant::now(), nonces: RandomState::new(), nonce: 0 }
    }
}

impl Life {
    fn next_ping(&mut self) -> Bytes {
        self.nonce = self.nonces.hash_one(self.nonce);
        Bytes::copy_from_slice(&self.nonce.to_be_bytes())
    }
}

/// Closes a socket whose subscription was refused.
pub(crate) async fn refuse(socket: Socket, error: Error) {
    finish(socket.socket, End::Refused(error)).await;
}

/// What came of a peer's frame.
enum Heard {
    Text(Utf8Bytes),
    Ping,
    Pong,
}

fn read(frame: Option<Result<Message, axum::Error>>, life: &mut Life) -> Result<Heard, End> {
    match frame {
        Some(Ok(Message::Text(text))) => {
            life.heard = Instant::now();
            Ok(Heard::Text(text))
        }
        Some(Ok(Message::Ping(_))) => Ok(Heard::Ping),
        Some(Ok(Message::Pong(payload))) => {
            if payload[..] == life.nonce.to_be_bytes() {
                life.heard = Instant::now();
            }
            Ok(Heard::Pong)
        }
        Some(Ok(Message::Binary(_))) => Err(End::Refused(Error::new(
            ErrorCode::UnsupportedMediaType,
            "binary frames are not read here; send JSON in text frames",
        ))),
        Some(Ok(Message::Close(_))) | None => Err(End::Closed),
        Some(Err(error)) => Err(broken(error)),
    }
}

fn broken(error: axum::Error) -> End {
    match error.into_inner().downcast_ref() {
        Some(SocketError::Capacity(_)) => End::Refused(Error::new(
            ErrorCode::MessageTooLarge,
            format!("a frame is at most {MESSAGE_BODY} bytes"),
        )),
        Some(SocketError::Utf8(_)) => End::Broken(NOT_UTF8, "a text frame is UTF-8"),
        // A connection that just ends is no fault of the protocol.
        Some(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => End::Gone,
        Some(SocketError::Protocol(_)) => {
            End::Broken(PROTOCOL_ERROR, "this is not the WebSocket protocol")
        }
        _ => End::Gone,
    }
}

/// Writes a frame and those that are ready behind it, then flushes once.
async fn deliver(
    socket: &mut WebSocket,
    first: Option<Result<String>>,
    frames: &mut BoxStream<Result<String>>,
) -> Result<(), End> {
    let mut next = Some(first);
    let mut written = 0;
    let mut end = Ok(());
    while let Some(frame) = next.take() {
        match frame {
            Some(Ok(text)) => {
                written += text.len();
                let fed = timeout(SILENCE, socket.feed(Message::text(text))).await;
                if !matches!(fed, Ok(Ok(()))) {
                    return Err(End::Gone);
                }
            }
            Some(Err(error)) => end = Err(End::Refused(error)),
            None => end = Err(End::Stopping),
        }
        if end.is_ok() && written < BATCH {
            next = frames.next().now_or_never();
        }
    }
    flush(socket).await.and(end)
}

async fn flush(socket: &mut WebSocket) -> Result<(), End> {
    match timeout(SILENCE, socket.flush()).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Gone),
    }
}

async fn write(socket: &mut WebSocket, text: String) -> Result<(), End> {
    send(socket, Message::text(text)).await
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(SILENCE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Gone),
    }
}

/// Sends a close frame and lets the peer answer, so that it sees the reason and not a reset.
async fn finish(mut socket: WebSocket, end: End) {
    let frame = match end {
        End::Gone => return,
        End::Closed => None,
        End::Refused(error) => Some(CloseFrame {
            code: error.code.row().ws_close,
            reason: close_reason(&error).into(),
        }),
        End::Broken(code, reason) => {
            let error = Error::invalid(reason);
            Some(CloseFrame { code, reason: close_reason(&error).into() })
        }
        End::Stopping => Some(CloseFrame {
            code: RESTARTING,
            reason: close_reason(&Error::unavailable("the service stops; connect again")).into(),
        }),
    };
    let closing = async {
        if frame.is_some() && socket.send(Message::Close(frame)).await.is_err() {
            return;
        }
        while let Some(Ok(_)) = socket.recv().await {}
    };
    let _ = timeout(CLOSE_LIMIT, closing).await;
}

/// A frame as text. The shapes of this crate always serialize.
fn text<T: serde::Serialize>(frame: &T) -> String {
    serde_json::to_string(frame).expect("wire shapes serialize")
}
