//! A party's side of a session: one state machine, fed with events and answering with actions.
//!
//! No sockets, no clock, no tasks, no disk. The runtime around a machine carries its actions out in
//! their order and feeds back what came of them: messages, answers of the vault, results of the
//! processor. What is a rule of the protocol is decided here and proven without any of them:
//!
//! - a ban holds when the computation that found its reason returns, nothing of the pair leaves
//!   afterwards, and it is on the disk before the failure is reported;
//! - a share is on the disk before it is confirmed, and signs once all holders have confirmed;
//! - a name is pinned by a completed keygen only;
//! - the view with which a session starts counts, not what was shown before.
//!
//! [`Session`] is a session as a coordinator leads it, [`devices::DeviceRun`] one among devices
//! without a coordinator.

mod attempt;
mod bans;
mod check;
mod computation;
pub mod devices;
mod failure;
mod gate;
mod key;
mod session;
mod vault;

pub use attempt::{Action, Event, Progress};
pub use bans::Bans;
pub use computation::{Computation, Computed, Incoming};
pub use failure::{busy, could_not, restarted};
pub use gate::{Ended, Gate};
pub use key::{NewShare, OpenKey, shown};
pub use session::{Allowed, Input, JOIN_LIMIT, Permission, Session, SessionAction, lifetime};
pub use vault::{KnownPeer, Standing, VaultAction, VaultAnswer, Witness};

use std::sync::Arc;

use quorate_engine::Identity;
use quorate_types::PartyId;

/// Who takes part, with what it needs in all its sessions.
#[derive(Clone)]
pub struct Me {
    /// The party's id.
    pub party: PartyId,
    /// The identity that signs its handshakes and envelopes.
    pub identity: Arc<Identity>,
    /// The bans of its process.
    pub bans: Arc<Bans>,
}
