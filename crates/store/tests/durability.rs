//! What the store promises: order, groups, one owner, and nothing lost that was acknowledged.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::HashSet;
use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use quorate_ports::store::SessionRow;
use quorate_ports::{Store as _, Urgency, Write};
use quorate_store::SqliteStore;
use quorate_types::*;

/// Set for the child of the kill test: the folder it writes to.
const CHILD: &str = "QUORATE_STORE_KILL_TEST";

#[tokio::test]
async fn the_last_write_wins_and_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    drop(store.submit(vec![session(1, "first")], Urgency::Now));
    store.submit(vec![session(1, "second"), session(2, "x")], Urgency::Now).await.unwrap();
    drop(store);
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.session(session_id(1)).await.unwrap().unwrap().document, b"second");
    let newest = store.sessions(None, None, 1).await.unwrap();
    assert_eq!(newest.items[0].session_id, session_id(2));
    assert_eq!(store.open_sessions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_resolved_commit_is_seen_by_the_next_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    for n in 1..=50 {
        store.submit(vec![session(n, "x")], Urgency::Now).await.unwrap();
        assert!(store.session(session_id(n)).await.unwrap().is_some(), "{n}");
    }
}

#[tokio::test]
async fn dropping_the_store_commits_what_is_queued_and_leaves_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    for n in 1..=100 {
        drop(store.submit(vec![session(n, "x")], Urgency::Soon));
    }
    drop(store);
    assert!(!folder.path().join("quorate.db-wal").exists(), "a copy of the one file is a backup");
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.open_sessions().await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_database_whose_old_sessions_are_forgotten_stops_growing() {
    const A_DAY: u128 = 600;
    let folder = tempfile::tempdir().unwrap();
    let mut sizes = Vec::new();
    for day in 0..8_i64 {
        let store = SqliteStore::open(folder.path()).unwrap();
        for n in 0..A_DAY {
            let Write::Session(row) = session(day as u128 * A_DAY + n, &"x".repeat(2_000)) else {
                unreachable!("a session");
            };
            let row = SessionRow { is_final: true, created_at: Timestamp(day), ..row };
            drop(store.submit(vec![Write::Session(row)], Urgency::Now));
        }
        for _ in 0..2 {
            let forget = Write::ForgetEnded(Timestamp(day - 1), 500);
            store.submit(vec![forget], Urgency::Now).await.unwrap();
        }
        drop(store);
        sizes.push(std::fs::metadata(folder.path().join("quorate.db")).unwrap().len());
    }
    let (third, last) = (sizes[2], sizes[7]);
    assert!(last <= third + third / 20, "two days are kept of eight: {sizes:?}");
    assert!(sizes[1] > sizes[0] + sizes[0] / 2, "they take room: {sizes:?}");
}

#[tokio::test]
async fn transactions_that_wait_together_share_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    // Somebody else's transaction stands for a disk that is busy with an earlier commit.
    let busy = rusqlite::Connection::open(folder.path().join("quorate.db")).unwrap();
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commits: Vec<_> =
        (1..=1_000).map(|n| store.submit(vec![session(n, "x")], Urgency::Now)).collect();
    busy.execute_batch("ROLLBACK").unwrap();
    for commit in commits {
        commit.await.unwrap();
    }
    assert_eq!(store.open_sessions().await.unwrap().len(), 1_000);
    // What the writer had taken out before the disk was free, and all the rest.
    assert!(store.commits() <= 2, "{} commits", store.commits());
}

#[tokio::test]
async fn a_message_goes_when_all_have_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let writes = [message(2, &["b", "c"]), message(3, &["b"])].map(Write::Message).to_vec();
    store.submit(writes, Urgency::Now).await.unwrap();
    let unknown = acknowledged(77, "b");
    store.submit(vec![acknowledged(2, "b"), unknown], Urgency::Now).await.unwrap();
    let found = store.messages().await.unwrap();
    assert_eq!(found.iter().map(|m| m.row.sequence).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(found[0].acknowledged, [party("b")]);
    assert_eq!(found[0].row.recipients, [party("b"), party("c")]);
    store.submit(vec![acknowledged(2, "c")], Urgency::Now).await.unwrap();
    assert_eq!(store.messages().await.unwrap().len(), 1);
    store.submit(vec![Write::ForgetMessages(session_id(1))], Urgency::Now).await.unwrap();
    assert!(store.messages().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_message_settled_while_it_waits_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let busy = rusqlite::Connection::open(folder.path().join("quorate.db")).unwrap();
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The writer waits for the disk with this one in hand.
    let first = store.submit(vec![session(1, "x")], Urgency::Now);
    let row = message(9, &["b"]);
    let commit = store.submit(vec![Write::Message(row.clone())], Urgency::Now);
    row.settle();
    busy.execute_batch("ROLLBACK").unwrap();
    first.await.unwrap();
    commit.await.unwrap();
    assert!(store.messages().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_second_owner_of_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = SqliteStore::open(folder.path()).unwrap();
    let error = SqliteStore::open(folder.path()).err().unwrap();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("another quorate process"), "{error}");
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    // A damaged database stands for a disk that fails.
    let connection = rusqlite::Connection::open(folder.path().join("quorate.db")).unwrap();
    connection.execute_batch("DROP TABLE sessions").unwrap();
    drop(connection);
    let store = SqliteStore::open(folder.path()).unwrap();
    let error = store.submit(vec![session(1, "x")], Urgency::Now).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(store.health().unwrap_err().code, ErrorCode::Unavailable);
    let later = Write::PendingKey { session: session_id(1), account: None };
    assert!(store.submit(vec![later], Urgency::Now).await.is_err());
}

/// The child of the kill test: eight tasks write sessions and messages, and print the number of
/// each once it is acknowledged, from then on.
#[test]
fn child_of_the_kill_test() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Arc::new(SqliteStore::open(folder.as_ref()).unwrap());
        let first = u64::try_from(store.open_sessions().await.unwrap().len()).unwrap() * 8 + 8;
        let write = |task: u64| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in (first + task..).step_by(8) {
                    let both = vec![session(n.into(), "x"), Write::Message(message(n, &["b"]))];
                    store.submit(both, Urgency::Now).await.unwrap();
                    writeln!(std::io::stdout(), "acknowledged {n}.").unwrap();
                }
            })
        };
        let tasks: Vec<_> = (0..8).map(write).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Runs the child, kills it at its `lines`th word, and answers with all it had acknowledged.
