//! What the vault promises: shares by epoch, bans, pins, and no trace of what was replaced.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::*;
use quorate_ports::Vault as _;
use quorate_ports::vault::{Ban, SealedShare};
use quorate_store::{SqliteStore, SqliteVault};
use quorate_types::*;

fn share(n: u128, epoch: u32, sealed: &[u8]) -> SealedShare {
    let record = key(n, "a", 4, i64::try_from(n).unwrap(), Tenant::default());
    SealedShare {
        key_id: record.key_id,
        epoch,
        record,
        identities: vec![[1; 32], [2; 32]],
        share_index: ShareIndex(1),
        sealed: sealed.to_vec(),
    }
}

fn holds(folder: &Path, bytes: &[u8]) -> bool {
    ["vault.db", "vault.db-wal"].iter().any(|name| {
        let file = std::fs::read(folder.join(name)).unwrap_or_default();
        file.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test]
async fn shares_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let vault = SqliteVault::open(folder.path()).unwrap();
    vault.put_share(share(1, 0, b"one")).await.unwrap();
    vault.put_share(share(2, 3, b"two")).await.unwrap();
    drop(vault);
    let vault = SqliteVault::open(folder.path()).unwrap();
    assert!(vault.share(share(1, 0, b"").key_id).await.unwrap().unwrap() == share(1, 0, b"one"));
    let newest_first = vault.shares().await.unwrap();
    assert!(newest_first == [share(2, 3, b""), share(1, 0, b"")]);
}

#[tokio::test]
async fn a_share_is_replaced_by_the_next_epoch_only() {
    let folder = tempfile::tempdir().unwrap();
    let vault = SqliteVault::open(folder.path()).unwrap();
    let id = share(1, 0, b"").key_id;
    for (epoch, sealed, kept) in [
        (1, b"1a", Some(b"1a")),
        (0, b"0a", None),
        (1, b"1b", None),
        (3, b"3a", None),
        (2, b"2a", Some(b"2a")),
        (1, b"1c", None),
    ] {
        let before = vault.share(id).await.unwrap();
        let put = vault.put_share(share(1, epoch, sealed)).await;
        let after = vault.share(id).await.unwrap();
        match kept {
            Some(sealed) => assert!(after.unwrap().sealed == sealed && put.is_ok()),
            None => {
                assert_eq!(put.unwrap_err().code, ErrorCode::Conflict);
                assert!(before == after);
            }
        }
    }
}

#[tokio::test]
async fn a_replaced_share_leaves_no_trace_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let vault = SqliteVault::open(folder.path()).unwrap();
    let (old, new) = (b"sealed-bytes-of-epoch-0".repeat(99), b"sealed-bytes-of-epoch-1".repeat(99));
    vault.put_share(share(1, 0, &old)).await.unwrap();
    assert!(holds(folder.path(), b"sealed-bytes-of-epoch-0"));
    vault.put_share(share(1, 1, &new)).await.unwrap();
    assert!(!holds(folder.path(), b"sealed-bytes-of-epoch-0"));
}

#[tokio::test]
async fn bans_are_kept_by_key_epoch_and_peer_with_their_first_reason() {
    let folder = tempfile::tempdir().unwrap();
    let vault = SqliteVault::open(folder.path()).unwrap();
    let ban = |key: u128, epoch, peer, reason: &str| Ban {
        key_id: share(key, 0, b"").key_id,
        epoch,
        peer: party(peer),
        reason: reason.into(),
        at: Timestamp(3),
    };
    for ban in [
        ban(1, 1, "c", "lied"),
        ban(1, 0, "b", "cheated"),
        ban(1, 0, "b", "cheated again"),
        ban(2, 0, "b", "elsewhere"),
    ] {
        vault.ban(ban).await.unwrap();
    }
    drop(vault);
    let vault = SqliteVault::open(folder.path()).unwrap();
    let bans = vault.bans(share(1, 0, b"").key_id).await.unwrap();
    assert_eq!(bans, [ban(1, 0, "b", "cheated"), ban(1, 1, "c", "lied")]);
    assert!(vault.bans(share(9, 0, b"").key_id).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_identity_of_a_peer_stays_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let vault = SqliteVault::open(folder.path()).unwrap();
    assert_eq!(vault.pin(&party("b"), [1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(vault.pin(&party("b"), [2; 32]).await.unwrap(), [1; 32]);
    drop(vault);
    let vault = SqliteVault::open(folder.path()).unwrap();
    assert_eq!(vault.pin(&party("b"), [2; 32]).await.unwrap(), [1; 32]);
    assert_eq!(vault.pin(&party("c"), [2; 32]).await.unwrap(), [2; 32]);
}

#[tokio::test]
async fn a_vault_and_a_store_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _vault = SqliteVault::open(folder.path()).unwrap();
    assert!(SqliteStore::open(folder.path()).is_err());
}
