//! The methods and their parameters.

use std::fmt;

use quorate_types::{GroupId, GroupKind, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::write::{Json, event};
use super::{INVALID_PARAMS, METHOD_NOT_FOUND, RpcError, opaque};
use crate::strict::Strict;

/// A message between parties. Its body is not looked at.
#[derive(Deserialize)]
struct MessageJson<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    receiver: Option<u16>,
    round: u16,
    sender: u16,
    uuid: String,
}

#[derive(Deserialize)]
struct Params {
    parties: u16,
    threshold: u16,
}

#[derive(Serialize)]
struct Proposal {
    message: String,
    #[serde(rename = "proposalId")]
    proposal_id: String,
    #[serde(rename = "sessionId")]
    session_id: SessionId,
}

/// A resume token. It is a secret, so it does not show itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TokenText(String);

impl TokenText {
    /// Shows the token to code that must have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// A checked call. Events that it causes and that depend on nothing else are written already.
#[derive(Clone, Debug, PartialEq)]
pub enum RpcCall {
    /// `Group.create`: makes a group with a label and its parameters.
    GroupCreate {
        /// A name for people.
        label: String,
        /// How many members the group has.
        parties: u16,
        /// Signers needed, less one.
        threshold: u16,
    },
    /// `Group.join`: enters a group.
    GroupJoin(GroupId),
    /// `Session.create`: makes a session in a group.
    SessionCreate {
        /// The group that is meant.
        group: GroupId,
        /// What it makes.
        kind: GroupKind,
        /// What its members are to know.
        value: Json,
    },
    /// `Session.join`: enters a session.
    SessionJoin(GroupId, SessionId, GroupKind),
    /// `Session.signup`: asks for the next free party number.
    SessionSignup(GroupId, SessionId, GroupKind),
    /// `Session.load`: claims a given party number.
    SessionLoad(GroupId, SessionId, GroupKind, u16),
    /// `Session.participant`: index, then number.
    SessionParticipant(GroupId, SessionId, u16, u16),
    /// `Session.message`: sends to one member or to all others.
    SessionMessage {
        /// The group of the session.
        group: GroupId,
        /// The session that is meant.
        session: SessionId,
        /// The kind of the session.
        kind: GroupKind,
        /// The protocol's round, as the sender numbers it.
        round: u16,
        /// Who says it.
        sender: u16,
        /// To whom; nobody is everybody.
        receiver: Option<u16>,
        /// The `sessionMessage` event.
        event: String,
    },
    /// `Session.finish`: says that a party is done.
    SessionFinish(GroupId, SessionId, u16),
    /// `Notify.proposal` with the `notifyProposal` event.
    NotifyProposal(GroupId, SessionId, String),
    /// `Notify.signed` with the `notifySigned` event.
    NotifySigned(GroupId, SessionId, String),
    /// `Connection.token`: asks for the token that resumes this connection.
    ConnectionToken,
    /// `Connection.resume`: takes over the places of an earlier connection.
    ConnectionResume {
        /// What `Connection.token` answered.
        token: TokenText,
        /// Events seen since then.
        seen: Option<u64>,
    },
}

fn invalid(detail: impl ToString) -> RpcError {
    RpcError {
        code: INVALID_PARAMS,
        message: "Message parameters are invalid".to_owned(),
        data: Some(detail.to_string()),
    }
}

fn fit<'a, T: Deserialize<'a>>(params: &'a str) -> Result<T, RpcError> {
    if params == "null" {
        return Err(invalid("No parameters given"));
    }
    let mut input = serde_json::Deserializer::from_str(params);
    T::deserialize(Strict(&mut input)).map_err(invalid)
}

/// A value that is carried as it is.
fn carried(value: &RawValue) -> Result<Json, RpcError> {
    opaque::sorted(value.get()).map(Json::from_text).map_err(invalid)
}

impl RpcCall {
    pub(super) fn read(method: &str, params: &str) -> Result<Self, RpcError> {
        Ok(match method {
            "Group.create" => {
                let (label, Params { parties, threshold }) = fit(params)?;
                Self::GroupCreate { label, parties, threshold }
            }
            "Group.join" => Self::GroupJoin(fit(params)?),
            "Session.create" => {
                let (group, kind, value) = fit(params)?;
                Self::SessionCreate { group, kind, value: carried(value)? }
            }
            "Session.join" => {
                let (group, session, kind) = fit(params)?;
                Self::SessionJoin(group, session, kind)
            }
            "Session.signup" => {
                let (group, session, kind) = fit(params)?;
                Self::SessionSignup(group, session, kind)
            }
            "Session.load" => {
                let (group, session, kind, number) = fit(params)?;
                Self::SessionLoad(group, session, kind, number)
            }
            "Session.participant" => {
                let (group, session, index, number) = fit(params)?;
                Self::SessionParticipant(group, session, index, number)
            }
            "Session.message" => Self::message(params)?,
            "Session.finish" => {
                let (group, session, number) = fit(params)?;
                Self::SessionFinish(group, session, number)
            }
            "Notify.proposal" => Self::proposal(params)?,
            "Notify.signed" => {
                let (group, session, value) = fit(params)?;
                Self::NotifySigned(group, session, event("notifySigned", &carried(value)?))
            }
            "Connection.token" => Self::token(params)?,
            "Connection.resume" => Self::resume(params)?,
            _ => {
                let message = format!("Service method not found: {method}");
                return Err(RpcError::new(METHOD_NOT_FOUND, message));
            }
        })
    }

