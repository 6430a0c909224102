//! Threshold signing you can run.
fn main() {}
