//! Parties that are offline and creators' webhooks are told of sessions: what is due is handed to
//! the notifier, and its outcome is written.
//!
//! Notifications are written in the transaction that creates or ends their session, and sent when
//! that is on the disk. An outcome is queued in the store under the outbox's lock, so that rows are
//! written in the order in which they change.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use quorate_core::budget::Over;
use quorate_core::outbox::{Attempt, Change, Outbox, Planned, Taken};
use quorate_core::policy;
use quorate_core::session::Session;
use quorate_ports::{Delivery, Notifier, ReadNotifications, Undelivered, Urgency, Write};
use quorate_types::*;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{CoordinatorApp, deadlines};
use crate::lock;
use crate::metrics::{NotificationCounts, Number, Numbers};

/// An attempt that the notifier itself has not ended by then has failed.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(30);
/// Longest list answered at once.
const MAX_LIST: u32 = 1_000;
/// Seconds after which one that has too many recipients waiting may try again.
const RETRY_SECONDS: u32 = 60;
/// Longest error kept, in bytes.
const MAX_ERROR: usize = 256;

const WAITING: &[Number<u64>] =
    &[("notifications_waiting", "Notifications that are not settled", |waiting| *waiting)];

/// The outbox and who carries what is in it.
pub(super) struct Notifications {
    outbox: Mutex<Outbox>,
    notifier: Arc<dyn Notifier>,
    /// Wakes the task when something is due sooner.
    sooner: Notify,
    counts: NotificationCounts,
}

fn writes(changes: Vec<Change>) -> impl Iterator<Item = Write> {
    changes.into_iter().map(|change| match change {
        Change::Write(row) => Write::Notification(Box::new(row)),
        Change::Forget(id) => Write::ForgetNotification(id),
    })
}

/// How a session ended.
fn end(status: SessionStatus) -> NotificationStep {
    match status {
        SessionStatus::Completed => NotificationStep::SessionCompleted,
        SessionStatus::Expired => NotificationStep::SessionExpired,
        _ => NotificationStep::SessionFailed,
    }
}

impl Notifications {
    pub(super) fn new(notifier: Arc<dyn Notifier>, now: Moment, rows: Vec<Notification>) -> Self {
        let mut outbox = Outbox::default();
        for row in rows {
            outbox.restore(now, row);
        }
        let (sooner, counts) = (Notify::new(), NotificationCounts::default());
        Self { outbox: Mutex::new(outbox), notifier, sooner, counts }
    }

    /// Takes the notifications of a new session in; answers with what is to be written with it.
    ///
    /// # Errors
    /// `rate_limited` when too many recipients wait.
    pub(super) fn enter(
        &self,
        now: Moment,
        session: &Session,
        recipients: &[Recipient],
    ) -> Result<Vec<Write>> {
        let mut outbox = lock(&self.outbox);
        outbox.check(session.tenant(), recipients.len()).map_err(too_many)?;
        let planned = Planned {
            session_id: session.id(),
            tenant: session.tenant(),
            created_at: session.created_at(),
            expires_at: session.expires_at(),
        };
        let rows = planned.notifications(recipients, || NotificationId(uuid::Uuid::new_v4()));
        let written = writes(rows.iter().cloned().map(Change::Write).collect()).collect();
        outbox.enter(now, rows);
        Ok(written)
    }

    /// A session is on the disk, or has lost its idempotency key and was never written.
    pub(super) fn created(&self, session: SessionId, written: bool) {
        match written {
            true => lock(&self.outbox).release(session),
            false => lock(&self.outbox).withdraw(session),
        }
        self.sooner.notify_one();
    }

    /// A session ends: queues by `submit` what is to be written with that.
    pub(super) fn ended<T>(
        &self,
        now: Moment,
        session: &Session,
        submit: impl FnOnce(Vec<Write>) -> T,
    ) -> T {
        let mut outbox = lock(&self.outbox);
        let changes = outbox.ended(now, session.id(), end(session.status()));
        submit(writes(changes).collect())
    }

