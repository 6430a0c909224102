//! Frames of the JSON-RPC group relay.
//!
//! [`RpcRequest::parse`] turns one text frame into a checked call; [`RpcRequest::answer`],
//! [`RpcRequest::refuse`] and [`event`] write what goes back, byte for byte as older clients know it:
//! the members `jsonrpc`, `id`, `result` or `error` in this order, absent ones left out, the members
//! of a result sorted.

mod call;
mod opaque;
mod write;

#[cfg(test)]
mod tests;

pub use call::{RpcCall, TokenText};
pub use write::{Json, event, group, number, session, session_id};

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::parse::BYTE_ORDER_MARK;

/// Code of an error about text that is not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON that is no request.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The parameters do not fit the method.
pub const INVALID_PARAMS: i32 = -32602;

/// The `data` of an error after which the server closes the connection.
pub const CLOSE_CONNECTION: &str = "close-connection";

/// An error as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// JSON-RPC error code.
    pub code: i32,
    /// What happened, as a sentence.
    pub message: String,
    /// What a client may show beside the message.
    pub data: Option<String>,
}

impl RpcError {
    /// An error without particulars.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// Whether the frame was no request at all, so that there is no call to answer.
    pub fn is_no_request(&self) -> bool {
        matches!(self.code, PARSE_ERROR | INVALID_REQUEST)
    }
}

/// One frame of a client: what it asks, or why that cannot be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcRequest {
    /// Any JSON value but null, as JSON text; absent in a notification.
    pub id: Option<Box<str>>,
    /// The call, or the error to answer with.
    pub call: Result<RpcCall, RpcError>,
}

impl RpcRequest {
    /// Reads one text frame. Every text gives a request or an error to answer with.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let request = match serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
            Ok(request) => request,
            Err(error) if error.is_data() && serde_json::from_str::<&RawValue>(text).is_ok() => {
                let detail = "one request a frame, as an object".to_owned();
                return Self::no_request(INVALID_REQUEST, "Invalid request", detail);
            }
            Err(error) => {
                return Self::no_request(PARSE_ERROR, "Parse error", error.to_string());
            }
        };
        let member = |name| request.get(name).map(|value| value.get());
        let method = member("method").and_then(|text| serde_json::from_str::<String>(text).ok());
        let Some(method) = method else {
            let detail = "a request has a method".to_owned();
            return Self::no_request(INVALID_REQUEST, "Invalid request", detail);
        };
        let id = match member("id").filter(|id| *id != "null").map(opaque::sorted).transpose() {
            Ok(id) => id.map(Into::into),
            Err(detail) => return Self::no_request(PARSE_ERROR, "Parse error", detail),
        };
        Self { id, call: RpcCall::read(&method, member("params").unwrap_or("null")) }
    }

    fn no_request(code: i32, message: &str, detail: String) -> Self {
        let error = RpcError { code, message: message.to_owned(), data: Some(detail) };
        Self { id: None, call: Err(error) }
    }
}
