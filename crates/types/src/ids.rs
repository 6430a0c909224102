//! One type per identifier, in alphabetical order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Uuid::parse_str(text).map(Self).map_err(|_| {
                    Error::invalid_field($what, concat!("not a UUID: give the ", $what, " as it was returned"))
                })
            }
        }
    };
}

uuid_id!(
    /// An account of the account service.
    AccountId,
    "account_id"
);
uuid_id!(
    /// A session event, unique per event, not per subscriber.
    EventId,
    "event_id"
);
uuid_id!(
    /// A group of the JSON-RPC relay.
    GroupId,
    "group_id"
);
uuid_id!(
    /// A threshold key. It is the id of the session that made it.
    KeyId,
    "key_id"
);
uuid_id!(
    /// A routed protocol message, one id for all its recipients.
    MessageId,
    "message_id"
);
uuid_id!(
    /// A notification: its delivery id, the same at each attempt.
    NotificationId,
    "notification_id"
);
uuid_id!(
    /// A keygen or signing session.
    SessionId,
    "session_id"
);

impl From<SessionId> for KeyId {
    fn from(session: SessionId) -> Self {
        Self(session.0)
    }
}

/// Longest party id or tenant name accepted, in bytes: room for a mail address or a host name.
pub const MAX_NAME_LEN: usize = 128;

pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_LEN
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@+".contains(&b))
}

/// A party's name: 1 to [`MAX_NAME_LEN`] of `A–Z a–z 0–9 - _ . : @ +`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartyId(std::sync::Arc<str>);

impl PartyId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PartyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_name(text) {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid_field(
            "party_id",
            format!("a party id is 1 to {MAX_NAME_LEN} letters, digits or -_.:@+"),
        ))
    }
}

impl TryFrom<String> for PartyId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<PartyId> for String {
    fn from(party: PartyId) -> Self {
        party.0.as_ref().to_owned()
    }
}

/// The id of a message of the binary relay: 32 opaque bytes that its clients agree on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub [u8; 32]);

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayId({self})")
    }
}

/// The owner of sessions, keys and accounts: callers of one tenant never see another's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(std::sync::Arc<str>);

impl Tenant {
    /// The tenant's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for Tenant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_name(text) {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid_field("tenant", "a tenant is letters, digits or -_.:@+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn party_id_accepts_names_of_the_field_and_refuses_the_rest() {
        for good in ["party_0", "server-party-1", "alice@example.com", "a:b.c+d"] {
            assert_eq!(good.parse::<PartyId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ü", "a/b", "x\n", &"x".repeat(MAX_NAME_LEN + 1)] {
            assert!(bad.parse::<PartyId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn uuid_ids_name_their_field_when_malformed() {
        let error = "nope".parse::<SessionId>().unwrap_err();
        assert!(error.details.fields.contains_key("session_id"));
    }
}
