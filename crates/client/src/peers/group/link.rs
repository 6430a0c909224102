//! A device's place at the group relay, over as many connections as it takes.
//!
//! Calls are matched with their answers by id. When the connection breaks, the next one resumes the
//! place: each event is heard exactly once, and [`Heard::Again`] says that what had no answer must
//! be asked again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::{SinkExt as _, StreamExt as _};
use quorate_party::Backoff;
use quorate_types::{Error, ErrorCode, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::super::connect::{CONNECT, SILENCE, Socket, connect};
use super::super::mail::Trouble;

/// The largest frame read: the relay takes none over 1 MiB, and wraps it in a few bytes.
const MAX_FRAME: usize = 2 << 20;

/// Codes of the relay: no place for this token, too much at once, the disk is behind.
const NO_PLACE: i64 = -32001;
const LATER: [i64; 2] = [-32002, -32003];

/// What a new connection shows to go on where the last one ended.
struct Pass {
    token: String,
    /// Events heard since the token was given.
    seen: u64,
}

/// Places that no run uses just now: the next one takes one of them, with its groups.
#[derive(Clone, Default)]
pub(super) struct Passes(Arc<Mutex<Vec<Pass>>>);

impl Passes {
    fn take(&self) -> Option<Pass> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, pass: Pass) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(pass);
    }
}

/// What the relay said.
pub(super) enum Heard {
    /// The answer to the call with this id.
    Answer(u64, std::result::Result<Value, Refusal>),
    Event(String, Value),
    /// This is another connection: what had no answer is to be asked again.
    Again,
}

/// An error as the relay answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    code: i64,
    pub(super) message: String,
    #[serde(default)]
    data: Value,
}

impl Refusal {
    /// Whether the same call may succeed soon.
    pub(super) fn is_for_now(&self) -> bool {
        LATER.contains(&self.code)
    }

    /// Whether the group has no free place.
    pub(super) fn is_full(&self) -> bool {
        self.data == "close-connection"
    }

    pub(super) fn error(self, what: &str) -> Error {
        Error::new(ErrorCode::Conflict, format!("the relay refused {what}: {}", self.message))
    }
}

#[derive(Deserialize)]
struct Frame {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    error: Option<Refusal>,
}

/// Why there is no connection.
enum Failed {
    /// It is worth another try.
    Broken(String),
    ForGood(Error),
}

pub(super) struct Link {
    url: String,
    passes: Passes,
    pass: Option<Pass>,
    socket: Option<Socket>,
    /// Calls that are not written.
    waiting: VecDeque<String>,
    /// Something was given to the socket that it has not sent.
    dirty: bool,
    last_id: u64,
    heard_at: Instant,
    /// What was heard while an answer was awaited.
    early: VecDeque<Heard>,
    trouble: Trouble,
    backoff: Backoff,
    retry_at: Instant,
}

impl Link {
    /// Connects. A wrong address shows itself at once.
    pub(super) async fn open(url: &str, passes: &Passes) -> Result<Self> {
        let mut link = Self {
            url: url.to_owned(),
            passes: passes.clone(),
            pass: passes.take(),
            socket: None,
            waiting: VecDeque::new(),
            dirty: false,
            last_id: 0,
            heard_at: Instant::now(),
            early: VecDeque::new(),
            trouble: Trouble::default(),
            backoff: Backoff::default(),
            retry_at: Instant::now(),
        };
        let resumes = link.pass.is_some();
        let mut opened = link.establish().await;
        if resumes && matches!(opened, Err(Failed::ForGood(_))) {
            // The place of an earlier run is of no use any more.
            link.pass = None;
            opened = link.establish().await;
        }
        match opened {
            Ok(()) => Ok(link),
            Err(Failed::ForGood(error)) => Err(error),
            Err(Failed::Broken(why)) => {
                Err(Error::unavailable(format!("{url} cannot be reached: {why}")))
            }
        }
    }

    /// Has trouble told here from now on.
    pub(super) fn tell_trouble(&mut self, trouble: Trouble) {
        trouble.set(self.trouble());
        self.trouble = trouble;
    }

