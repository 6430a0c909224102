//! What stands for providers of notifications: a mail server and an HTTP service that keep what they
//! get.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A mail server that takes everything.
pub struct MailSink {
    /// Where it listens.
    pub address: SocketAddr,
    mails: UnboundedReceiver<String>,
}

impl MailSink {
    /// Listens on a free port, or this one.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, mails) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(mail(stream, sender.clone()));
            }
        });
        Self { address, mails }
    }

    /// The next mail: its recipient in a line, then header and body with its lines whole.
    pub async fn next(&mut self) -> String {
        self.mails.recv().await.expect("it listens as long as the test")
    }

    /// Whether no other has come.
    pub fn is_empty(&mut self) -> bool {
        self.mails.is_empty()
    }
}

async fn mail(stream: TcpStream, mails: UnboundedSender<String>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut text = String::new();
    stream.write_all(b"220 sink\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let command = line.to_ascii_uppercase();
        let answer: &[u8] = if command.starts_with("DATA") {
            stream.write_all(b"354 go on\r\n").await.ok()?;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.ok()?;
                if line == ".\r\n" {
                    break;
                }
                text.push_str(&line);
            }
            // Quoted-printable, which long lines are sent in.
            let mail = std::mem::take(&mut text).replace("=\r\n", "").replace("=3D", "=");
            mails.send(mail).ok()?;
            b"250 taken\r\n"
        } else if command.starts_with("RCPT") {
            text = line;
            b"250 ok\r\n"
        } else {
            b"250 ok\r\n"
        };
        stream.write_all(answer).await.ok()?;
    }
}

/// What an [`HttpSink`] does with a request.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// It answers with a status.
    Status(u16),
    /// It keeps the connection and never answers.
    Silence,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The first line.
    pub line: String,
    /// Headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// An HTTP service that keeps what it is told.
pub struct HttpSink {
    /// Where it listens.
    pub address: SocketAddr,
    requests: UnboundedReceiver<Received>,
    reply: Arc<Mutex<Reply>>,
}

impl HttpSink {
    /// Listens on a free port and replies so.
    pub async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, requests) = unbounded_channel();
        let reply = Arc::new(Mutex::new(reply));
        let replies = reply.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(http(stream, sender.clone(), replies.clone()));
            }
        });
        Self { address, requests, reply }
    }

    /// Replies so from now on.
    pub fn reply(&self, reply: Reply) {
        *self.reply.lock().expect("no panic while it is locked") = reply;
    }

    /// The next request.
    pub async fn next(&mut self) -> Received {
        self.requests.recv().await.expect("it listens as long as the test")
    }

    /// Whether no other has come.
    pub fn is_empty(&mut self) -> bool {
        self.requests.is_empty()
    }
}

async fn http(
    stream: TcpStream,
    requests: UnboundedSender<Received>,
    reply: Arc<Mutex<Reply>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).ok()?;
    let reply = *reply.lock().expect("no panic while it is locked");
    requests.send(Received { line: line.trim_end().to_owned(), headers, body }).ok()?;
    match reply {
        Reply::Status(status) => {
            let location = if status == 302 { "location: /elsewhere\r\n" } else { "" };
            let answer = format!("HTTP/1.1 {status} x\r\n{location}content-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok()
        }
        Reply::Silence => std::future::pending().await,
    }
}
