//! What request bodies may take: time to arrive, and memory until their handlers are done.
//!
//! A body that stops in the middle holds what came of it. So each has a deadline, and all together,
//! those of one address and those of one connection are bounded. A call that streams is bounded by
//! its messages: each has the deadline from its first byte on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use quorate_core::budget::{Budget, Over};
use quorate_front_rest::ApiError;
use quorate_rpc::MAX_MESSAGE;
use quorate_rpc::status::to_status;
use quorate_types::{ClientAddress, Error, Result};
use tokio::time::{Instant, Sleep, sleep_until};

use super::edge::is_grpc;

/// Bytes of all bodies that have not ended. Honest ones are held for milliseconds.
const IN_ALL: usize = 64 << 20;
/// The same of one connection: two of the largest messages.
const PER_CONNECTION: usize = 8 << 20;
/// What a body takes before its first byte: a stream and a handler that waits.
const BODY_COST: usize = 8 << 10;
/// A body, and each message of a stream, arrives within this time: 2 MiB at 0.6 Mbit/s.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Calls whose bodies stay open.
const STREAMS: [&str; 3] = [
    "/mpc.router.v1.MessageRouter/Link",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The bodies that a process receives.
pub(crate) struct Bodies(Mutex<Budget<ClientAddress>>);

impl Bodies {
    /// No bodies yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Budget::new(IN_ALL))))
    }

    /// The bodies of one connection.
    pub(crate) fn source(self: &Arc<Self>, address: ClientAddress) -> Arc<Source> {
        Arc::new(Source { bodies: self.clone(), address, held: Mutex::new(0) })
    }
}

/// A connection that bodies come from.
pub(crate) struct Source {
    bodies: Arc<Bodies>,
    address: ClientAddress,
    held: Mutex<usize>,
}

impl Source {
    /// Puts a bounded body in the place of a request's own.
    ///
    /// # Errors
    /// The refusal, in the caller's own protocol, when there is no room for another body.
    pub(crate) fn admit<B>(
        self: &Arc<Self>,
        request: hyper::Request<B>,
    ) -> Result<Request, Box<Response>>
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
    {
        if request.body().is_end_stream() {
            return Ok(request.map(Body::new));
        }
        let grpc = is_grpc(request.headers());
        let mut charge = Charge { source: self.clone(), amount: 0 };
        if let Err(error) = charge.grow(BODY_COST) {
            return Err(refused(error, request.headers()));
        }
        let streams = grpc && STREAMS.contains(&request.uri().path());
        let shape = if grpc { Shape::Messages(Messages::default()) } else { Shape::Whole };
        let (due, late) = ((!streams).then(|| Instant::now() + BODY_TIME), None);
        Ok(request
            .map(|inner| Body::new(Metered { inner, charge, grpc, streams, shape, due, late })))
    }
}

/// A refusal in the protocol of the request with these headers.
pub(crate) fn refused(error: Error, headers: &HeaderMap) -> Box<Response> {
    Box::new(match is_grpc(headers) {
        true => to_status(error).into_http(),
        false => ApiError(error).into_response(),
    })
}

/// Bytes counted for one body; given back when it is dropped.
struct Charge {
    source: Arc<Source>,
    amount: usize,
}

impl Charge {
    fn grow(&mut self, by: usize) -> Result<()> {
        let Source { bodies, address, held } = &*self.source;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = if *held + by > PER_CONNECTION {
            "this connection sends more at once than is taken; wait for its other requests"
        } else {
            let mut budget = bodies.0.lock().unwrap_or_else(PoisonError::into_inner);
            match budget.take(address, by) {
                Ok(()) => {
                    *held += by;
                    self.amount += by;
                    return Ok(());
                }
                Err(Over::Share) => "this address sends more at once than is taken; try again",
                Err(Over::Whole) => "more arrives at once than is taken; try again",
            }
        };
        Err(Error::rate_limited(problem, 1))
    }

