//! `quorate`: threshold signing you can run.
//!
//! This crate puts the parts together and talks to people; it decides nothing about sessions.

mod cli;
mod serve;

use std::process::ExitCode;

use clap::Parser;

/// Protocol messages are buffers of 40 to 150 kB made and dropped by the thousand: the system's
/// allocator gives each back to the kernel, and a tenth of a signature's time goes into that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    serve::logging::start(cli.log_json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            cli::tell(&format!("error: no runtime could be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(cli::run(cli)) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    };
    // A computation that nobody waits for any more does not hold the end.
    runtime.shutdown_background();
    code
}
