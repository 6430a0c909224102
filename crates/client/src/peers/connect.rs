//! Connecting to a relay.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// How long connecting may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// The relays ping every 20 s; after more than two of them the connection counts as dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A socket on which messages up to this size are read.
pub(crate) async fn connect(url: &str, largest: usize) -> Result<Socket, String> {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    let connecting = connect_async_with_config(url, Some(config), true);
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in 10 s".into()),
    }
}
