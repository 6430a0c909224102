//! The traits between the application and everything around it.
//!
//! [`sessions`], [`routing`], [`accounts`] and [`api_keys`] are what fronts call and what another role may answer
//! over gRPC, cut by who asks, so that each holds no more than its part; [`store`] is what the
//! application needs kept; [`groups`] is what the group relay needs kept; [`vault`] is what a party
//! needs kept on its own machine, and [`ledger`] what it has to remember of allowed requests;
//! [`notify`] is who carries notifications.

pub mod accounts;
pub mod api_keys;
pub mod groups;
pub mod ledger;
pub mod notify;
pub mod routing;
pub mod sessions;
pub mod store;
pub mod vault;

pub use accounts::Accounts;
pub use api_keys::ManageApiKeys;
pub use groups::{GroupStore, GroupWrite};
pub use ledger::{AskCallback, CallbackAnswer, Ledger};
pub use notify::{Delivery, Notifier, ReadNotifications, Undelivered};
pub use routing::{Announce, BoxStream, Deliver, Directory, ReadMessages, Router};
pub use sessions::{Coordinator, ManageSessions, NoteProgress, ReadSession, TakePart};
pub use store::{Commit, Store, Urgency, Write};
pub use vault::Vault;
