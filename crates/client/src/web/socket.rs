//! One WebSocket: frames in and out, and how it ends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use quorate_types::{Error, Result};
use quorate_wire::ErrorJson;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::rest::{Rest, refusal};

/// Longest time for connecting and the WebSocket handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The server pings every 20 s; one that is silent for three is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest frame read: a message of 1 MiB in base64 and its wrapping.
const FRAME_BYTES: usize = 4 << 20;

/// A handshake that failed.
struct Refused {
    error: Error,
    /// The server gave a nonce for another try.
    retry: bool,
}

/// An open socket. Every way it can end is an error that says whether to connect again.
pub(super) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Connects, a second time where the first refusal says that this may help.
    ///
    /// # Errors
    /// The server's refusal, or `unavailable`.
    pub(super) async fn open(rest: &Rest, url: reqwest::Url) -> Result<Self> {
        match Self::connect(rest, &url).await {
            Err(Refused { retry: true, .. }) => Self::connect(rest, &url).await,
            opened => opened,
        }
        .map_err(|refused| refused.error)
    }

    async fn connect(rest: &Rest, url: &reqwest::Url) -> std::result::Result<Self, Refused> {
        let failed = |error| Refused { error, retry: false };
        let request = rest.handshake(url).map_err(failed)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES))
            .max_frame_size(Some(FRAME_BYTES));
        let connecting = connect_async_with_config(request, Some(config), true);
        match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok((socket, response))) => {
                rest.took_nonce(response.headers());
                Ok(Self(socket))
            }
            Ok(Err(SocketError::Http(response))) => {
                let status = response.status();
                let retry = rest.took_nonce(response.headers()) && status == 401;
                let body = response.into_body().unwrap_or_default();
                Err(Refused { error: refusal(status.as_u16(), &body), retry })
            }
            Ok(Err(error)) => Err(failed(gone(&error))),
            Err(_) => Err(failed(Error::unavailable("the WebSocket handshake took too long"))),
        }
    }

    /// Sends a text frame.
    pub(super) async fn send(&mut self, text: String) -> Result<()> {
        self.0.send(Message::text(text)).await.map_err(|error| gone(&error))
    }

    /// The next text frame. Cancelling it loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Utf8Bytes> {
        loop {
            let next = tokio::time::timeout(SILENCE, self.0.next()).await;
            match next.map_err(|_| Error::unavailable("the server has fallen silent"))? {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(frame))) => return Err(closed_with(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(gone(&error)),
                None => return Err(closed_with(None)),
            }
        }
    }
}

fn gone(error: &SocketError) -> Error {
    tracing::debug!(%error, "the socket broke");
    Error::unavailable("the WebSocket broke; connecting again")
}

/// The error that a close frame carries as its reason.
fn closed_with(frame: Option<CloseFrame>) -> Error {
    let reason = frame.as_ref().map(|frame| frame.reason.as_bytes()).unwrap_or_default();
    match serde_json::from_slice::<ErrorJson>(reason) {
        Ok(json) => json.into(),
        Err(_) => Error::unavailable("the server closed the WebSocket"),
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ErrorCode;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    #[test]
    fn a_close_frame_tells_its_reason_and_none_is_worth_another_try() {
        let ended = Error::new(ErrorCode::SessionExpired, "it has ended");
        let reason = quorate_wire::close_reason(&ended).into();
        let told = closed_with(Some(CloseFrame { code: CloseCode::Policy, reason }));
        assert_eq!(told, ended);
        assert_eq!(closed_with(None).code, ErrorCode::Unavailable);
    }
}
