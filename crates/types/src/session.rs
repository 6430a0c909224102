//! Sessions: requests, views, events.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::authority::Authorization;
use crate::ceremony::{Ceremony, CeremonyRequest};
use crate::delegate::{FetchToken, LentShare, OnBehalfOf};
use crate::ids::{EventId, KeyId, PartyId, SessionId, Tenant};
use crate::key::{Attestation, KeyLabel};
use crate::party::{DeviceInfo, Handshake};
use crate::scheme::{PublicKey, Signature};
use crate::secret::Secret;
use crate::threshold::PartyIndex;
use crate::time::Timestamp;
use crate::words::words;

words! {
    /// Where a session stands.
    SessionStatus("status") {
        /// Nobody has joined.
        Created = "created",
        /// A party waits for approvals of the request before it joins.
        AwaitingApproval = "awaiting_approval",
        /// Some have joined; not all are ready.
        Waiting = "waiting",
        /// All are ready: the protocol runs.
        InProgress = "in_progress",
        /// The result is known and verified.
        Completed = "completed",
        /// It ended without a result, and says why.
        Failed = "failed",
        /// Its deadline passed.
        Expired = "expired",
    }
}

impl SessionStatus {
    /// Whether nothing more happens.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired)
    }

    /// Whether it has yet to start: its parties are still coming together.
    pub fn is_unstarted(self) -> bool {
        matches!(self, Self::Created | Self::AwaitingApproval | Self::Waiting)
    }
}

words! {
    /// Where a participant stands.
    ParticipantStatus("status") {
        /// Has not joined.
        Waiting = "waiting",
        /// Waits for approvals of the request before it joins.
        AwaitingApproval = "awaiting_approval",
        /// Joined with its token.
        Joined = "joined",
        /// Says it can start.
        Ready = "ready",
        /// The protocol runs.
        Computing = "computing",
        /// Reported its result.
        Completed = "completed",
        /// Reported or was found at fault.
        Failed = "failed",
    }
}

words! {
    /// What happened to a session, as pushed to its parties.
    EventKind("event_type") {
        /// Created; a selected party finds its join token in it.
        SessionCreated = "session_created",
        /// A party waits for approvals of the request.
        AwaitingApproval = "awaiting_approval",
        /// An approval of the request has come in.
        ApprovalAdded = "approval_added",
        /// A party joined.
        PartyJoined = "party_joined",
        /// A party is ready.
        PartyReady = "party_ready",
        /// All are ready: compute now.
        SessionStarted = "session_started",
        /// The result is known.
        SessionCompleted = "session_completed",
        /// The session ended without a result.
        SessionFailed = "session_failed",
        /// Its deadline passed.
        SessionExpired = "session_expired",
    }
}

words! {
    /// Why a session ended without a result.
    FailureReason("reason") {
        /// A party reported that it could not go on.
        PartyFailed = "party_failed",
        /// A party was restarted in the middle and has lost what it had computed.
        PartyRestarted = "party_restarted",
        /// A party broke the protocol, with evidence.
        PartyCheated = "party_cheated",
        /// A party's policy, or what the initiator has signed, does not allow it.
        PolicyDenied = "policy_denied",
        /// Parties reported different results.
        ResultsDiffer = "results_differ",
        /// A reported signature does not verify under the key.
        SignatureInvalid = "signature_invalid",
        /// The deadline passed before all had done their part.
        DeadlinePassed = "deadline_passed",
        /// Its creator closed it.
        Closed = "closed",
        /// The key was frozen meanwhile.
        KeyFrozen = "key_frozen",
    }
}

/// How and through whom a session failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable reason.
    pub reason: FailureReason,
    /// What happened, in words.
    pub message: String,
    /// Parties that did not do their part in time, or are at fault.
    pub parties: Vec<PartyId>,
}

/// A participant as its session's creator names it.
#[derive(Clone, Debug)]
pub struct NewParticipant {
    /// The id of the participant.
    pub party_id: PartyId,
    /// What the participant's device says of itself.
    pub device: DeviceInfo,
    /// For whom it takes the seat, where it is a delegate.
    pub on_behalf_of: Option<OnBehalfOf>,
}

impl NewParticipant {
    /// Whose the seat is among the holders of the key.
    pub fn holder(&self) -> &PartyId {
        self.on_behalf_of.as_ref().map_or(&self.party_id, |of| &of.user_id)
    }
}

