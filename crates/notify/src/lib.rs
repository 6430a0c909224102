//! Carries notifications: mail over SMTP, SMS and push through HTTP providers, signed webhooks.
//!
//! What carries what is the operator's file, read again while the server runs. Recipients' addresses
//! and webhooks' URLs are hostile input: see [`http`] for what is called at all.

mod email;
pub mod http;
mod push;
mod settings;
mod sms;
mod text;
mod webhook;

use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use quorate_ports::{Delivery, Notifier, Undelivered};
use quorate_types::{Medium, Tenant};

pub use settings::{ReadSecret, Settings};

/// The notifier of an operator's settings, which can be replaced.
pub struct Providers(RwLock<Arc<Settings>>);

impl Providers {
    /// Carries as these settings say.
    pub fn new(settings: Settings) -> Self {
        Self(RwLock::new(Arc::new(settings)))
    }

    /// Carries as these settings say from now on. What is under way goes on as it began.
    pub fn replace(&self, settings: Settings) {
        *self.0.write().expect("no panic while it is locked") = Arc::new(settings);
    }

    fn now(&self) -> Arc<Settings> {
        self.0.read().expect("no panic while it is locked").clone()
    }
}

#[async_trait]
impl Notifier for Providers {
    fn carries(&self, channel: Medium) -> bool {
        let settings = self.now();
        match channel {
            Medium::Email => settings.email.is_some(),
            Medium::Sms => settings.sms.is_some(),
            Medium::Push => settings.push.is_some(),
            Medium::Webhook => true,
        }
    }

    fn has_webhook(&self, tenant: &Tenant, name: &str) -> bool {
        self.now().webhook(tenant, name).is_some()
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<(), Undelivered> {
        let settings = self.now();
        let none = || Undelivered::Later("the operator has not configured this channel".into());
        let recipient = &delivery.notification.recipient;
        match recipient.channel {
            Medium::Email => {
                let email = settings.email.as_ref().ok_or_else(none)?;
                email.send(delivery, &settings.message(delivery)).await
            }
            Medium::Sms => {
                let sms = settings.sms.as_ref().ok_or_else(none)?;
                sms.send(delivery, &settings.message(delivery)).await
            }
            Medium::Push => {
                let push = settings.push.as_ref().ok_or_else(none)?;
                push.send(delivery, &settings.message(delivery)).await
            }
            Medium::Webhook => {
                let name = &recipient.address;
                let webhook = settings.webhook(&delivery.notification.tenant, name);
                let removed =
                    || Undelivered::Later(format!("the operator has removed webhook {name}"));
                webhook.ok_or_else(removed)?.send(delivery).await
            }
        }
    }
}

/// What a provider's answer means: a full or failing one may take it later, and so may one whose
/// operator has to repair the credentials.
fn outcome(status: u16) -> Result<(), Undelivered> {
    let error = format!("the provider answered with status {status}");
    match status {
        200..=299 => Ok(()),
        401 | 403 | 407 | 408 | 409 | 425 | 429 => Err(Undelivered::Later(error)),
        400..=499 => Err(Undelivered::Never(error)),
        _ => Err(Undelivered::Later(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_may_recover_is_asked_again() {
        for (status, expected) in [
            (200, "sent"),
            (202, "sent"),
            (302, "later"),
            (400, "never"),
            (401, "later"),
            (404, "never"),
            (429, "later"),
            (500, "later"),
            (503, "later"),
        ] {
            let was = match outcome(status) {
                Ok(()) => "sent",
                Err(Undelivered::Later(_)) => "later",
                Err(Undelivered::Never(_)) => "never",
            };
            assert_eq!(was, expected, "{status}");
        }
    }
}
