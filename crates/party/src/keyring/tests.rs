//! The keyring over a vault in memory.