    /// Why the relay is out of reach, while it is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.get()
    }

    /// Whether the relay does not know this place any more. The next connection takes a new one,
    /// which is in no group.
    pub(super) fn is_lost(&self) -> bool {
        self.pass.is_none()
    }

    /// Puts a call on its way and gives back its id.
    pub(super) fn post(&mut self, method: &str, params: &Value) -> u64 {
        let (id, frame) = self.frame(method, params);
        self.waiting.push_back(frame);
        id
    }

    /// Calls, and asks again until there is an answer.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let answer = self.try_call(method, params).await?;
        answer.map_err(|refusal| refusal.error(method))
    }

    /// As [`Link::call`], with the refusal for the caller to look at.
    pub(super) async fn try_call(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<std::result::Result<Value, Refusal>> {
        let mut id = self.post(method, &params);
        loop {
            match self.hear().await? {
                Heard::Answer(of, answer) if of == id => match answer {
                    Err(refusal) if refusal.is_for_now() => self.broke(refusal.message),
                    answer => return Ok(answer),
                },
                Heard::Answer(..) => {}
                Heard::Again => {
                    self.early.push_back(Heard::Again);
                    id = self.post(method, &params);
                }
                event => self.early.push_back(event),
            }
        }
    }

    /// What comes next. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Heard> {
        match self.early.pop_front() {
            Some(heard) => Ok(heard),
            None => self.hear().await,
        }
    }

    /// Waits a while before something is tried again.
    pub(super) async fn pause(&mut self) {
        self.backoff.pause().await;
    }

    /// Leaves this connection for another one.
    pub(super) fn broke(&mut self, why: String) {
        tracing::info!("the connection to the relay broke: {why}");
        self.trouble.set(Some(why));
        self.socket = None;
        self.retry_at = Instant::now() + self.backoff.delay();
    }

    fn frame(&mut self, method: &str, params: &Value) -> (u64, String) {
        self.last_id += 1;
        let id = self.last_id;
        let frame = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        (id, frame.to_string())
    }

    async fn hear(&mut self) -> Result<Heard> {
        loop {
            if self.socket.is_none() {
                self.reconnect().await?;
                return Ok(Heard::Again);
            }
            let until = self.heard_at + SILENCE;
            match timeout_at(until, poll_fn(|cx| self.poll(cx))).await {
                Ok(Ok(text)) => {
                    if let Some(heard) = self.read(&text) {
                        return Ok(heard);
                    }
                }
                Ok(Err(why)) => self.broke(why),
                Err(_) => self.broke("nothing came for 45 s".into()),
            }
        }
    }

    /// Writes what waits, and reads the next text. Neither keeps the other from going on: the relay
    /// does not read from those that do not read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<Utf8Bytes, String>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Ready(Err("it is not there".into()));
        };
        let text = |error: tokio_tungstenite::tungstenite::Error| error.to_string();
        while !self.waiting.is_empty() && socket.poll_ready_unpin(cx).map_err(text)?.is_ready() {
            if let Some(frame) = self.waiting.pop_front() {
                socket.start_send_unpin(Message::text(frame)).map_err(text)?;
                self.dirty = true;
            }
        }
        if self.dirty && socket.poll_flush_unpin(cx).map_err(text)?.is_ready() {
            self.dirty = false;
        }
        loop {
            let frame = match socket.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Err("it was closed".into())),
                Poll::Ready(Some(frame)) => frame.map_err(text)?,
            };
            self.heard_at = Instant::now();
            match frame {
                Message::Text(text) => return Poll::Ready(Ok(text)),
                Message::Close(frame) => {
                    let why = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    return Poll::Ready(Err(format!("it was closed: {why}")));
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, text: &str) -> Option<Heard> {
        let Ok(frame) = serde_json::from_str::<Frame>(text) else {
            tracing::warn!("the relay sent a frame that is none of its protocol");
            return None;
        };
        match (frame.id?, frame.error) {
            (0, None) => {
                if let Some(pass) = &mut self.pass {
                    pass.seen += 1;
                }
                let (name, payload) = serde_json::from_value(frame.result).ok()?;
                Some(Heard::Event(name, payload))
            }
            (id, Some(refusal)) => Some(Heard::Answer(id, Err(refusal))),
            (id, None) => {
                self.backoff.reset();
                Some(Heard::Answer(id, Ok(frame.result)))
            }
        }
    }

    async fn reconnect(&mut self) -> Result<()> {
        loop {
            sleep_until(self.retry_at).await;
            match self.establish().await {
                Ok(()) => return Ok(()),
                Err(Failed::Broken(why)) => self.broke(why),
                Err(Failed::ForGood(error)) => return Err(error),
            }
        }
    }

    /// Connects and takes a place: the old one, if there is one.
    async fn establish(&mut self) -> std::result::Result<(), Failed> {
        let mut socket = connect(&self.url, MAX_FRAME).await.map_err(Failed::Broken)?;
        let (id, frame) = match &self.pass {
            None => self.frame("Connection.token", &json!([])),
            Some(Pass { token, seen }) => {
                let params = json!([token, seen]);
                self.frame("Connection.resume", &params)
            }
        };
        let asking = timeout(CONNECT, ask(&mut socket, id, frame)).await;
        let answer = asking.unwrap_or_else(|_| Err("no answer in 10 s".into()));
        match answer.map_err(Failed::Broken)? {
            Ok(Value::String(token)) if self.pass.is_none() => {
                self.pass = Some(Pass { token, seen: 0 });
            }
            Ok(_) if self.pass.is_some() => {}
            Ok(_) => return Err(Failed::Broken("it gives no token".into())),
            Err(refusal) if refusal.is_for_now() => return Err(Failed::Broken(refusal.message)),
            Err(refusal) => return Err(Failed::ForGood(self.refused(refusal))),
        }
        self.socket = Some(socket);
        self.waiting.clear();
        self.dirty = false;
        self.heard_at = Instant::now();
        self.trouble.set(None);
        Ok(())
    }

    fn refused(&mut self, refusal: Refusal) -> Error {
        if refusal.code != NO_PLACE {
            return refusal.error("this device's place");
        }
        self.pass = None;
        let why = "the relay has forgotten this device: it was restarted without its memory, or \
                   this device was out of reach for too long; start again on all devices";
        Error::new(ErrorCode::Conflict, why)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.passes.put(pass);
        }
    }
}

/// The first call of a connection. Its answer comes before any event.
async fn ask(
    socket: &mut Socket,
    id: u64,
    frame: String,
) -> std::result::Result<std::result::Result<Value, Refusal>, String> {
    socket.send(Message::text(frame)).await.map_err(|error| error.to_string())?;
    loop {
        let next = socket.next().await.ok_or("it was closed")?;
        let Message::Text(text) = next.map_err(|error| error.to_string())? else { continue };
        match serde_json::from_str::<Frame>(&text) {
            Ok(Frame { id: Some(of), result, error }) if of == id => {
                return Ok(error.map_or(Ok(result), Err));
            }
            _ => return Err("it does not answer as a group relay does".into()),
        }
    }
}
