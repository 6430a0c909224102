//! A relay on a free port, and a client that speaks its frames.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]
#![allow(dead_code, reason = "no test file uses all helpers")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_front_relay::{Config, Metrics, Relay};
use quorate_types::{ClientAddress, RelayId};
use quorate_wire::relay::{Ttl, ask, publish};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

/// No test waits longer for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running relay.
pub(crate) struct Server {
    pub(crate) relay: Relay,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) run: JoinHandle<()>,
}

/// Starts a relay.
pub(crate) async fn serve(config: Config) -> Server {
    let relay = Relay::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    let named =
        from_fn(|peer: ConnectInfo<SocketAddr>, mut request: Request, next: Next| async move {
            request.extensions_mut().insert(ClientAddress::of(peer.0.ip()));
            next.run(request).await
        });
    let app = relay.router().layer(named).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let stop = CancellationToken::new();
    let run = tokio::spawn({
        let (relay, stop) = (relay.clone(), stop.clone());
        async move { relay.run(stop).await }
    });
    Server { relay, address, stop, run }
}

impl Server {
    /// A new connection.
    pub(crate) async fn client(&self) -> Client {
        self.client_from("127.0.0.1").await
    }

    /// A new connection from an address of the loopback.
    pub(crate) async fn client_from(&self, address: &str) -> Client {
        let mut config = WebSocketConfig::default();
        config.max_frame_size = Some(64 << 20);
        let url = format!("ws://{}/v1/msg-relay", self.address);
        let own = TcpSocket::new_v4().unwrap();
        own.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
        let stream = own.connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = client_async_with_config(url, stream, Some(config)).await.unwrap();
        Client { socket }
    }

    /// Waits until the metrics are as they should be.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        let waiting = async {
            loop {
                let metrics = self.relay.metrics();
                if holds(&metrics) {
                    return metrics;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(metrics) => metrics,
            Err(_) => panic!("{what} never came true: {:?}", self.relay.metrics()),
        }
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub(crate) async fn send(&mut self, frame: Bytes) {
        self.socket.send(Message::Binary(frame)).await.unwrap();
    }

    pub(crate) async fn ask(&mut self, n: u32, ttl: u16) {
        self.send(ask(id(n), Ttl(ttl))).await;
    }

    /// Publishes and answers with the frame.
    pub(crate) async fn publish(&mut self, n: u32, ttl: u16, flags: u16, body: &[u8]) -> Bytes {
        let frame = publish(id(n), Ttl(ttl), flags, body);
        self.send(frame.clone()).await;
        frame
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Bytes {
        match self.message().await {
            Message::Binary(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    /// The next message that is not a ping.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.unwrap().unwrap().unwrap() {
                Message::Ping(_) => {}
                other => return other,
            }
        }
    }

    /// The close code and reason that end the connection.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.message().await {
                Message::Close(Some(frame)) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Message::Binary(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The connection below the frames.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// The relay has handled all that was sent, and answered nothing until then.
    pub(crate) async fn assert_silent(&mut self) {
        self.socket.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        assert_eq!(self.message().await, Message::Pong(Bytes::from_static(b"?")));
    }
}

/// A message id.
pub(crate) fn id(n: u32) -> RelayId {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    RelayId(bytes)
}
