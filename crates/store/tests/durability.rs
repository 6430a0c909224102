//! What the store promises: order, groups, one owner, and nothing lost that was acknowledged.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use quorate_ports::store::SessionRow;
use quorate_ports::vault::{Ban, SealedShare};
use quorate_ports::{Store, Urgency, Vault, Write};
use quorate_store::{SqliteStore, SqliteVault};
use quorate_types::*;

/// Set for the child of the kill test: the folder it writes to.
const CHILD: &str = "QUORATE_STORE_KILL_TEST";

fn id(n: u128) -> SessionId {
    format!("{n:032x}").parse().unwrap()
}

fn session(n: u128, document: &str) -> Write {
    Write::Session(SessionRow {
        session_id: id(n),
        tenant: Tenant::default(),
        is_final: false,
        created_at: Timestamp(i64::try_from(n).unwrap()),
        document: document.into(),
    })
}

fn message(n: u128, to: &[&str]) -> Arc<MessageRow> {
    let message = Message {
        message_id: MessageId(id(n).0),
        session_id: id(1),
        from_party: "a".parse().unwrap(),
        is_broadcast: false,
        round: 1,
        message_type: "t".into(),
        payload: vec![7; 10].into(),
        created_at: Timestamp(5),
    };
    let recipients = to.iter().map(|name| name.parse().unwrap()).collect();
    Arc::new(MessageRow::new(message, u64::try_from(n).unwrap(), recipients))
}

fn share(key: u128, epoch: u32) -> SealedShare {
    let key_id = KeyId(id(key).0);
    SealedShare {
        key_id,
        epoch,
        record: KeyRecord {
            key_id,
            tenant: Tenant::default(),
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 3).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: vec!["a".parse().unwrap()],
            created_at: Timestamp(1),
        },
        identities: vec![[1; 32]],
        share_index: ShareIndex(1),
        sealed: vec![9; 20],
    }
}

#[tokio::test]
async fn the_last_write_wins_and_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    drop(store.submit(vec![session(1, "first")], Urgency::Lazy));
    store.submit(vec![session(1, "second"), session(2, "x")], Urgency::Now).await.unwrap();
    drop(store);
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.session(id(1)).await.unwrap().unwrap().document, b"second");
    let newest = store.sessions(None, None, 1).await.unwrap();
    assert_eq!(newest[0].session_id, id(2));
    assert_eq!(store.open_sessions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn dropping_the_store_commits_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    for n in 1..=100 {
        drop(store.submit(vec![session(n, "x")], Urgency::Lazy));
    }
    drop(store);
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.open_sessions().await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_thousand_waiting_transactions_share_few_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let before = store.commits();
    let commits: Vec<_> =
        (1..=1_000).map(|n| store.submit(vec![session(n, "x")], Urgency::Now)).collect();
    for commit in commits {
        commit.await.unwrap();
    }
    assert!(store.commits() - before < 500, "{} commits", store.commits() - before);
}

#[tokio::test]
async fn a_message_goes_when_all_have_acknowledged_and_a_settled_one_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let settled = message(9, &["b"]);
    settled.settle();
    let (one, two) = (message(2, &["b", "c"]), message(3, &["b"]));
    let writes = [one, two, settled].into_iter().map(Write::Message).collect();
    store.submit(writes, Urgency::Now).await.unwrap();
    let acknowledged = |n, party: &str| Write::Acknowledged {
        message: MessageId(id(n).0),
        party: party.parse().unwrap(),
    };
    store.submit(vec![acknowledged(2, "b"), acknowledged(77, "b")], Urgency::Now).await.unwrap();
    let found = store.messages().await.unwrap();
    assert_eq!(found.iter().map(|m| m.row.sequence).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(found[0].acknowledged, ["b".parse::<PartyId>().unwrap()]);
    assert_eq!(found[0].row.recipients.len(), 2);
    store.submit(vec![acknowledged(2, "c")], Urgency::Now).await.unwrap();
    assert_eq!(store.messages().await.unwrap().len(), 1);
    store.submit(vec![Write::ForgetMessages(id(1))], Urgency::Now).await.unwrap();
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
    let later = Write::PendingKey { session: id(1), account: None };
    assert!(store.submit(vec![later], Urgency::Now).await.is_err());
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let connection = rusqlite::Connection::open(folder.path().join("quorate.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = SqliteStore::open(folder.path()).err().unwrap();
    assert!(error.message.contains("use a newer program"), "{error}");
}

#[tokio::test]
async fn the_vault_keeps_shares_bans_and_pins() {
    let folder = tempfile::tempdir().unwrap();
    let vault = SqliteVault::open(folder.path()).unwrap();
    let key = KeyId(id(1).0);
    vault.put_share(share(1, 1)).await.unwrap();
    let older = vault.put_share(share(1, 0)).await.unwrap_err();
    assert_eq!(older.code, ErrorCode::Conflict);
    let ban = Ban {
        key_id: key,
        epoch: 1,
        peer: "b".parse().unwrap(),
        reason: "cheated".into(),
        at: Timestamp(3),
    };
    vault.ban(ban.clone()).await.unwrap();
    let peer: PartyId = "b".parse().unwrap();
    assert_eq!(vault.pin(&peer, [1; 32]).await.unwrap(), [1; 32]);
    drop(vault);
    let vault = SqliteVault::open(folder.path()).unwrap();
    assert!(vault.share(key).await.unwrap().unwrap() == share(1, 1));
    assert!(vault.shares().await.unwrap()[0].sealed.is_empty());
    assert_eq!(vault.bans(key).await.unwrap(), [ban]);
    assert_eq!(vault.pin(&peer, [2; 32]).await.unwrap(), [1; 32]);
    vault.remove_share(key).await.unwrap();
    assert!(vault.share(key).await.unwrap().is_none());
}

/// The child of the kill test: writes and prints each id once it is acknowledged, for ever.
#[test]
fn child_of_the_kill_test() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(folder.as_ref()).unwrap();
        for n in 1.. {
            store.submit(vec![session(n, "x")], Urgency::Now).await.unwrap();
            println!("acknowledged {n}");
        }
    });
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    for lines in [1, 7, 40] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_of_the_kill_test", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let acknowledged = output
            .lines()
            .map(|line| line.unwrap())
            .filter_map(|line| line.rsplit_once("acknowledged ").and_then(|(_, n)| n.parse().ok()))
            .take(lines)
            .last()
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = SqliteStore::open(folder.path()).unwrap();
            for n in 1..=acknowledged {
                assert!(store.session(id(n)).await.unwrap().is_some(), "{n} of {acknowledged}");
            }
        });
    }
}
