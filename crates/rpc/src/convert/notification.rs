//! Notifications, as an operator sees them: without addresses.

use quorate_types::*;

use crate::proto::coordinator::v1 as co;

/// The state that a question is about; empty = all.
pub fn notification_state_in(text: &str) -> Result<Option<NotificationState>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: Error| error.with_field("state"))
}

fn moment_out(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.0)
}

fn moment_in(millis: i64) -> Option<Timestamp> {
    (millis != 0).then_some(Timestamp(millis))
}

/// A notification, as it goes out.
pub fn notification_out(notification: Notification) -> co::Notification {
    let Recipient { party, channel, address } = notification.recipient;
    co::Notification {
        notification_id: notification.id.to_string(),
        session_id: notification.session_id.to_string(),
        tenant: notification.tenant.as_str().to_owned(),
        party_id: party.map(|party| party.to_string()).unwrap_or_default(),
        channel: channel.name().to_owned(),
        webhook: if channel == Medium::Webhook { address } else { String::new() },
        step: notification.step.name().to_owned(),
        state: notification.state.name().to_owned(),
        attempts: notification.attempts,
        last_error: notification.last_error.unwrap_or_default(),
        due_at: moment_out(notification.due_at),
        until: notification.until.0,
        created_at: notification.created_at.0,
        settled_at: moment_out(notification.settled_at),
    }
}

/// A notification, as it comes in.
pub fn notification_in(notification: co::Notification) -> Result<Notification> {
    let party = match notification.party_id.as_str() {
        "" => None,
        party => Some(party.parse()?),
    };
    let error = notification.last_error;
    Ok(Notification {
        id: notification.notification_id.parse()?,
        session_id: notification.session_id.parse()?,
        tenant: notification.tenant.parse()?,
        recipient: Recipient {
            party,
            channel: notification.channel.parse()?,
            address: notification.webhook,
        },
        step: notification.step.parse()?,
        state: notification.state.parse()?,
        due_at: moment_in(notification.due_at),
        until: Timestamp(notification.until),
        attempts: notification.attempts,
        last_error: (!error.is_empty()).then_some(error),
        created_at: Timestamp(notification.created_at),
        settled_at: moment_in(notification.settled_at),
    })
}
