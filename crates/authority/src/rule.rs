//! The rules by which a request can fail, each with a name that stays.

use std::fmt;

use quorate_types::{Error, ErrorCode};

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A rule that a request can break.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[$doc])* $variant,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, which every refusal begins with.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

rules! {
    /// The session carries no signed request.
    Unsigned = "unsigned",
    /// The request cannot be read.
    Malformed = "malformed",
    /// No initiator that the party knows has this key.
    UnknownInitiator = "unknown_initiator",
    /// The initiator has not signed these bytes.
    Signature = "signature",
    /// The request's time is over, or ends too late.
    Expiry = "expiry",
    /// The request is used up by another session.
    Nonce = "nonce",
    /// The session does something else.
    Ceremony = "ceremony",
    /// The session uses another key.
    Key = "key",
    /// The session uses another epoch of the key.
    Epoch = "epoch",
    /// The key has another verifying key.
    PublicKey = "public_key",
    /// The key has another scheme, or one that is not allowed.
    Scheme = "scheme",
    /// The key is to have another threshold.
    Threshold = "threshold",
    /// The session signs something else.
    Input = "input",
    /// The request derives a key, which this version does not.
    Path = "path",
    /// A party signs that the request does not name.
    Signers = "signers",
    /// The key is to be called something else.
    Label = "label",
    /// The key is to have other holders, or holders with other identities.
    Holders = "holders",
    /// The policy does not let this initiator ask.
    Initiator = "initiator",
    /// It is not the time of day or the day of the week.
    Hours = "hours",
    /// Too many in too short a time.
    Rate = "rate",
    /// As many as there may ever be.
    Count = "count",
    /// The key signs messages that the party can see, and no digests.
    Digests = "digests",
    /// Approvals are missing.
    Approvals = "approvals",
    /// The callback refuses, or does not answer in time.
    Callback = "callback",
    /// The policy has no rule that allows it.
    Denied = "denied",
    /// The party remembers as many unexpired requests as it can.
    Full = "full",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal: the rule that failed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The first rule that is not met.
    pub rule: Rule,
    /// What is wrong and what to do, in words.
    pub why: String,
}

impl Denial {
    /// A refusal by this rule.
    pub fn new(rule: Rule, why: impl Into<String>) -> Self {
        Self { rule, why: why.into() }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.why)
    }
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        Self::new(ErrorCode::PolicyDenied, denial.to_string())
    }
}
