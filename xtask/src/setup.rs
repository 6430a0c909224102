//! What the tests need beyond cargo: a Python with gRPC, in a folder of its own, and a browser.

use std::path::PathBuf;
use std::process::Command;

use crate::files::root;
use crate::steps::run;

/// Makes the virtual environment of the Python client where it is missing; its interpreter.
pub(crate) fn python() -> Result<PathBuf, String> {
    let folder = root().join("target/venv");
    let python = folder.join("bin/python");
    let requirements = root().join("crates/e2e/python/requirements.txt");
    let stamp = folder.join("requirements.txt");
    let wanted = std::fs::read(&requirements).map_err(|error| error.to_string())?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing the Python packages of the foreign client into {}", folder.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).map_err(|error| {
        format!("{error}\nthe tests of a foreign client need Python 3.9 or later with venv (on Debian: apt-get install python3-venv)")
    })?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&requirements))?;
    std::fs::write(&stamp, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Finds Chromium, installing Debian's where there is none; its program.
pub(crate) fn chromium() -> Result<PathBuf, String> {
    if let Some(found) = browser() {
        return Ok(found);
    }
    println!("installing Chromium for the tests of web pages");
    let install = ["install", "--quiet", "--yes", "--no-install-recommends", "chromium"];
    let installed = run(Command::new("apt-get").args(install))
        .and_then(|()| browser().ok_or_else(|| "it is not on the path".to_owned()));
    installed.map_err(|error| {
        format!(
            "{error}\nthe tests of web pages need Chromium: install it (on Debian, as root: apt-get \
             update && apt-get install chromium), or name one in QUORATE_CHROMIUM"
        )
    })
}

/// A browser of the Chromium family: the one named, or one on the path.
fn browser() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("QUORATE_CHROMIUM") {
        return Some(path.into());
    }
    let folders = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&folders)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.exists())
}
