//! A small mutation fuzzer for everything that strangers' bytes reach first.
//!
//! It knows no coverage. What it follows instead is what a target notes: an input of which
//! something new was noted joins the pool that new inputs are made of.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a fuzzer speaks to its user")]

mod mutate;
mod targets;

use std::collections::HashSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mutate::mutated;
use quorate_testkit::Seeded;
use targets::{TARGETS, Target};

const USAGE: &str = "\
quorate-fuzz [--seconds N] [--target NAME] [--seed S] [--input FILE]

  --seconds N    how long each target runs (5)
  --target NAME  only this one: jsonrpc-frame, relay-frame, router-message, envelope, package or
                 websocket-frame
  --seed S       the inputs are made from it (else another one each time)
  --input FILE   runs the target on this one input
";

/// Inputs that may join the committed ones: memory of a machine that runs this beside tests.
const POOL: usize = 4_096;

struct Options {
    seconds: u64,
    target: Option<String>,
    seed: u64,
    input: Option<PathBuf>,
}

fn options() -> Option<Options> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let seed = u64::try_from(now).unwrap_or(0);
    let mut options = Options { seconds: 5, target: None, seed, input: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--seconds" => options.seconds = value.parse().ok()?,
            "--target" => options.target = Some(value),
            "--seed" => options.seed = value.parse().ok()?,
            "--input" => options.input = Some(value.into()),
            _ => return None,
        }
    }
    let known = |name: &String| TARGETS.iter().any(|target| target.name == name);
    let fits = options.target.as_ref().map_or(options.input.is_none(), known);
    fits.then_some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let chosen = |target: &&Target| options.target.as_ref().is_none_or(|name| target.name == name);
    let mut sound = true;
    for target in TARGETS.iter().filter(chosen) {
        sound &= match &options.input {
            Some(path) => std::fs::read(path).is_ok_and(|input| outcome(target, &input).is_some()),
            None => fuzz(target, options.seed, Duration::from_secs(options.seconds)),
        };
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a target noted of an input, or nothing when it panicked.
fn outcome(target: &Target, input: &[u8]) -> Option<Vec<u64>> {
    catch_unwind(|| (target.run)(input)).ok()
}

/// Runs a target for a while. False when an input made it panic.
fn fuzz(target: &Target, seed: u64, time: Duration) -> bool {
    println!("{} with seed {seed}", target.name);
    let (mut rng, mut seen, mut runs) = (Seeded(seed), HashSet::new(), 0_u64);
    let mut pool = corpus(target.name);
    let committed = pool.len();
    assert!(committed > 0, "no corpus for {}", target.name);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let first =
            usize::try_from(runs).ok().and_then(|at| pool.get(at).filter(|_| at < committed));
        let input = first.cloned().unwrap_or_else(|| mutated(&mut rng, &pool, target.words));
        runs += 1;
        let Some(noted) = outcome(target, &input) else {
            report(target, seed, runs, &input);
            return false;
        };
        let before = seen.len();
        seen.extend(noted);
        if seen.len() > before && pool.len() < POOL {
            pool.push(input);
        }
    }
    println!("  {runs} inputs, {} noted, {} in the pool", seen.len(), pool.len());
    true
}

/// The committed inputs, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn report(target: &Target, seed: u64, run: u64, input: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let path = folder.join(format!("{}-{seed}-{run}", target.name));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    eprintln!("\n{} panicked on input {run} of seed {seed}", target.name);
    match kept {
        Ok(()) => eprintln!("  --target {} --input {}", target.name, path.display()),
        Err(error) => eprintln!("  {input:?}\n  which cannot be written: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_committed_input_runs_and_notes_the_same_twice() {
        for target in TARGETS {
            let corpus = corpus(target.name);
            assert!(!corpus.is_empty(), "{}", target.name);
            for input in corpus {
                assert_eq!((target.run)(&input), (target.run)(&input), "{}", target.name);
            }
        }
    }
}
