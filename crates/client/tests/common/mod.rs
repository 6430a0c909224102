//! Devices with their keys, and what they agree to.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::sync::Arc;
use std::time::Duration;

use quorate_client::peers::{
    KeyType, MessageHash, MessageSigner, Observer, SigningRequest, SoftwareSigner, VerifyingKey,
};
use quorate_client::{Keyring, MemoryVault, SealSource};
use quorate_types::Secret;
use tempfile::TempDir;

/// No run takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A device that no relay knows yet.
pub(crate) struct Identity {
    pub(crate) signer: Arc<SoftwareSigner>,
    pub(crate) key: VerifyingKey,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) folder: TempDir,
}

pub(crate) async fn identity(key_type: KeyType, seed: u8) -> Identity {
    let signer = Arc::new(SoftwareSigner::new(key_type, &Secret::new([seed; 32])).unwrap());
    let key = signer.verifying_key();
    let folder = tempfile::tempdir().unwrap();
    let seal = SealSource::KeyFile(folder.path().join("seal"));
    let identity = folder.path().join("identity");
    let vault = Arc::new(MemoryVault::default());
    let keyring = Keyring::open(key.party_id(), &identity, seal, vault, false).await.unwrap();
    Identity { signer, key, keyring: Arc::new(keyring), folder }
}

pub(crate) fn yes<'a>() -> Observer<'a> {
    Observer { approve: Box::new(|_, _| true), ..Observer::default() }
}

pub(crate) fn request() -> SigningRequest {
    SigningRequest::new(b"pay 1 to bob".to_vec(), MessageHash::Keccak256).unwrap()
}
