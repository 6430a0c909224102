//! A delegate's seats, each in a child process that ends with its session: so does its memory.
//!
//! The child is this program again. It reads its errand from standard input as JSON, takes part by
//! the delegate's own proofs, and says on standard output when it could not.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use quorate_client::{MemoryVault, PartyCredentials};
use quorate_engine::{Identity, SealKey};
use quorate_party::{
    Compute, Delegate, Errand, Keyring, Party, SeatHost, Worker, follow, secret_seed, take_part,
};
use quorate_ports::vault::Pin;
use quorate_ports::{Deliver, TakePart, Vault as _};
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::RemoteRouter;
use quorate_schemes::PackageSecret;
use quorate_types::*;
use quorate_wire::{AuthorizationJson, ErrorJson, LentShareJson};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::process::keep_memory_private;

/// Seats at once: each child has two of the 32 streams that the router lets a party have.
const SEATS: usize = 12;
/// Longest errand read, in bytes: a request, some hundred pins and a lent share in Base64.
const MAX_ERRAND: u64 = 3 << 20;

/// The command of the child.
pub(crate) const COMMAND: &str = "seat";

/// Where the router is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RouterAt {
    pub(crate) url: String,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) insecure: bool,
}

impl RouterAt {
    fn endpoint(&self) -> Result<Endpoint> {
        super::peers::endpoint(&self.url, None, self.tls_ca.as_deref(), self.insecure)
    }
}

/// An errand as it is written; it holds the delegate's identity and the key to what it is lent.
#[derive(Serialize, Deserialize)]
struct Document {
    router: RouterAt,
    party: PartyId,
    identity: Zeroizing<[u8; 32]>,
    session: SessionId,
    attempt: u32,
    token: Zeroizing<String>,
    authorization: Option<AuthorizationJson>,
    key: Zeroizing<[u8; 32]>,
    lent: Option<LentShareJson>,
    pins: Vec<(PartyId, [u8; 32])>,
}

/// Starts a child for each seat.
pub(crate) struct SeatProcesses {
    router: RouterAt,
    party: PartyId,
    identity: Arc<Identity>,
    key: Arc<PackageSecret>,
    places: Semaphore,
}

fn broken(error: impl std::fmt::Display) -> Error {
    tracing::error!(%error, "the process of a seat");
    Error::internal()
}

impl SeatProcesses {
    /// For a delegate's seats at this router.
    pub(crate) fn new(
        router: RouterAt,
        party: PartyId,
        identity: Arc<Identity>,
        key: Arc<PackageSecret>,
    ) -> Self {
        Self { router, party, identity, key, places: Semaphore::new(SEATS) }
    }
}

#[async_trait]
impl SeatHost for SeatProcesses {
    async fn take(&self, errand: Errand) -> Result<()> {
        let _place = self.places.acquire().await.map_err(broken)?;
        let Errand { session, attempt, token, authorization, lent, pins } = errand;
        let document = Document {
            router: self.router.clone(),
            party: self.party.clone(),
            identity: Zeroizing::new(*self.identity.secret().expose()),
            session,
            attempt,
            token: Zeroizing::new(token.expose().clone()),
            authorization: authorization.map(Into::into),
            key: Zeroizing::new(*self.key.bytes().expose()),
            lent: lent.map(Into::into),
            pins: pins.into_iter().map(|pin| (pin.peer, pin.identity)).collect(),
        };
        let document = Zeroizing::new(serde_json::to_vec(&document).map_err(broken)?);
        let mut child = Command::new(std::env::current_exe().map_err(broken)?)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        let mut stdin = child.stdin.take().ok_or_else(Error::internal)?;
        stdin.write_all(&document).await.map_err(broken)?;
        drop(stdin);
        let output = child.wait_with_output().await.map_err(broken)?;
        if output.status.success() {
            return Ok(());
        }
        match serde_json::from_slice::<ErrorJson>(&output.stdout) {
            Ok(error) => Err(error.into()),
            Err(_) => Err(broken(output.status)),
        }
    }
}

/// The child: takes the seat that standard input names.
///
/// # Errors
/// When it could not take part, or could not learn how the session ended.
pub(crate) async fn run() -> Result<()> {
    keep_memory_private()?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ERRAND as usize));
    // Nothing else happens meanwhile.
    std::io::stdin().take(MAX_ERRAND).read_to_end(&mut bytes).map_err(broken)?;
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|_| Error::invalid("no errand was given"))?;
    let Document { router, party: id, identity, session, attempt, token, authorization, .. } =
        document;
    let Document { key, lent, pins, .. } = document;
    let identity = Identity::from_secret(&Secret::new(*identity));
    let key = PackageSecret::from_bytes(Kem::X25519, Secret::new(*key))?;
    let vault = Arc::new(MemoryVault::default());
    for (peer, identity) in pins {
        vault.pin(Pin { tenant: None, peer, identity }).await?;
    }
    let seal = SealKey::from_bytes(secret_seed()?);
    let keyring = Arc::new(Keyring::new(id.clone(), identity, seal, vault));
    let credentials = PartyCredentials::new(id.clone(), Arc::clone(keyring.identity()));
    let router = RemoteRouter::new(router.endpoint()?.with_credentials(Arc::new(credentials))?);
    let coordinator: Arc<dyn TakePart> = Arc::new(router.sessions());
    let router: Arc<dyn Deliver> = Arc::new(router);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let party = Party {
        worker: Worker { keyring, compute: Compute::default() },
        router,
        coordinator,
        device: DeviceInfo {
            device_type: "delegate".to_owned(),
            platform: std::env::consts::OS.to_owned(),
            app_version: version,
            ..DeviceInfo::default()
        },
        authority: None,
        delegate: Some(Delegate { key: Arc::new(key), seats: None }),
        allowed: authorization.map(TryInto::try_into).transpose()?,
    };
    let (mut feed, _following) = follow(&party.router, &party.coordinator, &id, session, attempt);
    feed.lent = lent.map(Into::into);
    // The seat is known once the session is.
    let mut views = feed.views.clone();
    views
        .wait_for(Option::is_some)
        .await
        .map_err(|_| Error::unavailable("how the session stands could not be learned"))?;
    let token = Secret::new(token.to_string());
    let ended = take_part(&party, session, token, feed).await?;
    tracing::info!(%session, status = ended.status.name(), "the seat's session has ended");
    Ok(())
}
