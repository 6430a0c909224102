//! Notifications as an operator sees them.

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// One step of one session to one recipient. Addresses are shown to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationStatusJson {
    /// The delivery id, the same at each attempt.
    #[schema(value_type = Uuid)]
    pub notification_id: NotificationId,
    /// The session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// Who owns it.
    #[schema(value_type = String)]
    pub tenant: Tenant,
    /// Who is told, unless it is a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub party_id: Option<PartyId>,
    /// By what.
    #[schema(schema_with = schema::channel)]
    pub channel: Medium,
    /// The webhook's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// What it is about; `session_ended` while its session goes on.
    #[schema(schema_with = schema::notification_step)]
    pub step: NotificationStep,
    /// Where it stands.
    #[schema(schema_with = schema::notification_state)]
    pub state: NotificationState,
    /// Attempts whose outcome is known.
    pub attempts: u32,
    /// What the last attempt failed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it is tried next; absent while its session goes on, and when it is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub due_at: Option<Timestamp>,
    /// When it is given up.
    #[schema(value_type = i64)]
    pub until: Timestamp,
    /// When its session was created.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it was sent or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub settled_at: Option<Timestamp>,
}

impl From<Notification> for NotificationStatusJson {
    fn from(notification: Notification) -> Self {
        let Recipient { party, channel, address } = notification.recipient;
        Self {
            notification_id: notification.id,
            session_id: notification.session_id,
            tenant: notification.tenant,
            party_id: party,
            channel,
            webhook: (channel == Medium::Webhook).then_some(address),
            step: notification.step,
            state: notification.state,
            attempts: notification.attempts,
            last_error: notification.last_error,
            due_at: notification.due_at,
            until: notification.until,
            created_at: notification.created_at,
            settled_at: notification.settled_at,
        }
    }
}

/// A page of notifications, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationsJson {
    /// The notifications.
    pub notifications: Vec<NotificationStatusJson>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}
