//! One WebSocket to the router's messages: deliveries in, acknowledgements and messages out.

use std::collections::VecDeque;

use futures_util::{SinkExt as _, StreamExt as _};
use quorate_types::*;
use quorate_wire::{ClientFrame, MessageJson, RouteJson, ServerFrame};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Requests that wait to be written.
const REQUESTS: usize = 64;
/// Deliveries that wait to be taken; further ones wait in the socket.
const DELIVERIES: usize = 64;

/// What is sent on an open socket.
pub(crate) enum Request {
    Acknowledge(Acknowledge),
    Route(RouteRequest, oneshot::Sender<Result<MessageId>>),
}

/// Opens a socket, or says that the server is away.
pub(crate) async fn connect(url: &str) -> Result<Socket> {
    let (socket, _) = tokio_tungstenite::connect_async(url).await.map_err(|error| {
        tracing::debug!(%error, "a socket cannot be opened");
        Error::unavailable("the router's socket cannot be opened; trying again may help")
    })?;
    Ok(socket)
}

/// Runs a message socket until either side closes it. Answers to `route` come in their order.
pub(crate) fn run(socket: Socket) -> (mpsc::Sender<Request>, mpsc::Receiver<Result<Message>>) {
    let (requests, queue) = mpsc::channel(REQUESTS);
    let (deliveries, inbox) = mpsc::channel(DELIVERIES);
    tokio::spawn(carry(socket, queue, deliveries));
    (requests, inbox)
}

async fn carry(
    socket: Socket,
    mut queue: mpsc::Receiver<Request>,
    deliveries: mpsc::Sender<Result<Message>>,
) {
    let (mut out, mut frames) = socket.split();
    // Whoever waits for a route when the socket breaks learns it by its dropped sender.
    let mut waiting: VecDeque<oneshot::Sender<Result<MessageId>>> = VecDeque::new();
    loop {
        tokio::select! {
            () = deliveries.closed() => break,
            request = queue.recv() => {
                let Some(request) = request else { break };
                let frame = match request {
                    Request::Acknowledge(ack) => acknowledgement(&ack),
                    Request::Route(request, answer) => {
                        waiting.push_back(answer);
                        let route = Some(RouteJson::from(request));
                        ClientFrame { route, ..ClientFrame::default() }
                    }
                };
                let text = serde_json::to_string(&frame).expect("frames are plain data");
                if out.send(tungstenite::Message::text(text)).await.is_err() {
                    break;
                }
            }
            frame = frames.next() => match frame {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    let Some(delivery) = read(&text, &mut waiting) else { continue };
                    if deliveries.send(delivery).await.is_err() {
                        break;
                    }
                }
                Some(Ok(tungstenite::Message::Close(_))) | Some(Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = out.close().await;
}

fn acknowledgement(ack: &Acknowledge) -> ClientFrame {
    ClientFrame {
        ack: Some(ack.message_id),
        session_id: Some(ack.session_id),
        success: Some(ack.success),
        route: None,
    }
}

/// A delivery, where the frame is one; else the answer goes to who waits for it.
fn read(
    text: &str,
    waiting: &mut VecDeque<oneshot::Sender<Result<MessageId>>>,
) -> Option<Result<Message>> {
    let answer = match serde_json::from_str::<ServerFrame>(text) {
        Ok(ServerFrame::Message(message)) => return Some(message_of(*message)),
        Ok(ServerFrame::Routed { routed }) => Ok(routed.message_id),
        Ok(ServerFrame::Error { error }) => Err(Error::from(error)),
        Err(_) => return Some(Err(Error::unavailable("a frame is not one of this version"))),
    };
    // A refused acknowledgement is told as an error too, when no route waits.
    if let Some(waiter) = waiting.pop_front() {
        let _ = waiter.send(answer);
    }
    None
}

fn message_of(message: MessageJson) -> Result<Message> {
    Message::try_from(message)
}
