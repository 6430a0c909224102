//! Opening a keyring: which secret files may be made, and what must have been there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_engine::{Identity, RowKey, SealContext, SealKey, Share};
use quorate_ports::Vault;
use quorate_ports::vault::{self, SealedShare, Unlock};
use quorate_types::*;

use super::files::{self, Form};
use super::{Keyring, MIN_PASSPHRASE};

/// Where the key that seals shares comes from.
pub enum SealSource {
    /// A file with 32 random bytes, made at first start, readable by its owner only. It guards
    /// against a stolen vault without this file, not against a stolen machine.
    KeyFile(PathBuf),
    /// A passphrase, stretched by Argon2id with a salt that is kept in a file.
    Passphrase {
        /// The passphrase: 10 bytes or more for a new party.
        passphrase: Secret<String>,
        /// The file with the salt, made at first start. Not secret.
        salt: PathBuf,
    },
}

impl SealSource {
    fn file(&self) -> &Path {
        match self {
            Self::KeyFile(path) => path,
            Self::Passphrase { salt, .. } => salt,
        }
    }

    fn key(&self, new: bool) -> Result<SealKey> {
        match self {
            Self::KeyFile(path) => Ok(SealKey::from_bytes(files::secret(path)?)),
            Self::Passphrase { passphrase, salt } => {
                let passphrase = passphrase.expose().as_bytes();
                if new && passphrase.len() < MIN_PASSPHRASE {
                    let why = format!("a passphrase has {MIN_PASSPHRASE} bytes or more");
                    return Err(Error::invalid_field("passphrase", why));
                }
                SealKey::from_passphrase(passphrase, files::secret(salt)?.expose())
            }
        }
    }
}

/// The keyring's side of an authenticated vault.
struct Rows {
    party: PartyId,
    seal: Arc<SealKey>,
    key: RowKey,
}

impl vault::RowKey for Rows {
    fn tag(&self, purpose: &str, row: &[u8]) -> [u8; 32] {
        self.key.tag(purpose, row)
    }
}

impl vault::VaultKey for Rows {
    fn opens(&self, share: &SealedShare) -> bool {
        let SealedShare { key_id, epoch, .. } = *share;
        let context = SealContext { party_id: &self.party, key_id, epoch };
        Share::open(&share.sealed, &self.seal, &context).is_ok()
    }
}

/// The key of the ledger's rows.
struct LedgerRows(RowKey);

impl vault::RowKey for LedgerRows {
    fn tag(&self, purpose: &str, row: &[u8]) -> [u8; 32] {
        self.0.tag(purpose, row)
    }
}

impl Keyring {
    /// What authenticates the ledger beside this party's vault.
    pub fn ledger_key(&self) -> Arc<dyn vault::RowKey> {
        Arc::new(LedgerRows(self.seal.ledger_key(&self.party)))
    }

    /// Opens a party's identity, seal key and vault. Each is made at first start; none is made in
    /// place of one that was lost. Blocks the thread for file access and for Argon2id.
    ///
    /// With `accept_rollback` a vault that was put back from a backup or changed otherwise is taken
    /// as it is. The keys in it need a refresh, since bans may be missing.
    ///
    /// # Errors
    /// Says which file is missing or cannot be used and why, that the seal key or the passphrase is
    /// not that of the vault, or that the vault was changed by something else.
    pub async fn open(
        party: PartyId,
        identity: &Path,
        seal: SealSource,
        vault: Arc<dyn Vault>,
        accept_rollback: bool,
    ) -> Result<Self> {
        let contents = vault.contents().await?;
        let form = files::form(identity)?;
        let used = contents.shares > 0 || matches!(form, Form::Sealed);
        for (needed, file, kind) in [
            (used, seal.file(), "seals its shares"),
            (contents.shares > 0, identity, "holds its identity"),
        ] {
            if needed && matches!(files::form(file)?, Form::Missing) {
                return Err(missing(&party, file, kind, contents.shares));
            }
        }
        let seal = Arc::new(seal.key(!used)?);
        let rows = Rows { party: party.clone(), seal: Arc::clone(&seal), key: seal.row_key() };
        let how = Unlock { known: matches!(form, Form::Sealed), accept_rollback };
        vault.unlock(Arc::new(rows), how).await.map_err(|error| Error {
            message: format!("{party} cannot start: {}", error.message),
            ..error
        })?;
        let secret = files::identity(identity, &form, &party, &seal)?;
        Ok(Self::with(party, Identity::from_secret(&secret), seal, vault))
    }
}

fn missing(party: &PartyId, file: &Path, what: &str, shares: u64) -> Error {
    let held = match shares {
        0 => "its folder was in use before".to_owned(),
        1 => "it holds a share".to_owned(),
        many => format!("it holds {many} shares"),
    };
    Error::invalid(format!(
        "{party} cannot start: the file that {what}, {}, is missing, and {held}; put the file back \
         from a backup, or move the party's whole folder away to start as a new party",
        file.display()
    ))
}
