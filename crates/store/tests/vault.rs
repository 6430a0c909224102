//! What the vault promises: shares by epoch, bans, pins, no trace of what was replaced, and no
//! change by anybody else that goes unnoticed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use quorate_ports::Vault as _;
use quorate_ports::vault::{Ban, Pin, RowKey, SealedShare, ShareState, Unlock, VaultKey};
use quorate_store::{SqliteStore, SqliteVault};
use quorate_types::*;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

/// A key by its name; it opens the shares whose sealed bytes begin with it.
struct TestKey(&'static str);

impl RowKey for TestKey {
    fn tag(&self, purpose: &str, row: &[u8]) -> [u8; 32] {
        let hash = Sha256::new().chain_update(self.0).chain_update(purpose).chain_update("|");
        hash.chain_update(row).finalize().into()
    }
}

impl VaultKey for TestKey {
    fn opens(&self, share: &SealedShare) -> bool {
        share.sealed.starts_with(self.0.as_bytes())
    }
}

fn share(n: u128, epoch: u32, sealed: &[u8]) -> SealedShare {
    let record = key(n, "a", 4, i64::try_from(n).unwrap(), Tenant::default());
    SealedShare {
        key_id: record.key_id,
        epoch,
        state: ShareState::Active,
        record,
        identities: vec![[1; 32], [2; 32]],
        execution: [9; 32],
        confirmations: Vec::new(),
        share_index: ShareIndex(1),
        sealed: sealed.to_vec(),
    }
}

fn pending(n: u128, epoch: u32, sealed: &[u8]) -> SealedShare {
    SealedShare { state: ShareState::Pending, ..share(n, epoch, sealed) }
}

fn ban(n: u128, epoch: u32, peer: &str, reason: &str) -> Ban {
    Ban {
        key_id: share(n, 0, b"").key_id,
        epoch,
        peer: party(peer),
        reason: reason.into(),
        at: Timestamp(3),
        evidence: vec![Bytes::from_static(b"first"), Bytes::from_static(b"second")],
    }
}

async fn unlock(folder: &Path, key: &'static str, how: Unlock) -> Result<SqliteVault> {
    let vault = SqliteVault::open(folder)?;
    vault.unlock(Arc::new(TestKey(key)), how).await?;
    Ok(vault)
}

async fn open(folder: &Path) -> SqliteVault {
    unlock(folder, "k", Unlock::default()).await.unwrap()
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
    let vault = open(folder.path()).await;
    vault.insert(share(1, 0, b"one")).await.unwrap();
    vault.insert(pending(2, 3, b"two")).await.unwrap();
    drop(vault);
    let vault = open(folder.path()).await;
    assert!(vault.share(share(1, 0, b"").key_id).await.unwrap().unwrap() == share(1, 0, b"one"));
    let newest_first = vault.shares().await.unwrap();
    assert!(newest_first == [pending(2, 3, b""), share(1, 0, b"")]);
    assert_eq!(vault.contents().await.unwrap().shares, 2);
    let tenants = [(Tenant::default(), 1), ("other".parse().unwrap(), 0)];
    for (tenant, count) in tenants {
        assert_eq!(vault.pending(&tenant).await.unwrap(), count);
    }
}

#[tokio::test]
async fn nothing_replaces_a_share_and_later_epochs_come_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path()).await;
    let id = share(1, 0, b"").key_id;
    vault.insert(pending(1, 0, b"0a")).await.unwrap();
    assert!(vault.later_shares(id).await.unwrap().is_empty(), "the first follows none");
    for (epoch, sealed) in [(0, b"0b"), (1, b"1a")] {
        let refused = vault.insert(share(1, epoch, sealed)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict, "epoch {epoch} over a pending one");
    }
    vault.activate(id, 0, vec![7; 128]).await.unwrap();
    let refused = vault.insert(share(1, 0, b"0c")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict, "over an active one");
    // Those of refreshes that broke off stay beside the one that signs.
    for (epoch, sealed) in [(1, b"1a"), (2, b"2a"), (4, b"4a")] {
        vault.insert(pending(1, epoch, sealed)).await.unwrap();
        let refused = vault.insert(pending(1, epoch, b"xx")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict, "epoch {epoch} is there");
    }
    assert!(vault.insert(pending(1, 3, b"3a")).await.is_err(), "a later one is there");
    let active = vault.share(id).await.unwrap().unwrap();
    assert_eq!((active.epoch, active.state), (0, ShareState::Active), "until a later is active");
    assert_eq!(active.confirmations, [7; 128]);
    let later = async || {
        let later = vault.later_shares(id).await.unwrap();
        later.into_iter().map(|share| (share.epoch, share.sealed)).collect::<Vec<_>>()
    };
    let expected = [(1, b"1a".to_vec()), (2, b"2a".to_vec()), (4, b"4a".to_vec())];
    assert_eq!(later().await, expected, "oldest first");
    vault.activate(id, 2, vec![8; 128]).await.unwrap();
    assert_eq!(later().await, expected[2..], "what is later still waits");
    let again = vault.activate(id, 1, Vec::new()).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::Conflict, "what waited before it has ended");
    vault.activate(id, 4, vec![8; 128]).await.unwrap();
    assert!(later().await.is_empty());
    let generation = vault.generation().await.unwrap();
    vault.activate(id, 4, vec![9; 128]).await.unwrap();
    assert!(!vault.discard(id, 7).await.unwrap());
    assert_eq!(vault.generation().await.unwrap(), generation, "nothing has changed");
    let active = vault.share(id).await.unwrap().unwrap();
    assert_eq!((active.epoch, &active.sealed[..]), (4, &b"4a"[..]));
    let again = vault.activate(id, 0, Vec::new()).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::Conflict, "an epoch that has ended stays so");
    assert!(vault.insert(share(1, 0, b"0d")).await.is_err());
}

