//! A user's folder: who it is, the keygens whose share it has yet to fetch, and its keys.
//!
//! ```text
//! user.json            name, and the kind of its seal key
//! package.key          the private half of that key
//! pending/SESSION.json a keygen with its fetch token
//! keys/KEY/            a holder's folder: identity, seal key, vault
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use quorate_client::{Keyring, SealSource};
use quorate_engine::Package;
use quorate_party::{Compute, make_secret_file, secret_file};
use quorate_schemes::{PackageSecret, Purpose, Seat};
use quorate_store::SqliteVault;
use quorate_types::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::serve::data::{DataFolder, write_private};

const VERSION: u32 = 1;
const USER: &str = "user.json";
const SECRET: &str = "package.key";
const PENDING: &str = "pending";
const KEYS: &str = "keys";

#[derive(Serialize, Deserialize)]
struct Settings {
    version: u32,
    name: PartyId,
    kem: Kem,
}

/// A keygen whose share waits for this user.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    version: u32,
    pub(super) session_id: SessionId,
    pub(super) delegate: PartyId,
    pub(super) scheme: Scheme,
    /// The token with which the share is fetched.
    token: String,
}

impl Pending {
    pub(super) fn new(
        session_id: SessionId,
        delegate: PartyId,
        scheme: Scheme,
        token: &FetchToken,
    ) -> Self {
        Self { version: VERSION, session_id, delegate, scheme, token: token.expose().clone() }
    }

    pub(super) fn asked(&self) -> FetchShare {
        let token = Secret::new(self.token.clone());
        FetchShare { session_id: self.session_id, party_id: self.delegate.clone(), token }
    }

    fn file(session: SessionId) -> String {
        format!("{session}.json")
    }
}

/// A user's folder.
pub(super) struct Folder {
    data: DataFolder,
    settings: Settings,
    secret: PackageSecret,
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::invalid_field("folder", format!("cannot use {}: {error}", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(|error| unusable(path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| unusable(path, error))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|_| Error::internal())?;
    write_private(path, &bytes).map_err(|error| unusable(path, error))
}

impl Folder {
    /// Makes a user.
    pub(super) fn init(path: &Path, name: PartyId, kem: Kem) -> Result<Self> {
        let data = DataFolder::open(path)?;
        if data.file(USER).exists() {
            let why = format!("a user already exists in {}", path.display());
            return Err(Error::invalid_field("folder", why));
        }
        let secret = PackageSecret::generate(kem);
        let file = data.file(SECRET);
        make_secret_file(&file, secret.bytes().expose()).map_err(|error| unusable(&file, error))?;
        let settings = Settings { version: VERSION, name, kem };
        write(&data.file(USER), &settings)?;
        Ok(Self { data, settings, secret })
    }

    /// Opens a user's folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if !path.join(USER).exists() {
            let why = format!(
                "there is no user in {}; create one with `quorate user init`",
                path.display()
            );
            return Err(Error::new(ErrorCode::NotFound, why).with_field("folder"));
        }
        let data = DataFolder::open(path)?;
        let settings: Settings = read(&data.file(USER))?;
        if settings.version > VERSION {
            return Err(unusable(path, "a newer program has made it"));
        }
        let secret = PackageSecret::from_bytes(settings.kem, secret_file(&data.file(SECRET))?)?;
        Ok(Self { data, settings, secret })
    }

    /// Its name among the holders of its keys.
    pub(super) fn name(&self) -> &PartyId {
        &self.settings.name
    }

    /// The key to which its packages are sealed.
    pub(super) fn seal_key(&self) -> Result<PackageKey> {
        self.secret.public()
    }

    /// Notes a keygen, before its share is there.
    pub(super) fn expect(&self, pending: &Pending) -> Result<()> {
        write(&self.data.part(PENDING)?.file(&Pending::file(pending.session_id)), pending)
    }

    /// The keygens whose shares have yet to be fetched.
    pub(super) fn pending(&self) -> Result<Vec<Pending>> {
        let folder = self.data.part(PENDING)?;
        let files = fs::read_dir(folder.path()).map_err(|error| unusable(folder.path(), error))?;
        let paths = files.flatten().map(|file| file.path());
        let documents = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        documents.map(|path| read(&path)).collect()
    }

