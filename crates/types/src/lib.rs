//! The words every layer of Quorate shares.
//!
//! Nothing here does anything: these are checked values (an id that exists is well formed), the
//! requests and views that cross layers, and the one error value that every wire renders.

pub mod account;
pub mod address;
pub mod api_key;
pub mod authority;
pub mod ceremony;
pub mod delegate;
pub mod error;
pub mod group;
pub mod ids;
pub mod key;
pub mod message;
pub mod notification;
pub mod page;
pub mod party;
pub mod scheme;
pub mod secret;
pub mod session;
pub mod text;
pub mod threshold;
pub mod time;
pub mod vault;
mod words;

pub use account::*;
pub use address::ClientAddress;
pub use api_key::*;
pub use authority::{
    Approval, AuthorityAlgorithm, AuthorityKey, AuthoritySignature, Authorization, MAX_APPROVALS,
    MAX_REQUEST,
};
pub use ceremony::{Ceremony, CeremonyRequest, KeySelector, MAX_MESSAGE, SessionKind, SignInput};
pub use delegate::*;
pub use error::{Blame, Details, Error, ErrorCode, Result};
pub use group::GroupKind;
pub use ids::*;
pub use key::*;
pub use message::*;
pub use notification::*;
pub use page::{Cursor, PARTIES_PAGE, Page, parties_page};
pub use party::*;
pub use scheme::{Digest, PublicKey, ReportedSignature, Scheme, Signature};
pub use secret::Secret;
pub use session::*;
pub use threshold::{PartyIndex, ShareIndex, Threshold};
pub use time::{Moment, Timestamp};
