//! Parties, callers and how a party joins.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::delegate::DelegateKey;
use crate::error::{Error, ErrorCode};
use crate::ids::{PartyId, Tenant};
use crate::time::Timestamp;
use crate::words::words;

words! {
    /// What kind of member a party is.
    PartyRole("party_role") {
        /// A server that is chosen to fill sessions.
        Persistent = "persistent",
        /// Acts for a user who hands over an encrypted share.
        Delegate = "delegate",
        /// A device that comes for one session.
        Temporary = "temporary",
    }
}

/// Ways to reach a party that is not connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationChannel {
    /// E-mail address; empty where there is none.
    pub email: String,
    /// Telephone number for SMS.
    pub phone: String,
    /// Token of a push notification service; empty where there is none.
    pub push_token: String,
}

impl NotificationChannel {
    /// Whether no channel is given.
    pub fn is_empty(&self) -> bool {
        self.email.is_empty() && self.phone.is_empty() && self.push_token.is_empty()
    }
}

/// How a party is reached that is in offline mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The party.
    pub party_id: PartyId,
    /// Its addresses, at least one.
    pub channel: NotificationChannel,
}

/// A party's registration with the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The id of the party that registers.
    pub party_id: PartyId,
    /// The role that it asks for.
    pub role: PartyRole,
    /// Its software's version, free text.
    pub version: String,
    /// How to reach it offline; empty = real-time mode.
    pub notification: NotificationChannel,
    /// Its Ed25519 identity key, where it has one. Once given it cannot change.
    pub identity: Option<[u8; 32]>,
    /// A delegate's key to which users seal the shares that they lend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate_key: Option<DelegateKey>,
}

/// Whose a registered name is. Two tenants may each have a party of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameOwner {
    /// The operator's: parties that he trusts, known to all tenants.
    Operator,
    /// One tenant's, and known to nobody else.
    Tenant(Tenant),
    /// Registered before names had owners: known to all, and whoever registers it again has it.
    Unclaimed,
}

impl NameOwner {
    /// Whose the names are that a caller registers. A trusted party has no tenant.
    pub fn of(caller: &Caller) -> Self {
        caller.tenant().map_or(Self::Operator, Self::Tenant)
    }
}

/// A registered party as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartyView {
    /// What it registered.
    pub registration: Registration,
    /// Whether it is connected or has sent a heartbeat lately.
    pub online: bool,
    /// Whether it has a notification channel whose address is not shown here.
    pub offline: bool,
    /// Wall time of the first registration.
    pub registered_at: Timestamp,
    /// Last sign of life.
    pub last_seen_at: Timestamp,
}

/// Answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The server's clock.
    pub server_time: Timestamp,
    /// Messages that wait for the party, all sessions together.
    pub pending_messages: u32,
}

/// A participant's device, free text throughout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// `server`, `iOS`, …
    pub device_type: String,
    /// The device's own id.
    pub device_id: String,
    /// Operating system or browser.
    pub platform: String,
    /// Version of the application.
    pub app_version: String,
}

/// A party's signed handshake to one session: opaque here, made and checked by the engine.
pub type Handshake = Bytes;

/// Who is calling, as the front authenticated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody checked: loopback with `--auth open`. Believed to be whichever party it says.
    Open,
    /// The holder of an API key.
    Key {
        /// Whose key it is.
        tenant: Tenant,
        /// What it may do.
        scopes: Vec<Scope>,
    },
    /// A party that proved its identity key.
    Party(PartyId),
    /// Another role of this installation, or this process itself.
    System,
}

words! {
    /// What an API key may do.
    Scope("scope") {
        /// Create, list and close sessions.
        Sessions = "sessions",
        /// Read sessions, keys and parties.
        Read = "read",
        /// Manage accounts.
        Accounts = "accounts",
        /// Act as a party of a session, by its join token.
        Party = "party",
        /// Everything, and speak as another role of the installation.
        System = "system",
    }
}

impl Caller {
    /// Whether this is another role of the installation, or a key with all its rights.
    pub fn is_system(&self) -> bool {
        match self {
            Self::System => true,
            Self::Key { scopes, .. } => scopes.contains(&Scope::System),
            Self::Open | Self::Party(_) => false,
        }
    }

    /// The tenant whose things this caller sees; `None` sees all.
    pub fn tenant(&self) -> Option<Tenant> {
        match self {
            Self::Open => Some(Tenant::default()),
            Self::Key { tenant, scopes } if !scopes.contains(&Scope::System) => {
                Some(tenant.clone())
            }
            Self::Key { .. } | Self::Party(_) | Self::System => None,
        }
    }

    /// Refuses a caller that speaks for a party it is not.
    pub fn speaks_for(&self, party: &PartyId) -> Result<(), Error> {
        match self {
            Self::Open | Self::System => Ok(()),
            Self::Key { scopes, .. } if scopes.contains(&Scope::System) => Ok(()),
            Self::Key { scopes, .. } if scopes.contains(&Scope::Party) => Ok(()),
            Self::Party(own) if own == party => Ok(()),
            Self::Party(own) => Err(Error::new(
                ErrorCode::Forbidden,
                format!("you are {own}; only {party} itself may do this"),
            )),
            Self::Key { .. } => Err(Error::new(
                ErrorCode::Forbidden,
                format!("this API key lacks the scope to act as {party}"),
            )),
        }
    }

    /// Refuses a caller without `scope`. Parties may read, and nothing else.
    pub fn may(&self, scope: Scope) -> Result<(), Error> {
        let allowed = match self {
            Self::System => true,
            Self::Open => scope != Scope::System,
            Self::Party(_) => scope == Scope::Read,
            Self::Key { scopes, .. } => {
                scopes.contains(&scope)
                    || scopes.contains(&Scope::System)
                    || (scope == Scope::Read && !scopes.is_empty())
            }
        };
        if allowed {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::Forbidden,
            format!(
                "this needs the scope {}; ask the operator for a key that has it",
                scope.name()
            ),
        ))
    }
}
