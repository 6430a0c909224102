//! peers: whose identity is known here, by which keys are verified.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use axum::http::Uri;
use clap::Subcommand;
use quorate_client::KnownPeers;
use quorate_types::*;
use quorate_wire::IdentityText;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::output::{Output, table};
use super::values::value;
use crate::serve::auth::parse_identities;
use crate::serve::data::{state_folder, write_private};

const VERSION: u32 = 1;

/// Where identities are kept.
#[derive(clap::Args, Clone)]
pub(crate) struct PeersFile {
    /// File with the identities of parties [default: peers.json in $XDG_STATE_HOME/quorate]
    #[arg(long = "peers", value_name = "FILE", env = "QUORATE_PEERS")]
    path: Option<PathBuf>,
}

/// Arguments of `peers`.
#[derive(clap::Args)]
pub(crate) struct PeersArgs {
    #[command(subcommand)]
    command: PeersCommand,
}

#[derive(Subcommand)]
enum PeersCommand {
    /// Record the identity of a party, as printed by `quorate party --print-identity` on its machine
    Add {
        /// The party and its identity key
        #[arg(required = true, value_name = "NAME=HEX")]
        peers: Vec<String>,
        #[command(flatten)]
        file: PeersFile,
    },
    /// List recorded identities
    List {
        #[command(flatten)]
        file: PeersFile,
    },
    /// Remove the recorded identities of a party
    Remove {
        /// The party whose identities are removed
        #[arg(value_parser = value::<PartyId>)]
        name: PartyId,
        #[command(flatten)]
        file: PeersFile,
    },
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    peers: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: PartyId,
    identity: IdentityText,
    /// A delegate's key, beside each of its identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delegate_key: Option<PackageKey>,
}

/// Changes or lists what is known.
pub(crate) fn run(args: PeersArgs, out: Output) -> Result<()> {
    match args.command {
        PeersCommand::Add { peers, file } => {
            let path = file.path()?;
            let mut known = read(&path)?.unwrap_or_default();
            let added = parse_identities("peers", &peers)?;
            let names: Vec<_> = added.keys().cloned().collect();
            for (name, identity) in added {
                known.add(name, identity);
            }
            write(&path, &known)?;
            out.show(&json!({ "added": names }), || format!("recorded in {}", path.display()));
        }
        PeersCommand::List { file } => {
            let known = read(&file.path()?)?.unwrap_or_default();
            let document = document(&known);
            let row = |entry: &Entry| vec![entry.name.to_string(), entry.identity.to_string()];
            let rows: Vec<_> = document.peers.iter().map(row).collect();
            out.show(&document.peers, || table(&["PARTY", "IDENTITY"], &rows));
        }
        PeersCommand::Remove { name, file } => {
            let path = file.path()?;
            let mut known = read(&path)?.unwrap_or_default();
            if !known.remove(&name) {
                let why = format!(
                    "{name} is not in {}; `quorate peers list` says who is",
                    path.display()
                );
                return Err(Error::new(ErrorCode::NotFound, why));
            }
            write(&path, &known)?;
            out.show(&json!({ "removed": name }), || format!("{name} removed"));
        }
    }
    Ok(())
}

impl PeersFile {
    /// What is known of the parties behind this coordinator: what the user has noted, and on
    /// loopback, for names that the user has not noted, what `quorate up` says of its own parties.
    pub(super) fn known(&self, coordinator: &str) -> Result<KnownPeers> {
        let mut known = match self.path() {
            Ok(path) => read(&path)?.unwrap_or_default(),
            // Nothing is noted where there is no place for notes.
            Err(_) => KnownPeers::default(),
        };
        let Some(local) = local_port(coordinator).and_then(LocalPeers::path) else {
            return Ok(known);
        };
        let noted = known.clone();
        for (name, identity) in read(&local)?.unwrap_or_default().iter() {
            if !noted.knows(name) {
                known.add(name.clone(), *identity);
            }
        }
        Ok(known)
    }

    /// Notes the key of a delegate whose identity is noted.
    pub(super) fn note_delegate_key(&self, name: &PartyId, key: &PackageKey) -> Result<()> {
        let path = self.path()?;
        let mut known = read(&path)?.unwrap_or_default();
        if !known.knows(name) || known.delegate_key(name) == Some(key) {
            return Ok(());
        }
        known.add_delegate_key(name.clone(), key.clone());
        write(&path, &known)
    }

