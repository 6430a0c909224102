//! What the outbox needs of those who carry notifications, and what an operator asks of it.

use async_trait::async_trait;
use quorate_types::*;

/// One attempt to tell a recipient something.
pub struct Delivery {
    /// What is told to whom, with its delivery id. It has its address.
    pub notification: Notification,
    /// Which attempt this is, from 1. An attempt whose outcome was lost is counted again.
    pub attempt: u32,
    /// The session as it stands.
    pub session: SessionView,
    /// With which the party joins, where it is asked to.
    pub join_token: Option<JoinToken>,
    /// When this attempt is made.
    pub at: Timestamp,
}

/// Why a notification was not taken. What stands here is shown to the operator: no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// It may be taken later.
    Later(String),
    /// It will never be taken.
    Never(String),
}

/// Who carries notifications.
#[async_trait]
pub trait Notifier: Send + Sync + 'static {
    /// Whether the operator has configured this way.
    fn carries(&self, channel: Medium) -> bool;

    /// Whether the operator has configured a webhook of this name for a tenant.
    fn has_webhook(&self, tenant: &Tenant, name: &str) -> bool;

    /// Hands one notification to its provider. Where the provider has a means for it, the delivery
    /// id keeps it from being sent twice.
    async fn deliver(&self, delivery: &Delivery) -> Result<(), Undelivered>;
}

/// What an operator asks.
#[async_trait]
pub trait ReadNotifications: Send + Sync + 'static {
    /// Notifications of all tenants in a state, or in all, newest first, at most `limit` of those
    /// that come after `before`. Only to those who may see the whole installation.
    async fn notifications(
        &self,
        caller: &Caller,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>>;
}
