//! Pins and files, without cryptography of the threshold kind.

use quorate_engine::{Identity, SealKey};
use quorate_participant::Witness;
use quorate_ports::vault::Pin;

use super::*;
use crate::MemoryVault;

fn keyring(vault: &Arc<MemoryVault>) -> Keyring {
    let seal = SealKey::from_bytes(Secret::new([1; 32]));
    Keyring::new("me".parse().unwrap(), Identity::generate(), seal, vault.clone())
}

fn tenant(name: &str) -> Tenant {
    name.parse().unwrap()
}

/// Whether a name may show this identity.
async fn fits(keyring: &Keyring, tenant: &Tenant, peer: &PartyId, identity: [u8; 32]) -> bool {
    let pinned = keyring.pinned(tenant, peer).await.unwrap();
    pinned.is_none_or(|pinned| pinned == identity)
}

#[tokio::test]
async fn a_name_is_pinned_by_a_key_that_was_made_and_not_by_a_look() {
    let vault = Arc::new(MemoryVault::default());
    let first = keyring(&vault);
    let (acme, peer): (_, PartyId) = (tenant("acme"), "peer".parse().unwrap());
    assert!(fits(&first, &acme, &peer, [1; 32]).await);
    assert!(fits(&first, &acme, &peer, [2; 32]).await);
    assert_eq!(first.pin(&acme, peer.clone(), [3; 32]).await.unwrap(), [3; 32]);
    // The pin is the vault's, not this keyring's.
    for keyring in [&first, &keyring(&vault)] {
        assert!(!fits(keyring, &acme, &peer, [2; 32]).await);
        assert_eq!(keyring.pin(&acme, peer.clone(), [2; 32]).await.unwrap(), [3; 32]);
        assert!(fits(keyring, &acme, &peer, [3; 32]).await);
    }
}

#[tokio::test]
async fn a_name_of_one_tenant_is_free_in_another() {
    let keyring = keyring(&Arc::default());
    let phone: PartyId = "alice-phone".parse().unwrap();
    let (acme, evil) = (tenant("acme"), tenant("evil"));
    keyring.pin(&evil, phone.clone(), [1; 32]).await.unwrap();
    assert!(fits(&keyring, &acme, &phone, [2; 32]).await);
    assert_eq!(keyring.pin(&acme, phone.clone(), [2; 32]).await.unwrap(), [2; 32]);
    assert!(!fits(&keyring, &evil, &phone, [2; 32]).await);
}