fn kill_a_writer(folder: &std::path::Path, lines: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_of_the_kill_test", "--exact", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let number = |line: String| {
        let (_, number) = line.rsplit_once("acknowledged ")?;
        number.strip_suffix('.')?.parse().ok()
    };
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut words = output.lines().map(|line| line.unwrap()).filter_map(number);
    let mut acknowledged: Vec<_> = words.by_ref().take(lines).collect();
    assert_eq!(acknowledged.len(), lines, "the child must live until it is killed");
    child.kill().unwrap();
    acknowledged.extend(words);
    child.wait().unwrap();
    acknowledged
}

async fn assert_all_there(folder: &std::path::Path, acknowledged: &[u64]) {
    let store = SqliteStore::open(folder).unwrap();
    let messages: HashSet<_> =
        store.messages().await.unwrap().iter().map(|found| found.row.sequence).collect();
    for n in acknowledged {
        let found = store.session(session_id((*n).into())).await.unwrap();
        assert!(found.is_some() && messages.contains(n), "{n} is lost");
    }
    let sessions = store.open_sessions().await.unwrap().len();
    assert_eq!(sessions, messages.len(), "a transaction is kept whole or not at all");
}

proptest! {
    // Every case starts a process or two.
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_kill_9(
        kills in proptest::collection::vec(1..300_usize, 1..=2),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut acknowledged = Vec::new();
        for lines in kills {
            acknowledged.extend(kill_a_writer(folder.path(), lines));
            runtime.block_on(assert_all_there(folder.path(), &acknowledged));
        }
    }
}

/// A store with so many sessions, as a crash leaves it: the folder is copied while it is open.
async fn crashed(sessions: u128) -> tempfile::TempDir {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open(folder.path()).unwrap();
    for n in 1..=sessions {
        store.submit(vec![session(n, "x")], Urgency::Now).await.unwrap();
    }
    // What follows a commit is done before the next one, and nothing follows the second.
    for _ in 0..2 {
        store.submit(vec![], Urgency::Now).await.unwrap();
    }
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn refusal(folder: &std::path::Path) -> String {
    SqliteStore::open(folder).err().expect("it must not open").message
}

#[tokio::test]
async fn a_lost_log_is_noticed_and_may_be_accepted() {
    for sessions in [0, 1, 20] {
        let folder = crashed(sessions).await;
        std::fs::remove_file(folder.path().join("quorate.db-wal")).unwrap();
        let said = refusal(folder.path());
        assert!(said.contains("missing or older") && said.contains("--accept-loss"), "{said}");
        drop(SqliteStore::open_with(folder.path(), true).unwrap());
        assert!(SqliteStore::open(folder.path()).is_ok(), "accepted once, it is as it is");
    }
}

#[tokio::test]
async fn a_crash_that_loses_nothing_is_no_loss() {
    let folder = crashed(20).await;
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.open_sessions().await.unwrap().len(), 20);
}

#[tokio::test]
async fn the_first_commit_is_folded_into_the_file() {
    let folder = crashed(1).await;
    std::fs::remove_file(folder.path().join("quorate.db-wal")).unwrap();
    let store = SqliteStore::open_with(folder.path(), true).unwrap();
    assert_eq!(store.open_sessions().await.unwrap().len(), 1, "keys made first are not lost");
}

#[tokio::test]
async fn an_older_or_missing_database_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, kept) = (folder.path().join("quorate.db"), folder.path().join("kept"));
    drop(SqliteStore::open(folder.path()).unwrap());
    std::fs::copy(&file, &kept).unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    store.submit(vec![session(1, "x")], Urgency::Now).await.unwrap();
    drop(store);
    let newest = std::fs::read(&file).unwrap();
    std::fs::copy(&kept, &file).unwrap();
    assert!(refusal(folder.path()).contains("older"));
    std::fs::remove_file(&file).unwrap();
    assert!(refusal(folder.path()).contains("missing"));
    std::fs::write(&file, newest).unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.open_sessions().await.unwrap().len(), 1, "put back, it is as it was");
}

#[test]
fn an_empty_database_beside_an_old_servers_key_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("join-tokens.key"), [7; 32]).unwrap();
    assert!(refusal(folder.path()).contains("missing"));
}