/// A request to create a session.
#[derive(Clone, Debug)]
pub struct CreateSession {
    /// What it is to do.
    pub ceremony: CeremonyRequest,
    /// The parties. Missing ones are filled from registered online persistent parties.
    pub participants: Vec<NewParticipant>,
    /// Seconds until the deadline; `None` = the server's default.
    pub expires_in_seconds: Option<u64>,
    /// Same key and same request → same session, not a second one.
    pub idempotency_key: Option<String>,
    /// The request as an initiator has signed it. Without one the coordinator's service initiator
    /// signs, where there is one.
    pub authorization: Option<Authorization>,
    /// Keygen: what the key is called.
    pub label: Option<KeyLabel>,
    /// Whether a named participant may be replaced by another holder of the key, too, when it
    /// cannot sign.
    pub replace: bool,
    /// Sign: the share that a user lends a delegate for this request.
    pub lent: Option<LentShare>,
    /// The webhook that is told how the session ends, by the name that the operator gave it.
    pub webhook: Option<String>,
}

/// A created session.
#[derive(Clone)]
pub struct CreatedSession {
    /// The session as it stands.
    pub session: SessionView,
    /// Each participant's join token, shown here and to the participant only.
    pub join_tokens: BTreeMap<PartyId, JoinToken>,
    /// Keygen: by delegate, the token with which its user fetches its package.
    pub fetch_tokens: BTreeMap<PartyId, FetchToken>,
}

/// A join token in clear: url-safe base64 of the session id and 256 secret bits.
pub type JoinToken = Secret<String>;

/// A request to join.
#[derive(Clone)]
pub struct JoinSession {
    /// When given it must be the token's session.
    pub session_id: Option<SessionId>,
    /// The id of the joining party.
    pub party_id: PartyId,
    /// The party's token.
    pub token: JoinToken,
    /// The party's device.
    pub device: DeviceInfo,
    /// The party's handshake, required of parties that compute with Quorate's engine.
    pub handshake: Option<Handshake>,
    /// Join and say ready in one call.
    pub ready: bool,
    /// Do not join: say that the party waits for approvals first.
    pub awaiting_approval: bool,
    /// The attempt that is joined, from 0.
    pub attempt: u32,
}

/// Answer to joining.
#[derive(Clone, Debug)]
pub struct JoinedSession {
    /// The joiner's place.
    pub party_index: PartyIndex,
    /// The session with all participants.
    pub session: SessionView,
}

/// Answer to saying ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyCount {
    /// Participants that are ready or further.
    pub ready: u16,
    /// Participants in all.
    pub total: u16,
}

impl ReadyCount {
    /// Whether the session has started by this.
    pub fn all_ready(self) -> bool {
        self.ready == self.total
    }
}

/// What a party reports at its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// The id of the session.
    pub session_id: SessionId,
    /// The id of the reporting party.
    pub party_id: PartyId,
    /// The attempt of which it tells, from 0.
    pub attempt: u32,
    /// What came out.
    pub outcome: PartyOutcome,
}

/// A party's result, before the coordinator has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartyOutcome {
    /// Keygen: a key that all holders keep. Refresh: the same key, in its next epoch.
    Key {
        /// In any encoding its scheme knows.
        public_key: Vec<u8>,
        /// What all holders signed of it; none from a party without an identity.
        attestation: Option<Box<Attestation>>,
        /// Which epoch was made, where its holders have signed it; else it is the one after the one
        /// that was asked for, or the first.
        epoch: Option<u32>,
    },
    /// Sign: 64 or 65 bytes for ECDSA.
    Signature {
        /// r ‖ s.
        bytes: Vec<u8>,
        /// Recovery id, where the caller gives one.
        recovery_id: Option<u8>,
    },
    /// It could not finish.
    Failure(Failure),
}

/// What a session made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A key, or the next epoch of one.
    PublicKey(PublicKey),
    /// A signature that verifies under the key.
    Signature(Signature),
}

/// A participant as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantView {
    /// The id of the participant.
    pub party_id: PartyId,
    /// Its place, from 0.
    pub party_index: PartyIndex,
    /// Where it stands.
    pub status: ParticipantStatus,
    /// What the participant's device says of itself.
    pub device: DeviceInfo,
    /// Its handshake, once it has joined with one.
    pub handshake: Option<Handshake>,
    /// For whom it takes the seat, where it is a delegate.
    pub on_behalf_of: Option<OnBehalfOf>,
}

impl ParticipantView {
    /// Whose the seat is among the holders of the key.
    pub fn holder(&self) -> &PartyId {
        self.on_behalf_of.as_ref().map_or(&self.party_id, |of| &of.user_id)
    }
}

