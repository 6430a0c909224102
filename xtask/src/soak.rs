//! `soak`: the long forms of tests that CI runs in short, against the released profile.

use crate::files::root;
use crate::steps::{cargo, cargo_command, run as execute};

/// Tests that have a long form.
const LONG: &[&str] = &[
    "a_herd_of_keygens_is_made_in_turn_while_others_sign",
    "a_disk_that_fills_takes_back_nothing_that_was_told",
    "a_kill_of_any_holder_at_any_time_of_a_refresh_leaves_one_epoch_that_signs",
    "messages_are_signed_over_rest_and_verify_elsewhere",
    "strangers_cost_little_while_an_honest_key_signs",
];

/// Runs them one after the other, or those that are named.
pub(crate) fn run(names: &[&str]) -> Result<(), String> {
    cargo(&["build", "--profile=dist", "--locked", "-p=quorate"])?;
    let names = if names.is_empty() { LONG } else { names };
    execute(
        cargo_command()
            .args(["test", "--workspace", "--locked", "--tests", "--"])
            .args(["--include-ignored", "--nocapture", "--test-threads", "1"])
            .args(names)
            .env("QUORATE_SOAK", "1")
            .env("QUORATE_BIN", root().join("target/dist/quorate")),
    )
}
