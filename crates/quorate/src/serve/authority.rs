//! Who may have a server party sign: initiators pinned on its command line and in its policy, and
//! on loopback a local one that is made at first start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_app::{Clock as _, SystemClock};
use quorate_authority::{AuthoritySecret, Initiators, Policy, read_public_key};
use quorate_party::{Authority, AuthorityParts, Rules, make_secret_file, secret_seed};
use quorate_ports::Ledger;
use quorate_types::{AuthorityKey, Error, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::callback::HttpCallback;
use super::data::read_secret;
use super::link::default_path;
use super::options::ServeOptions;

/// The name under which parties know the initiator that is made on loopback.
const LOCAL: &str = "local";

/// The file of the local initiator's key.
const LOCAL_FILE: &str = "initiator.pem";

/// Whom a server party lets ask.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct AuthorityOptions {
    /// An initiator whose requests the server parties accept: NAME=KEY. KEY is ed25519:HEX, p256:HEX
    /// or a file with a PEM or JWK. Give it once per initiator [default on loopback: the local
    /// initiator, created at first start]
    #[arg(long = "initiator", value_name = "NAME=KEY")]
    initiator: Vec<String>,
    /// File with the policy of the server parties, TOML; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// Who signs requests that come unsigned.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct ServiceInitiator {
    /// File with the private key, PEM or JWK, with which the coordinator signs unsigned requests.
    /// Server parties that accept it trust the coordinator with what is signed [default on loopback:
    /// the local initiator; elsewhere: none]
    #[arg(long = "service-initiator", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ServiceInitiator {
    /// The key, if there is one; `local` is where the one of this machine lies.
    pub(crate) fn open(&self, local: Option<&Path>) -> Result<Option<Arc<AuthoritySecret>>> {
        match (&self.file, local) {
            (Some(path), _) => read_initiator(path).map(Arc::new).map(Some),
            (None, Some(local)) => find_or_make(local).map(Arc::new).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Where the local initiator of roles apart lies: where the user's roles find their link secret,
/// whichever they are given, on loopback only.
pub(crate) fn beside_link(options: &ServeOptions) -> Option<PathBuf> {
    let link = default_path().filter(|_| options.host.is_loopback());
    link.map(|link| link.with_file_name(LOCAL_FILE))
}

/// Where the local initiator of `up` lies: in its data folder, on loopback only.
pub(crate) fn in_folder(options: &ServeOptions, folder: &Path) -> Option<PathBuf> {
    options.host.is_loopback().then(|| folder.join(LOCAL_FILE))
}

/// Reads an initiator's or approver's private key.
///
/// # Errors
/// `invalid_request` naming the file.
pub(crate) fn read_initiator(path: &Path) -> Result<AuthoritySecret> {
    let text = read_secret(path, "private key")?;
    AuthoritySecret::read(text.expose())
        .map_err(|error| Error::invalid(format!("{}: {}", path.display(), error.message)))
}

fn find_or_make(path: &Path) -> Result<AuthoritySecret> {
    if !path.exists() {
        let made = AuthoritySecret::from_seed(&secret_seed()?).to_pem()?;
        make_secret_file(path, made.expose().as_bytes()).map_err(|error| {
            Error::invalid(format!("the initiator {} cannot be made: {error}", path.display()))
        })?;
    }
    read_initiator(path)
}

/// A public key: its text, or a file that holds it.
pub(crate) fn public_key(text: &str) -> Result<AuthorityKey> {
    if text.starts_with("ed25519:") || text.starts_with("p256:") {
        return read_public_key(text);
    }
    let file = std::fs::read_to_string(text).map_err(|error| {
        Error::invalid(format!(
            "cannot read the key file {text}: {error}; or give ed25519:HEX or p256:HEX"
        ))
    })?;
    read_public_key(&file).map_err(|error| Error::invalid(format!("{text}: {}", error.message)))
}

/// Reads a policy file.
///
/// # Errors
/// `invalid_request` naming the file, the line and what is wrong there.
pub(crate) fn read_policy(path: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::invalid(format!("cannot read the policy file {}: {error}", path.display()))
    })?;
    Policy::read(&text)
        .map_err(|error| Error::invalid(format!("{}: {}", path.display(), error.message)))
}

impl AuthorityOptions {
    /// The rules as flags and file have them now. The local initiator counts where nobody is pinned.
    pub(crate) fn rules(&self, local: Option<&AuthorityKey>) -> Result<Rules> {
        let mut initiators = Initiators::default();
        for pinned in &self.initiator {
            let (name, key) = pinned
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Error::invalid_field("initiator", "give --initiator NAME=KEY"))?;
            initiators.pin(name, public_key(key)?)?;
        }
        let policy = match &self.policy {
            Some(path) => read_policy(path)?,
            None => Policy::permissive(),
        };
        if let (true, true, Some(local)) =
            (self.initiator.is_empty(), policy.initiators.is_empty(), local)
        {
            initiators.pin(LOCAL, local.clone())?;
        }
        Rules::new(initiators, policy)
    }
}

