//! Whether a connection is in use, and the place it holds until its last byte.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connections::Place;

/// A connection without a request for so long is closed: whoever needs it again connects again.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// How long, and for how many bytes, an ended connection is read.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;
const LINGER_BUFFER: usize = 16 << 10;

/// The requests of one connection.
#[derive(Clone, Default)]
pub(super) struct Activity(watch::Sender<Requests>);

#[derive(Clone, Copy, Default)]
struct Requests {
    /// Whether there has been one.
    asked: bool,
    /// How many have not been answered to their end.
    open: usize,
}

impl Activity {
    /// Notes a request, which is open for as long as what this returns.
    pub(super) fn begin(&self) -> Open {
        self.0.send_modify(|requests| {
            requests.asked = true;
            requests.open += 1;
        });
        Open(self.clone())
    }

    /// Returns once there has been a request.
    pub(super) async fn asked(&self) {
        let _ = self.0.subscribe().wait_for(|requests| requests.asked).await;
    }

    /// Returns once no request has been open for a while.
    pub(super) async fn idle(&self) {
        let mut requests = self.0.subscribe();
        loop {
            let _ = requests.wait_for(|requests| requests.open == 0).await;
            if tokio::time::timeout(IDLE_TIME, requests.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// A request that has not been answered to its end.
pub(super) struct Open(Activity);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|requests| requests.open -= 1);
    }
}

/// The body of an answer; its request is open until it is dropped.
pub(super) struct Tracked {
    pub(super) body: Body,
    pub(super) _open: Open,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream. It holds the connection's place, also when it has become a WebSocket, and
/// the process waits for it at its end.
///
/// When it is dropped with bytes unread, the system would send a reset that overtakes what was
/// written last, such as the reason of a refusal. So it is read for a moment longer.
pub(super) struct Placed {
    /// There until it is dropped.
    stream: Option<TcpStream>,
    place: Option<Arc<Place>>,
    /// The peer has sent its last byte.
    ended: bool,
    _open: TaskTrackerToken,
}

impl Placed {
    pub(super) fn new(stream: TcpStream, place: Arc<Place>, open: TaskTrackerToken) -> Self {
        Self { stream: Some(stream), place: Some(place), ended: false, _open: open }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("there until it is dropped"))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // One that was on trial must not stay a moment longer, or many would.
        let counted = self.place.as_ref().is_some_and(|place| !place.is_on_trial());
        if let Some(stream) = self.stream.take()
            && counted
            && !self.ended
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(linger(stream, self.place.take()));
        }
    }
}

/// Lets the peer read what was written last. The place is held meanwhile.
async fn linger(mut stream: TcpStream, place: Option<Arc<Place>>) {
    let drain = async {
        stream.shutdown().await?;
        let mut drained = 0;
        let mut waste = vec![0; LINGER_BUFFER];
        while drained < LINGER_BYTES {
            match stream.read(&mut waste).await? {
                0 => break,
                count => drained += count,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(LINGER_TIME, drain).await;
    drop(place);
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = ready!(self.stream().poll_read(cx, buffer));
        self.ended |= read.is_err() || (room > 0 && buffer.filled().len() == before);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.stream().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_a_minute_after_its_last_request() {
        let activity = Activity::default();
        let start = tokio::time::Instant::now();
        let open = activity.begin();
        activity.asked().await;
        let work = async {
            tokio::time::sleep(IDLE_TIME * 10).await;
            drop(open);
            tokio::time::sleep(IDLE_TIME / 2).await;
            drop(activity.begin());
        };
        tokio::join!(work, activity.idle());
        assert_eq!(start.elapsed(), IDLE_TIME * 10 + IDLE_TIME / 2 + IDLE_TIME);
    }
}
