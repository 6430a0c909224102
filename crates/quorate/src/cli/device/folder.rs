//! A device's folder: what it is, the room it is in, and the peers of each key.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::peers::{
    DeviceLink, DeviceName, InstanceId, KeyType, MessageSigner, RelaySession, SoftwareSigner,
    VerifyingKey,
};
use quorate_client::{Keyring, SealSource};
use quorate_party::secret_file;
use quorate_store::SqliteVault;
use quorate_types::{Error, ErrorCode, KeyId, Result, Scheme, Threshold};
use serde::{Deserialize, Serialize};

use super::names::Names;
use crate::serve::data::{DataFolder, write_private};

const DEVICE: &str = "device.json";
const ROOM: &str = "room.json";
const SIGNER: &str = "signer.key";

#[derive(Serialize, Deserialize)]
struct Settings {
    key_type: String,
    relay: String,
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<DeviceName>,
}

/// Where a key is made, or was made, and with whom.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::cli) struct PairingRoom {
    relay: String,
    instance: String,
    #[serde(default)]
    scheme: Scheme,
    signers: u16,
    members: Vec<VerifyingKey>,
    /// What the members are called, in their order; empty where none has a name.
    #[serde(default)]
    names: Vec<Option<DeviceName>>,
}

impl PairingRoom {
    pub(in crate::cli) fn new(
        relay: String,
        instance: InstanceId,
        (scheme, signers): (Scheme, u16),
        members: Vec<VerifyingKey>,
        names: Vec<Option<DeviceName>>,
    ) -> Self {
        Self { relay, instance: hex::encode(instance.0), scheme, signers, members, names }
    }

    pub(in crate::cli) fn names(&self) -> Names {
        Names::new(&self.members, &self.names)
    }

    /// Refuses a room that this device is not in, or in which somebody is twice.
    pub(in crate::cli) fn check(&self, own: &VerifyingKey) -> Result<()> {
        if !self.members.contains(own) {
            let why = "this device is not among the members; its own link is in `device show`";
            return Err(Error::invalid_field("link", why));
        }
        let mut members = self.members.clone();
        members.sort_unstable();
        members.dedup();
        if members.len() != self.members.len() {
            return Err(Error::invalid_field(
                "link",
                "you cannot pair a device with itself: a link is given twice",
            ));
        }
        self.threshold().map(drop)
    }

    pub(in crate::cli) fn relay(&self) -> &str {
        &self.relay
    }

    pub(in crate::cli) fn members(&self) -> &[VerifyingKey] {
        &self.members
    }

    pub(in crate::cli) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(in crate::cli) fn threshold(&self) -> Result<Threshold> {
        let all = i64::try_from(self.members.len()).unwrap_or(i64::MAX);
        Threshold::new(self.signers.into(), all)
    }

    pub(in crate::cli) fn instance(&self) -> InstanceId {
        let mut bytes = [0; 32];
        // Written by this program; a damaged one meets nobody.
        let _ = hex::decode_to_slice(&self.instance, &mut bytes);
        InstanceId(bytes)
    }

    pub(in crate::cli) fn link(&self) -> DeviceLink {
        DeviceLink::Room {
            relay: self.relay.clone(),
            instance: self.instance(),
            scheme: self.scheme,
            signers: self.signers,
            members: self.members.clone(),
            names: self.names.clone(),
        }
    }
}

/// A device's folder.
pub(in crate::cli) struct Folder {
    data: DataFolder,
    settings: Settings,
    signer: Arc<SoftwareSigner>,
}

impl Folder {
    /// Makes a device.
    pub(in crate::cli) fn init(
        path: &Path,
        key_type: KeyType,
        relay: &str,
        name: Option<DeviceName>,
    ) -> Result<()> {
        let data = DataFolder::open(path)?;
        if data.file(DEVICE).exists() {
            let why = format!("a device already exists in {}; see `device show`", path.display());
            return Err(Error::invalid_field("folder", why));
        }
        let settings = Settings { key_type: key_type.name().into(), relay: relay.into(), name };
        SoftwareSigner::new(key_type, &secret_file(&data.file(SIGNER))?)?;
        write(&data, DEVICE, &settings)
    }

