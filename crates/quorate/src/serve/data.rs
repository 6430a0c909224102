//! The data folder: who may read it, and the secrets a server makes at its first start.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use quorate_party::secret_file;
use quorate_types::{Error, Result, Secret};
use zeroize::Zeroizing;

/// A folder of one server, readable by its user only.
#[derive(Clone, Debug)]
pub(crate) struct DataFolder(PathBuf);

impl DataFolder {
    /// Opens the folder, making it where it is missing.
    ///
    /// One that others may write to is refused: they could put files of theirs in it. What others
    /// may read is told; the secrets in it are readable by their owner only.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unusable = |error: std::io::Error| {
            Error::invalid(format!("cannot create the data folder {}: {error}", path.display()))
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let mode = fs::metadata(path).map_err(unusable)?.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(Error::invalid(format!(
                "others may write to the data folder {} (mode {mode:o}): chmod it to 700, or \
                 choose another",
                path.display()
            )));
        }
        if mode & 0o077 != 0 {
            tracing::warn!("others may read the data folder {}: chmod it to 700", path.display());
        }
        Ok(Self(path.to_owned()))
    }

    /// Opens the folder, where it is there.
    pub(crate) fn existing(path: &Path) -> Result<Option<Self>> {
        if path.exists() { Self::open(path).map(Some) } else { Ok(None) }
    }

    /// The folder of a part, made where it is missing.
    pub(crate) fn part(&self, name: &str) -> Result<Self> {
        Self::open(&self.0.join(name))
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder's own path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A 32-byte secret kept in `name`, made at first use.
    pub(crate) fn secret(&self, name: &str) -> Result<Secret<[u8; 32]>> {
        secret_file(&self.file(name))
    }
}

/// Where programs of one user on one machine find each other's files.
pub(crate) fn state_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    state.map(|state| state.join("quorate"))
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Behind the whole name: two files that differ in their extension only are written at once.
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let _ = fs::remove_file(part);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(part, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Writes a file that only its owner can read and that was not there before.
pub(crate) fn write_new_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// A secret that its owner has written into a file of its own, without the end of its line.
///
/// # Errors
/// `invalid_request` when the file cannot be read or is empty.
pub(crate) fn read_secret(path: &Path, what: &str) -> Result<Secret<String>> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| {
        Error::invalid(format!("cannot read the {what} file {}: {error}", path.display()))
    })?);
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Error::invalid(format!("{} holds no {what}", path.display())));
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(&folder.path().join("data")).unwrap();
        let first = data.secret("server.key").unwrap();
        assert_eq!(first.expose(), data.secret("server.key").unwrap().expose());
        let mode = fs::metadata(data.file("server.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(data.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, taken) in [(0o700, true), (0o755, true), (0o775, false), (0o702, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(DataFolder::open(folder.path()).is_ok(), taken, "{mode:o}");
        }
    }

    #[test]
    fn a_damaged_secret_is_refused_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        fs::write(data.file("server.key"), b"short").unwrap();
        assert!(data.secret("server.key").is_err());
        assert_eq!(fs::read(data.file("server.key")).unwrap(), b"short");
    }
}
