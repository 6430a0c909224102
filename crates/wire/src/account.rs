//! Accounts: the one place where JSON is camelCase. Both spellings are read.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::PublicKeyText;
use crate::schema;
use crate::time::Rfc3339;

/// Creates an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewAccountJson {
    /// 1 to 128 bytes of visible text, trimmed and normalized to NFC. Unique in the tenant,
    /// ignoring case.
    #[schema(example = "alice")]
    pub username: String,
    /// E-mail address; if given, unique in the tenant, ignoring case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "alice@example.com")]
    pub email: Option<String>,
    /// Telephone number, free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "+1234567890")]
    pub phone: Option<String>,
    /// A key the account already has.
    #[serde(default, alias = "public_key", skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyText>,
    /// The account's initiator key, `ed25519:` or `p256:` and hex digits: keygens and signatures
    /// for the account then need an `authorization` signed by this key.
    #[serde(default, alias = "initiator_key", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub initiator_key: Option<AuthorityKey>,
}

impl From<NewAccountJson> for NewAccount {
    fn from(json: NewAccountJson) -> Self {
        let NewAccountJson { username, email, phone, public_key, initiator_key } = json;
        Self { username, email, phone, public_key: public_key.map(|key| key.0), initiator_key }
    }
}

impl From<NewAccount> for NewAccountJson {
    fn from(new: NewAccount) -> Self {
        let NewAccount { username, email, phone, public_key, initiator_key } = new;
        Self { username, email, phone, public_key: public_key.map(PublicKeyText), initiator_key }
    }
}

/// Changes an account; omitted fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AccountChangeJson {
    /// New user name, by the same rules as at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// New e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// New telephone number, free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// New verifying key of the account.
    #[serde(alias = "public_key", skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyText>,
    /// New initiator key of the account.
    #[serde(alias = "initiator_key", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub initiator_key: Option<AuthorityKey>,
    /// New status: enables or disables the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::account_status, required = false)]
    pub status: Option<AccountStatus>,
}

impl From<AccountChangeJson> for AccountChange {
    fn from(json: AccountChangeJson) -> Self {
        Self {
            username: json.username,
            email: json.email,
            phone: json.phone,
            public_key: json.public_key.map(|key| key.0),
            initiator_key: json.initiator_key,
            status: json.status,
        }
    }
}

/// An account and its threshold key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountJson {
    /// The account's id, a UUID.
    #[schema(value_type = Uuid)]
    pub id: AccountId,
    /// The user name, trimmed and normalized.
    pub username: String,
    /// The e-mail address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The telephone number, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The verifying key that it signs with.
    #[serde(default, alias = "public_key", skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyText>,
    /// The id of that key, if this installation made it.
    #[serde(default, alias = "key_id", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub key_id: Option<KeyId>,
    /// The initiator key that must sign requests for the account.
    #[serde(default, alias = "initiator_key", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub initiator_key: Option<AuthorityKey>,
    /// Whether the account is enabled or disabled.
    #[schema(schema_with = schema::account_status)]
    pub status: AccountStatus,
    /// Creation time.
    #[serde(alias = "created_at")]
    pub created_at: Rfc3339,
    /// Time of the last change.
    #[serde(alias = "updated_at")]
    pub updated_at: Rfc3339,
}

impl From<Account> for AccountJson {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            username: account.username,
            email: account.email,
            phone: account.phone,
            public_key: account.public_key.map(PublicKeyText),
            key_id: account.key_id,
            initiator_key: account.initiator_key,
            status: account.status,
            created_at: Rfc3339(account.created_at),
            updated_at: Rfc3339(account.updated_at),
        }
    }
}

impl AccountJson {
    /// The account, as belonging to `tenant`: the wire shows no tenants.
    pub fn into_account(self, tenant: Tenant) -> Account {
        Account {
            id: self.id,
            tenant,
            username: self.username,
            email: self.email,
            phone: self.phone,
            public_key: self.public_key.map(|key| key.0),
            key_id: self.key_id,
            initiator_key: self.initiator_key,
            status: self.status,
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
        }
    }
}

/// A page of accounts, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountsJson {
    /// At most as many accounts as the request limits.
    pub accounts: Vec<AccountJson>,
    /// Give this as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub next: Option<AccountId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn documented_request_is_read_in_both_spellings() {
        for name in ["publicKey", "public_key"] {
            let key = format!("04{}", "a1".repeat(64));
            let json = format!(
                r#"{{"username": "alice", "email": "alice@example.com", "phone": "+1234567890", "{name}": "{key}"}}"#
            );
            let new = NewAccount::from(parse::<NewAccountJson>(json.as_bytes()).unwrap());
            assert_eq!(new.public_key.unwrap().0.len(), 65);
            assert_eq!(new.phone.as_deref(), Some("+1234567890"));
        }
    }

    #[test]
    fn wrong_members_are_named_in_camel_case() {
        for (field, json) in [
            ("publicKey", r#"{"username":"a","publicKey":"04a1b2c3..."}"#),
            ("username", r#"{"email":"a@b"}"#),
            ("user", r#"{"user":"a"}"#),
        ] {
            let error = parse::<NewAccountJson>(json.as_bytes()).unwrap_err();
            assert!(error.details.fields.contains_key(field), "{error:?}");
        }
    }

    #[test]
    fn an_account_survives_its_json_and_is_camel_case() {
        let account = Account {
            id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            tenant: Tenant::default(),
            username: "alice".into(),
            email: Some("alice@example.com".into()),
            phone: None,
            public_key: Some(PublicKey([&[4][..], &[1; 64]].concat())),
            key_id: Some("550e8400-e29b-41d4-a716-446655440000".parse().unwrap()),
            initiator_key: Some(format!("ed25519:{}", "ab".repeat(32)).parse().unwrap()),
            status: AccountStatus::Active,
            created_at: Timestamp(1_705_314_600_000),
            updated_at: Timestamp(1_705_314_600_000),
        };
        let text = serde_json::to_string(&AccountJson::from(account.clone())).unwrap();
        assert!(text.contains(r#""createdAt":"2024-01-15T10:30:00Z""#), "{text}");
        assert!(text.contains(r#""publicKey":"04"#) && !text.contains('_'), "{text}");
        assert!(text.contains(r#""initiatorKey":"ed25519:abab"#), "{text}");
        let back: AccountJson = serde_json::from_str(&text).unwrap();
        assert_eq!(back.into_account(Tenant::default()), account);
    }

    #[test]
    fn an_empty_change_changes_nothing() {
        let change = AccountChange::from(parse::<AccountChangeJson>(b"{}").unwrap());
        assert!(change.username.is_none() && change.status.is_none());
    }
}
