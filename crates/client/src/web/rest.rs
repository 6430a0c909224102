//! One REST service: addresses, credentials, JSON, refusals.

use std::sync::Arc;
use std::time::Duration;

use quorate_rpc::endpoint::{Call, Credentials, NONCE, audience};
use quorate_types::{Error, FetchToken, Result};
use quorate_wire::ErrorJson;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;

/// Longest wait for an answer, on top of what a call asks the server to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The header of a user's token.
const FETCH_TOKEN: &str = "fetch-token";

/// Longest answer read: a sealed share is below 1.5 MB in base64, a session view some kilobytes.
const ANSWER_BYTES: usize = 4 << 20;

/// A service's base address.
#[derive(Clone)]
pub(crate) struct Rest {
    base: Url,
    audience: String,
    client: Client,
    credentials: Option<Arc<dyn Credentials>>,
}

impl Rest {
    /// Checks the address.
    pub(crate) fn new(base: &str, credentials: Option<Arc<dyn Credentials>>) -> Result<Self> {
        let malformed =
            |why: &str| Error::invalid_field("url", format!("{base} cannot be used: {why}"));
        let base_url = Url::parse(base)
            .map_err(|_| malformed("give an address such as http://127.0.0.1:8080"))?;
        if base_url.scheme() != "http" {
            return Err(malformed("only http is spoken here; for TLS use the gRPC link"));
        }
        let uri = base_url.as_str().parse().map_err(|_| malformed("it is not an address"))?;
        let audience = audience(&uri).ok_or_else(|| malformed("it names no host"))?;
        let client = Client::builder()
            .tcp_nodelay(true)
            .build()
            .map_err(|_| Error::unavailable("the HTTP client could not be made"))?;
        Ok(Self { base: base_url, audience, client, credentials })
    }

    /// The address of a path, its segments percent-encoded.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("an http address has a path")
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(segments);
        url
    }

    /// The handshake for a WebSocket.
    pub(crate) fn handshake(&self, url: &Url) -> Result<Request> {
        let authorization = self.authorization(&Method::GET, url, b"");
        let mut url = url.clone();
        url.set_scheme("ws").expect("http and ws are alike");
        let malformed = |_| Error::invalid_field("url", format!("{url} is no WebSocket address"));
        let mut request = url.as_str().into_client_request().map_err(malformed)?;
        if let Some(authorization) = authorization {
            let value = authorization.parse().map_err(|_| {
                Error::invalid_field("authorization", "the credentials are not header text")
            })?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// GETs an answer, giving the server `patience` of its own.
    pub(crate) async fn get<T: DeserializeOwned>(&self, url: Url, patience: Duration) -> Result<T> {
        self.answer(Method::GET, url, None, None, ANSWER_LIMIT + patience).await
    }

    /// Sends a body and reads the answer.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body).expect("wire shapes serialize");
        self.answer(method, url, Some(body), None, ANSWER_LIMIT).await
    }

    /// Shows a fetch token, in its header.
    pub(crate) async fn show<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        token: &FetchToken,
    ) -> Result<T> {
        self.answer(method, url, None, Some(token), ANSWER_LIMIT).await
    }

    fn authorization(&self, method: &Method, url: &Url, body: &[u8]) -> Option<String> {
        let credentials = self.credentials.as_ref()?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let target = &format!("{}{query}", url.path());
        let (audience, method) = (self.audience.as_str(), method.as_str());
        Some(credentials.authorization(&Call { audience, method, target, body: Some(body) }))
    }

    /// Takes the nonce of an answer. Says whether a call that was refused is worth another try.
    pub(crate) fn took_nonce(&self, headers: &HeaderMap) -> bool {
        let nonce = headers.get(NONCE).and_then(|value| value.to_str().ok());
        let credentials = self.credentials.as_ref();
        nonce
            .zip(credentials)
            .is_some_and(|(nonce, credentials)| credentials.take_nonce(&self.audience, nonce))
    }

    fn request(&self, method: &Method, url: &Url, body: Option<&[u8]>) -> RequestBuilder {
        let mut request = self.client.request(method.clone(), url.clone());
        let authorization = self.authorization(method, url, body.unwrap_or_default());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_owned()),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
        token: Option<&FetchToken>,
        limit: Duration,
    ) -> Result<T> {
        let away = |error: reqwest::Error| {
            tracing::debug!(%error, "no answer");
            Error::unavailable(format!("{} does not answer; is it running?", self.base))
        };
        let send = || {
            let mut request = self.request(&method, &url, body.as_deref());
            if let Some(token) = token {
                request = request.header(FETCH_TOKEN, token.expose());
            }
            request.timeout(limit).send()
        };
        let mut response = send().await.map_err(away)?;
        if self.took_nonce(response.headers()) && response.status() == StatusCode::UNAUTHORIZED {
            response = send().await.map_err(away)?;
            self.took_nonce(response.headers());
        }
        let refused = !response.status().is_success();
        let body = read(&mut response).await.map_err(away)?;
        if refused {
            return Err(refusal(response.status().as_u16(), &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            tracing::warn!(%error, "unreadable answer");
            Error::unavailable("the answer was not of the expected form; is this Quorate?")
        })
    }
}

async fn read(response: &mut Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = ANSWER_BYTES.saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if room == 0 {
            break;
        }
    }
    Ok(body)
}

/// A refusal's error. One that is not in our form comes from something in between.
pub(super) fn refusal(status: u16, body: &[u8]) -> Error {
    match serde_json::from_slice::<ErrorJson>(body) {
        Ok(json) => json.into(),
        Err(_) if status >= 500 => Error::unavailable(format!("the service answered {status}")),
        Err(_) => Error::invalid(format!("the service answered {status}; check its address")),
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ErrorCode;

    use super::*;

    #[test]
    fn segments_and_queries_of_any_party_id_arrive_whole() {
        let rest = Rest::new("http://127.0.0.1:1/base/", None).unwrap();
        let mut url = rest.url(&["sessions", "s", "parties", "a+b@c:d", "ready"]);
        assert!(url.as_str().starts_with("http://127.0.0.1:1/base/api/v1/sessions/s/parties/"));
        url.query_pairs_mut().append_pair("party_id", "a+b@c:d");
        assert_eq!(url.query(), Some("party_id=a%2Bb%40c%3Ad"));
    }

    #[test]
    fn https_is_refused_with_the_way_out() {
        for address in ["https://example.com", "nonsense"] {
            let error = Rest::new(address, None).err().unwrap();
            assert!(error.details.fields.contains_key("url"), "{error}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_and_a_proxy_error_is_retryable() {
        let body = br#"{"error":"session_full","message":"all seats are taken"}"#;
        assert_eq!(refusal(409, body).code, ErrorCode::SessionFull);
        assert_eq!(refusal(502, b"<html>").code, ErrorCode::Unavailable);
        assert_eq!(refusal(404, b"<html>").code, ErrorCode::InvalidRequest);
    }
}
