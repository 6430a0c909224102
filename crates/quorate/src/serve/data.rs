//! The data folder: who may read it, and the secrets a server makes at its first start.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use quorate_types::{Error, Result, Secret};

/// A folder of one server, readable by its user only.
#[derive(Clone, Debug)]
pub(crate) struct DataFolder(PathBuf);

impl DataFolder {
    /// Opens the folder, making it where it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
            Error::invalid(format!("the data folder {} cannot be made: {error}", path.display()))
        })?;
        Ok(Self(path.to_owned()))
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
        let path = self.file(name);
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map(Secret::new).map_err(|_| {
                Error::invalid(format!(
                    "{} is damaged: it must hold 32 bytes; restore it from a backup",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut bytes = [0_u8; 32];
                getrandom::fill(&mut bytes).map_err(|_| Error::internal())?;
                write_private(&path, &bytes).map_err(|error| {
                    Error::invalid(format!("{} cannot be written: {error}", path.display()))
                })?;
                Ok(Secret::new(bytes))
            }
            Err(error) => {
                Err(Error::invalid(format!("{} cannot be read: {error}", path.display())))
            }
        }
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
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
    fn a_damaged_secret_is_refused_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        fs::write(data.file("server.key"), b"short").unwrap();
        assert!(data.secret("server.key").is_err());
        assert_eq!(fs::read(data.file("server.key")).unwrap(), b"short");
    }
}
