//! The shell around the pure core: apply, persist, release.
//!
//! Each service is a cloneable handle on one core behind one short mutex. A command is applied and
//! its writes are queued in the store *inside* that mutex, so the order on disk is the order in
//! memory; waiting for the disk, and everything else that takes time, happens outside it. What an
//! answer promises is awaited before the answer: see `docs/architecture.md`, "Durability".

pub mod accounts;
pub mod clock;
pub mod coordinator;
pub mod keys;
pub mod links;
pub mod metrics;
pub mod restore;
pub mod router;
pub mod tokens;

pub use accounts::AccountsApp;
pub use clock::{Clock, ManualClock, SystemClock};
pub use coordinator::{CoordinatorApp, CoordinatorConfig, CoordinatorParts};
pub use keys::ApiKeys;
pub use links::{EventSink, LateProgress, ProgressSink, RemoteEvents, RemoteProgress};
pub use restore::{HeldKey, restore_keys};
pub use router::{RouterApp, RouterConfig, RouterParts};
pub use tokens::JoinTokens;

/// The bound on ended sessions kept in memory for late questions; older ones come from the store.
pub(crate) const ENDED_KEPT: usize = 256;

/// Locks a mutex of this crate. Poisoning means a panic inside the core: the state may be half
/// changed, so nothing may be answered from it any more.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic while the core's lock is held")
}