#[tokio::test]
async fn a_retired_or_discarded_share_leaves_no_trace_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path()).await;
    let (old, new) = (b"sealed-bytes-of-epoch-0".repeat(99), b"sealed-bytes-of-epoch-2".repeat(99));
    vault.insert(share(1, 0, &old)).await.unwrap();
    assert!(holds(folder.path(), b"sealed-bytes-of-epoch-0"));
    let broken_off = b"sealed-bytes-of-a-refresh-that-broke-off".repeat(99);
    vault.insert(pending(1, 1, &broken_off)).await.unwrap();
    vault.insert(pending(1, 2, &new)).await.unwrap();
    let id = share(1, 0, b"").key_id;
    vault.activate(id, 2, Vec::new()).await.unwrap();
    assert!(!holds(folder.path(), b"sealed-bytes-of-epoch-0"));
    assert!(!holds(folder.path(), b"sealed-bytes-of-a-refresh"));
    assert!(holds(folder.path(), b"sealed-bytes-of-epoch-2"));
    assert!(vault.discard(id, 2).await.unwrap());
    assert!(!vault.discard(id, 2).await.unwrap());
    assert!(!holds(folder.path(), b"sealed-bytes-of-epoch-2"));
    drop(vault);
    assert!(open(folder.path()).await.share(id).await.unwrap().is_none());
}

#[tokio::test]
async fn bans_are_kept_by_key_epoch_and_peer_with_their_first_reason() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path()).await;
    for ban in [
        ban(1, 1, "c", "lied"),
        ban(1, 0, "b", "cheated"),
        ban(1, 0, "b", "cheated again"),
        ban(2, 0, "b", "elsewhere"),
    ] {
        vault.ban(ban).await.unwrap();
    }
    assert_eq!(vault.generation().await.unwrap(), 3);
    drop(vault);
    let vault = open(folder.path()).await;
    let bans = vault.bans(share(1, 0, b"").key_id).await.unwrap();
    assert_eq!(bans, [ban(1, 0, "b", "cheated"), ban(1, 1, "c", "lied")]);
    assert!(vault.bans(share(9, 0, b"").key_id).await.unwrap().is_empty());
}

#[tokio::test]
async fn pins_belong_to_a_tenant_or_to_the_operator() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path()).await;
    let (acme, other): (Tenant, Tenant) = ("acme".parse().unwrap(), "other".parse().unwrap());
    let pin = |tenant: Option<&Tenant>, peer: &str, n| Pin {
        tenant: tenant.cloned(),
        peer: party(peer),
        identity: [n; 32],
    };
    assert_eq!(vault.pin(pin(Some(&acme), "b", 1)).await.unwrap(), [1; 32]);
    assert_eq!(vault.pin(pin(Some(&acme), "b", 2)).await.unwrap(), [1; 32]);
    assert_eq!(vault.pin(pin(Some(&other), "b", 3)).await.unwrap(), [3; 32]);
    assert_eq!(vault.pinned(&acme, &party("b")).await.unwrap(), Some([1; 32]));
    assert_eq!(vault.pinned(&acme, &party("c")).await.unwrap(), None);
    vault.pin(pin(None, "b", 4)).await.unwrap();
    drop(vault);
    let vault = open(folder.path()).await;
    assert_eq!(vault.pinned(&acme, &party("b")).await.unwrap(), Some([4; 32]));
    let all = [pin(None, "b", 4), pin(Some(&acme), "b", 1), pin(Some(&other), "b", 3)];
    assert_eq!(vault.pins().await.unwrap(), all);
    assert!(vault.unpin(None, &party("b")).await.unwrap());
    assert!(!vault.unpin(None, &party("b")).await.unwrap());
    assert_eq!(vault.pinned(&other, &party("b")).await.unwrap(), Some([3; 32]));
}

