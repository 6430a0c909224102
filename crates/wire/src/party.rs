//! Registered parties.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::IdentityText;
use crate::delegate::PublishedKey;
use crate::schema;

/// Contact data of a party that is not always connected; any of them puts it in offline mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NotificationJson {
    /// E-mail address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// Telephone number for SMS.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phone: String,
    /// Token of a push notification service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub push_token: String,
}

impl From<NotificationJson> for NotificationChannel {
    fn from(json: NotificationJson) -> Self {
        let NotificationJson { email, phone, push_token } = json;
        Self { email, phone, push_token }
    }
}

impl From<NotificationChannel> for NotificationJson {
    fn from(channel: NotificationChannel) -> Self {
        let NotificationChannel { email, phone, push_token } = channel;
        Self { email, phone, push_token }
    }
}

/// Registers a party, or renews its registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterJson {
    /// The id of the party.
    #[schema(value_type = String, example = "server-party-1")]
    pub party_id: PartyId,
    /// Its role; `role` is read as well.
    #[serde(alias = "role")]
    #[schema(schema_with = schema::party_role)]
    pub party_role: PartyRole,
    /// Version of its software, free text.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub version: String,
    /// Contact data for offline mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<NotificationJson>,
    /// Its Ed25519 identity key. Once given it cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityText>,
    /// A delegate's key to which users seal the shares that they lend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::delegate::DelegateKeyJson>)]
    pub delegate_key: Option<PublishedKey>,
}

impl From<RegisterJson> for Registration {
    fn from(json: RegisterJson) -> Self {
        Self {
            party_id: json.party_id,
            role: json.party_role,
            version: json.version,
            notification: json.notification.unwrap_or_default().into(),
            identity: json.identity.map(|identity| identity.0),
            delegate_key: json.delegate_key.map(|key| key.0),
        }
    }
}

impl From<Registration> for RegisterJson {
    fn from(registration: Registration) -> Self {
        let channel = registration.notification;
        Self {
            party_id: registration.party_id,
            party_role: registration.role,
            version: registration.version,
            notification: (!channel.is_empty()).then(|| channel.into()),
            identity: registration.identity.map(IdentityText),
            delegate_key: registration.delegate_key.map(PublishedKey),
        }
    }
}

/// Answer to registering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredJson {
    /// Always `true`: a refusal is an error instead.
    pub success: bool,
    /// The result as a sentence.
    pub message: String,
    /// Time of the first registration, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub registered_at: Timestamp,
}

/// A heartbeat. The body may be omitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatJson {
    /// Optional; if given, must be the path's party.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub party_id: Option<PartyId>,
    /// The caller's clock in milliseconds since 1970; not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatAnswerJson {
    /// Always `true`: a refusal is an error instead.
    pub success: bool,
    /// The server's clock, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub server_timestamp: Timestamp,
    /// Number of unacknowledged messages of the party in all sessions.
    pub pending_messages: u32,
}

impl From<Pulse> for HeartbeatAnswerJson {
    fn from(pulse: Pulse) -> Self {
        Self {
            success: true,
            server_timestamp: pulse.server_time,
            pending_messages: pulse.pending_messages,
        }
    }
}

impl From<HeartbeatAnswerJson> for Pulse {
    fn from(json: HeartbeatAnswerJson) -> Self {
        Self { server_time: json.server_timestamp, pending_messages: json.pending_messages }
    }
}

/// A registered party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartyJson {
    /// The id of the party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Role: persistent, delegate or temporary.
    #[schema(schema_with = schema::party_role)]
    pub role: PartyRole,
    /// Whether it is connected or sent a heartbeat recently.
    pub online: bool,
    /// Version of its software.
    #[serde(default, deserialize_with = "crate::strict::or_default")]
    pub version: String,
    /// Time of the first registration, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub registered_at: Timestamp,
    /// Time at which it was last heard from, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub last_seen_at: Timestamp,
    /// Contact data, if it is in offline mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<NotificationJson>,
    /// Its Ed25519 identity key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityText>,
    /// A delegate's key to which users seal the shares that they lend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::delegate::DelegateKeyJson>)]
    pub delegate_key: Option<PublishedKey>,
}

