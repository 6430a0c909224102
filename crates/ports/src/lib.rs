//! The traits between the application and everything around it.
//!
//! [`api`] is what fronts call and what another role may answer over gRPC; [`store`] is what the
//! application needs kept; [`groups`] is what the group relay needs kept; [`vault`] is what a party
//! needs kept on its own machine.

pub mod api;
pub mod groups;
pub mod store;
pub mod vault;

pub use api::{Accounts, BoxStream, Coordinator, Router};
pub use groups::{GroupStore, GroupWrite};
pub use store::{Commit, Store, Urgency, Write};
pub use vault::Vault;
