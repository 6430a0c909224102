//! `setup-wasm`: a compiler for browsers, and the pure crates compiled by it.
//!
//! With rustup's target `wasm32-unknown-unknown` nothing else is needed. Where it cannot be had, Debian
//! has a second compiler with the standard library's source; cargo builds that, too.

use std::path::Path;
use std::process::Command;

use crate::layers::PURE;
use crate::steps::{cargo_command, output, run};

const TARGET: &str = "wasm32-unknown-unknown";
/// Debian's compiler, its standard library's source, and the linker.
const PACKAGES: [&str; 5] = ["rustc-web", "rust-web-src", "rust-web-llvm", "libllvm22", "lld-22"];
const COMPILER: &str = "/usr/bin/rustc";
const LINKER: &str = "/usr/bin/wasm-ld-22";

/// Who compiles for the target.
pub(crate) enum Compiler {
    /// The one that compiles everything else.
    Own,
    /// Debian's, with a standard library from its source.
    Debian,
}

/// Finds a compiler for the target, installing Debian's where there is none.
pub(crate) fn setup() -> Result<Compiler, String> {
    if has_target()? {
        return Ok(Compiler::Own);
    }
    if !Path::new(LINKER).exists() || !compiles_for_wasm(COMPILER) {
        println!("installing Debian's Rust compiler for WebAssembly");
        let install = ["install", "--quiet", "--yes", "--no-install-recommends"];
        run(Command::new("apt-get").arg("update").arg("--quiet"))
            .and_then(|()| run(Command::new("apt-get").args(install).args(PACKAGES)))
            .map_err(|error| {
                format!(
                    "{error}\nthe pure crates are compiled for browsers, too: rustup target add \
                     {TARGET}, or on Debian, as root: apt-get install {}",
                    PACKAGES.join(" ")
                )
            })?;
    }
    Ok(Compiler::Debian)
}

/// The crates that run in a browser compile for it.
pub(crate) fn check() -> Result<(), String> {
    let compiler = setup()?;
    let mut cargo = cargo_command();
    cargo.args(["check", "--quiet", "--locked", "--target", TARGET, "--target-dir", "target/wasm"]);
    for name in PURE.iter().filter(|name| **name != "quorate-ports") {
        cargo.args(["-p", name]);
    }
    // Randomness comes from the browser.
    cargo.env("RUSTFLAGS", "--cfg getrandom_backend=\"wasm_js\"");
    if matches!(compiler, Compiler::Debian) {
        cargo.arg("-Zbuild-std=std,panic_abort");
        // The standard library's source belongs to this compiler, which is a stable one.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", COMPILER);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER);
    }
    run(&mut cargo)
}

fn has_target() -> Result<bool, String> {
    let print = ["--print", "target-libdir", "--target", TARGET];
    let folder = output(Command::new("rustc").args(print))?;
    Ok(Path::new(folder.trim()).exists())
}

/// Whether a compiler has its standard library's source beside it.
fn compiles_for_wasm(compiler: &str) -> bool {
    let sysroot = Command::new(compiler).args(["--print", "sysroot"]).output();
    let folder = sysroot.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    folder.is_some_and(|folder| {
        Path::new(folder.trim()).join("lib/rustlib/src/rust/library/std/Cargo.toml").exists()
    })
}