impl From<PartyView> for PartyJson {
    fn from(view: PartyView) -> Self {
        let PartyView { registration, online, offline, registered_at, last_seen_at } = view;
        let registered = RegisterJson::from(registration);
        Self {
            party_id: registered.party_id,
            role: registered.party_role,
            online,
            version: registered.version,
            registered_at,
            last_seen_at,
            notification: match offline {
                true => Some(NotificationJson::default()),
                false => registered.notification,
            },
            identity: registered.identity,
            delegate_key: registered.delegate_key,
        }
    }
}

impl From<PartyJson> for PartyView {
    fn from(json: PartyJson) -> Self {
        let offline = json.notification == Some(NotificationJson::default());
        let registration = RegisterJson {
            party_id: json.party_id,
            party_role: json.role,
            version: json.version,
            notification: json.notification,
            identity: json.identity,
            delegate_key: json.delegate_key,
        };
        Self {
            registration: registration.into(),
            online: json.online,
            offline,
            registered_at: json.registered_at,
            last_seen_at: json.last_seen_at,
        }
    }
}

/// Registered parties, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartiesJson {
    /// The parties in the order of their ids, about a thousand at most.
    pub parties: Vec<PartyJson>,
    /// Number of parties on all pages.
    pub total_count: usize,
    /// Give this as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<PartyId>,
}

impl PartiesJson {
    /// The page behind a name.
    pub fn page(parties: Vec<PartyView>, after: Option<&PartyId>) -> Self {
        let total_count = parties.len();
        let (parties, next) = parties_page(parties, after);
        Self { parties: parties.into_iter().map(Into::into).collect(), total_count, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn both_names_of_the_role_are_read() {
        for name in ["party_role", "role"] {
            let json = format!(r#"{{"party_id":"a","{name}":"persistent"}}"#);
            let registration = Registration::from(parse::<RegisterJson>(json.as_bytes()).unwrap());
            assert_eq!(registration.role, PartyRole::Persistent);
            assert!(registration.notification.is_empty());
        }
    }

    #[test]
    fn unknown_role_and_short_identity_are_named() {
        for (field, rest) in
            [("party_role", r#""boss""#), ("identity", r#""delegate","identity":"abcd""#)]
        {
            let json = format!(r#"{{"party_id":"a","party_role":{rest}}}"#);
            let error = parse::<RegisterJson>(json.as_bytes()).unwrap_err();
            assert!(error.details.fields.contains_key(field), "{error:?}");
        }
    }

    #[test]
    fn a_party_survives_its_json() {
        let view = PartyView {
            registration: Registration {
                party_id: "a".parse().unwrap(),
                role: PartyRole::Delegate,
                version: "1".into(),
                notification: NotificationChannel { email: "a@b".into(), ..Default::default() },
                identity: Some([9; 32]),
                delegate_key: Some(DelegateKey {
                    key: PackageKey::new(Kem::X25519, vec![5; 32]).unwrap(),
                    signature: KeySignature([6; 64]),
                }),
            },
            online: true,
            offline: false,
            registered_at: Timestamp(1),
            last_seen_at: Timestamp(2),
        };
        let text = serde_json::to_string(&PartyJson::from(view.clone())).unwrap();
        let back: PartyJson = serde_json::from_str(&text).unwrap();
        assert_eq!(PartyView::from(back), view);
        let register = RegisterJson::from(view.registration.clone());
        assert_eq!(Registration::from(register), view.registration);
    }

    #[test]
    fn a_pulse_survives_its_json() {
        let pulse = Pulse { server_time: Timestamp(7), pending_messages: 3 };
        assert_eq!(Pulse::from(HeartbeatAnswerJson::from(pulse)), pulse);
    }
}