    /// The end of a session is on the disk.
    pub(super) fn end_written(&self, session: SessionId) {
        lock(&self.outbox).release(session);
        self.sooner.notify_one();
    }
}

fn too_many(over: Over) -> Error {
    let whose = match over {
        Over::Whole => "too many offline parties and webhooks",
        Over::Share => "as many offline parties and webhooks of this tenant as may",
    };
    let problem = format!("{whose} wait to be told of sessions; try again when some have ended");
    Error::rate_limited(problem, RETRY_SECONDS)
}

impl CoordinatorApp {
    /// Whom a new session tells: the channels of its participants that are in offline mode, and the
    /// webhook that its creator names.
    pub(super) async fn recipients(
        &self,
        tenant: &Tenant,
        webhook: Option<&str>,
        offline: &[PartyId],
    ) -> Result<Vec<Recipient>> {
        let mut recipients = Vec::new();
        let notifier = self.0.notifications.as_ref().map(|known| &known.notifier);
        if let Some(name) = webhook {
            webhook_name(name)?;
            if !notifier.is_some_and(|notifier| notifier.has_webhook(tenant, name)) {
                let problem = format!(
                    "this tenant has no webhook {name}: the operator adds it to the file of \
                     --notifications"
                );
                return Err(Error::invalid_field("webhook", problem));
            }
            let address = name.to_owned();
            recipients.push(Recipient { party: None, channel: Medium::Webhook, address });
        }
        let Some(notifier) = notifier.filter(|_| !offline.is_empty()) else {
            return Ok(recipients);
        };
        let directory = &self.0.parts.directory;
        for contact in directory.contacts(&Caller::System, tenant, offline).await? {
            let NotificationChannel { email, phone, push_token } = contact.channel;
            let addresses =
                [(Medium::Email, email), (Medium::Sms, phone), (Medium::Push, push_token)];
            let reached = |(channel, address): &(Medium, String)| {
                !address.is_empty() && notifier.carries(*channel)
            };
            recipients.extend(addresses.into_iter().filter(reached).map(|(channel, address)| {
                Recipient { party: Some(contact.party_id.clone()), channel, address }
            }));
        }
        Ok(recipients)
    }

