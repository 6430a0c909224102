//! Extractors whose rejections are refusals like all others.

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use bytes::Bytes;
use quorate_types::{
    AccountId, ApiKeyId, Caller, Error, ErrorCode, FetchToken, KeyId, MessageId, PartyId, Secret,
    SessionId,
};
use serde::de::DeserializeOwned;

use crate::answer::ApiError;

/// The authenticated caller, as the outer layer left it, or the error with which it refuses it.
pub(crate) struct Who(pub(crate) Caller);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(error) = parts.extensions.get::<Error>() {
            return Err(ApiError(error.clone()));
        }
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(Self).ok_or_else(|| {
            let message = "no credentials; send Authorization: Bearer with an API key";
            ApiError(Error::new(ErrorCode::Unauthorized, message))
        })
    }
}

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = content_kind(request.headers());
        let bytes = read(request, state).await?;
        if !bytes.is_empty() {
            kind?;
        }
        Ok(Self(quorate_wire::parse(&bytes)?))
    }
}

/// A JSON body that may be left out.
pub(crate) struct OptionalBody<T>(pub(crate) Option<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = content_kind(request.headers());
        let bytes = read(request, state).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(None));
        }
        kind?;
        Ok(Self(Some(quorate_wire::parse(&bytes)?)))
    }
}

/// Refuses a body whose content type is not JSON. A browser sends bytes of no type across origins
/// without asking, so none named is refused as well.
fn content_kind(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        let message = "the body has no content type; send Content-Type: application/json";
        return Err(ApiError(Error::new(ErrorCode::UnsupportedMediaType, message)));
    };
    let text = value.to_str().unwrap_or("unreadable");
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let mut message =
        format!("{essence:.100} is not accepted; send Content-Type: application/json");
    if essence == "application/x-www-form-urlencoded" {
        message.push_str(" (with curl: -H 'Content-Type: application/json')");
    }
    Err(ApiError(Error::new(ErrorCode::UnsupportedMediaType, message)))
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        ApiError(if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = "the body is larger than this path reads; send less at once";
            Error::new(ErrorCode::MessageTooLarge, message)
        } else {
            let broken = || Error::invalid("the body broke off before its end; send it again");
            refusal_in(&rejection).unwrap_or_else(broken)
        })
    })
}

/// The refusal with which an outer layer has ended a body, where it did.
fn refusal_in(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.into_iter().find_map(|error| error.downcast_ref::<Error>().cloned())
}

/// The path's parameters, in their order.
pub(crate) struct Path<T>(pub(crate) T);

/// What a path's parameters can be read as. An id's own refusal names its field.
pub(crate) trait FromPath: Sized {
    /// Reads the values; the route guarantees their number.
    fn from_path<'a>(values: &mut impl Iterator<Item = &'a str>) -> Result<Self, Error>;
}

macro_rules! from_path {
    ($($id:ty),*) => {
        $(impl FromPath for $id {
            fn from_path<'a>(values: &mut impl Iterator<Item = &'a str>) -> Result<Self, Error> {
                values.next().unwrap_or_default().parse()
            }
        })*
    };
}
from_path!(AccountId, ApiKeyId, KeyId, MessageId, PartyId, SessionId);

impl<A: FromPath, B: FromPath> FromPath for (A, B) {
    fn from_path<'a>(values: &mut impl Iterator<Item = &'a str>) -> Result<Self, Error> {
        Ok((A::from_path(values)?, B::from_path(values)?))
    }
}

impl<S: Send + Sync, T: FromPath> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let values =
            RawPathParams::from_request_parts(parts, state).await.map_err(|rejection| {
                let problem = rejection.body_text();
                let name = problem.split('`').nth(1).unwrap_or("path").to_owned();
                Error::invalid_field(&name, format!("{name} in the path is not UTF-8"))
            })?;
        Ok(Self(T::from_path(&mut values.iter().map(|(_, value)| value))?))
    }
}

/// The `Idempotency-Key` header.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

/// Longest idempotency key: room for a UUID with a prefix, and small enough to index.
const MAX_IDEMPOTENCY_KEY: usize = 255;

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let fits = |text: &&str| !text.is_empty() && text.len() <= MAX_IDEMPOTENCY_KEY;
        match (value.to_str().ok().filter(fits), values.next()) {
            (Some(text), None) => Ok(Self(Some(text.to_owned()))),
            _ => Err(ApiError(Error::invalid_field(
                "Idempotency-Key",
                format!("Idempotency-Key is one header of 1 to {MAX_IDEMPOTENCY_KEY} characters"),
            ))),
        }
    }
}

/// The `Fetch-Token` header: in a query it would stand in the logs of proxies.
pub(crate) struct FetchTokenHeader(pub(crate) FetchToken);

/// Longest fetch token looked at; ours have 64 characters.
const MAX_FETCH_TOKEN: usize = 255;

impl<S: Sync> FromRequestParts<S> for FetchTokenHeader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let value = parts.headers.get("fetch-token").and_then(|value| value.to_str().ok());
        let fits = |text: &&str| !text.is_empty() && text.len() <= MAX_FETCH_TOKEN;
        value.filter(fits).map(|text| Self(Secret::new(text.to_owned()))).ok_or_else(|| {
            let why = "send the header Fetch-Token, as the creator of the session got it";
            ApiError(Error::new(ErrorCode::Unauthorized, why))
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as HttpBody;
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn the_refusal_that_ended_a_body_is_what_the_caller_reads() {
        let refusal = Error::new(ErrorCode::RateLimited, "too much at once");
        let body = HttpBody::from_stream(stream::iter([Err::<Bytes, _>(refusal.clone())]));
        let error = read(Request::new(body), &()).await.unwrap_err();
        assert_eq!(error.0, refusal);
    }
}
