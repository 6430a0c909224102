//! Which notifications a session has, when each is due, and how long a failed one rests.

use std::time::Duration;

use quorate_types::*;

/// What is told of a session's end is tried for so long after it.
pub const END_LASTS: Duration = Duration::from_secs(24 * 3600);

/// First and longest pause between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(900));

/// A session of which somebody is to be told.
#[derive(Clone, Debug)]
pub struct Planned<'a> {
    /// The session.
    pub session_id: SessionId,
    /// Who owns it.
    pub tenant: &'a Tenant,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its deadline.
    pub expires_at: Timestamp,
}

/// The steps that ask a party to take part.
const ASKING: [NotificationStep; 4] = [
    NotificationStep::SessionCreated,
    NotificationStep::FirstReminder,
    NotificationStep::SecondReminder,
    NotificationStep::LastReminder,
];

impl Planned<'_> {
    /// All that a recipient gets: a party is asked to take part and told of the end, a webhook is
    /// told of the end. `id` makes a fresh one for each.
    pub fn notifications(
        &self,
        recipients: &[Recipient],
        mut id: impl FnMut() -> NotificationId,
    ) -> Vec<Notification> {
        let mut all = Vec::new();
        for recipient in recipients {
            if recipient.party.is_some() {
                let asking = ASKING.map(|step| self.notification(id(), recipient, step));
                all.extend(asking);
            }
            all.push(self.notification(id(), recipient, NotificationStep::SessionEnded));
        }
        all
    }

    fn notification(
        &self,
        id: NotificationId,
        recipient: &Recipient,
        step: NotificationStep,
    ) -> Notification {
        let lifetime = self.expires_at.0.saturating_sub(self.created_at.0);
        let due_at = step.quarter().map(|quarter| {
            Timestamp(self.created_at.0.saturating_add(lifetime / 4 * i64::from(quarter)))
        });
        let until = match step.asks() {
            true => self.expires_at,
            false => self.expires_at.plus_seconds(END_LASTS.as_secs()),
        };
        Notification {
            id,
            session_id: self.session_id,
            tenant: self.tenant.clone(),
            recipient: recipient.clone(),
            step,
            state: NotificationState::Waiting,
            due_at,
            until,
            attempts: 0,
            last_error: None,
            created_at: self.created_at,
            settled_at: None,
        }
    }
}

/// How long a notification rests after so many failed attempts: twice as long each time, from 1 s
/// to 15 min, between half of it and all by `jitter`, so that what failed together does not come
/// back together.
pub fn backoff(attempts: u32, jitter: u16) -> Duration {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = BACKOFF.0.saturating_mul(doubled).min(BACKOFF.1);
    let half = whole / 2;
    (half + half * u32::from(jitter) / u32::from(u16::MAX)).max(BACKOFF.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_a_quarter_of_an_hour() {
        let ends = |attempts| (backoff(attempts, 0), backoff(attempts, u16::MAX));
        let seconds = Duration::from_secs;
        assert_eq!(ends(1), (seconds(1), seconds(1)));
        assert_eq!(ends(2), (seconds(1), seconds(2)));
        assert_eq!(ends(5), (seconds(8), seconds(16)));
        for late in [11, 32, 33, u32::MAX] {
            assert_eq!(ends(late), (seconds(450), seconds(900)));
        }
    }

    #[test]
    fn a_party_is_asked_four_times_and_told_the_end_and_a_webhook_only_that() {
        let tenant = Tenant::default();
        let planned = Planned {
            session_id: SessionId(uuid::Uuid::from_u128(1)),
            tenant: &tenant,
            created_at: Timestamp(1_000),
            expires_at: Timestamp(5_000),
        };
        let party = Recipient {
            party: Some("phone".parse().unwrap()),
            channel: Medium::Email,
            address: "a@b".into(),
        };
        let hook = Recipient { party: None, channel: Medium::Webhook, address: "h".into() };
        let mut next = 0;
        let all = planned.notifications(&[party, hook], || {
            next += 1;
            NotificationId(uuid::Uuid::from_u128(next))
        });
        let due: Vec<_> = all.iter().map(|one| (one.step.name(), one.due_at)).collect();
        let at = |millis| Some(Timestamp(millis));
        assert_eq!(
            due,
            [
                ("session_created", at(1_000)),
                ("first_reminder", at(2_000)),
                ("second_reminder", at(3_000)),
                ("last_reminder", at(4_000)),
                ("session_ended", None),
                ("session_ended", None),
            ]
        );
    }
}
