//! Whole sessions under a scheduler with a seed and a clock of its own: messages that are reordered,
//! repeated and lost, and processes that die at each action of their vault.
//!
//! The coordinator is the real one's core; the network, the disks and the processes are here. A
//! failing run says its seed, and `QUORATE_SEED` repeats it alone.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod authorise;
mod bans;
mod disk;
mod keygen;
mod process;
mod refresh;
mod rules;
mod sign;
mod world;
