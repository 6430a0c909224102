//! Asks a policy's callback: one POST, one answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use quorate_ports::{AskCallback, CallbackAnswer};
use quorate_types::{Error, Result};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longest answer that is read, in bytes.
const ANSWER: usize = 4 << 10;

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
    async fn ask(
        &self,
        url: &str,
        body: Vec<u8>,
        signature: &str,
        deadline: Duration,
    ) -> Result<CallbackAnswer> {
        let asking = ask(url, body, signature);
        let late = |_| Err(unusable("no answer in time"));
        tokio::time::timeout(deadline, asking).await.unwrap_or_else(late)
    }
}

async fn ask(url: &str, body: Vec<u8>, signature: &str) -> Result<CallbackAnswer> {
    let uri: Uri = url.parse().map_err(|_| unusable("its address is none"))?;
    let authority = uri.authority().ok_or_else(|| unusable("its address names no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unusable)?;
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(target)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header("quorate-signature", signature)
        .body(Full::new(Bytes::from(body)))
        .map_err(unusable)?;
    if !tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(host).map_err(unusable)?;
    let stream = connector()?.connect(name, stream).await.map_err(unusable)?;
    exchange(stream, request).await
}

fn connector() -> Result<tokio_rustls::TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<CallbackAnswer> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unusable)?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(unusable)?;
        if !answer.status().is_success() {
            return Err(unusable(format!("it answers with status {}", answer.status())));
        }
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(unusable)?;
        decision(&body.to_bytes())
    };
    // The connection lives as long as the exchange, and no task outlives it.
    tokio::select! {
        answer = answering => answer,
        closed = connection => {
            Err(unusable(closed.err().map_or("it closed the connection".to_owned(), |e| e.to_string())))
        }
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
    use super::*;

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
