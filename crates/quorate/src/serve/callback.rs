//! Asks a policy's callback: one POST, one answer.

use std::pin::pin;
use std::sync::Arc;

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
    async fn ask(&self, url: &str, body: Vec<u8>, signature: &str) -> Result<CallbackAnswer> {
        ask(url, body, signature).await
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
    let mut answering = pin!(async {
        let answer = sender.send_request(request).await.map_err(unusable)?;
        if !answer.status().is_success() {
            return Err(unusable(format!("it answers with status {}", answer.status())));
        }
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(unusable)?;
        decision(&body.to_bytes())
    });
    // The connection lives as long as the exchange, and no task outlives it. A service may close it
    // with its answer, which has been received then.
    tokio::select! {
        biased;
        answer = &mut answering => answer,
        closed = connection => match closed {
            Ok(()) => answering.await,
            Err(error) => Err(unusable(error)),
        },
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
