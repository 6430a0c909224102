//! A channel that authorizes each call: the credentials see the call's path and its whole body.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, CONTENT_TYPE};
use tonic::codegen::http::{HeaderValue, Request, Response, request};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::endpoint::{Call, Credentials, NONCE};
use crate::status::{is_ours, to_status};
use crate::streams_calls;
use crate::unreachable::{Expected, Place};

/// A channel with credentials, or without.
#[derive(Clone)]
pub(crate) struct Authorized {
    channel: Channel,
    place: Place,
    audience: Arc<str>,
    credentials: Option<Arc<dyn Credentials>>,
}

impl Authorized {
    pub(crate) fn new(
        channel: Channel,
        place: Place,
        audience: Arc<str>,
        credentials: Option<Arc<dyn Credentials>>,
    ) -> Self {
        Self { channel, place, audience, credentials }
    }

    /// What this service is expected to be, in errors.
    pub(crate) fn expect(mut self, service: Expected) -> Self {
        self.place.service = service;
        self
    }
}

impl Service<Request<Body>> for Authorized {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Self { channel, place, .. } = self;
        channel.poll_ready(cx).map_err(|error| to_status(place.unreachable(&error)))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = self.place.clone();
        let Some(credentials) = self.credentials.clone() else {
            let answer = self.channel.call(request);
            return Box::pin(async move { understood(&place, answer.await) });
        };
        // The ready one is used up by this call; its clone must become ready for the next.
        let next = self.channel.clone();
        let channel = std::mem::replace(&mut self.channel, next);
        let audience = Arc::clone(&self.audience);
        Box::pin(async move {
            let sending = Sending { channel, audience, credentials };
            let answer = if streams_calls(request.uri().path()) {
                sending.stream(request).await
            } else {
                sending.unary(request).await
            };
            understood(&place, answer)
        })
    }
}

/// One call on its way.
struct Sending {
    channel: Channel,
    audience: Arc<str>,
    credentials: Arc<dyn Credentials>,
}

/// An answer of the service that is meant, or why there is none.
fn understood(place: &Place, answer: Answer) -> Result<Response<Body>, Status> {
    let answer = answer.map_err(|error| to_status(place.unreachable(&error)))?;
    let status = Status::from_header_map(answer.headers());
    let unknown_call =
        status.is_some_and(|status| status.code() == Code::Unimplemented && !is_ours(&status));
    let kind = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if unknown_call || !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return Err(to_status(place.wrong_service()));
    }
    Ok(answer)
}

type Answer = Result<Response<Body>, tonic::transport::Error>;

impl Sending {
    /// A call with a whole body, sent again at most once with the nonce that it was refused for.
    async fn unary(mut self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(status) => return Ok(status.into_http()),
        };
        let answer = self.send(&parts, &body).await?;
        let refused = Status::from_header_map(answer.headers())
            .is_some_and(|status| status.code() == Code::Unauthenticated);
        if self.took_nonce(&answer) && refused {
            poll_fn(|cx| self.channel.poll_ready(cx)).await?;
            let answer = self.send(&parts, &body).await?;
            self.took_nonce(&answer);
            return Ok(answer);
        }
        Ok(answer)
    }

    /// The opening of a stream, with a nonce fetched before where the credentials need one.
    async fn stream(mut self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        if let Some(challenge) = self.credentials.challenge() {
            let Ok(value) = challenge.parse() else { return Ok(not_header_text()) };
            let answer = self.channel.call(with(&parts, value, Body::empty())).await?;
            self.took_nonce(&answer);
            poll_fn(|cx| self.channel.poll_ready(cx)).await?;
        }
        let Ok(value) = self.authorization(&parts, None).parse() else {
            return Ok(not_header_text());
        };
        let answer = self.channel.call(with(&parts, value, body)).await?;
        self.took_nonce(&answer);
        Ok(answer)
    }

    async fn send(&mut self, parts: &request::Parts, body: &Bytes) -> Answer {
        let Ok(value) = self.authorization(parts, Some(body)).parse() else {
            return Ok(not_header_text());
        };
        let body = Body::new(Full::new(body.clone()));
        self.channel.call(with(parts, value, body)).await
    }

    fn authorization(&self, parts: &request::Parts, body: Option<&[u8]>) -> String {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let (audience, method) = (&*self.audience, parts.method.as_str());
        self.credentials.authorization(&Call { audience, method, target, body })
    }

    fn took_nonce(&self, answer: &Response<Body>) -> bool {
        let nonce = answer.headers().get(NONCE).and_then(|value| value.to_str().ok());
        nonce.is_some_and(|nonce| self.credentials.take_nonce(&self.audience, nonce))
    }
}

/// The same request head with this authorization and body.
fn with(parts: &request::Parts, authorization: HeaderValue, body: Body) -> Request<Body> {
    let mut request = Request::from_parts(parts.clone(), body);
    request.headers_mut().insert(AUTHORIZATION, authorization);
    request
}

fn not_header_text() -> Response<Body> {
    Status::unauthenticated("the credentials are not header text").into_http()
}
