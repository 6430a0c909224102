//! Each write as SQL, on a connection whose transaction is open.

use quorate_ports::Write;
use quorate_ports::store::{IdempotencyRow, LentShareRow, SessionRow};
use quorate_types::*;
use rusqlite::{Connection, Params, params};

use crate::columns::{DOCUMENT_VERSION, to_json};

/// Seconds after which an idempotency key is forgotten: a request repeated after a day is a new one.
const IDEMPOTENCY_SECONDS: i64 = 24 * 3600;

pub(crate) fn execute(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

/// Applies one write; answers whether its transaction may stand: not where it claims an idempotency
/// key that is taken. None of them can meet a constraint: what exists is replaced or kept.
pub(crate) fn apply(connection: &Connection, write: &Write) -> rusqlite::Result<bool> {
    if let Write::Idempotency(row) = write {
        return idempotency(connection, row);
    }
    change(connection, write).map(|()| true)
}

fn change(connection: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Interim(_, overtaken) if overtaken.is_set() => Ok(()),
        Write::Session(row) | Write::Interim(row, _) => session(connection, row),
        Write::Key(record, epoch) => key(connection, record, epoch),
        Write::Ban(ban) => self::ban(connection, ban),
        Write::Freeze(key, Some(freeze)) => execute(
            connection,
            "INSERT OR REPLACE INTO frozen_keys (key_id, version, document) VALUES (?1, ?2, ?3)",
            params![key.0.as_bytes(), DOCUMENT_VERSION, to_json(freeze)],
        )
        .map(drop),
        Write::Freeze(key, None) => {
            execute(connection, "DELETE FROM frozen_keys WHERE key_id = ?1", [key.0.as_bytes()])
                .map(drop)
        }
        Write::Account(account) => execute(
            connection,
            "INSERT OR REPLACE INTO accounts (id, created_at, version, document)
             VALUES (?1, ?2, ?3, ?4)",
            params![
                account.id.0.as_bytes(),
                account.created_at.0,
                DOCUMENT_VERSION,
                to_json(account)
            ],
        )
        .map(drop),
        Write::PendingKey { session, account: Some(account) } => execute(
            connection,
            "INSERT OR REPLACE INTO pending_keys (session, account) VALUES (?1, ?2)",
            params![session.0.as_bytes(), account.0.as_bytes()],
        )
        .map(drop),
        Write::PendingKey { session, account: None } => execute(
            connection,
            "DELETE FROM pending_keys WHERE session = ?1",
            [session.0.as_bytes()],
        )
        .map(drop),
        Write::Idempotency(row) => idempotency(connection, row).map(drop),
        Write::Party(row) => execute(
            connection,
            "INSERT OR REPLACE INTO parties (id, registered_at, version, document)
             VALUES (?1, ?2, ?3, ?4)",
            params![
                party_key(&row.registration.party_id, &row.owner),
                row.registered_at.0,
                DOCUMENT_VERSION,
                to_json(&row.registration)
            ],
        )
        .map(drop),
        Write::ForgetParty(party, owner) => {
            execute(connection, "DELETE FROM parties WHERE id = ?1", [party_key(party, owner)])
                .map(drop)
        }
        Write::Message(row) if row.is_settled() => Ok(()),
        Write::Message(row) => message(connection, row),
        Write::Acknowledged { message, party } => acknowledged(connection, *message, party),
        Write::ForgetMessages(session) => {
            execute(connection, "DELETE FROM messages WHERE session = ?1", [session.0.as_bytes()])
                .map(drop)
        }
        Write::ForgetEnded(before, most) => execute(
            connection,
            "DELETE FROM sessions WHERE id IN
             (SELECT id FROM sessions INDEXED BY sessions_by_time
              WHERE created_at < ?1 AND is_final = 1
              AND NOT EXISTS (SELECT 1 FROM delegate_shares WHERE session = sessions.id)
              ORDER BY created_at LIMIT ?2)",
            params![before.0, most],
        )
        .map(drop),
        Write::DelegateShare(row) => execute(
            connection,
            "INSERT OR IGNORE INTO delegate_shares (session, party, tenant, package)
             VALUES (?1, ?2, ?3, ?4)",
            params![
                row.session_id.0.as_bytes(),
                row.party_id.as_str(),
                row.tenant.as_str(),
                &row.package[..]
            ],
        )
        .map(drop),
        Write::ForgetDelegateShare(session, party) => execute(
            connection,
            "DELETE FROM delegate_shares WHERE session = ?1 AND party = ?2",
            params![session.0.as_bytes(), party.as_str()],
        )
        .map(drop),
        Write::ForgetDelegateShares(session) => execute(
            connection,
            "DELETE FROM delegate_shares WHERE session = ?1",
            [session.0.as_bytes()],
        )
        .map(drop),
        Write::LentShare(LentShareRow { session_id, lent }) => execute(
            connection,
            "INSERT OR REPLACE INTO lent_shares (session, delegate, holder_index, package)
             VALUES (?1, ?2, ?3, ?4)",
            params![
                session_id.0.as_bytes(),
                lent.delegate.as_str(),
                lent.holder_index.0,
                &lent.package[..]
            ],
        )
        .map(drop),
        Write::ForgetLentShare(session) => {
            let sql = "DELETE FROM lent_shares WHERE session = ?1";
            execute(connection, sql, [session.0.as_bytes()]).map(drop)
        }
        Write::Notification(row) => crate::notifications::write(connection, row),
        Write::ForgetNotification(id) => {
            execute(connection, "DELETE FROM notifications WHERE id = ?1", [id.0.as_bytes()])
                .map(drop)
        }
        Write::ForgetNotifications(before, most) => execute(
            connection,
            "DELETE FROM notifications WHERE id IN
             (SELECT id FROM notifications INDEXED BY notifications_by_time
              WHERE created_at < ?1 AND state <> 'waiting' ORDER BY created_at LIMIT ?2)",
            params![before.0, most],
        )
        .map(drop),
        Write::Group(write) => crate::groups::apply(connection, write),
        Write::ApiKey(row) => execute(
            connection,
            "INSERT OR REPLACE INTO api_keys (id, hash, version, document)
             VALUES (?1, ?2, ?3, ?4)",
            params![row.key.id.to_string(), row.hash, DOCUMENT_VERSION, to_json(&row.key)],
        )
        .map(drop),
        Write::ForgetApiKey(id) => {
            execute(connection, "DELETE FROM api_keys WHERE id = ?1", [id.to_string()]).map(drop)
        }
    }
}

