//! Notifications as rows: what waits is read at start, all of it page by page.

use quorate_types::*;
use rusqlite::{Connection, params};

use crate::columns::{DOCUMENT_VERSION, document, to_json};
use crate::reads;
use crate::rows::execute;

/// Who gets it, for the index that keeps it from being sent twice.
fn recipient(notification: &Notification) -> String {
    let Recipient { party, channel, address } = &notification.recipient;
    match party {
        Some(party) => format!("{}/{party}", channel.name()),
        None => format!("{}/{address}", channel.name()),
    }
}

/// The step, all ends being one.
fn step(notification: &Notification) -> &'static str {
    if notification.step.asks() { notification.step.name() } else { "end" }
}

pub(crate) fn write(connection: &Connection, row: &Notification) -> rusqlite::Result<()> {
    execute(
        connection,
        // One that is here under another id stays, and so does this one's place.
        "INSERT INTO notifications (id, session, recipient, step, state, created_at, version, document)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE
         SET state = excluded.state, version = excluded.version, document = excluded.document
         ON CONFLICT DO NOTHING",
        params![
            row.id.0.as_bytes(),
            row.session_id.0.as_bytes(),
            recipient(row),
            step(row),
            row.state.name(),
            row.created_at.0,
            DOCUMENT_VERSION,
            to_json(row)
        ],
    )
    .map(drop)
}

pub(crate) fn waiting(connection: &Connection) -> rusqlite::Result<Vec<Notification>> {
    let sql = "SELECT version, document FROM notifications WHERE state = 'waiting'
               ORDER BY created_at, id";
    reads::all(connection, sql, [], |row| document(row, 0))
}

pub(crate) fn page(
    connection: &Connection,
    state: Option<NotificationState>,
    before: Option<Cursor>,
    limit: u32,
) -> rusqlite::Result<Page<Notification>> {
    let sql = match state {
        Some(_) => {
            "SELECT id, created_at, version, document FROM notifications
             WHERE state = ?1 AND (created_at, id) < (?2, ?3)
             ORDER BY created_at DESC, id DESC LIMIT ?4"
        }
        None => {
            "SELECT id, created_at, version, document FROM notifications
             WHERE ?1 IS NULL AND (created_at, id) < (?2, ?3)
             ORDER BY created_at DESC, id DESC LIMIT ?4"
        }
    };
    let among = state.map(NotificationState::name);
    reads::page(connection, sql, (among, before, limit), |row| document(row, 2))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::rows::apply;
    use quorate_ports::Write;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        for step in crate::SCHEMA.steps {
            connection.execute_batch(step).unwrap();
        }
        connection
    }

    fn notification(n: u128, step: NotificationStep) -> Notification {
        let created_at = Timestamp(i64::try_from(n).unwrap());
        Notification {
            id: NotificationId(Uuid::from_u128(n)),
            session_id: SessionId(Uuid::from_u128(1)),
            tenant: Tenant::default(),
            recipient: Recipient {
                party: Some("phone".parse().unwrap()),
                channel: Medium::Email,
                address: "phone@x.example".into(),
            },
            step,
            state: NotificationState::Waiting,
            due_at: Some(created_at),
            until: Timestamp(100),
            attempts: 0,
            last_error: None,
            created_at,
            settled_at: None,
        }
    }

    fn put(connection: &Connection, row: &Notification) {
        assert!(apply(connection, &Write::Notification(Box::new(row.clone()))).unwrap());
    }

    fn ids(page: &Page<Notification>) -> Vec<u128> {
        page.items.iter().map(|row| row.id.0.as_u128()).collect()
    }

    #[test]
    fn a_step_is_told_once_however_it_is_named_when_the_session_has_ended() {
        let connection = database();
        let first = notification(1, NotificationStep::SessionEnded);
        put(&connection, &first);
        put(&connection, &notification(2, NotificationStep::SessionCompleted));
        put(&connection, &notification(3, NotificationStep::SessionCreated));
        let changed = Notification { step: NotificationStep::SessionExpired, ..first };
        put(&connection, &changed);
        let stored = waiting(&connection).unwrap();
        assert_eq!(stored[0], changed);
        assert_eq!(stored.iter().map(|row| row.id.0.as_u128()).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_in_one_state_or_all() {
        let connection = database();
        let steps = [
            NotificationStep::SessionCreated,
            NotificationStep::FirstReminder,
            NotificationStep::SecondReminder,
            NotificationStep::LastReminder,
        ];
        for (n, step) in (1..).zip(steps) {
            let state = if n == 2 { NotificationState::Dead } else { NotificationState::Waiting };
            put(&connection, &Notification { state, ..notification(n, step) });
        }
        let first = page(&connection, None, None, 3).unwrap();
        assert_eq!(ids(&first), [4, 3, 2]);
        assert_eq!(ids(&page(&connection, None, first.next, 3).unwrap()), [1]);
        let dead = page(&connection, Some(NotificationState::Dead), None, 3).unwrap();
        assert_eq!((ids(&dead), dead.next), (vec![2], None));
    }

    #[test]
    fn only_what_is_settled_is_forgotten_with_age() {
        let connection = database();
        let old = notification(1, NotificationStep::SessionCreated);
        put(&connection, &Notification { state: NotificationState::Sent, ..old });
        put(&connection, &notification(2, NotificationStep::FirstReminder));
        let late = notification(9, NotificationStep::LastReminder);
        put(&connection, &Notification { state: NotificationState::Sent, ..late });
        assert!(apply(&connection, &Write::ForgetNotifications(Timestamp(5), 10)).unwrap());
        assert_eq!(ids(&page(&connection, None, None, 10).unwrap()), [9, 2]);
        assert!(
            apply(&connection, &Write::ForgetNotification(NotificationId(Uuid::from_u128(2))))
                .unwrap()
        );
        assert_eq!(ids(&page(&connection, None, None, 10).unwrap()), [9]);
    }
}
