//! Messages over the binary relay.
//!
//! Every message has an id that all devices can compute. A device asks for all it will need and
//! publishes what it has; after a broken connection, or when the relay has lost its memory, it asks
//! and publishes again. Whoever knows the instance can put junk where a message belongs, and the
//! first to publish wins. So a sender asks for its own messages too: where another frame comes
//! back, the message goes out again as the next attempt, and a receiver that gets a frame which its
//! sender did not sign asks for the next attempt.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_participant::Gate;
use quorate_participant::devices::{InstanceId, MessageKind, SignedMessage, VerifyingKey, open};
use quorate_party::Backoff;
use quorate_types::{Error, ErrorCode, RelayId, Result};
use quorate_wire::relay::{HEADER, Header, Ttl, ask, message_id, publish};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::channel::{Channel, Ends, Order};
use super::connect::{SILENCE, Socket, connect, unreachable};
use super::message::seal;
use super::signer::MessageSigner;

/// How often a message goes out anew when somebody takes its place.
const MAX_ATTEMPTS: u32 = 16;
/// The largest message that a relay carries; junk of that size must not break the connection.
const MAX_FRAME: usize = (16 << 20) + HEADER;

/// What the transport knows of a run.
pub(crate) struct Route {
    pub(crate) url: String,
    pub(crate) signer: Arc<dyn MessageSigner>,
    /// The members' keys, in their order.
    pub(crate) keys: Vec<VerifyingKey>,
    pub(crate) me: usize,
    pub(crate) instance: InstanceId,
    /// Nothing of this run is of use afterwards.
    pub(crate) deadline: Instant,
}

impl Route {
    /// Connects, and carries messages until the channel is dropped.
    pub(crate) fn start(self) -> Channel {
        Channel::start(|ends| {
            let transport = TransportTask {
                route: self,
                ends,
                asked: HashMap::new(),
                sent: Vec::new(),
                own: HashMap::new(),
            };
            transport.run()
        })
    }

    fn id(&self, kind: MessageKind, attempt: u32, from: usize, to: Option<usize>) -> RelayId {
        let receiver = to.map(|to| self.keys[to].as_bytes());
        message_id(kind.tag(attempt), self.keys[from].as_bytes(), receiver, &self.instance.0)
    }

    fn ttl(&self) -> Ttl {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ttl::from_secs(left.as_secs().max(1))
    }
}

struct Asked {
    kind: MessageKind,
    from: usize,
    attempt: u32,
}

struct Sent {
    kind: MessageKind,
    to: Option<usize>,
    payload: Bytes,
    attempt: u32,
    id: RelayId,
    message: Bytes,
    /// What is sent again after a break asks again.
    gate: Gate,
}

struct TransportTask {
    route: Route,
    ends: Ends,
    asked: HashMap<RelayId, Asked>,
    sent: Vec<Sent>,
    /// Which of our messages an id belongs to, until we have seen that it stands there.
    own: HashMap<RelayId, usize>,
}

/// Why a connection was left.
enum Left {
    /// Nobody needs it any more.
    Done,
    Broken(String),
}