fn session(connection: &Connection, row: &SessionRow) -> rusqlite::Result<()> {
    execute(
        connection,
        // Not replaced as a whole: the indexes of what stays need no change.
        "INSERT INTO sessions (id, tenant, is_final, created_at, version, document)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE
         SET is_final = excluded.is_final, version = excluded.version,
             document = excluded.document",
        params![
            row.session_id.0.as_bytes(),
            row.tenant.as_str(),
            row.is_final,
            row.created_at.0,
            row.version,
            row.document
        ],
    )
    .map(drop)
}

/// Of a key only a later epoch is taken, with the same public key: what is here stays, but for
/// what is not yet known of its current epoch.
fn key(connection: &Connection, key: &KeyRecord, epoch: &EpochRecord) -> rusqlite::Result<()> {
    let id = key.key_id.0.as_bytes();
    execute(
        connection,
        "INSERT INTO keys (id, tenant, public_key, created_at, version, document, epoch)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE
         SET version = excluded.version, document = excluded.document, epoch = excluded.epoch
         WHERE excluded.epoch > keys.epoch AND excluded.public_key = keys.public_key",
        params![
            id,
            key.tenant.as_str(),
            key.public_key.0,
            key.created_at.0,
            DOCUMENT_VERSION,
            to_json(key),
            key.epoch
        ],
    )?;
    // Also where the key is of a version without epochs.
    execute(
        connection,
        "INSERT OR IGNORE INTO key_epochs (key_id, epoch, version, document)
         SELECT ?1, ?2, ?3, ?4
         WHERE EXISTS (SELECT 1 FROM keys WHERE id = ?1 AND epoch = ?2 AND public_key = ?5)",
        params![id, epoch.epoch, DOCUMENT_VERSION, to_json(epoch), key.public_key.0],
    )
    .map(drop)
}

fn ban(connection: &Connection, ban: &ReportedBan) -> rusqlite::Result<()> {
    execute(
        connection,
        "INSERT OR IGNORE INTO bans (key_id, epoch, reporter, peer, reason, session, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            ban.key_id.0.as_bytes(),
            ban.epoch,
            ban.reporter.as_str(),
            ban.peer.as_str(),
            ban.reason,
            ban.session_id.0.as_bytes(),
            ban.at.0,
        ],
    )
    .map(drop)
}

