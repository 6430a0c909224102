//! What the group relay keeps is there after a restart, and gone when it is forgotten.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use quorate_ports::groups::{GroupClientRow, GroupRow, GroupSessionRow, KeptGroups};
use quorate_ports::{GroupStore as _, GroupWrite};
use quorate_store::SqliteStore;
use quorate_types::{GroupId, SessionId};
use uuid::Uuid;

fn group(n: u128, document: &str) -> GroupRow {
    GroupRow { id: GroupId(Uuid::from_u128(n)), document: document.into() }
}

fn session(n: u128, of: u128, document: &str) -> GroupSessionRow {
    GroupSessionRow {
        id: SessionId(Uuid::from_u128(n)),
        group: GroupId(Uuid::from_u128(of)),
        document: document.into(),
    }
}

fn client(n: u64, hash: u8) -> GroupClientRow {
    GroupClientRow { client: n, token_hash: [hash; 32] }
}

#[tokio::test]
async fn the_last_change_of_each_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.groups().await.unwrap(), KeptGroups::default());
    let writes = vec![
        GroupWrite::Client(client(u64::MAX, 1)),
        GroupWrite::Client(client(2, 2)),
        GroupWrite::Client(client(2, 3)),
        GroupWrite::Group(group(1, "old")),
        GroupWrite::Group(group(1, "new")),
        GroupWrite::Session(session(5, 1, "a")),
        GroupWrite::Session(session(5, 1, "b")),
    ];
    store.submit_groups(writes).await.unwrap();
    drop(store);
    let kept = SqliteStore::open(folder.path()).unwrap().groups().await.unwrap();
    assert_eq!(kept.clients, [client(u64::MAX, 1), client(2, 3)]);
    assert_eq!(kept.groups, [group(1, "new")]);
    assert_eq!(kept.sessions, [session(5, 1, "b")]);
}

#[tokio::test]
async fn a_forgotten_group_takes_its_sessions_with_it_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let writes = vec![
        GroupWrite::Client(client(1, 1)),
        GroupWrite::Group(group(1, "a")),
        GroupWrite::Group(group(2, "b")),
        GroupWrite::Session(session(5, 1, "a")),
        GroupWrite::Session(session(6, 2, "b")),
        GroupWrite::Session(session(7, 2, "c")),
        GroupWrite::ForgetGroup(group(1, "").id),
        GroupWrite::ForgetSession(session(7, 2, "").id),
        GroupWrite::ForgetClient(1),
    ];
    store.submit_groups(writes).await.unwrap();
    let kept = store.groups().await.unwrap();
    let expected = KeptGroups {
        clients: vec![],
        groups: vec![group(2, "b")],
        sessions: vec![session(6, 2, "b")],
    };
    assert_eq!(kept, expected);
}
