//! Parties among a coordinator, a router, a peer and a disk that mean them harm.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod approvals;
mod authority;
mod bans;
mod cheat;
mod delegates;
mod disk;
mod json;
mod liar;
mod lie;
mod lies;
mod middle;
mod sessions;
mod store;
mod world;
