//! Files of secrets, made at first use and readable by their owner only.
//!
//! Most hold 32 random bytes. A party's identity is sealed besides:
//!
//! ```text
//! "quorate-identity/1\n" (19) | nonce (12) | ChaCha20-Poly1305 over 32 bytes (48)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use quorate_engine::SealKey;
use quorate_types::{Error, ErrorCode, PartyId, Result, Secret};
use zeroize::Zeroizing;

const LEN: usize = 32;
const IDENTITY: &[u8; 19] = b"quorate-identity/1\n";

/// What lies where a secret file is looked for.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Missing,
    /// A sealed identity.
    Sealed,
    /// Anything else: 32 bytes in the clear, or damage.
    Other,
}

/// Looks at a file without using it.
pub(super) fn form(path: &Path) -> Result<Form> {
    let mut start = [0; IDENTITY.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut start)) {
        Ok(()) if start == *IDENTITY => Ok(Form::Sealed),
        Ok(()) => Ok(Form::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Form::Missing),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Form::Other),
        Err(error) => Err(unusable(path, &error)),
    }
}

/// The party's identity. A new one is written sealed, and one in the clear is sealed.
pub(super) fn identity(
    path: &Path,
    form: &Form,
    party: &PartyId,
    seal: &SealKey,
) -> Result<Secret<[u8; LEN]>> {
    let context = [&IDENTITY[..], party.as_str().as_bytes()].concat();
    let sealed = |secret: &Secret<[u8; LEN]>| {
        Ok::<_, Error>([&IDENTITY[..], &seal.seal(secret.expose(), &context)?].concat())
    };
    match form {
        Form::Missing => {
            let secret = random()?;
            make(path, &sealed(&secret)?).map_err(|error| unusable(path, &error))?;
            Ok(secret)
        }
        Form::Other => {
            let secret = read(path).map_err(|error| unusable(path, &error))?;
            replace(path, &sealed(&secret)?).map_err(|error| unusable(path, &error))?;
            Ok(secret)
        }
        Form::Sealed => {
            let bytes = fs::read(path).map_err(|error| unusable(path, &error))?;
            let body = bytes.get(IDENTITY.len()..).unwrap_or_default();
            let plain = seal.open(body, &context);
            let secret = plain.as_deref().and_then(|plain| <[u8; LEN]>::try_from(&**plain).ok());
            secret.map(Secret::new).ok_or_else(|| {
                let why = format!(
                    "it does not open: it was sealed for another party than {party} or under \
                     another key, or it is damaged; restore it from a backup"
                );
                unusable(path, &io::Error::other(why))
            })
        }
    }
}

/// 32 random bytes.
///
/// # Errors
/// `internal_error` where the system gives no randomness.
pub fn random() -> Result<Secret<[u8; LEN]>> {
    let mut bytes = Zeroizing::new([0; LEN]);
    getrandom::fill(&mut *bytes).map_err(|_| Error::internal())?;
    Ok(Secret::new(*bytes))
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorCode::Internal, format!("{} cannot be used: {error}", path.display()))
}

/// Reads a file of 32 secret bytes, making it first where there is none.
///
/// # Errors
/// Says why the file cannot be used: others may read it, it is damaged, it cannot be written.
pub fn secret(path: &Path) -> Result<Secret<[u8; LEN]>> {
    let unusable = |error: io::Error| unusable(path, &error);
    if !path.try_exists().map_err(unusable)? {
        make(path, random()?.expose()).map_err(unusable)?;
    }
    read(path).map_err(unusable)
}

fn read(path: &Path) -> io::Result<Secret<[u8; LEN]>> {
    let file = File::open(path)?;
    check_mode(&file)?;
    if file.metadata()?.len() != LEN as u64 {
        return Err(io::Error::other(format!(
            "it is not {LEN} bytes long; restore it from a backup, or move it away to start anew"
        )));
    }
    let mut bytes = Zeroizing::new([0; LEN]);
    (&file).read_exact(&mut *bytes)?;
    Ok(Secret::new(*bytes))
}

/// Writes a file that only its owner can read, whole or not at all, and never over one that is
/// there: a temporary file gets the name only when it is on disk. Of two processes that do this at
/// once, one wins and both read the same bytes.
///
/// # Errors
/// The system's.
pub fn make(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = temporary(path);
    let written =
        write(&temporary, contents).and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let removed = fs::remove_file(&temporary);
    written.and(removed)?;
    File::open(folder)?.sync_all()
}

/// Puts a file in another's place, and overwrites the bytes of the one before.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut old = OpenOptions::new().write(true).open(path)?;
    let length = old.metadata()?.len();
    let temporary = temporary(path);
    write(&temporary, contents)?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    io::copy(&mut io::repeat(0).take(length), &mut old)?;
    old.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{:08x}.new", std::process::id(), getrandom::u32().unwrap_or(0)));
    name.into()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn check_mode(file: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("others may read it (mode {mode:o}); chmod it to 600")))
}

#[cfg(not(unix))]
fn check_mode(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/identity");
        let first = secret(&path).unwrap();
        assert_eq!(first.expose(), secret(&path).unwrap().expose());
        assert_ne!(first.expose(), &[0; LEN]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_exists_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let first = secret(&path).unwrap();
        make(&path, &[7; LEN]).unwrap();
        assert_eq!(first.expose(), secret(&path).unwrap().expose());
    }

    #[test]
    fn a_short_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        write(&path, &[1; 31]).unwrap();
        let message = secret(&path).err().unwrap().message;
        assert!(message.contains("32 bytes"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        secret(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let message = secret(&path).err().unwrap().message;
        assert!(message.contains("chmod"), "{message}");
    }
}
