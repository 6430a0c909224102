//! WebSocket handshakes as clients and proxies send them, on every port.
//!
//! A proxy may split the `Connection` header over lines or offer further protocols in `Upgrade`;
//! the services' own check reads one line with one word. What is no handshake after all is refused
//! here, saying which version is spoken.

use axum::http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{Method, Request, StatusCode, Version};
use axum::response::{IntoResponse as _, Response};

/// The only version there is (RFC 6455).
const SPOKEN: &str = "13";

/// Brings a handshake into its plainest form. Other requests pass as they are.
///
/// # Errors
/// 400, or 426 for another version, with `Sec-WebSocket-Version`.
pub(super) fn check<B>(request: &mut Request<B>) -> Result<(), Box<Response>> {
    let headers = request.headers();
    if request.version() >= Version::HTTP_2 || !says(headers, UPGRADE, "websocket") {
        return Ok(());
    }
    let refused = |status, problem| Err(Box::new(refusal(status, problem)));
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return refused(StatusCode::BAD_REQUEST, "a WebSocket handshake is a GET of HTTP/1.1");
    }
    if !says(headers, CONNECTION, "upgrade") {
        return refused(
            StatusCode::BAD_REQUEST,
            "a WebSocket handshake has the header Connection: Upgrade",
        );
    }
    if !says(headers, SEC_WEBSOCKET_VERSION, SPOKEN) {
        return refused(StatusCode::UPGRADE_REQUIRED, "the WebSocket version spoken here is 13");
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    if !matches!((keys.next(), keys.next()), (Some(key), None) if is_key(key.as_bytes())) {
        return refused(
            StatusCode::BAD_REQUEST,
            "a WebSocket handshake has one Sec-WebSocket-Key of 16 bytes in base64",
        );
    }
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(SPOKEN));
    Ok(())
}

/// Whether a word is in the list that a header's lines form.
fn says(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
}

/// Sixteen bytes in base64: 22 characters and two of padding.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key[..22].iter().all(digit) && key.ends_with(b"==")
}

fn refusal(status: StatusCode, problem: &'static str) -> Response {
    let mut response = (status, format!("{problem}\n")).into_response();
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(SPOKEN));
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request(lines: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::get("/mpc");
        for (name, value) in lines {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn handshake(change: (&str, &[&str])) -> Request<()> {
        let usual = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        let (name, values) = change;
        let kept = usual.into_iter().filter(|(other, _)| *other != name);
        let changed = values.iter().map(|value| (name, *value));
        request(&kept.chain(changed).collect::<Vec<_>>())
    }

    #[test]
    fn handshakes_as_proxies_send_them_become_plain_ones() {
        for change in [
            ("connection", &["keep-alive", "Upgrade"][..]),
            ("connection", &["keep-alive, upgrade"]),
            ("upgrade", &["websocket, h2c"]),
            ("upgrade", &["h2c", "WebSocket"]),
            ("x-other", &["1"]),
        ] {
            let mut request = handshake(change);
            assert!(check(&mut request).is_ok(), "{change:?}");
            assert_eq!(request.headers()["connection"], "upgrade");
            assert_eq!(request.headers()["upgrade"], "websocket");
            assert_eq!(request.headers().get_all("connection").iter().count(), 1);
        }
    }

    #[test]
    fn what_is_no_handshake_is_refused_with_the_version() {
        let broken = [
            (handshake(("connection", &["keep-alive"])), 400),
            (handshake(("sec-websocket-version", &["8"])), 426),
            (handshake(("sec-websocket-version", &[])), 426),
            (handshake(("sec-websocket-key", &["short"])), 400),
            (handshake(("sec-websocket-key", &[KEY, KEY])), 400),
            (handshake(("sec-websocket-key", &[])), 400),
        ];
        let mut head = handshake(("x-other", &["1"]));
        *head.method_mut() = Method::HEAD;
        let mut old = handshake(("x-other", &["1"]));
        *old.version_mut() = Version::HTTP_10;
        for (mut request, status) in broken.into_iter().chain([(head, 400), (old, 400)]) {
            let refused = check(&mut request).unwrap_err();
            assert_eq!(refused.status().as_u16(), status, "{request:?}");
            assert_eq!(refused.headers()["sec-websocket-version"], "13");
        }
    }

    #[test]
    fn other_requests_pass_as_they_are() {
        let lines = [("connection", "keep-alive"), ("upgrade", "h2c")];
        let mut plain = request(&lines);
        assert!(check(&mut plain).is_ok());
        assert_eq!(plain.headers()["upgrade"], "h2c");
    }
}
