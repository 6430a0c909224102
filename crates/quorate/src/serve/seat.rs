//! A delegate's seats, each in a child process that ends with its session: so does its memory.
//!
//! The child is this program again. It reads its errand from the first line of standard input as JSON
//! and takes part by the delegate's own proofs. A ban that it finds is a line on standard output, which
//! a line on standard input answers once it is on the delegate's disk; the last thing it says is why it
//! could not take part.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use quorate_client::{MemoryVault, PartyCredentials};
use quorate_engine::{Identity, SealKey};
use quorate_party::{
    Backoff, Compute, Delegate, Errand, KeepBan, Keyring, Party, SeatHost, Worker, follow,
    secret_seed, take_part,
};
use quorate_ports::vault::{Ban, Pin};
use quorate_ports::{Deliver, TakePart, Vault};
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::RemoteRouter;
use quorate_schemes::PackageSecret;
use quorate_types::*;
use quorate_wire::{AuthorizationJson, Base64Text, ErrorJson, LentShareJson};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::process::keep_memory_private;

/// Seats at once: each child has two of the 32 streams that the router lets a party have.
const SEATS: usize = 12;
/// Longest errand read, in bytes: a request, some hundred pins, a lent share and bans.
const MAX_ERRAND: u64 = 4 << 20;
/// Most bytes read of what a child says: bans with the messages that prove them.
const MAX_SAID: u64 = 64 << 20;

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
    bans: Vec<BanDocument>,
}

/// A ban as it is written.
#[derive(Serialize, Deserialize)]
struct BanDocument {
    key_id: KeyId,
    epoch: u32,
    peer: PartyId,
    reason: String,
    at: Timestamp,
    evidence: Vec<Base64Text>,
}

impl From<Ban> for BanDocument {
    fn from(Ban { key_id, epoch, peer, reason, at, evidence }: Ban) -> Self {
        let evidence = evidence.into_iter().map(Base64Text).collect();
        Self { key_id, epoch, peer, reason, at, evidence }
    }
}

impl From<BanDocument> for Ban {
    fn from(document: BanDocument) -> Self {
        let BanDocument { key_id, epoch, peer, reason, at, evidence } = document;
        let evidence = evidence.into_iter().map(|text| text.0).collect();
        Self { key_id, epoch, peer, reason, at, evidence }
    }
}

/// What a child says before its end.
#[derive(Serialize, Deserialize)]
struct Found {
    ban: BanDocument,
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
    async fn take(&self, errand: Errand, vault: &dyn Vault) -> Result<()> {
        let _place = self.places.acquire().await.map_err(broken)?;
        let Errand { session, attempt, token, authorization, lent, pins, bans } = errand;
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
            bans: bans.into_iter().map(Into::into).collect(),
        };
        let mut document = Zeroizing::new(serde_json::to_vec(&document).map_err(broken)?);
        document.push(b'\n');
        let mut child = Command::new(std::env::current_exe().map_err(broken)?)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        let mut stdin = child.stdin.take().ok_or_else(Error::internal)?;
        stdin.write_all(&document).await.map_err(broken)?;
        let said = child.stdout.take().ok_or_else(Error::internal)?;
        let mut said = BufReader::new(said.take(MAX_SAID));
        let (mut line, mut last) = (String::new(), String::new());
        while said.read_line(&mut line).await.map_err(broken)? > 0 {
            match serde_json::from_str::<Found>(&line) {
                Ok(Found { ban }) => {
                    keep(vault, ban.into()).await;
                    stdin.write_all(b"kept\n").await.map_err(broken)?;
                }
                Err(_) => last.push_str(&line),
            }
            line.clear();
        }
        let status = child.wait().await.map_err(broken)?;
        if status.success() {
            return Ok(());
        }
        match serde_json::from_str::<ErrorJson>(&last) {
            Ok(error) => Err(error.into()),
            Err(_) => Err(broken(status)),
        }
    }
}

/// Writes a ban, trying again for as long as the vault fails: the child waits and tells nothing.
async fn keep(vault: &dyn Vault, ban: Ban) {
    let mut backoff = Backoff::default();
    while let Err(error) = vault.ban(ban.clone()).await {
        tracing::error!(%error, "a ban that was found in a seat could not be stored");
        backoff.pause().await;
    }
}

/// The bans that a child hands to its delegate, one after the other.
struct HandOver(mpsc::Sender<(Ban, oneshot::Sender<()>)>);

#[async_trait]
impl KeepBan for HandOver {
    async fn keep(&self, ban: Ban) -> Result<()> {
        let gone = || Error::unavailable("the delegate's process is gone");
        let (kept, done) = oneshot::channel();
        self.0.send((ban, kept)).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())
    }
}

/// Says each ban on standard output and waits for the line that answers it. Ends when the delegate
/// has gone.
async fn hand_over(
    mut bans: mpsc::Receiver<(Ban, oneshot::Sender<()>)>,
    mut answers: mpsc::Receiver<()>,
) {
    while let Some((ban, kept)) = bans.recv().await {
        let Ok(mut line) = serde_json::to_vec(&Found { ban: ban.into() }) else { return };
        line.push(b'\n');
        let say = move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&line).and_then(|()| out.flush())
        };
        let said = tokio::task::spawn_blocking(say).await;
        if !matches!(said, Ok(Ok(()))) || answers.recv().await.is_none() {
            return;
        }
        let _ = kept.send(());
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
    std::io::stdin().lock().take(MAX_ERRAND).read_until(b'\n', &mut bytes).map_err(broken)?;
    let (answered, answers) = mpsc::channel(1);
    // A thread of its own, which does not keep the process from ending.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || answered.blocking_send(()).is_err() {
                return;
            }
        }
    });
    let (found, bans_found) = mpsc::channel(1);
    let handing_over = AbortOnDropHandle::new(tokio::spawn(hand_over(bans_found, answers)));
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|_| Error::invalid("no errand was given"))?;
    let Document { router, party: id, identity, session, attempt, token, authorization, .. } =
        document;
    let Document { key, lent, pins, bans, .. } = document;
    let identity = Identity::from_secret(&Secret::new(*identity));
    let key = PackageSecret::from_bytes(Kem::X25519, Secret::new(*key))?;
    let vault = Arc::new(MemoryVault::default());
    for (peer, identity) in pins {
        vault.pin(Pin { tenant: None, peer, identity }).await?;
    }
    for ban in bans {
        vault.ban(ban.into()).await?;
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
        delegate: Some(Delegate {
            key: Arc::new(key),
            seats: None,
            bans: Some(Arc::new(HandOver(found))),
        }),
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
    drop(handing_over);
    tracing::info!(%session, status = ended.status.name(), "the seat's session has ended");
    Ok(())
}
