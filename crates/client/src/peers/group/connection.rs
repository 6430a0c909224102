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

use super::super::channel::LastError;
use super::super::connect::{CONNECT, SILENCE, Socket, connect, unreachable};

/// The largest frame read: the relay takes none over 1 MiB, and wraps it in a few bytes.
const MAX_FRAME: usize = 2 << 20;

/// Codes of the relay: no place for this token, too much at once, the disk is behind.
const NO_PLACE: i64 = -32001;
const LATER: [i64; 2] = [-32002, -32003];

/// What a new connection shows to go on where the last one ended.
struct ResumeToken {
    token: String,
    /// Events heard since the token was given.
    seen: u64,
}

/// Places that no run uses just now: the next one takes one of them, with its groups.
#[derive(Clone, Default)]
pub(super) struct ResumeTokens(Arc<Mutex<Vec<ResumeToken>>>);

impl ResumeTokens {
    fn take(&self) -> Option<ResumeToken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, resume_token: ResumeToken) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(resume_token);
    }
}

/// What the relay said.
pub(super) enum Heard {
    /// The answer to the call with this id.
    Answer(u64, std::result::Result<Value, RelayError>),
    Event(String, Value),
    /// This is another connection: what had no answer is to be asked again.
    Again,
}

/// An error as the relay answers it.
#[derive(Debug, Deserialize)]
pub(super) struct RelayError {
    code: i64,
    pub(super) message: String,
    #[serde(default)]
    data: Value,
}

impl RelayError {
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
    error: Option<RelayError>,
}

/// Why there is no connection.
enum Failed {
    /// It is worth another try.
    Broken(String),
    ForGood(Error),
}

pub(super) struct RelayConnection {
    url: String,
    resume_tokens: ResumeTokens,
    resume_token: Option<ResumeToken>,
    socket: Option<Socket>,
    /// Calls that are not written.
    waiting: VecDeque<String>,
    /// Something was given to the socket that it has not sent.
    dirty: bool,
    last_id: u64,
    heard_at: Instant,
    /// What was heard while an answer was awaited.
    early: VecDeque<Heard>,
    last_error: LastError,
    backoff: Backoff,
    retry_at: Instant,
}

impl RelayConnection {
    /// Connects. A wrong address shows itself at once.
    pub(super) async fn open(url: &str, resume_tokens: &ResumeTokens) -> Result<Self> {
        let mut connection = Self {
            url: url.to_owned(),
            resume_tokens: resume_tokens.clone(),
            resume_token: resume_tokens.take(),
            socket: None,
            waiting: VecDeque::new(),
            dirty: false,
            last_id: 0,
            heard_at: Instant::now(),
            early: VecDeque::new(),
            last_error: LastError::default(),
            backoff: Backoff::default(),
            retry_at: Instant::now(),
        };
        let resumes = connection.resume_token.is_some();
        let mut opened = connection.establish().await;
        if resumes && matches!(opened, Err(Failed::ForGood(_))) {
            // The place of an earlier run is of no use any more.
            connection.resume_token = None;
            opened = connection.establish().await;
        }
        match opened {
            Ok(()) => Ok(connection),
            Err(Failed::ForGood(error)) => Err(error),
            Err(Failed::Broken(why)) => Err(unreachable(url, &why)),
        }
    }

    /// Has last_error told here from now on.
    pub(super) fn report_errors_to(&mut self, last_error: LastError) {
        last_error.set(self.last_error());
        self.last_error = last_error;
    }

    /// Why the relay is out of reach, while it is.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.get()
    }

    /// Whether the relay does not know this place any more. The next connection takes a new one,
    /// which is in no group.
    pub(super) fn is_lost(&self) -> bool {
        self.resume_token.is_none()
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
    ) -> Result<std::result::Result<Value, RelayError>> {
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
        self.last_error.set(Some(why));
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
                if let Some(resume_token) = &mut self.resume_token {
                    resume_token.seen += 1;
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
        let (id, frame) = match &self.resume_token {
            None => self.frame("Connection.token", &json!([])),
            Some(ResumeToken { token, seen }) => {
                let params = json!([token, seen]);
                self.frame("Connection.resume", &params)
            }
        };
        let asking = timeout(CONNECT, ask(&mut socket, id, frame)).await;
        let answer = asking.unwrap_or_else(|_| Err("no answer in 10 s".into()));
        match answer.map_err(Failed::Broken)? {
            Ok(Value::String(token)) if self.resume_token.is_none() => {
                self.resume_token = Some(ResumeToken { token, seen: 0 });
            }
            Ok(_) if self.resume_token.is_some() => {}
            Ok(_) => return Err(Failed::Broken("it gives no token".into())),
            Err(refusal) if refusal.is_for_now() => return Err(Failed::Broken(refusal.message)),
            Err(refusal) => return Err(Failed::ForGood(self.refused(refusal))),
        }
        self.socket = Some(socket);
        self.waiting.clear();
        self.dirty = false;
        self.heard_at = Instant::now();
        self.last_error.set(None);
        Ok(())
    }

    fn refused(&mut self, refusal: RelayError) -> Error {
        if refusal.code != NO_PLACE {
            return refusal.error("this device's place");
        }
        self.resume_token = None;
        let why = "the relay has forgotten this device: it was restarted without its memory, or \
                   this device was out of reach for too long; start again on all devices";
        Error::new(ErrorCode::Conflict, why)
    }
}

impl Drop for RelayConnection {
    fn drop(&mut self) {
        if let Some(resume_token) = self.resume_token.take() {
            self.resume_tokens.put(resume_token);
        }
    }
}

/// The first call of a connection. Its answer comes before any event.
async fn ask(
    socket: &mut Socket,
    id: u64,
    frame: String,
) -> std::result::Result<std::result::Result<Value, RelayError>, String> {
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
