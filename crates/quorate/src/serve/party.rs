//! A server party of this process: its keyring, its link to the router, its own small interface.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_app::HeldKey;
use quorate_app::metrics::{Number, Numbers};
use quorate_client::PartyCredentials;
use quorate_core::policy;
use quorate_front_rest::{PartyInfo, Reasons, party_routes};
use quorate_party::{
    Authority, Compute, Delegate, Keyring, PartyConfig, PartyHandle, PartyServer, PartyStatus,
    SealSource, secret_file,
};
use quorate_ports::Vault as _;
use quorate_ports::vault::{Ban, Pin, SealedShare, ShareState};
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::RemoteRouter;
use quorate_schemes::PackageSecret;
use quorate_store::{SqliteLedger, SqliteVault};
use quorate_types::*;
use quorate_wire::{HeldBanJson, HeldKeyJson, KeyJson};

use super::authority::PartyRules;
use super::compose::{Bound, Host};
use super::data::{DataFolder, read_secret};
use super::endpoints::Pair;
use super::metrics::Metrics;
use super::seat::{RouterAt, SeatProcesses};

/// How the vaults of this process's parties are opened.
#[derive(clap::Args, Clone, Copy, Default)]
pub(crate) struct VaultOptions {
    /// Start with a vault or ledger that was restored from a backup, lost or modified. Bans may be
    /// missing: refresh the party's keys afterwards. Unexpired requests may be accepted a second time
    #[arg(long)]
    accept_rollback: bool,
}

/// A party whose keys are open and which has not started.
pub(crate) struct LocalParty {
    keyring: Arc<Keyring>,
    vault: Arc<SqliteVault>,
    credentials: Arc<PartyCredentials>,
    folder: PathBuf,
    options: VaultOptions,
}

impl LocalParty {
    /// Opens a party's folder: identity, seal key and vault, each made at first start. Without a
    /// file with a passphrase a key file seals the shares.
    pub(crate) async fn prepare(
        folder: &DataFolder,
        id: PartyId,
        passphrase: Option<&Path>,
        options: VaultOptions,
    ) -> Result<Self> {
        let vault = Arc::new(SqliteVault::open(folder.path())?);
        let seal = match passphrase {
            None => SealSource::KeyFile(folder.file("seal.key")),
            Some(path) => SealSource::Passphrase {
                passphrase: read_secret(path, "passphrase")?,
                salt: folder.file("seal.salt"),
            },
        };
        let (name, identity, rows) = (id.clone(), folder.file("identity.key"), vault.clone());
        let keyring = Keyring::open(name, &identity, seal, rows, options.accept_rollback).await?;
        let credentials = Arc::new(PartyCredentials::new(id, keyring.identity().clone()));
        let folder = folder.path().to_owned();
        Ok(Self { keyring: Arc::new(keyring), vault, credentials, folder, options })
    }

    /// The party's name.
    pub(crate) fn id(&self) -> &PartyId {
        self.keyring.party()
    }

    /// The party's public identity key.
    pub(crate) fn identity(&self) -> [u8; 32] {
        self.keyring.identity().public()
    }

    /// Binds names to the identities that the operator says they have, in every tenant's sessions.
    ///
    /// # Errors
    /// `invalid_request` where a name was bound to another identity before.
    pub(crate) async fn pin_peers(&self, peers: HashMap<PartyId, [u8; 32]>) -> Result<()> {
        for (peer, identity) in peers {
            let pin = Pin { tenant: None, peer: peer.clone(), identity };
            if self.vault.pin(pin).await? != identity {
                return Err(Error::invalid(format!(
                    "{} has pinned another identity of {peer}: its folder was replaced; restore \
                     it, or run `quorate party pins drop {peer}` if it has a new one on purpose",
                    self.id()
                )));
            }
        }
        Ok(())
    }

    /// The keys that it can sign with.
    pub(crate) async fn keys(&self) -> Result<Vec<HeldKey>> {
        let active = |share: &SealedShare| share.state == ShareState::Active;
        let shares = self.vault.shares().await?.into_iter().filter(active);
        Ok(shares.map(|share| (share.record.clone(), share.attestation())).collect())
    }

    /// All shares, newest first, each with the bans under its key.
    pub(crate) async fn shares(&self) -> Result<Vec<(SealedShare, Vec<Ban>)>> {
        let mut shares = Vec::new();
        for share in self.vault.shares().await? {
            let bans = self.vault.bans(share.key_id).await?;
            shares.push((share, bans));
        }
        Ok(shares)
    }

    /// Wipes a share. `false` when it is not there.
    pub(crate) async fn discard(&self, key: KeyId, epoch: u32) -> Result<bool> {
        self.vault.discard(key, epoch).await
    }

    /// All pinned identities.
    pub(crate) async fn pins(&self) -> Result<Vec<Pin>> {
        self.vault.pins().await
    }

