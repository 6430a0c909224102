//! What can go wrong in a protocol, how bad it is, and through whom.

use std::fmt;

use bytes::Bytes;
use quorate_types::PartyId;

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A stable code for each kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FaultCode { $($(#[$doc])* $variant,)* }

        impl FaultCode {
            /// The code's stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

fault_codes! {
    /// Our own side was called wrongly.
    BadInput = "bad_input",
    /// The bytes are not an envelope of this version.
    EnvelopeInvalid = "envelope_invalid",
    /// The message belongs to another attempt, session or key, or its sender sees other facts.
    ExecutionMismatch = "execution_mismatch",
    /// A party signed two different messages for the same place in the protocol.
    ConflictingMessage = "conflicting_message",
    /// The envelope names another sender than the one it came from.
    WrongSender = "wrong_sender",
    /// The envelope is for somebody else.
    WrongRecipient = "wrong_recipient",
    /// No such message belongs to this round.
    WrongRound = "wrong_round",
    /// The signature is not by the sender's identity key.
    SignatureInvalid = "signature_invalid",
    /// The handshake is malformed or not signed by its party.
    HandshakeInvalid = "handshake_invalid",
    /// The handshake is of another version of the protocol.
    VersionMismatch = "version_mismatch",
    /// A sealed body cannot be opened.
    SealInvalid = "seal_invalid",
    /// A party is not a holder of the key, holds another place, or only looks on.
    NotASigner = "not_a_signer",
    /// An authentic message breaks the protocol.
    ProtocolViolation = "protocol_violation",
    /// A party signed different broadcasts for different parties.
    EchoMismatch = "echo_mismatch",
    /// A check of the multiplication failed in a way that may leak a share.
    OtCheckFailed = "ot_check_failed",
    /// A party's share of a signature does not verify.
    SignatureShareInvalid = "signature_share_invalid",
    /// The protocol ended with a signature that does not verify.
    ResultInvalid = "result_invalid",
}

/// What must follow from a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing happened that matters: the message is ignored, the run goes on or may be repeated.
    Benign,
    /// This run has failed; another may succeed.
    Recoverable,
    /// The blamed party must never sign with this share again until it is refreshed.
    Ban,
}

/// What ended a run, how bad that is, and through whom.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The stable kind of fault.
    pub code: FaultCode,
    /// Whether an attempt may follow, or the pair must not sign again.
    pub severity: Severity,
    /// Through whom, where the evidence says so.
    pub blame: Option<PartyId>,
    /// In words; never contains secrets.
    pub message: String,
    /// For a ban: the envelopes by which it was found, as the blamed party signed them, and the
    /// broadcasts that they answer. For two messages in one place: both, the second of them maybe
    /// as header, SHA-256 of the body and signature. Otherwise empty.
    pub evidence: Vec<Bytes>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl Fault {
    pub(crate) fn benign(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Benign,
            blame: None,
            message: message.into(),
            evidence: Vec::new(),
        }
    }

    pub(crate) fn blaming(mut self, party: &PartyId) -> Self {
        self.blame = Some(party.clone());
        self
    }
}