    /// Forgets a keygen whose share is here and confirmed, or will not come.
    pub(super) fn settle(&self, session: SessionId) -> Result<()> {
        let path = self.data.part(PENDING)?.file(&Pending::file(session));
        fs::remove_file(&path).map_err(|error| unusable(&path, error))
    }

    /// Opens a share that was fetched, and keeps it. Again: no change.
    pub(super) async fn keep(
        &self,
        pending: &Pending,
        share: &DelegatedShare,
    ) -> Result<KeyRecord> {
        if share.session_id != pending.session_id || share.user_id != *self.name() {
            let why = "the coordinator gave another share than was asked for";
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        let seat = Seat {
            key_id: pending.session_id.into(),
            epoch: 0,
            holder: self.name(),
            index: share.party_index,
            scheme: pending.scheme,
        };
        let associated = seat.associated_data(pending.session_id);
        let plain = self.secret.open(Purpose::ToUser, &associated, &share.package);
        let plain = plain.ok_or_else(|| {
            let why = "this share does not open: it was sealed to another key, or for another seat";
            Error::invalid_field("share", why)
        })?;
        let package = Package::decode(&plain)?;
        let record = package.holding.record();
        let key = record.key_id;
        if key != seat.key_id {
            return Err(Error::invalid_field("share", "this is the share of another key"));
        }
        let folder = self.data.part(KEYS)?.part(&key.to_string())?;
        let identity = folder.file("identity.key");
        if !identity.exists() {
            make_secret_file(&identity, package.identity.secret().expose())
                .map_err(|error| unusable(&identity, error))?;
        }
        let keyring = self.keyring(key).await?;
        if keyring.held(key).await?.is_some() {
            return Ok(record);
        }
        keyring.receive(package, &Compute::default()).await
    }

    /// The keys that this user holds a share of.
    pub(super) fn keys(&self) -> Result<Vec<KeyId>> {
        let folder = self.data.part(KEYS)?;
        let files = fs::read_dir(folder.path()).map_err(|error| unusable(folder.path(), error))?;
        let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// The user as the holder of one of its keys.
    pub(super) async fn keyring(&self, key: KeyId) -> Result<Arc<Keyring>> {
        let folder = self.data.part(KEYS)?.part(&key.to_string())?;
        let vault = Arc::new(SqliteVault::open(folder.path())?);
        let seal = SealSource::KeyFile(folder.file("seal.key"));
        let identity = folder.file("identity.key");
        let keyring = Keyring::open(self.name().clone(), &identity, seal, vault, false).await?;
        Ok(Arc::new(keyring))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice");
        assert!(Folder::open(&path).is_err());
        for &kem in Kem::ALL {
            let path = path.join(kem.name());
            let made = Folder::init(&path, "alice".parse().unwrap(), kem).unwrap();
            let again = Folder::open(&path).unwrap();
            assert_eq!(again.name().as_str(), "alice");
            assert_eq!(again.seal_key().unwrap(), made.seal_key().unwrap());
            let refused = Folder::init(&path, "bob".parse().unwrap(), kem).err().unwrap();
            assert!(refused.details.fields.contains_key("folder"));
        }
    }

    #[test]
    fn a_keygen_is_noted_until_it_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let user = Folder::init(folder.path(), "alice".parse().unwrap(), Kem::X25519).unwrap();
        let session = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let token = Secret::new("token".to_owned());
        let delegate: PartyId = "delegate".parse().unwrap();
        user.expect(&Pending::new(session, delegate, Scheme::Ed25519, &token)).unwrap();
        let again = Folder::open(folder.path()).unwrap();
        let [pending] = <[Pending; 1]>::try_from(again.pending().unwrap()).ok().unwrap();
        assert_eq!(
            (pending.session_id, pending.asked().token.expose().as_str()),
            (session, "token")
        );
        user.settle(session).unwrap();
        assert!(again.pending().unwrap().is_empty());
        assert!(again.keys().unwrap().is_empty());
    }
}
