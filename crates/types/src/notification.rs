//! Notifications: what is sent to parties that are not connected, and to the creators' webhooks.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{NotificationId, PartyId, SessionId, Tenant};
use crate::time::Timestamp;
use crate::words::words;

/// Longest name of a webhook, in bytes.
pub const MAX_WEBHOOK_NAME: usize = 64;

words! {
    /// By what a notification is sent.
    Medium("channel") {
        /// Mail, to an address.
        Email = "email",
        /// A text message, to a telephone number.
        Sms = "sms",
        /// A push notification, to a device's token.
        Push = "push",
        /// An HTTP request, to a webhook that the operator has configured for a tenant.
        Webhook = "webhook",
    }
}

words! {
    /// What a notification is about.
    NotificationStep("step") {
        /// The session waits for its recipient.
        SessionCreated = "session_created",
        /// It still waits, after a quarter of its lifetime.
        FirstReminder = "first_reminder",
        /// It still waits, after half of its lifetime.
        SecondReminder = "second_reminder",
        /// It still waits, after three quarters of its lifetime.
        LastReminder = "last_reminder",
        /// How the session ends, which is not known yet.
        SessionEnded = "session_ended",
        /// It has its result.
        SessionCompleted = "session_completed",
        /// It failed or was closed.
        SessionFailed = "session_failed",
        /// Its deadline passed.
        SessionExpired = "session_expired",
    }
}

impl NotificationStep {
    /// Whether it asks its recipient to take part: it is pointless once the party has joined.
    pub fn asks(self) -> bool {
        self.quarter().is_some()
    }

    /// After how many quarters of the session's lifetime it is due; none for the end.
    pub fn quarter(self) -> Option<u8> {
        match self {
            Self::SessionCreated => Some(0),
            Self::FirstReminder => Some(1),
            Self::SecondReminder => Some(2),
            Self::LastReminder => Some(3),
            Self::SessionEnded
            | Self::SessionCompleted
            | Self::SessionFailed
            | Self::SessionExpired => None,
        }
    }
}

words! {
    /// Where a notification stands.
    NotificationState("state") {
        /// It is not due yet, or will be tried again.
        Waiting = "waiting",
        /// The provider has taken it.
        Sent = "sent",
        /// It was given up: refused for good, or out of time.
        Dead = "dead",
    }
}

/// Who gets a notification.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipient {
    /// The party; none for a webhook.
    pub party: Option<PartyId>,
    /// By what.
    pub channel: Medium,
    /// The address, number or token, or the webhook's name. Empty once the notification is settled,
    /// but for a webhook.
    pub address: String,
}

/// One notification: one step of one session to one recipient. As stored; of an address nothing is
/// shown to anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The delivery id.
    pub id: NotificationId,
    /// The session.
    pub session_id: SessionId,
    /// Who owns it.
    pub tenant: Tenant,
    /// Who gets it.
    pub recipient: Recipient,
    /// What it is about.
    pub step: NotificationStep,
    /// Where it stands.
    pub state: NotificationState,
    /// When it is tried next; none while its session has not ended.
    pub due_at: Option<Timestamp>,
    /// When it is given up.
    pub until: Timestamp,
    /// Attempts whose outcome is known.
    pub attempts: u32,
    /// What the last attempt failed of, without secrets.
    pub last_error: Option<String>,
    /// When its session was created.
    pub created_at: Timestamp,
    /// When it was sent or given up.
    pub settled_at: Option<Timestamp>,
}

/// Checks the name of a webhook in a request.
///
/// # Errors
/// `invalid_request` for anything but 1 to [`MAX_WEBHOOK_NAME`] letters, digits, `-` and `_`.
pub fn webhook_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=MAX_WEBHOOK_NAME).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    let problem = format!("a webhook's name is 1 to {MAX_WEBHOOK_NAME} letters, digits or -_");
    Err(Error::invalid_field("webhook", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_webhooks_are_short_and_plain() {
        for good in ["settlement", "a", "A-1_b", &"x".repeat(MAX_WEBHOOK_NAME)] {
            webhook_name(good).unwrap();
        }
        for bad in ["", "a b", "a/b", "ü", &"x".repeat(MAX_WEBHOOK_NAME + 1)] {
            let error = webhook_name(bad).unwrap_err();
            assert!(error.details.fields.contains_key("webhook"), "{bad:?}");
        }
    }

    #[test]
    fn the_stored_words_are_those_of_the_wire() {
        for step in NotificationStep::ALL {
            assert_eq!(step.name().parse::<NotificationStep>().unwrap(), *step);
            assert_eq!(serde_json::to_value(step).unwrap(), step.name());
        }
        assert_eq!(NotificationStep::ALL.iter().filter(|step| step.asks()).count(), 4);
    }
}
