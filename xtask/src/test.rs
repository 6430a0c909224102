//! `test`: the checks, then every test and a little fuzzing.

use crate::files::root;
use crate::steps::{cargo, cargo_command, run as execute, step};
use crate::{check, fuzz, setup};

/// Runs everything.
pub(crate) fn run() -> Result<(), String> {
    check::run_all(false)?;
    let [python, chromium, prometheus] = setup::all()?;
    // Of the whole workspace: one package alone has other features, and all is compiled again.
    step("binaries and examples", || {
        cargo(&["build", "--quiet", "--locked", "--workspace", "--bins", "--examples"])
    })?;
    let target = root().join("target/debug");
    execute(
        cargo_command()
            .args(["test", "--workspace", "--locked", "--no-fail-fast"])
            .env("QUORATE_BIN", target.join("quorate"))
            .env("QUORATE_DEVICE_EXAMPLE", target.join("examples/device"))
            .env("QUORATE_PYTHON", python)
            .env("QUORATE_CHROMIUM", chromium)
            .env("QUORATE_PROMETHEUS", prometheus),
    )?;
    fuzz::short()
}
