//! Words of the JSON-RPC group relay.

use serde::{Deserialize, Serialize};

/// What the members of a group do in a session. The protocol of the relay, which is older than this
/// program, has these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// They make a key.
    Keygen,
    /// The members sign with a key that they hold.
    Sign,
}

impl GroupKind {
    /// The wire's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keygen => "keygen",
            Self::Sign => "sign",
        }
    }
}