    fn path(&self) -> Result<PathBuf> {
        let default = || Some(state_folder()?.join("peers.json"));
        self.path.clone().or_else(default).ok_or_else(|| {
            Error::invalid_field("peers", "there is no home folder: give --peers FILE")
        })
    }
}

/// The port of a coordinator on this machine.
fn local_port(coordinator: &str) -> Option<u16> {
    let url: Uri = coordinator.parse().ok()?;
    let local = match url.host()? {
        "localhost" => true,
        host => host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
    };
    let default = if url.scheme_str()? == "https" { 443 } else { 80 };
    Some(url.port_u16().unwrap_or(default)).filter(|_| local)
}

/// What an installation on loopback tells the commands of its user about its own parties: a file
/// that goes with it.
pub(crate) struct LocalPeers(PathBuf);

impl LocalPeers {
    fn path(port: u16) -> Option<PathBuf> {
        Some(state_folder()?.join("local-peers").join(format!("{port}.json")))
    }

    /// Notes the parties behind the coordinator at `port`. `None` where there is no home folder.
    pub(crate) fn write(port: u16, known: &KnownPeers) -> Result<Option<Self>> {
        let Some(path) = Self::path(port) else { return Ok(None) };
        write(&path, known)?;
        Ok(Some(Self(path)))
    }
}

impl Drop for LocalPeers {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn document(known: &KnownPeers) -> Document {
    let entry = |(name, identity): (&PartyId, &[u8; 32])| Entry {
        name: name.clone(),
        identity: IdentityText(*identity),
        delegate_key: known.delegate_key(name).cloned(),
    };
    Document { version: VERSION, peers: known.iter().map(entry).collect() }
}

/// The identities in a file; `None` where there is no file.
fn read(path: &Path) -> Result<Option<KnownPeers>> {
    let refused = |why: String| Error::invalid(format!("{}: {why}", path.display()));
    let text = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| refused(error.to_string()))?,
    };
    let damaged =
        |error| refused(format!("not a list of peers ({error}); repair or remove the file"));
    let document: Document = serde_json::from_slice(&text).map_err(damaged)?;
    if document.version != VERSION {
        let why =
            format!("it is of version {}, which this program does not read", document.version);
        return Err(refused(why));
    }
    let mut known = KnownPeers::default();
    for Entry { name, identity, delegate_key } in document.peers {
        if let Some(key) = delegate_key {
            known.add_delegate_key(name.clone(), key);
        }
        known.add(name, identity.0);
    }
    Ok(Some(known))
}

fn write(path: &Path, known: &KnownPeers) -> Result<()> {
    let text = serde_json::to_vec_pretty(&document(known)).map_err(|_| Error::internal())?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder
        .map_or(Ok(()), |folder| fs::DirBuilder::new().recursive(true).mode(0o700).create(folder));
    made.and_then(|()| write_private(path, &text))
        .map_err(|error| Error::invalid(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_found_again_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/peers.json");
        assert_eq!(read(&path).unwrap(), None);
        let mut known = KnownPeers::default();
        known.add("a".parse().unwrap(), [1; 32]);
        known.add("a".parse().unwrap(), [2; 32]);
        let key = PackageKey::new(Kem::X25519, vec![3; 32]).unwrap();
        known.add_delegate_key("a".parse().unwrap(), key);
        write(&path, &known).unwrap();
        assert_eq!(read(&path).unwrap(), Some(known));
        fs::write(&path, b"{\"version\":9,\"peers\":[]}").unwrap();
        assert!(read(&path).unwrap_err().message.contains("version 9"));
        fs::write(&path, b"[]").unwrap();
        assert!(read(&path).unwrap_err().message.contains("not a list of peers"));
    }

    #[test]
    fn only_a_coordinator_on_this_machine_has_local_peers() {
        for (url, port) in [
            ("http://127.0.0.1:50051", Some(50051)),
            ("http://localhost:1", Some(1)),
            ("http://[::1]:7", Some(7)),
            ("https://127.0.0.1", Some(443)),
            ("http://10.0.0.1:50051", None),
            ("https://mpc.example.com", None),
            ("nonsense", None),
        ] {
            assert_eq!(local_port(url), port, "{url}");
        }
    }
}