#[tokio::test]
async fn the_operators_pin_holds_for_every_tenant() {
    let vault = Arc::new(MemoryVault::default());
    let keyring = keyring(&vault);
    let (acme, peer): (_, PartyId) = (tenant("acme"), "server-party-2".parse().unwrap());
    vault.pin(Pin { tenant: None, peer: peer.clone(), identity: [1; 32] }).await.unwrap();
    assert!(!fits(&keyring, &acme, &peer, [2; 32]).await);
    assert_eq!(keyring.pin(&acme, peer, [1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(vault.pins().await.unwrap().len(), 1, "it needs no second pin");
}

#[tokio::test]
async fn pins_hold_after_the_memory_was_cleared() {
    let (keyring, acme) = (keyring(&Arc::default()), tenant("acme"));
    for number in 0..=PINS_LEN {
        let name: PartyId = format!("p{number}").parse().unwrap();
        keyring.pin(&acme, name.clone(), [1; 32]).await.unwrap();
        assert!(fits(&keyring, &acme, &name, [1; 32]).await);
    }
    assert!(keyring.memory().pins.len() <= PINS_LEN);
    assert!(!fits(&keyring, &acme, &"p0".parse().unwrap(), [2; 32]).await);
}

#[tokio::test]
async fn an_identity_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || async {
        let seal = SealSource::KeyFile(folder.path().join("seal.key"));
        let vault: Arc<MemoryVault> = Arc::default();
        let identity = folder.path().join("identity.key");
        Keyring::open("me".parse().unwrap(), &identity, seal, vault, false).await.unwrap()
    };
    assert_eq!(open().await.identity().public(), open().await.identity().public());
}

/// A party's folder, as `Keyring::open` finds it.
struct Folder {
    files: tempfile::TempDir,
    vault: Arc<MemoryVault>,
}

impl Folder {
    fn new() -> Self {
        Self { files: tempfile::tempdir().unwrap(), vault: Arc::default() }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.files.path().join(name)
    }

    async fn open(&self, name: &str) -> Result<Keyring> {
        let seal = SealSource::KeyFile(self.file("seal.key"));
        let identity = self.file("identity.key");
        Keyring::open(name.parse().unwrap(), &identity, seal, self.vault.clone(), false).await
    }
}

#[tokio::test]
async fn an_identity_is_sealed_for_its_party_and_an_old_one_becomes_so() {
    let folder = Folder::new();
    std::fs::write(folder.file("identity.key"), [5; 32]).unwrap();
    set_mode(&folder.file("identity.key"), 0o600);
    let public = Identity::from_secret(&Secret::new([5; 32])).public();
    let old = std::fs::File::open(folder.file("identity.key")).unwrap();
    for _ in 0..2 {
        assert_eq!(folder.open("me").await.unwrap().identity().public(), public);
    }
    let sealed = std::fs::read(folder.file("identity.key")).unwrap();
    assert!(!sealed.windows(32).any(|window| window == [5; 32]));
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &old, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 32], "the file of before is overwritten");
    let error = folder.open("another").await.err().unwrap();
    assert!(error.message.contains("another party"), "{error}");
    for at in [0, 20, sealed.len() - 1] {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        std::fs::write(folder.file("identity.key"), &bad).unwrap();
        assert!(folder.open("me").await.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn a_lost_seal_key_is_named_and_not_replaced() {
    let folder = Folder::new();
    folder.open("me").await.unwrap();
    std::fs::remove_file(folder.file("seal.key")).unwrap();
    let error = folder.open("me").await.err().unwrap();
    for part in ["me cannot start", "seal.key", "is missing", "from a backup"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(!folder.file("seal.key").exists());
}

#[tokio::test]
async fn a_new_party_needs_a_passphrase_of_ten_bytes() {
    let folder = Folder::new();
    let open = async |passphrase: &str| {
        let passphrase = Secret::new(passphrase.to_owned());
        let seal = SealSource::Passphrase { passphrase, salt: folder.file("salt") };
        let identity = folder.file("identity.key");
        Keyring::open("me".parse().unwrap(), &identity, seal, folder.vault.clone(), false).await
    };
    let error = open("too short").await.err().unwrap();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(!folder.file("salt").exists(), "nothing was made");
    open("long enough").await.unwrap();
    assert!(open("wrong enough").await.is_err());
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_key_nobody_gave_us_is_none() {
    let keyring = keyring(&Arc::default());
    let key = KeyId(uuid::Uuid::nil());
    assert!(keyring.key(key, &Compute::new(1, 1)).await.unwrap().is_none());
    assert!(keyring.keys().await.unwrap().is_empty());
}

#[tokio::test]
async fn how_far_a_peers_vault_has_come_is_known_after_a_restart() {
    let vault = Arc::new(MemoryVault::default());
    let (peer, session) = ("peer".parse().unwrap(), SessionId(uuid::Uuid::nil()));
    let first = keyring(&vault);
    let identity = [1; 32];
    for generation in [5, 7] {
        let standing = (generation, [1; 16]);
        let shown = Shown { generation, process: [1; 16], ..Shown::default() };
        let made = quorate_engine::make_handshake(&Identity::generate(), session, &peer, &shown);
        let witness = Witness { identity, standing, handshake: Some(made.0) };
        first.witness(witness).await.unwrap();
    }
    for keyring in [&first, &keyring(&vault)] {
        assert_eq!(keyring.witnessed(identity).await.unwrap(), (7, [1; 16]));
        assert_eq!(keyring.witnessed([2; 32]).await.unwrap(), (0, [0; 16]));
    }
    first.witness(Witness { identity, standing: (7, [2; 16]), handshake: None }).await.unwrap();
    assert_eq!(first.witnessed(identity).await.unwrap(), (7, [2; 16]));
}