#[tokio::test]
async fn only_a_later_handshake_of_a_peer_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path()).await;
    assert!(vault.witnessed(&[1; 32]).await.unwrap().is_none());
    for (generation, kept) in [(5, 5), (4, 5), (9, 9)] {
        let handshake = Bytes::from(vec![u8::try_from(generation).unwrap()]);
        vault.witness([1; 32], generation, handshake).await.unwrap();
        let (newest, handshake) = vault.witnessed(&[1; 32]).await.unwrap().unwrap();
        assert_eq!((newest, u64::from(handshake[0])), (kept, kept));
    }
    assert_eq!(vault.generation().await.unwrap(), 0, "it is no change of ours");
}

/// A vault with a row in each table.
async fn filled(folder: &Path) {
    let vault = open(folder).await;
    vault.insert(share(1, 0, b"k one")).await.unwrap();
    vault.insert(pending(2, 0, b"k two")).await.unwrap();
    vault.ban(ban(1, 0, "b", "cheated")).await.unwrap();
    vault.ban(ban(2, 0, "b", "cheated")).await.unwrap();
    let pin = Pin { tenant: None, peer: party("b"), identity: [1; 32] };
    vault.pin(pin).await.unwrap();
    vault.witness([1; 32], 7, Bytes::from_static(b"handshake")).await.unwrap();
}

/// What somebody could do to the file who has no key.
const CHANGES: [&str; 16] = [
    "UPDATE shares SET state = 1 - state",
    "UPDATE shares SET epoch = 5 WHERE state = 0",
    "UPDATE shares SET share_index = 2 WHERE state = 0",
    "UPDATE shares SET record = replace(record, 'a', 'b') WHERE state = 1",
    "UPDATE shares SET identities = replace(identities, '2', '3')",
    "UPDATE shares SET execution = zeroblob(32)",
    "UPDATE shares SET confirmations = x'00' WHERE state = 1",
    "UPDATE shares SET sealed_hash = zeroblob(32)",
    "DELETE FROM shares WHERE state = 1",
    "DELETE FROM bans WHERE key_id = (SELECT key_id FROM shares WHERE state = 1)",
    "UPDATE bans SET epoch = 1",
    "UPDATE bans SET evidence = x''",
    "UPDATE pins SET identity = zeroblob(32)",
    "DELETE FROM witnessed",
    "UPDATE head SET generation = generation - 1",
    "UPDATE head SET sum = zeroblob(32)",
];

#[tokio::test]
async fn a_changed_vault_is_refused_until_its_owner_accepts_it() {
    for change in CHANGES {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path()).await;
        let file = Connection::open(folder.path().join("vault.db")).unwrap();
        file.execute_batch(change).unwrap();
        drop(file);
        let refused = unlock(folder.path(), "k", Unlock::default()).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{change}: taken"));
        assert!(refused.message.contains("cannot be trusted"), "{change}: {}", refused.message);
        let accepted = Unlock { accept_rollback: true, ..Unlock::default() };
        let vault = unlock(folder.path(), "k", accepted).await.unwrap();
        assert_eq!(vault.generation().await.unwrap() >> 32, 1, "{change}: beyond all before");
        drop(vault);
        open(folder.path()).await;
    }
}

#[tokio::test]
async fn a_row_of_before_that_is_put_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path()).await;
    vault.insert(pending(1, 0, b"k")).await.unwrap();
    drop(vault);
    let file = Connection::open(folder.path().join("vault.db")).unwrap();
    file.execute_batch("CREATE TABLE copy AS SELECT * FROM shares").unwrap();
    drop(file);
    let vault = open(folder.path()).await;
    vault.activate(share(1, 0, b"").key_id, 0, vec![1; 128]).await.unwrap();
    drop(vault);
    let file = Connection::open(folder.path().join("vault.db")).unwrap();
    file.execute_batch("DELETE FROM shares; INSERT INTO shares SELECT * FROM copy").unwrap();
    drop(file);
    assert!(unlock(folder.path(), "k", Unlock::default()).await.is_err());
}

