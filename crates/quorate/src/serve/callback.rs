//! Asks a policy's callback: one POST, one answer.

use async_trait::async_trait;
use axum::http::{HeaderName, HeaderValue, header};
use quorate_notify::http::{Reach, Target, Trust, post};
use quorate_ports::{AskCallback, CallbackAnswer};
use quorate_types::{Error, Result};
use serde::Deserialize;

/// Asks over HTTP/1.1, with TLS where the address says so.
pub(super) struct HttpCallback;

#[derive(Deserialize)]
struct Answer {
    decision: String,
}

fn unusable(why: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("{why}"))
}

#[async_trait]
impl AskCallback for HttpCallback {
    async fn ask(&self, url: &str, body: Vec<u8>, signature: &str) -> Result<CallbackAnswer> {
        ask(url, body, signature).await
    }
}

async fn ask(url: &str, body: Vec<u8>, signature: &str) -> Result<CallbackAnswer> {
    let target = Target::parse(url).map_err(unusable)?;
    let trust = Trust::open(None).map_err(unusable)?;
    let signature = HeaderValue::try_from(signature).map_err(unusable)?;
    let json = HeaderValue::from_static("application/json");
    let headers =
        [(header::CONTENT_TYPE, json), (HeaderName::from_static("quorate-signature"), signature)];
    // The operator of the party has written its address into the party's own policy.
    let answer = post(&target, Reach::Anywhere, &trust, headers, body).await.map_err(unusable)?;
    match answer.status {
        200..=299 => decision(&answer.body),
        status => Err(unusable(format!("it answers with status {status}"))),
    }
}

fn decision(body: &[u8]) -> Result<CallbackAnswer> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| unusable("its answer is not {\"decision\": \"APPROVE\"}, REJECT or RETRY"))?;
    match answer.decision.as_str() {
        "APPROVE" => Ok(CallbackAnswer::Approve),
        "REJECT" => Ok(CallbackAnswer::Reject),
        "RETRY" => Ok(CallbackAnswer::Retry),
        _ => Err(unusable("it decides neither APPROVE, REJECT nor RETRY")),
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ErrorCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a service that answers these bytes and closes the connection.
    async fn answered(bytes: &'static str) -> Result<CallbackAnswer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let service = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"{}") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            stream.write_all(bytes.as_bytes()).await.unwrap();
        };
        let asking = HttpCallback.ask(&url, b"{}".to_vec(), "signature");
        tokio::join!(asking, service).0
    }

    #[tokio::test]
    async fn an_answer_that_ends_with_its_connection_counts_and_half_of_one_does_not() {
        let whole = "HTTP/1.0 200 OK\r\n\r\n{\"decision\": \"APPROVE\"}";
        for _ in 0..50 {
            assert_eq!(answered(whole).await, Ok(CallbackAnswer::Approve));
        }
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"decision\": \"APPROVE\"}";
        for half in [cut, "HTTP/1.1 200 OK\r\n", ""] {
            assert_eq!(answered(half).await.unwrap_err().code, ErrorCode::Unavailable, "{half}");
        }
    }

    #[test]
    fn an_answer_is_one_of_three_words() {
        let answer = |word: &str| decision(format!(r#"{{"decision":"{word}"}}"#).as_bytes());
        assert_eq!(answer("APPROVE"), Ok(CallbackAnswer::Approve));
        assert_eq!(answer("REJECT"), Ok(CallbackAnswer::Reject));
        assert_eq!(answer("RETRY"), Ok(CallbackAnswer::Retry));
        for other in ["approve", "", "YES"] {
            assert!(answer(other).is_err(), "{other}");
        }
        assert!(decision(b"APPROVE").is_err() && decision(b"").is_err());
    }
}
