//! Benchmarks that alternate a baseline and Quorate in one run.
fn main() {}
