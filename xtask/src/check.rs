//! `check`: every fast check, one line each.

use std::process::Command;

use crate::files;
use crate::layers;
use crate::steps::{cargo, cargo_command, output, run as execute, step};
use crate::supply;
use crate::wasm;
use crate::words;

/// Runs all checks; `fix` corrects what a tool can correct.
pub(crate) fn run_all(fix: bool) -> Result<(), String> {
    step("format", || match fix {
        true => cargo(&["fmt", "--all"]),
        false => cargo(&["fmt", "--all", "--check"]),
    })?;
    step("files", files::check)?;
    step("words", words::check)?;
    step("layers", layers::check)?;
    let metadata = layers::metadata()?;
    step("dependencies", || files::unused_dependencies(&metadata))?;
    step("supply", || supply::check(&metadata))?;
    step("lints", || {
        let lint = ["clippy", "--quiet", "--workspace", "--all-targets", "--locked"];
        execute(cargo_command().args(lint).args(["--", "-D", "warnings"]))
    })?;
    step("browsers", wasm::check)?;
    step("openapi", || openapi(fix))?;
    step("docs", || {
        let doc = ["doc", "--quiet", "--workspace", "--no-deps", "--locked"];
        execute(cargo_command().args(doc).env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// The command line's `check`.
pub(crate) fn run(fix: bool) -> Result<(), String> {
    run_all(fix)?;
    println!("\nall checks passed");
    Ok(())
}

/// The checked-in OpenAPI document is what the code says.
fn openapi(fix: bool) -> Result<(), String> {
    let path = files::root().join("openapi/quorate.json");
    // With the features of the whole workspace: nothing is compiled for this alone.
    cargo(&["build", "--quiet", "--locked", "--workspace", "--example", "openapi"])?;
    let now = output(&mut Command::new(files::root().join("target/debug/examples/openapi")))?;
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if now.trim() == kept.trim() {
        return Ok(());
    }
    if fix {
        return std::fs::write(&path, now).map_err(|error| error.to_string());
    }
    Err("openapi/quorate.json is out of date: `cargo xtask check --fix` writes it anew".into())
}
