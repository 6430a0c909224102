//! JSON shapes of the REST and WebSocket interfaces.
//!
//! Every body is one struct here. Requests are parsed at the edge: a value that exists is well
//! formed, an unknown member is refused, and every refusal names the member it is about. Answers
//! are read leniently, so that an older client understands a newer server.
//!
//! The frames of the binary relay are in [`relay`].
//!
//! [`parse`] turns bytes into a request; `into_*` methods and `From` turn it into the shared words.

mod account;
mod api_key;
mod authorization;
mod codec;
mod delegate;
mod device;
mod error;
mod event;
pub mod jsonrpc;
mod key;
mod message;
mod mpc;
mod notification;
mod parse;
mod party;
pub mod relay;
mod report;
mod schema;
mod service;
mod session;
mod socket;
mod strict;
mod ticket;
mod time;
mod view;

pub use account::{AccountChangeJson, AccountJson, AccountsJson, NewAccountJson};
pub use api_key::{ApiKeyJson, ApiKeyPageJson, MadeApiKeyJson, NewApiKeyJson};
pub use authorization::{ApprovalJson, AuthorizationJson};
pub use codec::{
    Base64Text, DigestText, IdentityText, PublicKeyText, SignatureText, decode_base64, decode_hex,
};
pub use delegate::{
    DelegateKeyJson, DelegatedShareJson, LentShareJson, OnBehalfOfJson, PublishedKey, SealKeyJson,
    ShareStepJson, SubmitShareJson,
};
pub use device::{DeviceJson, NewParticipantJson};
pub use error::{BlameJson, DetailsJson, ErrorJson, close_reason};
pub use event::EventJson;
pub use key::{
    AttestationJson, EpochJson, FreezeJson, FreezeKeyJson, HeldBanJson, HeldKeyJson, KeyDetailJson,
    KeyJson, KeysJson, ReportedBanJson,
};
pub use message::{
    AckAnswerJson, AckJson, DeliveryJson, MessageJson, MessageStatusJson, MessagesJson,
    RouteAnswerJson, RouteJson,
};
pub use mpc::{MpcCreatedJson, MpcKeygenJson, MpcSessionJson, MpcSignJson};
pub use notification::{NotificationStatusJson, NotificationsJson};
pub use parse::parse;
pub use party::{
    HeartbeatAnswerJson, HeartbeatJson, NotificationJson, PartiesJson, PartyJson, RegisterJson,
    RegisteredJson,
};
pub use report::{CompletedJson, FailureJson, ReportJson};
pub use service::{HealthJson, ReadinessJson};
pub use session::{
    CreateSessionJson, CreatedSessionJson, JoinSessionJson, JoinedSessionJson, ReadyAnswerJson,
    ReadyJson, SessionStepJson,
};
pub use socket::{ClientFrame, RoutedJson, ServerFrame};
pub use ticket::TicketJson;
pub use time::{Rfc3339, uptime};
pub use view::{
    ParticipantJson, SeatJson, SessionJson, SessionsJson, TimelineEntryJson, TimelineJson,
};
