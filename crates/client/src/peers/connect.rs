//! Connecting to a relay.

use std::io;
use std::time::Duration;

use quorate_rpc::endpoint::is_loopback;
use quorate_types::{Error, Result};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// How long connecting may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// The relays ping every 20 s; after more than two of them the connection counts as dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A socket on which messages up to this size are read.
pub(crate) async fn connect(url: &str, largest: usize) -> std::result::Result<Socket, String> {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    let connecting = connect_async_with_config(url, Some(config), true);
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(cause(&error)),
        Err(_) => Err("no answer in 10 s".into()),
    }
}

/// Checks a relay's address; without a scheme it is `ws` on this machine and `wss` anywhere else.
///
/// # Errors
/// `invalid_request` when it is no address of a WebSocket.
pub fn relay_url(text: &str) -> Result<String> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        let host = text.split('/').next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        format!("{}://{text}", if is_loopback(host) { "ws" } else { "wss" })
    };
    let url = Url::parse(&whole).ok().filter(|url| ["ws", "wss"].contains(&url.scheme()));
    // A relay is reached by a port or a domain: a single word is a mistake.
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let plausible = host.contains(['.', ':']) || is_loopback(host) || text.contains("://");
    if host.is_empty() || !plausible {
        let why = format!(
            "{text:?} is not the address of a relay: write ws://HOST:PORT/PATH, or wss:// where it \
             serves TLS"
        );
        return Err(Error::invalid_field("relay", why));
    }
    Ok(whole)
}

/// That a relay could not be reached at its address.
pub(crate) fn unreachable(url: &str, why: &str) -> Error {
    let next = "check that the relay runs and that this is its address";
    Error::unavailable(format!("no relay answers at {url} ({why}); {next}"))
}

/// Why a connection was not made, in words.
fn cause(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".into(),
            io::ErrorKind::TimedOut => "no answer in time".into(),
            // What rustls says of a peer that does not speak TLS, or has another certificate.
            io::ErrorKind::InvalidData => of_tls(error),
            _ if error.to_string().starts_with("failed to lookup address") => {
                "its host name is not known".into()
            }
            _ => error.to_string(),
        },
        tungstenite::Error::Http(answer) => {
            format!("it answers HTTP {}: no WebSocket is at this path", answer.status().as_u16())
        }
        tungstenite::Error::Protocol(_) | tungstenite::Error::HttpFormat(_) => {
            "it does not speak WebSocket in plaintext: use wss:// where it serves TLS".into()
        }
        other => other.to_string(),
    }
}

fn of_tls(error: &io::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("invalid peer certificate: ") {
        Some("UnknownIssuer") => {
            "no authority that this machine trusts has signed its certificate; $SSL_CERT_FILE \
             names others"
                .into()
        }
        Some(other) => format!("its certificate is not valid: {other}"),
        None if text.contains("corrupt message") => "it does not speak TLS: use ws://".into(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_relay_has_a_scheme_and_a_host() {
        for (text, whole) in [
            ("ws://127.0.0.1:8000/v1/msg-relay", "ws://127.0.0.1:8000/v1/msg-relay"),
            ("localhost:8000/v1/msg-relay", "ws://localhost:8000/v1/msg-relay"),
            ("[::1]:8000/x", "ws://[::1]:8000/x"),
            ("relay.example/v1/msg-relay", "wss://relay.example/v1/msg-relay"),
            ("ws://relay:8000/x", "ws://relay:8000/x"),
        ] {
            assert_eq!(relay_url(text).unwrap(), whole);
        }
        for text in ["", "nonsense", "http://relay.example/x", "ws://", "://", "ws:/x"] {
            assert!(relay_url(text).is_err(), "{text}");
        }
    }
}
