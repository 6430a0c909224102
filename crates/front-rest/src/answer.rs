//! Refusals as HTTP responses.

use std::any::Any;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use quorate_types::{Error, ErrorCode};
use quorate_wire::ErrorJson;

/// An error on its way out as a response.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// What a handler answers.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = StatusCode::from_u16(error.code.row().http)
            .expect("the error table holds HTTP statuses");
        let mut response = (status, Json(ErrorJson::from(&error))).into_response();
        let later = matches!(error.code, ErrorCode::RateLimited | ErrorCode::Unavailable);
        if let Some(seconds) = error.details.retry_after.or(later.then_some(1)) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if error.code == ErrorCode::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        // For whoever counts.
        response.extensions_mut().insert(error.code);
        response
    }
}

/// The answer to a path that no route has.
pub(crate) async fn unknown_path(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("{method} {} does not exist; /docs lists what does", shorten(path));
    ApiError(Error::new(ErrorCode::NotFound, message))
}

/// The answer to a method that a path does not take.
pub(crate) async fn wrong_method(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("{} does not accept {method}; see the Allow header", shorten(path));
    ApiError(Error::new(ErrorCode::MethodNotAllowed, message))
}

/// Most characters of a path that an answer repeats.
const MAX_ECHO: usize = 200;

fn shorten(path: &str) -> String {
    path.chars().take(MAX_ECHO).collect()
}

/// The answer after a panic: the caller learns nothing of it, the log the message.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(panic = text, "a request handler panicked");
    ApiError(Error::internal()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_only_what_passes_has_retry_after() {
        for code in ErrorCode::ALL {
            let response = ApiError(Error::new(*code, "x")).into_response();
            assert_eq!(response.status().as_u16(), code.row().http);
            let status = response.status().as_u16();
            let retry = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(retry, status == 429 || status == 503, "{code:?}");
        }
    }

    #[test]
    fn retry_after_is_what_the_error_says() {
        let response = ApiError(Error::rate_limited("slow down", 17)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "17");
    }
}
