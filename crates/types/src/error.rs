//! One error value, all wires.
//!
//! [`ErrorCode`] is closed; [`ErrorCode::row`] is the only table that says how a code looks on each
//! wire. What may be shown travels in [`Error`]; what is only for the log is logged where it happens.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::PartyId;

/// The result of everything that can be refused.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $http:literal $grpc:literal $rpc:literal $ws:literal $retry:literal;)*) => {
        /// A stable code, the same on every wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// How this code looks on each wire.
            pub fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        name: $name, http: $http, grpc: $grpc, json_rpc: $rpc, ws_close: $ws, retryable: $retry,
                    },)*
                }
            }
        }
    };
}

/// One row of the error table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The `error` member of a JSON body.
    pub name: &'static str,
    /// HTTP status of an answer with this code.
    pub http: u16,
    /// gRPC status code.
    pub grpc: u8,
    /// JSON-RPC error code.
    pub json_rpc: i32,
    /// WebSocket close code.
    pub ws_close: u16,
    /// Whether the same request may succeed later without being changed.
    pub retryable: bool,
}

codes! {
    // variant           name                   HTTP gRPC JSON-RPC   WS  retryable
    /// The request is malformed or contradicts itself.
    InvalidRequest       "invalid_request"       400   3  -32602   1008  false;
    /// Too few participants, or not all are ready.
    ThresholdNotMet      "threshold_not_met"     400   9  -32603   1008  false;
    /// No or wrong credentials, or a wrong join token.
    Unauthorized         "unauthorized"          401  16  -32001   1008  false;
    /// The caller is known and may not do this.
    Forbidden            "forbidden"             403   7  -32001   1008  false;
    /// A party's policy, or what an initiator has signed, does not allow this session.
    PolicyDenied         "policy_denied"         403   7  -32001   1008  false;
    /// No such thing for this caller.
    NotFound             "not_found"             404   5  -32603   1008  false;
    /// The path exists and does not take this method.
    MethodNotAllowed     "method_not_allowed"    405  12  -32601   1002  false;
    /// The thing exists already, or its state does not allow this now.
    Conflict             "conflict"              409  10  -32603   1008  true;
    /// The key has been refreshed: this is an epoch before its active one.
    StaleEpoch           "stale_epoch"           409  10  -32603   1008  false;
    /// All seats of the session are taken.
    SessionFull          "session_full"          409   8  -32603   1008  false;
    /// The session's deadline has passed or it has ended.
    SessionExpired       "session_expired"       410   9  -32603   1008  false;
    /// A body or message is over its bound.
    MessageTooLarge      "message_too_large"     413   8  -32603   1009  false;
    /// The body is not of a type this path reads.
    UnsupportedMediaType "unsupported_media_type" 415  3  -32600   1003  false;
    /// An idempotency key came back with another request.
    IdempotencyMismatch  "idempotency_mismatch"  422   3  -32603   1008  false;
    /// A pair of holders is banned; the key needs a refresh before they sign together.
    KeyLocked            "key_locked"            423   9  -32603   1008  false;
    /// The key was frozen by its owner.
    KeyFrozen            "key_frozen"            423   9  -32603   1008  false;
    /// Too many requests, or a queue is full; wait and try again.
    RateLimited          "rate_limited"          429   8  -32002   1013  true;
    /// A bug or a broken disk on our side.
    Internal             "internal_error"        500  13  -32603   1011  false;
    /// The call is known and not offered by this server.
    Unimplemented        "unimplemented"         501  12  -32601   1003  false;
    /// Starting, draining, or something it needs is away; try again.
    Unavailable          "unavailable"           503  14  -32003   1013  true;
}

impl ErrorCode {
    /// The code's stable name.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

/// Whose fault it is, when that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// The party at fault.
    pub party_id: PartyId,
    /// What it did, in words.
    pub reason: String,
}

/// What a caller may want to know beyond the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Field name → what is wrong with it.
    pub fields: BTreeMap<String, String>,
    /// Parties that have not done their part.
    pub waiting_for: Vec<PartyId>,
    /// Who is at fault.
    pub blame: Option<Blame>,
    /// Seconds after which a retry makes sense.
    pub retry_after: Option<u32>,
}

/// A refusal: a code for machines and a sentence for people, safe to show to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The stable code.
    pub code: ErrorCode,
    /// What happened and what to do, in words.
    pub message: String,
    /// What programs can use beside the message.
    pub details: Box<Details>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl Error {
    /// An error of this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Box::default() }
    }

    /// A bad request that one field explains.
    pub fn invalid_field(field: &str, problem: impl Into<String>) -> Self {
        Self::invalid(problem).with_field(field)
    }

    /// A bad request.
    pub fn invalid(problem: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, problem)
    }

    /// Nothing of this kind and name for this caller.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} {name} does not exist"))
    }

    /// Something of ours broke; the cause belongs in the log, not here.
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "something failed on our side; the log names the cause")
    }

    /// A stored record that cannot be read or contradicts itself. The cause belongs in the log.
    pub fn damaged(what: impl fmt::Display) -> Self {
        let message = format!(
            "{what} is damaged on the disk and cannot be read; everything else works. The log names the \
             cause; restore the data folder from a backup to have it back"
        );
        Self::new(ErrorCode::Internal, message)
    }

    /// `unavailable`: the same request may succeed later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorCode::Unavailable, message);
        error.details.retry_after = Some(1);
        error
    }

    /// A bound is reached; in so many seconds a retry makes sense.
    pub fn rate_limited(message: impl Into<String>, retry_after: u32) -> Self {
        let mut error = Self::new(ErrorCode::RateLimited, message);
        error.details.retry_after = Some(retry_after);
        error
    }

    /// Names the field this message is about.
    #[must_use]
    pub fn with_field(mut self, field: &str) -> Self {
        self.details.fields.insert(field.to_owned(), self.message.clone());
        self
    }

    /// Names the parties that are waited for.
    #[must_use]
    pub fn waiting_for(mut self, parties: Vec<PartyId>) -> Self {
        self.details.waiting_for = parties;
        self
    }

    /// Names the party at fault.
    #[must_use]
    pub fn blaming(mut self, blame: Blame) -> Self {
        self.details.blame = Some(blame);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_are_unique_snake_case() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            let name = code.name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(seen.insert(name), "{name} twice");
        }
    }

    #[test]
    fn errors_of_the_server_alone_are_5xx() {
        for code in ErrorCode::ALL {
            let row = code.row();
            let ours = matches!(
                code,
                ErrorCode::Internal | ErrorCode::Unimplemented | ErrorCode::Unavailable
            );
            assert_eq!(row.http >= 500, ours, "{code:?}");
            assert!(row.grpc >= 1 && row.grpc <= 16);
        }
    }
}
