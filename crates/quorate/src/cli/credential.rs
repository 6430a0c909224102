//! The API key that a command shows.

use std::path::PathBuf;

use quorate_types::{Result, Secret};

use crate::serve::data::read_secret;

/// Holds the key itself. Another process of the same user can read it; `ps` does not show it.
const VARIABLE: &str = "QUORATE_API_KEY";

/// Where the key is.
#[derive(clap::Args, Clone)]
pub(crate) struct ApiKeyArgs {
    /// File with the API key, where the server requires one. Or set QUORATE_API_KEY to the key
    #[arg(long, value_name = "FILE", env = "QUORATE_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// The API key itself, visible to everybody who lists the processes
    #[arg(long, value_name = "KEY", hide = true)]
    api_key: Option<String>,
}

impl ApiKeyArgs {
    /// The key, if there is one.
    ///
    /// # Errors
    /// `invalid_request` when the file cannot be read or is empty.
    pub(crate) fn read(&self) -> Result<Option<Secret<String>>> {
        if let Some(key) = &self.api_key {
            tracing::warn!(
                "--api-key shows the key to everybody who lists the processes of this machine: \
                 use --api-key-file or {VARIABLE}"
            );
            return Ok(Some(Secret::new(key.clone())));
        }
        match &self.api_key_file {
            Some(path) => read_secret(path, "API key").map(Some),
            None => Ok(std::env::var(VARIABLE).ok().filter(|key| !key.is_empty()).map(Secret::new)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: PathBuf) -> ApiKeyArgs {
        ApiKeyArgs { api_key_file: Some(path), api_key: None }
    }

    #[test]
    fn a_key_is_read_from_its_file_without_the_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "qk_1_2\n").unwrap();
        assert_eq!(at(path.clone()).read().unwrap().unwrap().expose(), "qk_1_2");
        std::fs::write(&path, "\n").unwrap();
        let empty = at(path).read().err().unwrap();
        assert!(empty.message.contains("holds no API key"), "{empty}");
        let missing = at(folder.path().join("none")).read().err().unwrap();
        assert!(missing.message.contains("the API key file"), "{missing}");
    }
}
