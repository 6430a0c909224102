//! API keys, as their operator sees them: everything but the secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::Tenant;
use crate::key::KeyLabel;
use crate::party::{Caller, Scope};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The public part of an API key, its first characters: `qk_`, by which people and secret scanners
/// know a key, and 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiKeyId(pub [u8; 8]);

impl ApiKeyId {
    const PREFIX: &'static str = "qk_";
    /// Its length as text.
    pub const LEN: usize = Self::PREFIX.len() + 16;
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, hex::encode(self.0))
    }
}

impl FromStr for ApiKeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut id = [0; 8];
        let digits = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        hex::decode_to_slice(digits, &mut id).map(|()| Self(id)).map_err(|_| {
            Error::invalid_field("id", "the id of an API key is qk_ and 16 hex digits")
        })
    }
}

impl TryFrom<String> for ApiKeyId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ApiKeyId> for String {
    fn from(id: ApiKeyId) -> Self {
        id.to_string()
    }
}

/// An API key to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiKey {
    /// What people call it.
    pub label: Option<KeyLabel>,
    /// Whose sessions, keys and accounts it sees.
    pub tenant: Tenant,
    /// What it may do: one scope at least.
    pub scopes: Vec<Scope>,
    /// When it stops to work; `None` = it works until it is revoked.
    pub expires_at: Option<Timestamp>,
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// By which it is known.
    pub id: ApiKeyId,
    /// What people call it.
    pub label: Option<KeyLabel>,
    /// Whose sessions, keys and accounts it sees.
    pub tenant: Tenant,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// When it was last shown, to within a minute.
    pub last_used_at: Option<Timestamp>,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl ApiKey {
    /// Whom a request speaks for that shows it.
    pub fn caller(&self) -> Caller {
        Caller::Key { tenant: self.tenant.clone(), scopes: self.scopes.clone() }
    }
}

/// An API key that was just made: the only time its secret is told.
pub struct MadeApiKey {
    /// What is shown with requests.
    pub secret: Secret<String>,
    /// All else of it.
    pub key: ApiKey,
}

/// API keys in one answer.
pub const API_KEYS_PAGE: usize = 1_000;