    /// Forgets a tenant's pin of a name, or all of the name. Answers with how many there were.
    pub(crate) async fn drop_pins(&self, name: &PartyId, tenant: Option<&Tenant>) -> Result<usize> {
        let pins = self.vault.pins().await?.into_iter();
        let meant = |pin: &Pin| {
            pin.peer == *name && tenant.is_none_or(|tenant| pin.tenant.as_ref() == Some(tenant))
        };
        let mut dropped = 0;
        for pin in pins.filter(meant) {
            dropped += usize::from(self.vault.unpin(pin.tenant.as_ref(), name).await?);
        }
        Ok(dropped)
    }

    /// What this party decides by, over its own ledger.
    pub(crate) async fn authority(&self, rules: &PartyRules) -> Result<Arc<Authority>> {
        let (vault, key) = (self.vault.clone(), self.keyring.ledger_key());
        let accept_rollback = self.options.accept_rollback;
        let ledger = SqliteLedger::open(&self.folder, vault, key, accept_rollback).await;
        let ledger = ledger.map_err(|error| Error {
            message: format!("{} cannot start: {}", self.id(), error.message),
            ..error
        })?;
        rules.authority(Arc::new(ledger)).await
    }

    /// What makes it a delegate: its key, made at the first start, and its seats' processes.
    pub(crate) fn delegate(&self, router: RouterAt) -> Result<Delegate> {
        let secret = secret_file(&self.folder.join("delegate.key"))?;
        let key = Arc::new(PackageSecret::from_bytes(Kem::X25519, secret)?);
        let identity = Arc::clone(self.keyring.identity());
        let seats = SeatProcesses::new(router, self.id().clone(), identity, Arc::clone(&key));
        Ok(Delegate { key, seats: Some(Arc::new(seats)), bans: None })
    }

    /// Connects to the router and serves health, readiness and public keys on the bound ports.
    pub(crate) async fn start(
        self,
        host: &Host,
        bound: Bound,
        router: Endpoint,
        compute: Compute,
        delegate: Option<Delegate>,
        authority: Arc<Authority>,
    ) -> Result<(PartyHandle, Pair)> {
        let name = self.id().to_string();
        let router = RemoteRouter::new(router.with_credentials(self.credentials)?);
        let sessions = Arc::new(router.sessions());
        let config = PartyConfig {
            role: if delegate.is_some() { PartyRole::Delegate } else { PartyRole::Persistent },
            delegate,
            grace: Duration::from_secs(host.options.grace),
            authority: Some(authority),
            ..PartyConfig::default()
        };
        let handle =
            PartyServer::start(config, Arc::new(router), sessions, self.keyring.clone(), compute);
        let info = Arc::new(Info { keyring: self.keyring, connected: handle.watch() });
        let rest = party_routes(&name, host.started, info).merge(host.api_key_routes());
        let mut metrics = Metrics::new("server-party");
        let reading = handle.reading();
        metrics.registry().register_collector(Numbers::gauges(GAUGES, reading));
        let services = quorate_front_grpc::Services::default();
        let pair = host.serve(bound, rest, services, metrics).await?;
        Ok((handle, pair))
    }
}

/// What is read of a party when somebody asks.
const GAUGES: &[Number<PartyStatus>] = &[
    ("party_connected", "1 while it can be chosen for sessions", |s| u64::from(s.connected)),
    ("party_sessions", "Sessions that it is in", |status| status.running_sessions as u64),
    ("party_started_sessions", "Those of them that compute", |status| {
        status.started_sessions as u64
    }),
];

/// The parties of one process know each other for certain: nobody can pose as one of them later.
pub(crate) async fn pin_each_other(parties: &[LocalParty]) -> Result<()> {
    let all: HashMap<_, _> = parties.iter().map(|p| (p.id().clone(), p.identity())).collect();
    for party in parties {
        party.pin_peers(all.clone()).await?;
    }
    Ok(())
}

/// A share as its party tells of it.
pub(crate) fn held_key(share: SealedShare, bans: Vec<Ban>) -> HeldKeyJson {
    let ban = |ban: Ban| HeldBanJson {
        party_id: ban.peer,
        epoch: ban.epoch,
        reason: ban.reason,
        at: ban.at,
        signed_messages: ban.evidence.len(),
    };
    HeldKeyJson {
        attestation: share.attestation().map(Into::into),
        key: share.record.into(),
        epoch: share.epoch,
        state: share.state.name().to_owned(),
        bans: bans.into_iter().map(ban).collect(),
    }
}

struct Info {
    keyring: Arc<Keyring>,
    connected: tokio::sync::watch::Receiver<bool>,
}

#[async_trait]
impl PartyInfo for Info {
    async fn keys(&self, caller: &Caller) -> Result<Vec<KeyJson>> {
        let keys = self.keyring.keys().await?.into_iter();
        Ok(keys.filter(|key| policy::sees_key(caller, key)).map(KeyJson::from).collect())
    }

    async fn key(&self, caller: &Caller, key: KeyId) -> Result<HeldKeyJson> {
        let held = self.keyring.held(key).await?;
        let held = held.filter(|(share, _)| policy::sees_key(caller, &share.record));
        let (share, bans) = held.ok_or_else(|| Error::not_found("key", key))?;
        Ok(held_key(share, bans))
    }

    fn unready(&self) -> Reasons {
        match *self.connected.borrow() {
            true => Vec::new(),
            false => vec!["not connected to the router; trying again".into()],
        }
    }
}
