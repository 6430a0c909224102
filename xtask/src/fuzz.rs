//! `fuzz`: changed inputs for everything that strangers' bytes reach first.

use std::process::Command;

use crate::files;
use crate::steps::{cargo, run as execute};

/// Seconds for each target among the tests, and the seed they are made from: a failing test fails
/// again.
const SHORT: &[&str] = &["--seconds", "3", "--seed", "1"];

/// Runs the fuzzer with its own options. In the development profile, where overflow panics.
pub(crate) fn run(options: &[&str]) -> Result<(), String> {
    cargo(&["build", "--quiet", "--locked", "--workspace", "--bin", "quorate-fuzz"])?;
    execute(Command::new(files::root().join("target/debug/quorate-fuzz")).args(options))
}

/// The short run among the tests.
pub(crate) fn short() -> Result<(), String> {
    run(SHORT)
}
