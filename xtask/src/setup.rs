//! What the tests need beyond cargo: a Python with gRPC, in a folder of its own, a browser, and
//! Prometheus.

use std::path::PathBuf;
use std::process::Command;

use crate::files::root;
use crate::steps::run;

/// The Python, the browser and the Prometheus of the tests.
pub(crate) fn all() -> Result<[PathBuf; 3], String> {
    Ok([python()?, CHROMIUM.find()?, PROMETHEUS.find()?])
}

/// Makes the virtual environment of the Python client where it is missing; its interpreter.
fn python() -> Result<PathBuf, String> {
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

/// A program that tests start.
struct Program {
    what: &'static str,
    /// Its names, of which one is on the path.
    names: &'static [&'static str],
    package: &'static str,
    /// Whether the package's files are all that it needs. Then they are unpacked into `target` and
    /// not installed: an installed server would be started, too.
    alone: bool,
    /// Names another one.
    variable: &'static str,
}

/// For the tests of web pages.
const CHROMIUM: Program = Program {
    what: "Chromium, for the tests of web pages",
    names: &["chromium", "chromium-browser", "google-chrome"],
    package: "chromium",
    alone: false,
    variable: "QUORATE_CHROMIUM",
};

/// For the test of metrics. Its package has `promtool` as well.
const PROMETHEUS: Program = Program {
    what: "Prometheus, for the test of metrics",
    names: &["prometheus"],
    package: "prometheus",
    alone: true,
    variable: "QUORATE_PROMETHEUS",
};

impl Program {
    /// Finds it, fetching Debian's package where there is none.
    fn find(&self) -> Result<PathBuf, String> {
        if let Some(found) = self.found() {
            return Ok(found);
        }
        let Self { what, package, variable, .. } = self;
        println!("fetching {what}");
        // The lists may be there already, and not everybody may renew them.
        let _ = run(Command::new("apt-get").args(["--quiet", "--quiet", "update"]));
        let fetched = if self.alone { self.unpack() } else { self.install() };
        fetched.and_then(|()| self.found().ok_or_else(|| "it is not on the path".to_owned())).map_err(
            |error| {
                format!(
                    "{error}\nthe tests need {what}: install it (on Debian, as root: apt-get update \
                     && apt-get install {package}), or name one in {variable}"
                )
            },
        )
    }

    fn install(&self) -> Result<(), String> {
        let install = ["install", "--quiet", "--yes", "--no-install-recommends", self.package];
        run(Command::new("apt-get").args(install))
    }

    fn unpack(&self) -> Result<(), String> {
        let folder = root().join(TOOLS);
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let download = ["download", "--quiet", self.package];
        // It downloads to where it runs, and `run` has one place for all.
        let status = Command::new("apt-get").args(download).current_dir(&folder).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err("apt-get download failed".to_owned());
        }
        let files = std::fs::read_dir(&folder).map_err(|error| error.to_string())?;
        for file in files.filter_map(Result::ok).map(|file| file.path()) {
            if file.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&folder))?;
            }
        }
        Ok(())
    }

    /// The one that is named, one on the path, or one that was unpacked.
    fn found(&self) -> Option<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable) {
            return Some(path.into());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain([root().join(TOOLS).join("usr/bin")])
            .flat_map(|folder| self.names.iter().map(move |name| folder.join(name)))
            .find(|path| path.exists())
    }
}

/// Where packages are unpacked.
const TOOLS: &str = "target/tools";
