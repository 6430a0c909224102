//! A client that speaks to a relay in frames.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::{Message, Result};
use tokio_tungstenite::{WebSocketStream, client_async};

/// No answer takes this long, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    last: u64,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        let host = url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix("/mpc")).unwrap();
        Self::connect_from(host.parse().unwrap(), "127.0.0.1").await.unwrap()
    }

    /// Connects to a relay from an address of the loopback.
    pub(crate) async fn connect_from(relay: SocketAddr, from: &str) -> Result<Self> {
        let own = TcpSocket::new_v4().unwrap();
        own.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let stream = own.connect(relay).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = client_async(format!("ws://{relay}/mpc"), stream).await?;
        Ok(Self { socket, last: 0 })
    }

    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    /// The next frame that is no ping.
    pub(crate) async fn frame(&mut self) -> Option<Message> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next());
            match next.await.expect("a frame in time") {
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(frame)) => return Some(frame),
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.frame().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("a text frame and not {other:?}"),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next frame must be this event.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let frame = self.json().await;
        assert_eq!((&frame["id"], &frame["result"][0]), (&json!(0), &json!(name)), "{frame}");
        frame["result"][1].clone()
    }

    /// Sends a call and gives back its id.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let frame = json!({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params});
        self.send(frame.to_string()).await;
        self.last
    }

    pub(crate) async fn notify(&mut self, method: &str, params: Value) {
        let frame = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.send(frame.to_string()).await;
    }

    /// Calls; the next frame must be the answer.
    pub(crate) async fn answer(&mut self, method: &str, params: Value) -> Value {
        let id = self.call(method, params).await;
        let frame = self.json().await;
        assert_eq!(frame["id"], id, "{frame}");
        frame
    }

    /// Calls; the next frame must be the result.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        let frame = self.answer(method, params).await;
        assert!(frame.get("error").is_none(), "{method}: {frame}");
        frame.get("result").cloned().unwrap_or(Value::Null)
    }

    /// Calls; the next frame must be a refusal. Its code and message.
    pub(crate) async fn refused(&mut self, method: &str, params: Value) -> (i64, String) {
        let frame = self.answer(method, params).await;
        let error = &frame["error"];
        assert!(error.is_object(), "{method}: {frame}");
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    /// The relay has taken all that was sent, and nothing waits to be read.
    pub(crate) async fn settle(&mut self) {
        self.socket.send(Message::Ping(b"settle".to_vec().into())).await.unwrap();
        match self.frame().await {
            Some(Message::Pong(payload)) => assert_eq!(&payload[..], b"settle"),
            other => panic!("a pong and not {other:?}"),
        }
    }

    /// The relay's close frame: its code, 1005 when there is none.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.frame().await {
                Some(Message::Close(frame)) => {
                    // Reading on sends the answer to it.
                    while self.frame().await.is_some() {}
                    return frame.map_or(1005, |frame| frame.code.into());
                }
                Some(_) => {}
                None => panic!("the connection ended without a close frame"),
            }
        }
    }

    /// Closes the connection, and waits until the relay has noticed.
    pub(crate) async fn leave(mut self) {
        self.socket.close(None).await.unwrap();
        while self.frame().await.is_some() {}
    }
}
