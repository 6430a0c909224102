//! API keys.

use quorate_types::*;

use super::key::{label_in, label_out};
use crate::proto::operator::v1 as op;

/// An API key without its secret.
pub fn api_key_out(key: ApiKey) -> op::ApiKey {
    op::ApiKey {
        id: key.id.to_string(),
        label: label_out(key.label),
        tenant: key.tenant.as_str().into(),
        scopes: key.scopes.iter().map(|scope| scope.name().into()).collect(),
        created_at: key.created_at.0,
        expires_at: key.expires_at.map(|at| at.0),
        last_used_at: key.last_used_at.map(|at| at.0),
        revoked: key.revoked,
    }
}

/// An API key as it comes back.
pub fn api_key_in(key: Option<op::ApiKey>) -> Result<ApiKey> {
    let key = key.ok_or_else(Error::internal)?;
    Ok(ApiKey {
        id: key.id.parse()?,
        label: label_in(&key.label)?,
        tenant: tenant(&key.tenant)?,
        scopes: key.scopes.iter().map(|scope| scope.parse()).collect::<Result<_>>()?,
        created_at: Timestamp(key.created_at),
        expires_at: key.expires_at.map(Timestamp),
        last_used_at: key.last_used_at.map(Timestamp),
        revoked: key.revoked,
    })
}

/// A key to make, as it comes in.
pub fn new_api_key_in(request: op::CreateApiKeyRequest) -> Result<NewApiKey> {
    Ok(NewApiKey {
        label: label_in(&request.label)?,
        tenant: tenant(&request.tenant)?,
        scopes: request.scopes.iter().map(|scope| scope.parse()).collect::<Result<_>>()?,
        expires_at: request.expires_at.map(Timestamp),
    })
}

/// A key to make, as it goes out.
pub fn new_api_key_out(new: &NewApiKey) -> op::CreateApiKeyRequest {
    op::CreateApiKeyRequest {
        label: label_out(new.label.clone()),
        tenant: new.tenant.as_str().into(),
        scopes: new.scopes.iter().map(|scope| scope.name().into()).collect(),
        expires_at: new.expires_at.map(|at| at.0),
    }
}

fn tenant(text: &str) -> Result<Tenant> {
    if text.is_empty() { Ok(Tenant::default()) } else { text.parse() }
}