    /// Opens a device.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self> {
        let missing = || {
            let at = path.display();
            let why = format!("there is no device in {at}; create one with `device init`");
            Error::new(ErrorCode::NotFound, why).with_field("folder")
        };
        let data = DataFolder::existing(path)?.ok_or_else(missing)?;
        let settings: Settings = read(&data, DEVICE)?.ok_or_else(missing)?;
        let secret = secret_file(&data.file(SIGNER))?;
        let signer = Arc::new(SoftwareSigner::new(settings.key_type.parse()?, &secret)?);
        Ok(Self { data, settings, signer })
    }

    pub(in crate::cli) fn relay(&self) -> &str {
        &self.settings.relay
    }

    /// What its user calls the device.
    pub(in crate::cli) fn name(&self) -> Option<&DeviceName> {
        self.settings.name.as_ref()
    }

    /// The device's message signer.
    pub(in crate::cli) fn signer(&self) -> Arc<SoftwareSigner> {
        self.signer.clone()
    }

    pub(in crate::cli) fn verifying_key(&self) -> VerifyingKey {
        self.signer.verifying_key()
    }

    /// The device's shares.
    pub(in crate::cli) async fn keyring(&self) -> Result<Arc<Keyring>> {
        let vault = Arc::new(SqliteVault::open(self.data.path())?);
        let seal = SealSource::KeyFile(self.data.file("seal.key"));
        let (party, identity) = (self.verifying_key().party_id(), self.data.file("identity.key"));
        Keyring::open(party, &identity, seal, vault, false).await.map(Arc::new)
    }

    /// A session over this relay.
    pub(in crate::cli) fn session(
        &self,
        relay: &str,
        keyring: Arc<Keyring>,
        limit: Duration,
    ) -> Result<RelaySession> {
        Ok(RelaySession::new(relay, self.signer.clone(), keyring)?.with_limit(limit))
    }

    /// Enters a room, leaving the one before.
    pub(in crate::cli) fn enter(&self, room: &PairingRoom) -> Result<()> {
        write(&self.data, ROOM, room)
    }

    /// The room this device is in.
    pub(in crate::cli) fn room(&self) -> Result<PairingRoom> {
        read(&self.data, ROOM)?.ok_or_else(|| {
            Error::invalid("this device is not paired: create or join a room with `device pair`")
        })
    }

    /// Keeps who holds a key. The room was for this key: it is left.
    pub(in crate::cli) fn keep_members(&self, key: KeyId, room: &PairingRoom) -> Result<()> {
        write(&self.data, &peers_of(key), room)?;
        let left = std::fs::remove_file(self.data.file(ROOM));
        left.map_err(|error| Error::invalid(format!("the room cannot be left: {error}")))
    }

    /// Who holds a key, and where they met.
    pub(in crate::cli) fn members(&self, key: KeyId) -> Result<PairingRoom> {
        read(&self.data, &peers_of(key))?.ok_or_else(|| {
            let why = "this key was made in a group, not with paired devices: sign with `quorate \
                       group sign`";
            Error::invalid_field("key", why)
        })
    }
}

fn peers_of(key: KeyId) -> String {
    format!("peers-{key}.json")
}

fn write(data: &DataFolder, name: &str, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).expect("plain data");
    write_private(&data.file(name), &text).map_err(|error| {
        Error::invalid(format!("cannot write {}: {error}", data.file(name).display()))
    })
}

fn read<T: serde::de::DeserializeOwned>(data: &DataFolder, name: &str) -> Result<Option<T>> {
    let path = data.file(name);
    let damaged = |why: String| Error::invalid(format!("{} cannot be read: {why}", path.display()));
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(damaged(error.to_string())),
    }
}
