//! Pins and files, without cryptography of the threshold kind.

use quorate_engine::{Identity, SealKey};

use super::*;
use crate::MemoryVault;

fn keyring(vault: &Arc<MemoryVault>) -> Keyring {
    let seal = SealKey::from_bytes(Secret::new([1; 32]));
    Keyring::new("me".parse().unwrap(), Identity::generate(), seal, vault.clone())
}

#[tokio::test]
async fn a_peer_is_pinned_at_first_sight_and_for_good() {
    let vault = Arc::new(MemoryVault::default());
    let first = keyring(&vault);
    let peer = "peer".parse().unwrap();
    first.check_pin(&peer, [1; 32]).await.unwrap();
    first.check_pin(&peer, [1; 32]).await.unwrap();
    // The pin is the vault's, not this keyring's.
    for keyring in [&first, &keyring(&vault)] {
        let error = keyring.check_pin(&peer, [2; 32]).await.unwrap_err();
        assert_eq!(error.details.blame.unwrap().party_id, peer);
    }
    first.check_pin(&peer, [1; 32]).await.unwrap();
}

#[tokio::test]
async fn pins_hold_after_the_memory_was_cleared() {
    let keyring = keyring(&Arc::default());
    for number in 0..=PINS_LEN {
        keyring.check_pin(&format!("p{number}").parse().unwrap(), [1; 32]).await.unwrap();
    }
    assert!(keyring.memory().pins.len() <= PINS_LEN);
    assert!(keyring.check_pin(&"p0".parse().unwrap(), [2; 32]).await.is_err());
}

#[tokio::test]
async fn an_identity_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || async {
        let seal = SealSource::KeyFile(folder.path().join("seal.key"));
        let vault: Arc<MemoryVault> = Arc::default();
        let identity = folder.path().join("identity.key");
        Keyring::open("me".parse().unwrap(), &identity, seal, vault).await.unwrap()
    };
    assert_eq!(open().await.identity().public(), open().await.identity().public());
}

#[tokio::test]
async fn a_key_nobody_gave_us_is_none() {
    let keyring = keyring(&Arc::default());
    let key = KeyId(uuid::Uuid::nil());
    assert!(keyring.key(key, &Compute::new(1)).await.unwrap().is_none());
    assert!(keyring.keys().await.unwrap().is_empty());
}
