//! The secret by which the roles of one installation know each other.
//!
//! On loopback the first role makes the file and the others find it. Anywhere else `--link-key`
//! names a file that the operator has put beside each role, or the roles use an API key with the
//! scope `system`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use quorate_core::links::LinkRole;
use quorate_party::make_secret_file;
use quorate_rpc::endpoint::{Call, Credentials};
use quorate_types::{Error, Result, Secret};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::data::state_folder;

/// The scheme of the `Authorization` header.
pub(crate) const LINK_SCHEME: &str = "Quorate-Link";
const DOMAIN: &[u8] = b"quorate/link/v1";

/// 32 bytes that every role of an installation knows, in hex.
#[derive(Clone)]
pub(crate) struct LinkSecret(Arc<Secret<String>>);

impl LinkSecret {
    /// Reads the secret of `path`.
    ///
    /// # Errors
    /// When the file is missing, holds no 64 hex digits, or others than its owner may read it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| {
            Error::invalid(format!("the link key {} cannot be read: {error}", path.display()))
        };
        let mode = fs::metadata(path).map_err(unreadable)?.mode();
        if mode & 0o077 != 0 {
            return Err(Error::invalid(format!(
                "others can read the link key {}; run chmod 600 on it, or make a new one",
                path.display()
            )));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?.trim_end().to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::invalid(format!(
                "the link key {} is damaged: it holds 64 hex digits; copy it from another role, \
                 or remove it and restart all roles",
                path.display()
            )));
        }
        Ok(Self(Arc::new(Secret::new(text.to_ascii_lowercase()))))
    }

    /// Reads the secret of `path`, making it where it is missing. Of roles that start at once one
    /// makes it.
    pub(crate) fn find_or_make(path: &Path) -> Result<Self> {
        let unwritable = |error: std::io::Error| {
            Error::invalid(format!("the link key {} cannot be made: {error}", path.display()))
        };
        if !path.exists() {
            if let Some(folder) = path.parent() {
                let mut builder = fs::DirBuilder::new();
                builder.recursive(true).mode(0o700).create(folder).map_err(unwritable)?;
            }
            let mut bytes = [0_u8; 32];
            getrandom::fill(&mut bytes).map_err(|_| Error::internal())?;
            let secret = Secret::new(hex::encode(bytes));
            make_secret_file(path, secret.expose().as_bytes()).map_err(unwritable)?;
        }
        Self::read(path)
    }

    /// The role that `ROLE MAC` proves. Compares in constant time.
    pub(crate) fn role(&self, presented: &str) -> Option<LinkRole> {
        let (name, mac) = presented.trim().split_once(' ')?;
        let role = LinkRole::named(name)?;
        let genuine: bool = self.mac(role).as_bytes().ct_eq(mac.as_bytes()).into();
        genuine.then_some(role)
    }

    /// What one role shows on each call.
    pub(crate) fn credentials(&self, role: LinkRole) -> LinkCredentials {
        let shown = Secret::new(format!("{LINK_SCHEME} {} {}", role.name(), self.mac(role)));
        LinkCredentials(shown)
    }

    /// What a role shows instead of the secret: who receives it cannot be another role with it.
    fn mac(&self, role: LinkRole) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose().as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(DOMAIN);
        mac.update(role.name().as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

/// The proof of one role that it belongs to the installation.
pub(crate) struct LinkCredentials(Secret<String>);

impl Credentials for LinkCredentials {
    fn authorization(&self, _: &Call<'_>) -> String {
        self.0.expose().clone()
    }
}

/// Where the roles of one user on one machine find their secret.
pub(crate) fn default_path() -> Option<PathBuf> {
    state_folder().map(|state| state.join("link.key"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_role_makes_the_secret_and_others_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/link.key");
        assert!(LinkSecret::read(&path).is_err());
        let first = LinkSecret::find_or_make(&path).unwrap();
        let second = LinkSecret::find_or_make(&path).unwrap();
        let call = Call { audience: "a:1", method: "POST", target: "/", body: None };
        for role in LinkRole::ALL {
            let shown = first.credentials(role).authorization(&call);
            let shown = shown.strip_prefix(LINK_SCHEME).unwrap();
            assert_eq!(second.role(shown), Some(role));
            let (_, mac) = shown.trim().split_once(' ').unwrap();
            let posing = LinkRole::ALL.into_iter().filter(|other| *other != role);
            for other in posing {
                assert_eq!(second.role(&format!(" {} {mac}", other.name())), None);
            }
            assert_eq!(second.role(&format!(" {} {}", role.name(), "0".repeat(64))), None);
        }
        assert!(second.role("").is_none() && second.role(" router").is_none());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no part is left");
    }

    #[test]
    fn a_damaged_or_readable_secret_is_refused_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.key");
        crate::serve::data::write_private(&path, b"short").unwrap();
        assert!(LinkSecret::find_or_make(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"short");
        fs::write(&path, "ab".repeat(32)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(LinkSecret::find_or_make(&path).is_err());
    }
}
