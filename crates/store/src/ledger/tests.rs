//! What a ledger remembers, and what it notices.

use quorate_ports::Vault as _;
use quorate_ports::vault::{SealedShare, Unlock, VaultKey};
use rusqlite::params;
use sha2::{Digest as _, Sha256};

use super::*;

/// A key by its name.
struct TestKey(&'static str);

impl RowKey for TestKey {
    fn tag(&self, purpose: &str, row: &[u8]) -> [u8; 32] {
        let hash = Sha256::new().chain_update(self.0).chain_update(purpose).chain_update("|");
        hash.chain_update(row).finalize().into()
    }
}

impl VaultKey for TestKey {
    fn opens(&self, _: &SealedShare) -> bool {
        true
    }
}

fn consumed(nonce: u8, at: i64, keep_until: i64, key: Option<u128>) -> Consumed {
    Consumed {
        nonce: [nonce; 16],
        session: SessionId(uuid::Uuid::from_u128(nonce.into())),
        key: key.map(|key| KeyId(uuid::Uuid::from_u128(key))),
        at: Timestamp(at),
        keep_until: Timestamp(keep_until),
    }
}

/// Opens vault and ledger, as a party does.
async fn started(
    folder: &Path,
    key: &'static str,
    accept: bool,
    note_every: Duration,
) -> Result<SqliteLedger> {
    let vault = Arc::new(SqliteVault::open(folder)?);
    vault.unlock(Arc::new(TestKey("vault")), Unlock::default()).await?;
    SqliteLedger::open_noting(folder, vault, Arc::new(TestKey(key)), accept, note_every).await
}

async fn open(folder: &Path) -> SqliteLedger {
    started(folder, "k", false, NOTE_EVERY).await.unwrap()
}

async fn refused(folder: &Path) -> String {
    let error = started(folder, "k", false, NOTE_EVERY).await.err().expect("it was taken");
    assert!(error.message.contains("ledger.db"), "it names the file: {error}");
    assert!(error.message.contains("--accept-rollback"), "and the way out: {error}");
    error.message
}

async fn accepted(folder: &Path) -> Remembered {
    let ledger = started(folder, "k", true, NOTE_EVERY).await.unwrap();
    let known = ledger.load(Timestamp(0)).await.unwrap();
    drop(ledger);
    drop(open(folder).await);
    known
}

/// A ledger of three requests.
async fn filled(folder: &Path) {
    let ledger = open(folder).await;
    for (nonce, key) in [(1, Some(7)), (2, Some(7)), (3, None)] {
        ledger.consume(consumed(nonce, 10, 1_000, key)).await.unwrap();
    }
}

fn sql(folder: &Path, statements: &str) {
    let file = Connection::open(folder.join("ledger.db")).unwrap();
    file.execute_batch(statements).unwrap();
}

fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

const LEDGER: [&str; 3] = ["ledger.db", "ledger.db-wal", "ledger.db-shm"];
const VAULT: [&str; 3] = ["vault.db", "vault.db-wal", "vault.db-shm"];

#[tokio::test]
async fn what_was_allowed_is_known_after_a_restart_until_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let first = consumed(1, 10, 100, Some(7));
    let second = consumed(2, 20, 50, Some(7));
    let third = consumed(3, 30, 60, None);
    {
        let ledger = open(folder.path()).await;
        assert_eq!(ledger.load(Timestamp(0)).await.unwrap(), Remembered::default());
        for consumed in [first, second] {
            ledger.consume(consumed).await.unwrap();
        }
        // Nobody waits for it, and it is written all the same.
        drop(ledger.consume(third));
    }
    let ledger = open(folder.path()).await;
    let known = ledger.load(Timestamp(0)).await.unwrap();
    assert_eq!(known.consumed, [first, second, third]);
    assert_eq!(known.totals, [(None, 1), (first.key, 2)]);
    assert_eq!(ledger.load(Timestamp(55)).await.unwrap().consumed, [first, third]);
    ledger.consume(consumed(4, 55, 200, None)).await.unwrap();
    let left = ledger.load(Timestamp(0)).await.unwrap();
    assert_eq!(left.consumed.len(), 3, "the second is gone from the disk");
    assert_eq!(left.totals, [(None, 2), (first.key, 2)], "what is gone has counted");
    drop(ledger);
    drop(open(folder.path()).await);
}

/// What somebody could do to the file who has no key.
const CHANGES: [&str; 14] = [
    "UPDATE consumed SET nonce = zeroblob(16) WHERE nonce < x'02'",
    "UPDATE consumed SET session_id = zeroblob(16) WHERE nonce < x'02'",
    "UPDATE consumed SET key_id = x'' WHERE nonce < x'02'",
    "UPDATE consumed SET at = at - 1",
    "UPDATE consumed SET keep_until = 11",
    "UPDATE consumed SET keep_until = 'soon'",
    "UPDATE consumed SET tag = NULL",
    "DELETE FROM consumed WHERE nonce < x'02'",
    "DELETE FROM consumed",
    "UPDATE totals SET total = 1",
    "DELETE FROM totals WHERE key_id = x''",
    "UPDATE head SET generation = generation + 1",
    "UPDATE head SET sum = zeroblob(32)",
    "DELETE FROM head",
];

#[tokio::test]
async fn a_changed_ledger_is_refused_until_its_owner_accepts_it() {
    for change in CHANGES {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path()).await;
        sql(folder.path(), change);
        refused(folder.path()).await;
        if change.contains("'soon'") {
            // What cannot be read cannot be taken over.
            std::fs::remove_file(folder.path().join("ledger.db")).unwrap();
        }
        accepted(folder.path()).await;
    }
}