impl TransportTask {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut first = true;
        loop {
            let last_error = match connect(&self.route.url, MAX_FRAME).await {
                Ok(socket) => {
                    self.ends.last_error.set(None);
                    backoff.reset();
                    match self.serve(socket).await {
                        Ok(Left::Done) => return,
                        Ok(Left::Broken(why)) => why,
                        Err(error) => {
                            return self.ends.fail(error).await;
                        }
                    }
                }
                // A wrong address shows itself at once, not at the deadline.
                Err(why) if first => {
                    return self.ends.fail(unreachable(&self.route.url, &why)).await;
                }
                Err(why) => why,
            };
            first = false;
            tracing::info!("the connection to the relay broke: {last_error}");
            self.ends.last_error.set(Some(last_error));
            backoff.pause().await;
        }
    }

    /// Serves one connection. An error is for good.
    async fn serve(&mut self, mut socket: Socket) -> Result<Left> {
        let again: Vec<_> = self.asked.keys().chain(self.own.keys()).copied().collect();
        let ttl = self.route.ttl();
        let passed = |sent: &&Sent| sent.gate.check().is_ok();
        let messages = self.sent.iter().filter(passed);
        let messages = messages.map(|sent| publish(sent.id, ttl, 0, &sent.message));
        let mut frames: Vec<_> = messages.collect();
        frames.extend(again.into_iter().map(|id| ask(id, ttl)));
        loop {
            if let Err(why) = write(&mut socket, std::mem::take(&mut frames)).await {
                return Ok(Left::Broken(why));
            }
            tokio::select! {
                biased;
                order = self.ends.orders.recv() => match order {
                    None => {
                        let _ = socket.close(None).await;
                        return Ok(Left::Done);
                    }
                    Some(order) => self.order(order, &mut frames).await?,
                },
                next = tokio::time::timeout(SILENCE, socket.next()) => match next {
                    Ok(Some(Ok(Message::Binary(frame)))) => self.take(frame, &mut frames).await?,
                    Ok(Some(Ok(Message::Close(frame)))) => {
                        let why = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                        return Ok(Left::Broken(format!("it was closed: {why}")));
                    }
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(error))) => return Ok(Left::Broken(error.to_string())),
                    Ok(None) => return Ok(Left::Broken("it was closed".into())),
                    Err(_) => return Ok(Left::Broken("nothing came for 45 s".into())),
                },
            }
        }
    }

    async fn order(&mut self, order: Order, frames: &mut Vec<Bytes>) -> Result<()> {
        match order {
            Order::Expect { kind, from } => frames.extend(self.ask(kind, from, 0)),
            Order::Send { kind, to, payload, gate } => {
                let at = self.sent.len();
                let sent = self.sealed(kind, to, payload, 0).await?;
                // Signing may take its time: what is asked before it is out of date.
                gate.check()?;
                let sent = Sent { gate, ..sent };
                self.sent.push(sent);
                frames.extend(self.publish(at));
            }
            // Orders are served in their order, each written out before the next is taken.
            Order::Flush(done) => {
                let _ = done.send(());
            }
        }
        Ok(())
    }

    fn ask(&mut self, kind: MessageKind, from: usize, attempt: u32) -> Option<Bytes> {
        let to = match kind {
            MessageKind::Round { direct: true, .. } => Some(self.route.me),
            _ => None,
        };
        let id = self.route.id(kind, attempt, from, to);
        self.asked.insert(id, Asked { kind, from, attempt });
        Some(ask(id, self.route.ttl()))
    }

    async fn sealed(
        &self,
        kind: MessageKind,
        to: Option<usize>,
        payload: Bytes,
        attempt: u32,
    ) -> Result<Sent> {
        let id = self.route.id(kind, attempt, self.route.me, to);
        let message = seal(self.route.signer.as_ref(), &id.0, &payload).await?;
        Ok(Sent { kind, to, payload, attempt, id, message, gate: Gate::open() })
    }

    /// Publishes one of our messages and asks for it, to see that it stands there.
    fn publish(&mut self, at: usize) -> [Bytes; 2] {
        let (sent, ttl) = (&self.sent[at], self.route.ttl());
        self.own.insert(sent.id, at);
        [publish(sent.id, ttl, 0, &sent.message), ask(sent.id, ttl)]
    }

    async fn take(&mut self, frame: Bytes, frames: &mut Vec<Bytes>) -> Result<()> {
        let Some((Header { id, .. }, _)) = Header::parse(&frame) else { return Ok(()) };
        let body = frame.slice(HEADER..);
        if let Some(at) = self.own.remove(&id) {
            if self.sent[at].message != body {
                let Sent { kind, to, ref payload, attempt, .. } = self.sent[at];
                let next = next_attempt(attempt)?;
                tracing::warn!(?kind, attempt, "another frame stands where our message belongs");
                let gate = self.sent[at].gate.clone();
                let sealed = self.sealed(kind, to, payload.clone(), next).await?;
                gate.check()?;
                self.sent[at] = Sent { gate, ..sealed };
                frames.extend(self.publish(at));
            }
            return Ok(());
        }
        let Some(asked) = self.asked.remove(&id) else { return Ok(()) };
        let Asked { kind, from, attempt } = asked;
        match open(&self.route.keys[from], &id.0, &body) {
            Some(payload) => {
                let _ = self.ends.messages.send(Ok(SignedMessage { from, kind, payload })).await;
            }
            None => {
                tracing::warn!(
                    ?kind,
                    from,
                    attempt,
                    "dropped a frame that its sender did not sign"
                );
                frames.extend(self.ask(kind, from, next_attempt(attempt)?));
            }
        }
        Ok(())
    }
}

fn next_attempt(attempt: u32) -> Result<u32> {
    if attempt + 1 < MAX_ATTEMPTS {
        return Ok(attempt + 1);
    }
    Err(Error::new(
        ErrorCode::RateLimited,
        "somebody who knows this instance floods it with junk; start again with a new instance, \
         and show it to nobody else",
    ))
}

async fn write(socket: &mut Socket, frames: Vec<Bytes>) -> std::result::Result<(), String> {
    if frames.is_empty() {
        return Ok(());
    }
    for frame in frames {
        socket.feed(Message::Binary(frame)).await.map_err(|error| error.to_string())?;
    }
    socket.flush().await.map_err(|error| error.to_string())
}