    fn shrink_to(&mut self, amount: usize) {
        let Source { bodies, address, held } = &*self.source;
        let freed = self.amount.saturating_sub(amount);
        self.amount -= freed;
        *held.lock().unwrap_or_else(PoisonError::into_inner) -= freed;
        bodies.0.lock().unwrap_or_else(PoisonError::into_inner).give_back(address, freed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// How the bytes of a body are counted.
enum Shape {
    /// As they come.
    Whole,
    /// By the length that each message announces: the decoder makes room for all of it.
    Messages(Messages),
}

/// Where a gRPC body stands: each message has a flag and four bytes of length before it.
#[derive(Default)]
struct Messages {
    head: [u8; 5],
    have: usize,
    missing: usize,
}

impl Messages {
    /// Takes bytes in; answers with what the messages that begin in them announce.
    fn take(&mut self, mut bytes: &[u8]) -> usize {
        let mut announced = 0;
        while !bytes.is_empty() {
            if self.have < self.head.len() {
                let count = bytes.len().min(self.head.len() - self.have);
                self.head[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &bytes[count..];
                if self.have == self.head.len() {
                    let [_, a, b, c, d] = self.head;
                    self.missing = u32::from_be_bytes([a, b, c, d]) as usize;
                    // A longer one is refused by the decoder.
                    announced += self.missing.min(MAX_MESSAGE);
                }
            } else {
                let count = bytes.len().min(self.missing);
                self.missing -= count;
                bytes = &bytes[count..];
            }
            if self.have == self.head.len() && self.missing == 0 {
                self.have = 0;
            }
        }
        announced
    }

    fn is_between(&self) -> bool {
        self.have == 0
    }
}

/// A body that is counted and has a deadline.
struct Metered<B> {
    inner: B,
    charge: Charge,
    grpc: bool,
    /// Its messages have deadlines, not the whole.
    streams: bool,
    shape: Shape,
    due: Option<Instant>,
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Metered<B> {
    fn count(&mut self, data: &Bytes) -> Result<()> {
        let Shape::Messages(messages) = &mut self.shape else {
            return self.charge.grow(data.len());
        };
        let announced = messages.take(data);
        let between = messages.is_between();
        self.charge.grow(announced)?;
        if self.streams && between {
            self.charge.shrink_to(BODY_COST);
            self.set_due(None);
        } else if self.streams && self.due.is_none() {
            self.set_due(Some(Instant::now() + BODY_TIME));
        }
        Ok(())
    }

    fn set_due(&mut self, due: Option<Instant>) {
        self.due = due;
        self.late = None;
    }

    /// Whether the deadline has passed; if not, this task is woken then.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        self.late.get_or_insert_with(|| Box::pin(sleep_until(due))).as_mut().poll(cx)
    }

    /// An error as the decoder of this body passes it on.
    fn refusal(&self, error: Error) -> axum::BoxError {
        if self.grpc { to_status(error).into() } else { error.into() }
    }
}

impl<B> HttpBody for Metered<B>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.poll_late(cx));
                this.set_due(None);
                let seconds = BODY_TIME.as_secs();
                let late =
                    format!("the body did not arrive within {seconds} seconds; send it again");
                return Poll::Ready(Some(Err(this.refusal(Error::invalid(late)))));
            }
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(error) = this.count(data)
        {
            return Poll::Ready(Some(Err(this.refusal(error))));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use quorate_types::ErrorCode;

    use super::*;

    fn source(bodies: &Arc<Bodies>, ip: &str) -> Arc<Source> {
        bodies.source(ClientAddress::of(ip.parse().unwrap()))
    }

    fn charge(source: &Arc<Source>) -> Charge {
        Charge { source: source.clone(), amount: 0 }
    }

    #[test]
    fn one_address_leaves_room_for_others_and_gets_its_own_back() {
        let bodies = Bodies::new();
        let mut held = Vec::new();
        let refused = loop {
            let mut one = charge(&source(&bodies, "127.0.0.2"));
            match one.grow(PER_CONNECTION) {
                Ok(()) => held.push(one),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(held.len(), IN_ALL / 2 / PER_CONNECTION);
        let mut other = charge(&source(&bodies, "127.0.0.1"));
        other.grow(PER_CONNECTION).unwrap();
        drop((held, other));
        assert_eq!(bodies.0.lock().unwrap().used(), 0);
    }

    #[test]
    fn a_connection_holds_two_of_the_largest_messages() {
        let bodies = Bodies::new();
        let connection = source(&bodies, "127.0.0.1");
        let (mut one, mut two, mut three) =
            (charge(&connection), charge(&connection), charge(&connection));
        one.grow(MAX_MESSAGE).unwrap();
        two.grow(MAX_MESSAGE).unwrap();
        assert_eq!(three.grow(1).unwrap_err().code, ErrorCode::RateLimited);
        drop(one);
        three.grow(MAX_MESSAGE).unwrap();
    }

    #[test]
    fn messages_are_counted_by_what_they_announce() {
        let body =
            [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[0, 0, 1, 0, 0], b"x"].concat();
        // However the bytes are cut.
        for size in 1..=body.len() {
            let mut messages = Messages::default();
            let mut between = Vec::new();
            let announced: usize = body
                .chunks(size)
                .map(|chunk| {
                    let announced = messages.take(chunk);
                    between.push(messages.is_between());
                    announced
                })
                .sum();
            assert_eq!((announced, messages.missing), (3 + (1 << 16), (1 << 16) - 1), "{size}");
            assert_eq!(between.last(), Some(&false));
        }
        let mut messages = Messages::default();
        assert_eq!(messages.take(&[0, 0xff, 0xff, 0xff, 0xff]), MAX_MESSAGE);
        let mut messages = Messages::default();
        messages.take(&body[..8]);
        assert!(messages.is_between());
    }

    /// A request whose body brings these bytes and then nothing, without ending.
    fn unending(path: &str, kind: &str, bytes: &'static [u8]) -> hyper::Request<Body> {
        let first = stream::iter([Ok::<_, Error>(Bytes::from_static(bytes))]);
        let body = Body::from_stream(first.chain(stream::pending()));
        let request = hyper::Request::post(path).header("content-type", kind);
        request.body(body).unwrap()
    }

    /// Reads an admitted body to its end: how many seconds that took, and the error's text.
    async fn end(request: Request) -> (u64, String) {
        let start = Instant::now();
        let read = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        (start.elapsed().as_secs(), read.unwrap_err().to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up_after_its_time() {
        let bodies = Bodies::new();
        let source = source(&bodies, "127.0.0.1");
        let call = [&[0, 0, 0, 0, 9][..], b"half"].concat().leak();
        for (path, kind, bytes) in [
            ("/api/v1/sessions", "application/json", &b"{"[..]),
            ("/mpc.router.v1.MessageRouter/RouteMessage", "application/grpc", call),
            (STREAMS[0], "application/grpc", call),
        ] {
            let request = source.admit(unending(path, kind, bytes)).unwrap();
            let (seconds, problem) = end(request).await;
            assert_eq!(seconds, BODY_TIME.as_secs(), "{path}");
            assert!(problem.contains("did not arrive"), "{path}: {problem}");
        }
        assert_eq!(bodies.0.lock().unwrap().used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent_between_its_messages() {
        let source = source(&Bodies::new(), "127.0.0.1");
        let whole = &[0, 0, 0, 0, 1, b'x'];
        let request = source.admit(unending(STREAMS[0], "application/grpc", whole)).unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert!(tokio::time::timeout(day, end(request)).await.is_err());
    }
}
