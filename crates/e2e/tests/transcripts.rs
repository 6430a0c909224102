//! Recorded conversations of older clients with `quorate relay`, frame by frame, in the mode that is
//! made for them.
//!
//! Ids are new in each run, and the order of frames is compared for each connection by itself.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

#[path = "../../front-jsonrpc/tests/common/client.rs"]
mod client;

use std::collections::{HashMap, VecDeque};

use client::Client;
use futures_util::SinkExt as _;
use quorate_e2e::{binary, quiet};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;

const UUID: usize = 36;

/// Where text has ids.
fn uuids(text: &str) -> Vec<usize> {
    let is_uuid = |part: &[u8]| {
        part.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let windows = text.as_bytes().windows(UUID).enumerate();
    windows.filter(|(_, part)| is_uuid(part)).map(|(at, _)| at).collect()
}

/// The relay as a process, its address and its data.
struct Server(
    #[allow(dead_code, reason = "held, not read")] Child,
    String,
    #[allow(dead_code)] TempDir,
);

impl Server {
    async fn original() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary());
        command
            .args(["relay", "--only", "jsonrpc", "--compat", "original", "--port", "0", "--json"]);
        command.arg("--data").arg(folder.path());
        let mut process = quiet(command).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it says where it listens");
        let told: Value = serde_json::from_str(&line).unwrap();
        let url = format!("ws://{}/mpc", told["jsonrpc"].as_str().unwrap());
        Self(process, url, folder)
    }

    async fn client(&self) -> Client {
        Client::connect(&self.1).await
    }
}

struct Replay {
    server: Server,
    clients: HashMap<String, Client>,
    /// Recorded id → the id of this run.
    ids: HashMap<String, String>,
    /// Frames that a connection must still get.
    awaited: HashMap<String, VecDeque<String>>,
    ends: HashMap<String, bool>,
}

impl Replay {
    async fn start() -> Self {
        let server = Server::original().await;
        let mut clients = HashMap::new();
        for name in ["A", "B", "C", "D"] {
            clients.insert(name.to_owned(), server.client().await);
        }
        let (ids, awaited, ends) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { server, clients, ids, awaited, ends }
    }

    async fn client(&mut self, name: &str) -> &mut Client {
        if !self.clients.contains_key(name) {
            let client = self.server.client().await;
            self.clients.insert(name.to_owned(), client);
        }
        self.clients.get_mut(name).unwrap()
    }

    fn translate(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Reads what was recorded since the last send, and that nothing else has come.
    async fn drain(&mut self) {
        for (name, frames) in std::mem::take(&mut self.awaited) {
            for recorded in frames {
                let text = self.clients.get_mut(&name).unwrap().text().await;
                self.compare(&recorded, &text);
                self.ends.insert(name.clone(), text.contains("close-connection"));
            }
        }
        for (name, client) in &mut self.clients {
            if self.ends.get(name) != Some(&true) {
                client.settle().await;
            }
        }
    }

    fn compare(&mut self, recorded: &str, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap();
        if frame["error"]["code"] == -32602 {
            // The detail is for people, and may say it in other words.
            let recorded: Value = serde_json::from_str(recorded).unwrap();
            assert_eq!(frame["id"], recorded["id"]);
            assert_eq!(frame["error"]["code"], recorded["error"]["code"]);
            return;
        }
        assert_eq!(recorded.len(), text.len(), "{recorded}\n{text}");
        for at in uuids(recorded) {
            let (from, to) = (&recorded[at..at + UUID], &text[at..at + UUID]);
            self.ids.entry(from.to_owned()).or_insert(to.to_owned());
        }
        assert_eq!(self.translate(recorded), text);
    }

    async fn closed(&mut self, name: &str) {
        self.drain().await;
        let mut client = self.clients.remove(name).unwrap();
        match self.ends.remove(name) {
            Some(true) => assert_eq!(client.closed().await, 1005),
            _ => client.leave().await,
        }
    }

    async fn binary_and_ping(&mut self, name: &str) {
        self.drain().await;
        let client = self.client(name).await;
        let frame = r#"{"jsonrpc":"2.0","id":99,"method":"Nope","params":[]}"#;
        client.socket.send(Message::binary(frame)).await.unwrap();
        client.settle().await;
    }

    async fn line(&mut self, line: &str) {
        let mut words = line.trim().splitn(3, ' ');
        let (name, what) = (words.next().unwrap(), words.next().unwrap_or_default());
        match (what, words.next()) {
            ("->", Some(text)) => {
                self.drain().await;
                let text = self.translate(text);
                self.client(name).await.send(text).await;
            }
            ("<-", Some(text)) => {
                self.awaited.entry(name.to_owned()).or_default().push_back(text.to_owned());
            }
            ("CLOSED", _) => self.closed(name).await,
            ("PONG", _) => self.binary_and_ping(name).await,
            other => panic!("{other:?} in {line}"),
        }
    }
}

async fn replay(transcript: &str) {
    let mut replay = Replay::start().await;
    for line in transcript.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        replay.line(line).await;
    }
    replay.drain().await;
}

#[tokio::test]
async fn a_conversation_with_participants_is_the_same() {
    replay(include_str!("transcripts/participants.txt")).await;
}

#[tokio::test]
async fn a_conversation_with_notifications_is_the_same() {
    replay(include_str!("transcripts/notify.txt")).await;
}