#[tokio::test]
async fn a_row_of_before_that_is_put_back_into_the_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    sql(folder.path(), "CREATE TABLE copy AS SELECT * FROM totals");
    let ledger = open(folder.path()).await;
    ledger.consume(consumed(4, 10, 1_000, Some(7))).await.unwrap();
    drop(ledger);
    sql(folder.path(), "DELETE FROM totals; INSERT INTO totals SELECT * FROM copy");
    refused(folder.path()).await;
}

#[tokio::test]
async fn an_older_or_missing_ledger_is_noticed() {
    let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(folder.path()).await;
    copy(folder.path(), kept.path(), &LEDGER);
    let ledger = open(folder.path()).await;
    ledger.consume(consumed(4, 10, 1_000, Some(7))).await.unwrap();
    drop(ledger);
    copy(kept.path(), folder.path(), &LEDGER);
    assert!(refused(folder.path()).await.contains("older than it was"));
    assert_eq!(accepted(folder.path()).await.consumed.len(), 3);
    copy(kept.path(), folder.path(), &LEDGER);
    refused(folder.path()).await;
    for name in LEDGER {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    assert!(refused(folder.path()).await.contains("missing"));
    assert!(!folder.path().join("ledger.db").exists(), "none is made in its place");
    assert_eq!(accepted(folder.path()).await, Remembered::default());
}

#[tokio::test]
async fn what_was_noted_while_it_ran_is_missed_after_a_kill() {
    let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(folder.path()).await;
    copy(folder.path(), kept.path(), &LEDGER);
    let killed = tempfile::tempdir().unwrap();
    let ledger = started(folder.path(), "k", false, Duration::ZERO).await.unwrap();
    for nonce in [4, 5] {
        ledger.consume(consumed(nonce, 10, 1_000, Some(7))).await.unwrap();
    }
    // Whatever was consumed before the last one is noted: one group is noted before the next begins.
    for names in [LEDGER, VAULT] {
        copy(folder.path(), killed.path(), &names);
    }
    drop(ledger);
    copy(kept.path(), killed.path(), &LEDGER);
    refused(killed.path()).await;
}

#[tokio::test]
async fn what_the_vault_has_noted_of_the_ledger_is_a_row_like_any_other() {
    for change in ["DELETE FROM ledger", "UPDATE ledger SET generation = 0"] {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path()).await;
        let vault = Connection::open(folder.path().join("vault.db")).unwrap();
        vault.execute_batch(change).unwrap();
        drop(vault);
        let error = started(folder.path(), "k", false, NOTE_EVERY).await.err().expect(change);
        assert!(error.message.contains("vault cannot be trusted"), "{change}: {error}");
    }
}

#[tokio::test]
async fn a_folder_of_before_shows_to_peers_as_an_older_vault() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let generation = async || {
        let vault = SqliteVault::open(folder.path()).unwrap();
        vault.unlock(Arc::new(TestKey("vault")), Unlock::default()).await.unwrap();
        vault.generation().await.unwrap()
    };
    let before = generation().await;
    drop(open(folder.path()).await);
    assert_eq!(generation().await, before, "nothing was allowed");
    let ledger = open(folder.path()).await;
    ledger.consume(consumed(4, 10, 1_000, Some(7))).await.unwrap();
    drop(ledger);
    assert!(generation().await > before);
}

#[tokio::test]
async fn a_ledger_that_is_changed_while_it_runs_takes_no_more_requests() {
    for change in ["UPDATE totals SET total = 1", "UPDATE head SET sum = zeroblob(32)"] {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path()).await;
        let ledger = open(folder.path()).await;
        sql(folder.path(), change);
        let error = ledger.consume(consumed(4, 10, 1_000, Some(7))).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable, "{change}");
        assert!(error.message.contains("ledger.db"), "{change}: {error}");
        drop(ledger);
        refused(folder.path()).await;
    }
}

#[tokio::test]
async fn the_ledger_of_another_party_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let error = started(folder.path(), "other", false, NOTE_EVERY).await.err().unwrap();
    assert!(error.message.contains("another party"), "{error}");
}

#[tokio::test]
async fn a_ledger_of_the_first_version_is_authenticated_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = || {
        let path = folder.path().join("ledger.db");
        let _ = std::fs::remove_file(&path);
        let file = Connection::open(path).unwrap();
        file.execute_batch(include_str!("../migrations/0001_ledger.sql")).unwrap();
        file.pragma_update(None, "user_version", 1).unwrap();
        let (nonce, session, key) = ([1_u8; 16], [1_u8; 16], [7_u8; 16]);
        file.execute(
            "INSERT INTO consumed VALUES (?1, ?2, ?3, 10, 100)",
            params![nonce, session, key],
        )
        .unwrap();
        file.execute("INSERT INTO totals VALUES (?1, 5)", [key]).unwrap();
    };
    first();
    let ledger = open(folder.path()).await;
    let known = ledger.load(Timestamp(0)).await.unwrap();
    assert_eq!((known.consumed.len(), known.totals[0].1), (1, 5));
    drop(ledger);
    drop(open(folder.path()).await);
    first();
    assert!(refused(folder.path()).await.contains("not the one"));
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_named() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    std::fs::write(folder.path().join("ledger.db"), [7; 9_999]).unwrap();
    let error = started(folder.path(), "k", true, NOTE_EVERY).await.err().unwrap();
    assert!(error.message.contains("ledger.db cannot be opened"), "{error}");
}
