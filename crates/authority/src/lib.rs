//! Who may have what signed: requests that an initiator has signed, approvals of them, and the
//! policy by which a party decides on its own machine.
//!
//! Everything here is pure: the time, what was allowed before and what a callback has said come in.
//! [`Initiators::verify`] says whether somebody known has signed a request, [`Request::fits`]
//! whether a session is what was asked for, [`Policy::decide`] whether the party takes part. Each
//! refusal names the [`Rule`] that failed.

mod calendar;
mod encoding;
mod fits;
mod initiators;
mod key;
mod policy;
mod request;
mod rule;
mod secret;

pub use calendar::Hours;
pub use fits::Facts;
pub use initiators::{Initiators, Verified};
pub use key::{read_public_key, verify};
pub use policy::{
    Approvals, Callback, Decision, Entry, MAX_RATE, Otherwise, Period, Policy, Rate, Use,
};
pub use request::{
    Action, MAX_LIFETIME, MAX_PURPOSE, NamedHolder, Request, RequestedInput, Signers,
    approval_message, hash,
};
pub use rule::{Denial, Rule};
pub use secret::AuthoritySecret;
