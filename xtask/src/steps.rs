//! Running programs, and saying how long each step took.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::files::root;

/// Runs a program in the repository's root, showing what it prints.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.current_dir(root()).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} cannot be run: {error}")),
    }
}

/// Runs cargo, the one that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Result<(), String> {
    run(cargo_command().args(arguments))
}

/// Cargo, the one that runs us.
pub(crate) fn cargo_command() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What a program prints on standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.current_dir(root()).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{command:?} cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{command:?} printed no text"))
}

/// Runs one named step and prints its time.
pub(crate) fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    print!("{name:<14}");
    let _ = std::io::stdout().flush();
    let began = Instant::now();
    work().inspect_err(|_| println!("FAILED"))?;
    println!("ok  {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
