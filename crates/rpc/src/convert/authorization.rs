//! Signed requests and approvals.

use bytes::Bytes;
use quorate_types::*;

use crate::proto::router::v1 as ro;

/// An approval, as it goes out.
pub fn approval_out(approval: &Approval) -> ro::Approval {
    ro::Approval {
        approver: approval.approver.to_string(),
        signature: Bytes::copy_from_slice(&approval.signature.0),
    }
}

/// An approval, as it comes in.
pub fn approval_in(approval: ro::Approval) -> Result<Approval> {
    Ok(Approval {
        approver: approval.approver.parse()?,
        signature: AuthoritySignature::read(&approval.signature)?,
    })
}

/// A signed request, as it goes out.
pub fn authorization_out(authorization: &Authorization) -> ro::Authorization {
    ro::Authorization {
        request: authorization.request.clone(),
        initiator: authorization.initiator.to_string(),
        signature: Bytes::copy_from_slice(&authorization.signature.0),
        approvals: authorization.approvals.iter().map(approval_out).collect(),
    }
}

/// A signed request, as it comes in.
pub fn authorization_in(authorization: ro::Authorization) -> Result<Authorization> {
    let approvals = authorization.approvals.into_iter().map(approval_in);
    let authorization = Authorization {
        request: authorization.request,
        initiator: authorization.initiator.parse()?,
        signature: AuthoritySignature::read(&authorization.signature)?,
        approvals: approvals.collect::<Result<_>>()?,
    };
    authorization.check_size()?;
    Ok(authorization)
}
