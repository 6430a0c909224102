//! Between the wire's calls and the core's commands, replies and events.

use bytes::Bytes;
use quorate_core::groups::{
    CallError, Command, Event, Parameters, Place, Reply, SessionView, TokenHash,
};
use quorate_types::{ErrorCode, GroupId, SessionId};
use quorate_wire::jsonrpc::{self, CLOSE_CONNECTION, Json, RpcCall, RpcError};
use sha2::{Digest as _, Sha256};

/// A command, and the token that its reply will tell.
pub struct Asked {
    /// What is asked of the core.
    pub command: Command,
    /// The token's text, when the command makes one.
    pub token: Option<String>,
}

fn random<const N: usize>() -> Result<[u8; N], RpcError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the system gives no randomness");
        RpcError::new(ErrorCode::Internal.row().json_rpc, "something failed on our side")
    })?;
    Ok(bytes)
}

fn uuid() -> Result<uuid::Uuid, RpcError> {
    Ok(uuid::Builder::from_random_bytes(random()?).into_uuid())
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

/// A call as the core takes it, with the ids it needs.
///
/// # Errors
/// When the system gives no randomness.
pub fn command(call: RpcCall) -> Result<Asked, RpcError> {
    let command = match call {
        RpcCall::ConnectionToken => {
            let token = hex::encode(random::<32>()?);
            return Ok(Asked { command: Command::Token(hash(&token)), token: Some(token) });
        }
        RpcCall::ConnectionResume { token, seen } => {
            Command::Resume { token: hash(token.expose()), seen }
        }
        RpcCall::GroupCreate { label, parties, threshold } => Command::GroupCreate {
            id: GroupId(uuid()?),
            label,
            params: Parameters { parties, threshold },
        },
        RpcCall::GroupJoin(group) => Command::GroupJoin(group),
        RpcCall::SessionCreate { group, kind, value } => Command::SessionCreate {
            group,
            id: SessionId(uuid()?),
            kind,
            value: value.into_string().into(),
        },
        RpcCall::SessionJoin(group, session, kind) => {
            Command::SessionJoin(Place { group, session }, kind)
        }
        RpcCall::SessionSignup(group, session, kind) => {
            Command::SessionSignup(Place { group, session }, kind)
        }
        RpcCall::SessionLoad(group, session, kind, number) => {
            Command::SessionLoad(Place { group, session }, kind, number)
        }
        RpcCall::SessionParticipant(group, session, index, number) => {
            Command::SessionParticipant { place: Place { group, session }, index, number }
        }
        RpcCall::SessionMessage { group, session, kind, round, sender, receiver, event } => {
            let place = Place { group, session };
            Command::SessionMessage { place, kind, round, sender, receiver, frame: event.into() }
        }
        RpcCall::SessionFinish(group, session, number) => {
            Command::SessionFinish(Place { group, session }, number)
        }
        RpcCall::NotifyProposal(group, session, event) => {
            Command::NotifyProposal(Place { group, session }, event.into())
        }
        RpcCall::NotifySigned(group, session, event) => {
            Command::NotifySigned(Place { group, session }, event.into())
        }
    };
    Ok(Asked { command, token: None })
}

fn session(view: &SessionView) -> Json {
    let value = std::str::from_utf8(&view.value).expect("values come from text");
    jsonrpc::session(view.id, view.kind, value)
}

/// The result of a call; an empty acknowledgement has none.
pub fn result(reply: &Reply, token: Option<String>) -> Option<Json> {
    match reply {
        Reply::Done => None,
        Reply::Created(id) => Some(Json::of(id)),
        Reply::Group { id, label, params } => {
            Some(jsonrpc::group(*id, label, params.parties, params.threshold))
        }
        Reply::Session(view) => Some(session(view)),
        Reply::Number(number) => Some(jsonrpc::number(u64::from(*number))),
        Reply::Token => token.map(Json::of),
        Reply::Resumed(missed) => Some(jsonrpc::number(*missed)),
    }
}

/// A refusal as it is answered.
pub fn error(refusal: &CallError) -> RpcError {
    let mut error = RpcError::new(refusal.code().row().json_rpc, refusal.to_string());
    error.data = refusal.closes().then(|| CLOSE_CONNECTION.to_owned());
    error
}

/// Whether a command can change what is kept.
pub fn writes(command: &Command) -> bool {
    !matches!(
        command,
        Command::SessionJoin(..)
            | Command::SessionMessage { .. }
            | Command::NotifyProposal(..)
            | Command::NotifySigned(..)
            | Command::Resume { .. }
    )
}

/// The disk is behind.
pub fn busy() -> RpcError {
    let code = ErrorCode::Unavailable.row().json_rpc;
    RpcError::new(code, "the disk is slower than the load; try again in a second")
}

/// An event as it is sent.
pub fn event(event: &Event) -> Bytes {
    match event {
        Event::SessionCreate(view) => jsonrpc::event("sessionCreate", &session(view)).into(),
        Event::SessionSignup(id) => {
            jsonrpc::event("sessionSignup", &jsonrpc::session_id(*id)).into()
        }
        Event::SessionLoad(id) => jsonrpc::event("sessionLoad", &jsonrpc::session_id(*id)).into(),
        Event::SessionClosed(numbers) => {
            jsonrpc::event("sessionClosed", &Json::of(&numbers[..])).into()
        }
        Event::Frame(frame) => frame.clone(),
    }
}