/// A session as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The session's id.
    pub session_id: SessionId,
    /// Who owns it. Travels between roles and to parties; JSON does not show it.
    pub tenant: Tenant,
    /// What it does.
    pub ceremony: Ceremony,
    /// Where it stands.
    pub status: SessionStatus,
    /// The attempt under way, or the last one, from 0: a signature is tried again with other
    /// holders of the key when some cannot go on.
    pub attempt: u32,
    /// The parties in the order of their indices.
    pub participants: Vec<ParticipantView>,
    /// Who took part in an earlier attempt and does not in this one.
    pub replaced: Vec<PartyId>,
    /// What the initiator has signed, and who has approved of it.
    pub authorization: Option<Arc<Authorization>>,
    /// What came out, once completed.
    pub outcome: Option<Outcome>,
    /// What went wrong, once failed or expired.
    pub failure: Option<Failure>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Moment at which the session expires unless it has ended.
    pub expires_at: Timestamp,
}

impl SessionView {
    /// The key that it uses, or that a completed keygen has made.
    pub fn key_id(&self) -> Option<KeyId> {
        match (&self.ceremony, &self.outcome) {
            (Ceremony::Sign { key, .. } | Ceremony::Refresh { key }, _) => Some(key.key_id),
            (Ceremony::Keygen { .. }, Some(_)) => Some(self.session_id.into()),
            (Ceremony::Keygen { .. }, None) => None,
        }
    }

    /// The verifying key of the key that it uses or has made.
    pub fn public_key(&self) -> Option<&PublicKey> {
        match (&self.ceremony, &self.outcome) {
            (Ceremony::Sign { key, .. } | Ceremony::Refresh { key }, _) => Some(&key.public_key),
            (Ceremony::Keygen { .. }, Some(Outcome::PublicKey(key))) => Some(key),
            (Ceremony::Keygen { .. }, _) => None,
        }
    }

    /// A party's seat, if it takes part.
    pub fn seat(&self, party: &PartyId) -> Option<&ParticipantView> {
        self.participants.iter().find(|seat| seat.party_id == *party)
    }

    /// Who takes part, in the order of the participants.
    pub fn parties(&self) -> impl Iterator<Item = &PartyId> {
        self.participants.iter().map(|seat| &seat.party_id)
    }

    /// Participants that have not done what the session waits for.
    pub fn waiting_for(&self) -> Vec<PartyId> {
        let behind = |p: &&ParticipantView| match self.status {
            SessionStatus::InProgress => p.status == ParticipantStatus::Computing,
            status if status.is_unstarted() => matches!(
                p.status,
                ParticipantStatus::Waiting
                    | ParticipantStatus::AwaitingApproval
                    | ParticipantStatus::Joined
            ),
            _ => false,
        };
        self.participants.iter().filter(behind).map(|p| p.party_id.clone()).collect()
    }

    /// The same session with each seat under the name of its holder: what the parties compute with.
    /// Others call a delegated seat by its delegate.
    #[must_use]
    pub fn by_holder(mut self) -> Self {
        for seat in &mut self.participants {
            seat.party_id = seat.holder().clone();
        }
        self
    }

    /// Participants that have reported a result.
    pub fn completed_parties(&self) -> usize {
        self.participants.iter().filter(|p| p.status == ParticipantStatus::Completed).count()
    }
}

/// What to wait for before answering a status question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// The protocol has started or the session has ended.
    Start,
    /// The session has ended.
    End,
}

/// One line of a session's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When the coordinator noted it.
    pub at: Timestamp,
    /// Who, where it was a party.
    pub party_id: Option<PartyId>,
    /// What, in words: `created`, `joined`, `round 2`, …
    pub what: String,
}

/// A session's history.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The session as it stands.
    pub session: SessionView,
    /// What happened, oldest first.
    pub entries: Vec<TimelineEntry>,
}

/// A session event as the coordinator publishes it and the router cuts it per subscriber.
#[derive(Clone)]
pub struct SessionEvent {
    /// Unique per event.
    pub event_id: EventId,
    /// The type of event.
    pub kind: EventKind,
    /// The session after it happened.
    pub session: SessionView,
    /// Tokens by party. The router shows each subscriber only its own.
    pub join_tokens: BTreeMap<PartyId, JoinToken>,
    /// The share that a user lends a delegate. The router shows it to that delegate only.
    pub lent: Option<LentShare>,
    /// When it happened.
    pub created_at: Timestamp,
}

impl SessionEvent {
    /// Who is told of it: the participants, and those whose places others have taken.
    pub fn audience(&self) -> impl Iterator<Item = &PartyId> {
        self.session.parties().chain(&self.session.replaced)
    }

    /// This event as `party` may see it.
    pub fn for_party(&self, party: &PartyId) -> Self {
        let mut event = self.clone();
        event.join_tokens.retain(|owner, _| owner == party);
        event.lent = event.lent.filter(|lent| lent.delegate == *party);
        event
    }
}
