//! The project's own tasks: `cargo xtask check | test | fuzz | bench | soak | layers`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task runner speaks to its user")]

mod bench;
mod check;
mod files;
mod fuzz;
mod layers;
mod setup;
mod soak;
mod steps;
mod supply;
mod test;
mod wasm;
mod words;

use std::process::ExitCode;

const USAGE: &str = "\
The project's own tasks.

  cargo xtask check [--fix]      every fast check: format, lints, layers, files, licences, documents
  cargo xtask test               check, then every test, after installing what they need
  cargo xtask fuzz [OPTION ...]  changed inputs for the parsers; --seconds N, --target NAME, --seed S
  cargo xtask bench [WHAT ...]   measure, baseline and ours in turn; see `cargo xtask bench help`
                                 --against REVISION measures that version of the program beside it
  cargo xtask soak [TEST ...]    the long forms of tests: minutes each, on the released profile
  cargo xtask layers             only the rule that arrows point down
  cargo xtask setup              what the tests need beyond cargo: Python packages, a browser, Prometheus
  cargo xtask setup-wasm         a compiler for browsers, and the pure crates compiled by it
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => check::run(false),
        ["check", "--fix"] => check::run(true),
        ["test"] => test::run(),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["soak", names @ ..] => soak::run(names),
        ["layers"] => layers::check().map(|()| println!("every arrow points down")),
        ["setup"] => setup::all().map(|_| println!("the tests find all that they need")),
        ["setup-wasm"] => wasm::check().map(|()| println!("the pure crates compile for browsers")),
        ["bench", rest @ ..] => bench::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("\nfailed: {problem}");
            ExitCode::FAILURE
        }
    }
}
