//! Builds what is measured, and another version beside it.

use std::path::PathBuf;
use std::process::Command;

use crate::{files, steps};

/// The profile of releases, said again for versions that do not have it.
const PROFILE: &[&str] = &[
    "--config",
    "profile.dist.inherits=\"release\"",
    "--config",
    "profile.dist.lto=\"thin\"",
    "--config",
    "profile.dist.codegen-units=4",
];

/// Measures, with `--against REVISION` another version too.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let (mut passed, mut against) = (Vec::new(), None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--against" => against = Some(words.next().ok_or("--against takes a revision")?),
            word => passed.push(word.to_owned()),
        }
    }
    steps::cargo(&["build", "--profile=dist", "--locked", "-p=quorate", "-p=quorate-bench"])?;
    if let Some(revision) = against {
        passed.extend(["--against".to_owned(), build(revision)?.display().to_string()]);
    }
    let binary = files::root().join("target/dist/quorate-bench");
    steps::run(Command::new(binary).args(passed))
}

/// Builds another revision in a checkout of its own below `target`, unless it was built before.
fn build(revision: &str) -> Result<PathBuf, String> {
    let commit = format!("{revision}^{{commit}}");
    let commit = steps::output(Command::new("git").args(["rev-parse", "--verify", &commit]))?;
    let checkout = files::root().join("target/against").join(commit.trim());
    let binary = checkout.join("target/dist/quorate");
    if binary.exists() {
        return Ok(binary);
    }
    if !checkout.exists() {
        let mut add = Command::new("git");
        add.args(["worktree", "add", "--force", "--detach"]).arg(&checkout).arg(commit.trim());
        steps::run(&mut add)?;
    }
    let mut build = steps::cargo_command();
    build.args(["build", "--profile=dist", "--locked", "-p=quorate"]).args(PROFILE);
    build.arg("--manifest-path").arg(checkout.join("Cargo.toml"));
    // Both builds of one folder would take each other's generated code.
    build.arg("--target-dir").arg(checkout.join("target"));
    steps::run(&mut build)?;
    Ok(binary)
}