/// What the server parties of one process decide by.
pub(crate) struct PartyRules {
    options: AuthorityOptions,
    local: Option<AuthorityKey>,
}

impl PartyRules {
    /// Reads flags and policy once, so that what is wrong with them is told at the start.
    pub(crate) fn open(options: &AuthorityOptions, local: Option<&Path>) -> Result<Self> {
        let local = local.map(find_or_make).transpose()?.map(|secret| secret.public().clone());
        let rules = Self { options: options.clone(), local };
        rules.read()?;
        Ok(rules)
    }

    fn read(&self) -> Result<Rules> {
        self.options.rules(self.local.as_ref())
    }

    /// What an operator should know whose party refuses everything.
    pub(crate) fn warning(&self) -> Result<Option<String>> {
        Ok(self.read()?.is_empty().then(|| {
            "warning: there is no initiator: every session is refused (policy_denied). Give \
             --initiator NAME=KEY for each initiator; see Requests and policies in \
             docs/operations.md"
                .to_owned()
        }))
    }

    /// An authority over a party's ledger.
    pub(crate) async fn authority(&self, ledger: Arc<dyn Ledger>) -> Result<Arc<Authority>> {
        let callback = Arc::new(HttpCallback);
        let parts =
            AuthorityParts { rules: self.read()?, ledger, callback, now: || SystemClock.now() };
        Authority::open(parts).await.map(Arc::new)
    }

    /// Reads the policy again at each SIGHUP, until `stop`. One with a mistake in it changes nothing.
    pub(crate) async fn watch(self, authorities: Vec<Arc<Authority>>, stop: CancellationToken) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return tracing::warn!("SIGHUP cannot be watched: a changed policy needs a restart");
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                hung_up = hangup.recv() => if hung_up.is_none() { return },
            }
            for authority in &authorities {
                match self.read() {
                    Ok(rules) => authority.replace(rules),
                    Err(error) => tracing::error!(%error, "the policy stays as it was"),
                }
            }
            tracing::warn!("initiators and policy were read again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> AuthorityKey {
        AuthoritySecret::from_seed(&quorate_types::Secret::new([seed; 32])).public().clone()
    }

    #[test]
    fn the_local_initiator_is_made_once_and_counts_where_nobody_is_pinned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join(LOCAL_FILE);
        let local = find_or_make(&path).unwrap().public().clone();
        assert_eq!(find_or_make(&path).unwrap().public(), &local);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);

        let none = AuthorityOptions::default();
        assert!(!none.rules(Some(&local)).unwrap().is_empty());
        assert!(none.rules(None).unwrap().is_empty());
        let rules = PartyRules { options: none, local: None };
        assert!(rules.warning().unwrap().unwrap().contains("--initiator"));
        let pinned = AuthorityOptions { initiator: vec![format!("ops={}", key(1))], policy: None };
        assert!(PartyRules { options: pinned, local: None }.warning().unwrap().is_none());
    }

    #[test]
    fn keys_are_read_from_text_and_files_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ops.pem");
        let local = find_or_make(&path).unwrap().public().clone();
        let path = path.display().to_string();
        assert_eq!(public_key(&path).unwrap(), local);
        assert_eq!(public_key(&key(1).to_string()).unwrap(), key(1));
        for wrong in ["ops", "=x", "ops=nowhere", "ops=ed25519:00"] {
            let options = AuthorityOptions { initiator: vec![wrong.to_owned()], policy: None };
            assert!(options.rules(None).is_err(), "{wrong}");
        }
        let missing = AuthorityOptions { initiator: Vec::new(), policy: Some("nowhere".into()) };
        assert!(missing.rules(None).err().unwrap().message.contains("the policy file nowhere"));
    }
}