    fn message(params: &str) -> Result<Self, RpcError> {
        let (group, session, kind, message) = fit::<(_, _, _, MessageJson<'_>)>(params)?;
        let MessageJson { body, receiver, round, sender, uuid } = message;
        let (body, uuid) = (carried(body)?.into_string(), opaque::quoted(&uuid));
        let to = receiver.map_or_else(|| "null".to_owned(), |receiver| receiver.to_string());
        let message = format!(
            r#"{{"body":{body},"receiver":{to},"round":{round},"sender":{sender},"uuid":{uuid}}}"#
        );
        let event = event("sessionMessage", &Json::from_text(message));
        Ok(Self::SessionMessage { group, session, kind, round, sender, receiver, event })
    }

    fn proposal(params: &str) -> Result<Self, RpcError> {
        let (group, session_id, proposal_id, message) = fit(params)?;
        let proposal = Proposal { message, proposal_id, session_id };
        Ok(Self::NotifyProposal(group, session_id, event("notifyProposal", &Json::of(proposal))))
    }

    fn token(params: &str) -> Result<Self, RpcError> {
        match serde_json::from_str::<Option<[(); 0]>>(params) {
            Ok(_) => Ok(Self::ConnectionToken),
            Err(_) => Err(invalid("no parameters are expected")),
        }
    }

    /// The token, and perhaps the number of events seen.
    fn resume(params: &str) -> Result<Self, RpcError> {
        if let Ok((token,)) = fit(params) {
            return Ok(Self::ConnectionResume { token, seen: None });
        }
        let (token, seen) = fit(params)?;
        Ok(Self::ConnectionResume { token, seen })
    }

    /// The method's name.
    pub fn method(&self) -> &'static str {
        match self {
            Self::GroupCreate { .. } => "Group.create",
            Self::GroupJoin(_) => "Group.join",
            Self::SessionCreate { .. } => "Session.create",
            Self::SessionJoin(..) => "Session.join",
            Self::SessionSignup(..) => "Session.signup",
            Self::SessionLoad(..) => "Session.load",
            Self::SessionParticipant(..) => "Session.participant",
            Self::SessionMessage { .. } => "Session.message",
            Self::SessionFinish(..) => "Session.finish",
            Self::NotifyProposal(..) => "Notify.proposal",
            Self::NotifySigned(..) => "Notify.signed",
            Self::ConnectionToken => "Connection.token",
            Self::ConnectionResume { .. } => "Connection.resume",
        }
    }
}
