//! API keys as JSON.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// An API key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKeyJson {
    /// What people call it: 1 to 64 letters, digits or -_.:@+.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "billing")]
    pub label: Option<KeyLabel>,
    /// Whose sessions, keys and accounts it sees; `default` when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<Tenant>,
    /// What it may do.
    #[schema(schema_with = schema::scopes)]
    pub scopes: Vec<Scope>,
    /// When it stops to work, in milliseconds since 1970; never when absent.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<Timestamp>,
}

impl From<NewApiKeyJson> for NewApiKey {
    fn from(json: NewApiKeyJson) -> Self {
        let NewApiKeyJson { label, tenant, scopes, expires_at } = json;
        Self { label, tenant: tenant.unwrap_or_default(), scopes, expires_at }
    }
}

/// An API key without its secret.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyJson {
    /// Its first characters.
    #[schema(value_type = String, example = "qk_9f86d081884c7d65")]
    pub id: ApiKeyId,
    /// What people call it.
    #[schema(value_type = Option<String>)]
    pub label: Option<KeyLabel>,
    /// Whose sessions, keys and accounts it sees.
    #[schema(value_type = String)]
    pub tenant: Tenant,
    /// What it may do.
    #[schema(schema_with = schema::scopes)]
    pub scopes: Vec<Scope>,
    /// When it was made, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it stops to work, in milliseconds since 1970.
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<Timestamp>,
    /// When it was last shown, in milliseconds since 1970, to within a minute.
    #[schema(value_type = Option<i64>)]
    pub last_used_at: Option<Timestamp>,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl From<ApiKey> for ApiKeyJson {
    fn from(key: ApiKey) -> Self {
        let ApiKey { id, label, tenant, scopes, created_at, expires_at, last_used_at, revoked } =
            key;
        Self { id, label, tenant, scopes, created_at, expires_at, last_used_at, revoked }
    }
}

/// An API key that was just made.
#[derive(Serialize, ToSchema)]
pub struct MadeApiKeyJson {
    /// What requests show as `Authorization: Bearer`. It is in this answer and in no other.
    pub secret: String,
    /// All else of it.
    #[serde(flatten)]
    pub key: ApiKeyJson,
}

/// A page of API keys.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyPageJson {
    /// In the order of their ids.
    pub api_keys: Vec<ApiKeyJson>,
    /// What the next page comes `after`; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<ApiKeyId>,
}
