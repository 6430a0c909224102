//! gRPC streams end with the API key that opened them.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use quorate_front_rest::Lapse;
use quorate_rpc::status::to_status;
use quorate_types::Error;

/// The answer to a gRPC call, ended with a status once the caller's credential is good no more.
pub(super) fn until_lapsed(response: Response, lapse: Lapse) -> Response {
    let lapsed = Box::pin(async move { lapse.over().await });
    response.map(|body| Body::new(UntilLapsed { body, lapsed: Some(lapsed) }))
}

struct UntilLapsed {
    body: Body,
    /// `None` once the body has ended.
    lapsed: Option<BoxFuture<'static, Error>>,
}

impl HttpBody for UntilLapsed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(lapsed) = &mut self.lapsed else { return Poll::Ready(None) };
        if let Poll::Ready(error) = lapsed.as_mut().poll(cx) {
            self.lapsed = None;
            self.body = Body::empty();
            let (head, ()) = to_status(error).into_http::<()>().into_parts();
            return Poll::Ready(Some(Ok(Frame::trailers(head.headers))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.lapsed = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.lapsed.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