/// Claims a key; answers whether it was free. Forgets old keys with every new one, so that the
/// table holds a day's and no more.
fn idempotency(connection: &Connection, row: &IdempotencyRow) -> rusqlite::Result<bool> {
    execute(
        connection,
        "DELETE FROM idempotency WHERE created_at < unixepoch() - ?1",
        [IDEMPOTENCY_SECONDS],
    )?;
    let session = row.session_id.0.as_bytes();
    let claimed = execute(
        connection,
        "INSERT INTO idempotency (tenant, key, version, request_hash, session, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, unixepoch()) ON CONFLICT DO NOTHING",
        params![row.tenant.as_str(), row.key, row.version, row.request_hash, session],
    )?;
    Ok(claimed == 1)
}

fn message(connection: &Connection, row: &MessageRow) -> rusqlite::Result<()> {
    let message = &row.message;
    let id = message.message_id.0.as_bytes();
    let added = execute(
        connection,
        "INSERT OR IGNORE INTO messages (id, sequence, session, from_party, is_broadcast, round,
                                         type, payload, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id,
            row.sequence.cast_signed(),
            message.session_id.0.as_bytes(),
            message.from_party.as_str(),
            message.is_broadcast,
            message.round,
            message.message_type,
            &message.payload[..],
            message.created_at.0
        ],
    )?;
    if added == 0 {
        return Ok(());
    }
    let mut insert = connection
        .prepare_cached("INSERT INTO deliveries (message, place, party) VALUES (?1, ?2, ?3)")?;
    for (place, party) in (0_u32..).zip(&row.recipients) {
        insert.execute(params![id, place, party.as_str()])?;
    }
    Ok(())
}

fn acknowledged(
    connection: &Connection,
    message: MessageId,
    party: &PartyId,
) -> rusqlite::Result<()> {
    let id = message.0.as_bytes();
    let changed = execute(
        connection,
        "UPDATE deliveries SET acknowledged = 1 WHERE message = ?1 AND party = ?2",
        params![id, party.as_str()],
    )?;
    if changed == 0 {
        return Ok(());
    }
    execute(
        connection,
        "DELETE FROM messages WHERE id = ?1 AND NOT EXISTS
         (SELECT 1 FROM deliveries WHERE message = ?1 AND acknowledged = 0)",
        [id],
    )
    .map(drop)
}

/// A registration's key: `TENANT/NAME`, `/NAME` for the operator's. A name alone is of a version
/// without owners; neither part has a slash.
fn party_key(party: &PartyId, owner: &NameOwner) -> String {
    match owner {
        NameOwner::Operator => format!("/{party}"),
        NameOwner::Tenant(tenant) => format!("{}/{party}", tenant.as_str()),
        NameOwner::Unclaimed => party.to_string(),
    }
}

