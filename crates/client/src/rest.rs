//! REST calls with the one error shape.

use quorate_types::*;
use quorate_wire::ErrorJson;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One service's REST interface.
#[derive(Clone)]
pub(crate) struct Rest {
    http: reqwest::Client,
    base: String,
}

impl Rest {
    pub(crate) fn new(base: &str) -> Result<Self> {
        let malformed = || {
            Error::invalid_field(
                "url",
                format!("{base} is not a URL such as http://127.0.0.1:8080"),
            )
        };
        let url = reqwest::Url::parse(base).map_err(|_| malformed())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(malformed());
        }
        Ok(Self { http: reqwest::Client::new(), base: base.trim_end_matches('/').to_owned() })
    }

    /// The same address for a socket.
    pub(crate) fn socket_url(&self, path: &str) -> String {
        format!("ws{}{path}", self.base.trim_start_matches("http"))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        answer(self.http.get(format!("{}{path}", self.base))).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        answer(self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        answer(self.http.put(format!("{}{path}", self.base)).json(body)).await
    }
}

async fn answer<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T> {
    let away = |error: reqwest::Error| {
        tracing::debug!(%error, "a REST call failed");
        Error::unavailable("the server cannot be reached; trying again may help")
    };
    let answer = request.send().await.map_err(away)?;
    let ok = answer.status().is_success();
    let body = answer.bytes().await.map_err(away)?;
    if ok {
        return serde_json::from_slice(&body).map_err(|error| {
            tracing::debug!(%error, "an answer cannot be read");
            Error::unavailable("the server's answer is not one of this version")
        });
    }
    let refusal: Option<ErrorJson> = serde_json::from_slice(&body).ok();
    Err(refusal
        .map_or_else(|| Error::unavailable("the server refused without a reason"), Error::from))
}
