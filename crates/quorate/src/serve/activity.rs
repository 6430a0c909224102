//! Whether a connection is in use, and the place it holds until its last byte.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::connections::Place;

/// A connection without a request for so long is closed: whoever needs it again connects again.
const IDLE_TIME: Duration = Duration::from_secs(60);

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

/// A stream that holds its connection's place, also when it has become a WebSocket.
pub(super) struct Placed<S> {
    pub(super) stream: S,
    pub(super) _place: Option<Place>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
