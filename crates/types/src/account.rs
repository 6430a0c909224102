//! Accounts as the account service shows them.

use serde::{Deserialize, Serialize};

use crate::authority::AuthorityKey;
use crate::ids::{AccountId, KeyId, Tenant};
use crate::scheme::PublicKey;
use crate::time::Timestamp;

/// Whether an account may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    /// Enabled: it can start keygens and signatures.
    Active,
    /// Disabled: it cannot start a signing session.
    Disabled,
}

/// A person or system with at most one threshold key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The account's id.
    pub id: AccountId,
    /// Who owns it.
    pub tenant: Tenant,
    /// Unique within the tenant.
    pub username: String,
    /// Unique within the tenant where given; compared without case.
    pub email: Option<String>,
    /// Telephone number, free text.
    pub phone: Option<String>,
    /// The key it signs with.
    pub public_key: Option<PublicKey>,
    /// The id of that key, where it was made here.
    pub key_id: Option<KeyId>,
    /// Who asks for the account: the account service takes requests that this key has signed, and
    /// no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator_key: Option<AuthorityKey>,
    /// In use or not.
    pub status: AccountStatus,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a caller gives to create an account.
#[derive(Clone, Debug, Default)]
pub struct NewAccount {
    /// Required, 1 to 128 characters.
    pub username: String,
    /// Optional mail address.
    pub email: Option<String>,
    /// Optional telephone number.
    pub phone: Option<String>,
    /// Optional key the account already has.
    pub public_key: Option<PublicKey>,
    /// Optional key of whoever asks for the account.
    pub initiator_key: Option<AuthorityKey>,
}

/// What a caller changes in an account; absent members stay as they are.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// New user name.
    pub username: Option<String>,
    /// New mail address.
    pub email: Option<String>,
    /// New telephone number.
    pub phone: Option<String>,
    /// New verifying key of the account.
    pub public_key: Option<PublicKey>,
    /// New key of whoever asks for the account.
    pub initiator_key: Option<AuthorityKey>,
    /// Switch on or off.
    pub status: Option<AccountStatus>,
}