    /// Hands what is due to the notifier, until `stop` or until the store has failed. What is under
    /// way then is waited for.
    pub async fn deliver_notifications(&self, stop: CancellationToken) {
        let Some(notifications) = &self.0.notifications else { return };
        let mut under_way = JoinSet::new();
        loop {
            self.start_due(notifications, &mut under_way);
            let next = lock(&notifications.outbox).next();
            let now = self.0.parts.clock.monotonic();
            let wait = next.map_or(Duration::MAX, |at| at.saturating_sub(now));
            tokio::select! {
                () = stop.cancelled() => break,
                _ = self.0.parts.store.failed() => break,
                () = notifications.sooner.notified() => {}
                Some(ended) = under_way.join_next() => if ended.is_err() {
                    tracing::error!("a delivery has panicked; it is made again after a restart");
                },
                () = deadlines::pause(wait) => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    fn start_due(&self, notifications: &Notifications, under_way: &mut JoinSet<()>) {
        let now = self.0.parts.clock.moment();
        loop {
            let mut outbox = lock(&notifications.outbox);
            match outbox.take(now) {
                None => return,
                Some(Taken::Settled(change)) => self.write(notifications, change),
                Some(Taken::Send(row)) => {
                    let app = self.clone();
                    under_way.spawn(async move { app.deliver(row).await });
                }
            }
        }
    }

    /// Queues a change and counts it. The outbox is locked by the caller.
    fn write(&self, notifications: &Notifications, change: Change) {
        if let Change::Write(row) = &change {
            let channel = row.recipient.channel;
            notifications.counts.changed(channel, row.state);
            let (id, error) = (row.id, row.last_error.as_deref().unwrap_or_default());
            let (step, attempts) = (row.step.name(), row.attempts);
            let session = row.session_id;
            match row.state {
                NotificationState::Sent => tracing::info!(
                    notification = %id, %session, channel = channel.name(), step, attempts,
                    "a notification was sent"
                ),
                NotificationState::Waiting => tracing::info!(
                    notification = %id, %session, channel = channel.name(), step, attempts, error,
                    "a notification will be tried again"
                ),
                NotificationState::Dead => tracing::warn!(
                    notification = %id, %session, channel = channel.name(), step, attempts, error,
                    "a notification was given up"
                ),
            }
        }
        drop(self.0.parts.store.submit(writes(vec![change]).collect(), Urgency::Now));
    }

    async fn deliver(&self, row: Notification) {
        let Some(notifications) = &self.0.notifications else { return };
        let id = row.id;
        let attempt = self.attempt(notifications, row).await;
        let now = self.0.parts.clock.moment();
        let mut outbox = lock(&notifications.outbox);
        let change = match attempt {
            Some(attempt) => {
                let [low, high, ..] = uuid::Uuid::new_v4().into_bytes();
                outbox.settle(now, id, attempt, u16::from_le_bytes([low, high]))
            }
            None => outbox.skip(id),
        };
        if let Some(change) = change {
            self.write(notifications, change);
        }
    }

    /// Makes one attempt; nothing where there is no need to.
    async fn attempt(&self, notifications: &Notifications, row: Notification) -> Option<Attempt> {
        let session = match self.find(row.session_id).await {
            Ok(session) => session.view(),
            Err(error) if error.code == ErrorCode::NotFound => {
                return Some(Attempt::Refused("its session was forgotten".into()));
            }
            Err(error) => return Some(Attempt::Failed(bounded(error.message))),
        };
        let mut join_token = None;
        if row.step.asks() {
            let party = row.recipient.party.as_ref()?;
            let seat = session.seat(party)?;
            if session.status.is_final() || seat.status != ParticipantStatus::Waiting {
                return None;
            }
            join_token = Some(self.0.parts.join_tokens.token(session.session_id, party));
        }
        let (attempt, at) = (row.attempts.saturating_add(1), self.0.parts.clock.now());
        let delivery = Delivery { notification: row, attempt, session, join_token, at };
        let delivering = notifications.notifier.deliver(&delivery);
        Some(match tokio::time::timeout(LONGEST_ATTEMPT, delivering).await {
            Ok(Ok(())) => Attempt::Sent,
            Ok(Err(Undelivered::Later(error))) => Attempt::Failed(bounded(error)),
            Ok(Err(Undelivered::Never(error))) => Attempt::Refused(bounded(error)),
            Err(_) => Attempt::Failed("no answer in time".into()),
        })
    }

    pub(super) fn register_notifications(&self, registry: &mut Registry) {
        let Some(notifications) = &self.0.notifications else { return };
        notifications.counts.register(registry);
        let app = Arc::downgrade(&self.0);
        registry.register_collector(Numbers::gauges(WAITING, move || {
            let app = app.upgrade();
            let waiting = app.and_then(|app| {
                app.notifications.as_ref().map(|known| lock(&known.outbox).waiting() as u64)
            });
            waiting.unwrap_or_default()
        }));
    }
}

/// An error as it is kept: of what a provider answers not all.
fn bounded(mut error: String) -> String {
    let end = (0..=MAX_ERROR.min(error.len())).rev().find(|at| error.is_char_boundary(*at));
    error.truncate(end.unwrap_or_default());
    error
}

#[async_trait]
impl ReadNotifications for CoordinatorApp {
    async fn notifications(
        &self,
        caller: &Caller,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>> {
        policy::operate(caller)?;
        self.0.parts.store.health()?;
        let limit = limit.clamp(1, MAX_LIST);
        let mut page = self.0.parts.store.notifications(state, before, limit).await?;
        page.items.iter_mut().for_each(policy::hide_address);
        Ok(page)
    }
}