#[tokio::test]
async fn another_key_does_not_unlock_a_vault() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    for how in [Unlock::default(), Unlock { accept_rollback: true, ..Unlock::default() }] {
        let refused = unlock(folder.path(), "other", how).await.err().unwrap();
        assert!(refused.message.contains("seal key or passphrase"), "{}", refused.message);
    }
    let vault = SqliteVault::open(folder.path()).unwrap();
    assert!(vault.insert(share(3, 0, b"k")).await.is_err(), "it is not unlocked");
}

#[tokio::test]
async fn a_vault_that_is_not_the_one_of_before_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let known = Unlock { known: true, accept_rollback: false };
    let refused = unlock(folder.path(), "k", known).await.err().unwrap();
    assert!(refused.message.contains("--accept-rollback"), "{}", refused.message);
    let accepted = Unlock { known: true, accept_rollback: true };
    let vault = unlock(folder.path(), "k", accepted).await.unwrap();
    assert_eq!(vault.generation().await.unwrap(), 1 << 32);
}

#[tokio::test]
async fn a_damaged_share_is_named_and_the_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let file = Connection::open(folder.path().join("vault.db")).unwrap();
    file.execute_batch("UPDATE shares SET sealed = x'00' WHERE state = 1").unwrap();
    drop(file);
    let vault = open(folder.path()).await;
    let (bad, good) = (share(1, 0, b"").key_id, share(2, 0, b"").key_id);
    let damaged = vault.share(bad).await.err().unwrap();
    assert!(damaged.message.contains(&bad.to_string()), "{}", damaged.message);
    assert!(vault.share(good).await.unwrap().unwrap().sealed == b"k two");
    assert_eq!(vault.shares().await.unwrap().len(), 2);
}

/// A vault as the first version made it.
fn first_version(folder: &Path) {
    let file = Connection::open(folder.join("vault.db")).unwrap();
    file.execute_batch(include_str!("../src/migrations/0001_vault.sql")).unwrap();
    file.pragma_update(None, "user_version", 1).unwrap();
    let old = share(1, 0, b"k old");
    let record = serde_json::to_vec(&old.record).unwrap();
    let identities = serde_json::to_vec(&old.identities).unwrap();
    let id = old.key_id.0.as_bytes();
    file.execute(
        "INSERT INTO shares VALUES (?1, 0, 1, 1, ?2, ?3, ?4)",
        rusqlite::params![id, record, identities, old.sealed],
    )
    .unwrap();
    file.execute("INSERT INTO bans VALUES (?1, 0, 'b', 'cheated', 3)", [id]).unwrap();
    file.execute("INSERT INTO pins VALUES ('b', zeroblob(32))", []).unwrap();
}

#[tokio::test]
async fn a_vault_of_the_first_version_opens_with_all_that_it_held() {
    let folder = tempfile::tempdir().unwrap();
    first_version(folder.path());
    let wrong = unlock(folder.path(), "other", Unlock::default()).await.err().unwrap();
    assert!(wrong.message.contains("seal key or passphrase"), "{}", wrong.message);
    for _ in 0..2 {
        let vault = open(folder.path()).await;
        let old = SealedShare { execution: [0; 32], ..share(1, 0, b"k old") };
        assert!(vault.share(old.key_id).await.unwrap().unwrap() == old);
        let bans = vault.bans(old.key_id).await.unwrap();
        assert_eq!(bans, [Ban { evidence: Vec::new(), ..ban(1, 0, "b", "cheated") }]);
        let pinned = vault.pinned(&Tenant::default(), &party("b")).await.unwrap();
        assert_eq!(pinned, Some([0; 32]));
    }
    let file = Connection::open(folder.path().join("vault.db")).unwrap();
    file.execute_batch("DELETE FROM bans").unwrap();
    drop(file);
    assert!(unlock(folder.path(), "k", Unlock::default()).await.is_err());
}

#[tokio::test]
async fn a_vault_and_a_store_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _vault = open(folder.path()).await;
    assert!(SqliteStore::open(folder.path()).is_err());
}
