//! Passphrases: from a file, from a person at the terminal, or from a pipe.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use quorate_types::{Error, Result, Secret};
use zeroize::Zeroizing;

use crate::serve::data::read_secret;

/// A passphrase to seal with. A person types it twice.
pub(super) fn new(file: Option<&Path>) -> Result<Secret<String>> {
    let first = read(file, "passphrase for the exported share: ")?;
    if file.is_none() && std::io::stdin().is_terminal() {
        let second = read(None, "the same again: ")?;
        if first.expose() != second.expose() {
            return Err(Error::invalid("the two passphrases differ; nothing was written"));
        }
    }
    Ok(first)
}

/// The passphrase that something was sealed with.
pub(super) fn known(file: Option<&Path>) -> Result<Secret<String>> {
    read(file, "passphrase of the exported share: ")
}

fn read(file: Option<&Path>, question: &str) -> Result<Secret<String>> {
    if let Some(file) = file {
        return read_secret(file, "passphrase");
    }
    let unread = |error: std::io::Error| {
        Error::invalid(format!("cannot read the passphrase: {error}; or give --passphrase-file"))
    };
    let stdin = std::io::stdin();
    let text = Zeroizing::new(if stdin.is_terminal() {
        rpassword::prompt_password(question).map_err(unread)?
    } else {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(unread)?;
        line
    });
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Error::invalid(
            "there is no passphrase: type it, pipe it in, or give --passphrase-file",
        ));
    }
    Ok(Secret::new(text.to_owned()))
}
