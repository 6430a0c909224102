//! Clients that are the members of one group, ready to talk in a session.

use serde_json::{Value, json};

use crate::sockets::client::{Pinger, TEXT, on_the_wire, put};
use crate::sockets::server::{Endpoint, Kinds};

/// The id of every call.
const ID: u64 = 1;

/// The members of a group. The first one speaks, the others listen.
///
/// With the echo every listener has to send its frame itself.
pub(crate) struct Group {
    members: Vec<Pinger>,
    /// What is sent, as often as there are messages in a window.
    frames: Vec<u8>,
    /// Bytes in which one message arrives, and its answer.
    event: usize,
    answer: usize,
    echo: bool,
}

impl Group {
    /// Connects so many members, whose messages have a body of so many bytes, and that send so
    /// many messages at once.
    pub(crate) fn new(
        endpoint: &Endpoint,
        kind: Kinds,
        size: usize,
        length: usize,
        window: usize,
    ) -> Self {
        let mut members: Vec<_> = (0..size).map(|_| Pinger::connect(endpoint)).collect();
        let echo = kind == Kinds::Echo;
        let nil = "00000000000000000000000000000000".to_owned();
        let (group, session) = if echo { (nil.clone(), nil) } else { sign_up(&mut members) };
        let body = "x".repeat(length);
        let message = json!({"round": 1, "sender": 1, "uuid": "bench", "body": body});
        let text = request("Session.message", &json!([group, session, "keygen", message]));
        let mut frame = Vec::new();
        put(&mut frame, TEXT, text.as_bytes());
        let mut group = Self { members, frames: frame, event: 0, answer: 0, echo };
        group.event = if echo { on_the_wire(text.len()) } else { group.lengths() };
        group.frames = group.frames.repeat(window);
        group
    }

    /// Sends one message to learn how long an event and an answer are.
    fn lengths(&mut self) -> usize {
        let (speaker, listeners) = self.members.split_at_mut(1);
        speaker[0].send(&self.frames);
        self.answer = on_the_wire(speaker[0].frame().len());
        let lengths: Vec<_> = listeners.iter_mut().map(|one| one.frame().len()).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "all are told the same");
        on_the_wire(lengths[0])
    }

    /// Those who are reached by a message.
    pub(crate) fn listeners(&self) -> usize {
        self.members.len() - 1
    }

    /// Sends a window of messages, and returns when the last listener has them all.
    pub(crate) fn turn(&mut self, window: usize) {
        let (speaker, listeners) = self.members.split_at_mut(1);
        if self.echo {
            listeners.iter_mut().for_each(|one| one.send(&self.frames));
        } else {
            speaker[0].send(&self.frames);
        }
        listeners.iter_mut().for_each(|one| one.receive(window * self.event));
    }

    /// Reads the answers to a window.
    pub(crate) fn answers(&mut self, window: usize) {
        self.members[0].receive(window * self.answer);
    }
}

fn request(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": ID, "method": method, "params": params}).to_string()
}

/// Makes a group of all, and a session for which all sign up in their order.
fn sign_up(members: &mut [Pinger]) -> (String, String) {
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    let params = json!(["bench", {"parties": members.len(), "threshold": 1}]);
    let group = text(&ask(&mut members[0], "Group.create", &params));
    for member in &mut members[1..] {
        ask(member, "Group.join", &json!(group));
    }
    let session = ask(&mut members[0], "Session.create", &json!([group, "keygen", null]));
    let session = text(&session["uuid"]);
    for member in members.iter_mut() {
        ask(member, "Session.signup", &json!([group, session, "keygen"]));
    }
    members.iter_mut().for_each(drain);
    (group, session)
}

/// Asks, and skips the events before the answer.
fn ask(member: &mut Pinger, method: &str, params: &Value) -> Value {
    let mut frame = Vec::new();
    put(&mut frame, TEXT, request(method, params).as_bytes());
    member.send(&frame);
    loop {
        let payload = member.frame();
        let mut answer: Value = serde_json::from_slice(&payload).expect("JSON");
        if answer["id"] == ID {
            assert!(answer.get("error").is_none(), "{method}: {answer}");
            return answer["result"].take();
        }
    }
}

/// Skips events until that of the last signup.
fn drain(member: &mut Pinger) {
    let last = b"sessionSignup";
    while !member.frame().windows(last.len()).any(|part| part == last) {}
}