/// The owner in a registration's key.
pub(crate) fn name_owner(key: &str) -> NameOwner {
    match key.split_once('/') {
        None => NameOwner::Unclaimed,
        Some(("", _)) => NameOwner::Operator,
        Some((tenant, _)) => match tenant.parse() {
            Ok(tenant) => NameOwner::Tenant(tenant),
            Err(_) => NameOwner::Unclaimed,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::reads;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        for step in crate::SCHEMA.steps {
            connection.execute_batch(step).unwrap();
        }
        connection
    }

    fn slot(key: &str, session: u128) -> IdempotencyRow {
        IdempotencyRow {
            tenant: Tenant::default(),
            key: key.to_owned(),
            version: 2,
            request_hash: [3; 32],
            session_id: SessionId(Uuid::from_u128(session)),
        }
    }

    fn key(id: u128, holder: &str) -> KeyRecord {
        KeyRecord {
            key: Arc::new(KeyEpoch {
                key_id: KeyId(Uuid::from_u128(id)),
                epoch: 0,
                scheme: Scheme::default(),
                threshold: Threshold::new(2, 3).unwrap(),
                public_key: PublicKey(vec![4; 65]),
                holders: vec![holder.parse().unwrap()],
            }),
            tenant: Tenant::default(),
            created_at: Timestamp(i64::try_from(id).unwrap()),
            label: None,
            frozen: None,
        }
    }

    #[test]
    fn an_idempotency_key_is_forgotten_after_a_day_by_the_next_one() {
        let connection = database();
        apply(&connection, &Write::Idempotency(slot("old", 1))).unwrap();
        apply(&connection, &Write::Idempotency(slot("fresh", 2))).unwrap();
        let age = "UPDATE idempotency SET created_at = unixepoch() - 90000 WHERE key = 'old'";
        connection.execute(age, []).unwrap();
        apply(&connection, &Write::Idempotency(slot("new", 3))).unwrap();
        let find =
            |key: &str| reads::idempotency(&connection, Tenant::default(), key.to_owned()).unwrap();
        assert_eq!(find("old"), None);
        assert_eq!(find("fresh"), Some(slot("fresh", 2)));
        assert_eq!(find("new"), Some(slot("new", 3)));
    }

    #[test]
    fn an_idempotency_key_stays_with_whoever_claimed_it_first() {
        let connection = database();
        assert!(apply(&connection, &Write::Idempotency(slot("one", 1))).unwrap());
        assert!(!apply(&connection, &Write::Idempotency(slot("one", 2))).unwrap());
        let found = reads::idempotency(&connection, Tenant::default(), "one".to_owned()).unwrap();
        assert_eq!(found, Some(slot("one", 1)));
    }

    #[test]
    fn the_start_reads_open_sessions_by_their_index() {
        let connection = database();
        let plan = format!("EXPLAIN QUERY PLAN {}", reads::OPEN_SESSIONS);
        let read = |row: &rusqlite::Row<'_>| row.get::<_, String>(3);
        let mut statement = connection.prepare(&plan).unwrap();
        let steps: Vec<_> = statement.query_map([], read).unwrap().map(Result::unwrap).collect();
        assert_eq!(steps, ["SCAN sessions USING INDEX sessions_open_by_time"]);
    }

    fn write_key(connection: &Connection, record: KeyRecord) {
        let epoch = EpochRecord {
            epoch: record.epoch,
            session_id: SessionId(Uuid::from_u128(u128::from(record.epoch))),
            made_at: Timestamp(9),
            attestation: None,
        };
        assert!(apply(connection, &Write::Key(record, epoch)).unwrap());
    }

    #[test]
    fn of_a_key_only_a_later_epoch_is_taken() {
        let connection = database();
        let epoch = |epoch, holder, public_key| {
            let mut record = KeyRecord { created_at: Timestamp(epoch), ..key(1, holder) };
            let key = Arc::make_mut(&mut record.key);
            (key.epoch, key.public_key) = (u32::try_from(epoch).unwrap(), public_key);
            record
        };
        let public_key = || PublicKey(vec![4; 65]);
        let (first, second) = (epoch(0, "first", public_key()), epoch(1, "first", public_key()));
        write_key(&connection, first.clone());
        let id = KeyId(Uuid::from_u128(1));
        let here = || reads::key(&connection, id).unwrap().unwrap();
        for ignored in
            [epoch(0, "second", public_key()), epoch(1, "second", PublicKey(vec![5; 65]))]
        {
            write_key(&connection, ignored);
            assert_eq!(here(), first);
        }
        write_key(&connection, second.clone());
        assert_eq!(here(), KeyRecord { created_at: first.created_at, ..second });
        write_key(&connection, first);
        assert_eq!(here().epoch, 1);
        // One whose refresh broke off is skipped.
        write_key(&connection, epoch(3, "first", public_key()));
        write_key(&connection, epoch(2, "first", public_key()));
        assert_eq!(here().epoch, 3);
        let epochs = reads::epochs(&connection, id).unwrap();
        assert_eq!(epochs.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[test]
    fn bans_of_the_version_before_are_of_the_first_epoch() {
        let connection = Connection::open_in_memory().unwrap();
        let (before, after) = crate::SCHEMA.steps.split_at(5);
        before.iter().for_each(|step| connection.execute_batch(step).unwrap());
        let old = "INSERT INTO bans VALUES (zeroblob(16), 'a', 'b', 'why', zeroblob(16), 7)";
        connection.execute(old, []).unwrap();
        after.iter().for_each(|step| connection.execute_batch(step).unwrap());
        let bans = reads::bans(&connection, KeyId(Uuid::nil())).unwrap();
        assert_eq!((bans[0].epoch, bans[0].at), (0, Timestamp(7)));
    }

    #[test]
    fn of_two_keys_with_one_public_key_the_older_is_found() {
        let connection = database();
        for id in [2, 1, 3] {
            write_key(&connection, key(id, "a"));
        }
        let found = reads::key_by_public_key(&connection, &PublicKey(vec![4; 65])).unwrap();
        assert_eq!(found, Some(key(1, "a")));
    }
}
