//! Refusals as gRPC statuses, and back.
//!
//! The status code comes from the error table and the message is the refusal's own. Everything else
//! (the stable code, fields, who is waited for, who is to blame) travels as JSON in the binary
//! metadata entry `quorate-error-bin`, so that the other end has the same value again.

use std::collections::BTreeMap;

use quorate_types::*;
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::proto::router::v1::Refusal;

const ENTRY: &str = "quorate-error-bin";

#[derive(Serialize, Deserialize)]
struct Particulars {
    code: String,
    #[serde(default)]
    fields: BTreeMap<String, String>,
    #[serde(default)]
    waiting_for: Vec<PartyId>,
    blame: Option<Blame>,
    retryable: bool,
    retry_after: Option<u32>,
}

/// A refusal as a status.
pub fn to_status(error: Error) -> Status {
    let (code, message, details) = parts(error);
    let mut status = Status::new(code, message);
    status.metadata_mut().insert_bin(ENTRY, MetadataValue::from_bytes(&details));
    status
}

/// A status as a refusal: the same one where it came from us, else one by its gRPC code.
pub fn to_error(status: &Status) -> Error {
    let details = status.metadata().get_bin(ENTRY).and_then(|value| value.to_bytes().ok());
    from_parts(status.code(), status.message(), &details.unwrap_or_default())
}

/// The stable code in the headers of a refused call, where it was refused before it answered.
pub fn code_in(headers: &http::HeaderMap) -> Option<ErrorCode> {
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok).then(|| to_error(&status).code)
}

/// Whether the status is from a service of ours.
pub(crate) fn is_ours(status: &Status) -> bool {
    status.metadata().contains_key(ENTRY)
}

/// A refusal as one call's answer among others on a stream.
pub fn to_refusal(error: Error) -> Refusal {
    let (code, message, details) = parts(error);
    Refusal { code: code.into(), message, details: details.into() }
}

/// A call's answer as a refusal.
pub fn from_refusal(refusal: &Refusal) -> Error {
    from_parts(Code::from_i32(refusal.code), &refusal.message, &refusal.details)
}

fn parts(error: Error) -> (Code, String, Vec<u8>) {
    let row = error.code.row();
    let details = *error.details;
    let particulars = Particulars {
        code: row.name.to_owned(),
        fields: details.fields,
        waiting_for: details.waiting_for,
        blame: details.blame,
        retryable: row.retryable,
        retry_after: details.retry_after,
    };
    let json = serde_json::to_vec(&particulars).unwrap_or_default();
    (Code::from_i32(row.grpc.into()), error.message, json)
}

fn from_parts(grpc: Code, message: &str, details: &[u8]) -> Error {
    let particulars: Option<Particulars> = serde_json::from_slice(details).ok();
    let known = particulars.and_then(|particulars| {
        let code = ErrorCode::ALL.iter().find(|code| code.name() == particulars.code)?;
        Some((*code, particulars))
    });
    let Some((code, particulars)) = known else {
        return Error::new(foreign(grpc), message);
    };
    let mut error = Error::new(code, message);
    *error.details = Details {
        fields: particulars.fields,
        waiting_for: particulars.waiting_for,
        blame: particulars.blame,
        retry_after: particulars.retry_after,
    };
    error
}

fn foreign(code: Code) -> ErrorCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidRequest,
        Code::Unauthenticated => ErrorCode::Unauthorized,
        Code::PermissionDenied => ErrorCode::Forbidden,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists | Code::Aborted => ErrorCode::Conflict,
        Code::FailedPrecondition => ErrorCode::SessionExpired,
        Code::ResourceExhausted => ErrorCode::RateLimited,
        Code::Unimplemented => ErrorCode::Unimplemented,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Unavailable,
        // A broken connection shows itself as one of these.
        Code::Unknown | Code::Internal | Code::DataLoss | Code::Ok => ErrorCode::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_comes_back_as_it_went() {
        for code in ErrorCode::ALL {
            let blame = Blame { party_id: "p".parse().unwrap(), reason: "lied".into() };
            let mut error = Error::new(*code, "what happened")
                .with_field("field")
                .waiting_for(vec!["q".parse().unwrap()])
                .blaming(blame);
            error.details.retry_after = Some(3);
            assert_eq!(from_refusal(&to_refusal(error.clone())), error);
            let status = to_status(error.clone());
            assert_eq!(i32::from(code.row().grpc), i32::from(status.code()));
            assert_eq!(to_error(&status), error);
        }
    }

    #[test]
    fn a_foreign_status_keeps_its_sense() {
        let error = to_error(&Status::not_found("gone"));
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotFound, "gone"));
    }
}
