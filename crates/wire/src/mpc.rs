//! The account service's own view of sessions.

use std::collections::BTreeMap;

use quorate_types::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::authorization::AuthorizationJson;
use crate::codec::{Base64Text, DigestText, PublicKeyText, SignatureText};
use crate::device::{NewParticipantJson, participants};
use crate::report::FailureJson;
use crate::schema;
use crate::session::{CreateSessionJson, named, threshold, tokens_out};
use crate::view::SessionJson;

/// Starts a keygen session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MpcKeygenJson {
    /// Number of holders of the key, 2 to 16.
    #[schema(example = 3)]
    pub threshold_n: i64,
    /// Number of signers needed, 2 to `threshold_n`.
    #[schema(example = 2)]
    pub threshold_t: i64,
    /// The participants. Any remaining seats are filled by online persistent parties.
    #[serde(default)]
    pub participants: Vec<NewParticipantJson>,
    /// The account that gets the finished key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub account_id: Option<AccountId>,
    /// Seconds until the session expires, 1 to 604800. Default: 300, or 86400 if a participant is
    /// offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The signature scheme; `ecdsa-secp256k1` if omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::scheme, required = false)]
    pub scheme: Option<Scheme>,
    /// The request signed by an initiator; by the account's `initiatorKey`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<AuthorizationJson>,
    /// The key's label, 1 to 64 letters, digits or `-_.:@+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "treasury")]
    pub label: Option<KeyLabel>,
    /// The webhook that is told how the session ends: one that the operator has configured for the
    /// caller's tenant, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "settlement")]
    pub webhook: Option<String>,
}

impl MpcKeygenJson {
    /// The account and the request.
    ///
    /// # Errors
    /// `invalid_request` naming the member at fault.
    pub fn into_request(
        self,
        idempotency_key: Option<String>,
    ) -> Result<(Option<AccountId>, CreateSession)> {
        let request = CreateSessionJson {
            session_type: SessionKind::Keygen,
            threshold_n: Some(self.threshold_n),
            threshold_t: Some(self.threshold_t),
            participants: self.participants,
            message_hash: None,
            message: None,
            expires_in_seconds: self.expires_in_seconds,
            key_id: None,
            public_key: None,
            scheme: self.scheme,
            authorization: self.authorization,
            label: self.label,
            replace: false,
            delegate_user_share: None,
            webhook: self.webhook,
        };
        Ok((self.account_id, request.into_request(idempotency_key)?))
    }
}

/// Starts a signature with an account's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MpcSignJson {
    /// The id of the account whose key signs.
    #[schema(value_type = Uuid)]
    pub account_id: AccountId,
    /// The 32-byte hash to sign, for a key whose scheme signs hashes (ECDSA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<DigestText>,
    /// The message to sign, in base64, at most 64 KiB, for a key whose scheme signs messages
    /// (Ed25519).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Base64Text>,
    /// The signers. Any remaining seats are filled by the key's online persistent holders.
    #[serde(default)]
    pub participants: Vec<NewParticipantJson>,
    /// Number of signers needed; if given, must agree with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_t: Option<i64>,
    /// Number of holders; if given, must agree with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_n: Option<i64>,
    /// Seconds until the session expires, 1 to 604800. Default: 300, or 86400 if a participant is
    /// offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800)]
    pub expires_in_seconds: Option<u64>,
    /// The request signed by an initiator; by the account's `initiatorKey`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<AuthorizationJson>,
    /// Whether other holders can also replace named participants that cannot sign. Participants
    /// that were filled in can always be replaced.
    #[serde(default)]
    pub replace: bool,
    /// The webhook that is told how the session ends: one that the operator has configured for the
    /// caller's tenant, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "settlement")]
    pub webhook: Option<String>,
}

impl MpcSignJson {
    /// The account and the request; the service puts the account's key in.
    ///
    /// # Errors
    /// `invalid_request` naming the member at fault.
    pub fn into_request(
        self,
        idempotency_key: Option<String>,
    ) -> Result<(AccountId, CreateSession)> {
        let threshold = threshold(self.threshold_t, self.threshold_n)?;
        let digest = self.message_hash.map(|hash| hash.0);
        let input = SignInput::from_fields(digest, self.message.map(|message| message.0))?;
        let key = KeySelector::ByParticipants;
        let (kind, scheme) = (SessionKind::Sign, Scheme::default());
        let request = CreateSession {
            ceremony: CeremonyRequest::from_parts(kind, scheme, threshold, key, input)?,
            participants: participants(self.participants)?,
            expires_in_seconds: self.expires_in_seconds,
            idempotency_key,
            authorization: self.authorization.map(TryInto::try_into).transpose()?,
            label: None,
            replace: self.replace,
            lent: None,
            webhook: named(self.webhook)?,
        };
        Ok((self.account_id, request))
    }
}

/// The account service shows a session that nobody has joined as waiting.
fn shown(status: SessionStatus) -> SessionStatus {
    if status == SessionStatus::Created { SessionStatus::Waiting } else { status }
}

/// A session that was just started.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct MpcCreatedJson {
    /// The id of the session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// The type of session: keygen or sign.
    #[schema(schema_with = schema::session_kind)]
    pub session_type: SessionKind,
    /// The id of the account that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub account_id: Option<AccountId>,
    /// Sign: the hash to be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<DigestText>,
    /// Number of holders of the key.
    pub threshold_n: u16,
    /// Number of signers needed.
    pub threshold_t: u16,
    /// Join tokens by party id.
    pub join_tokens: BTreeMap<String, String>,
    /// Keygen: fetch tokens by delegate id, with which users fetch their shares.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fetch_tokens: BTreeMap<String, String>,
    /// `waiting` until all are ready.
    #[schema(schema_with = schema::session_status)]
    pub status: SessionStatus,
    /// Deadline, in seconds since 1970.
    pub expires_at: i64,
}

impl MpcCreatedJson {
    /// The answer to starting a session for `account_id`.
    pub fn new(account_id: Option<AccountId>, created: CreatedSession) -> Self {
        let CreatedSession { session, join_tokens, fetch_tokens } = created;
        Self {
            session_id: session.session_id,
            session_type: session.ceremony.kind(),
            account_id,
            message_hash: session.ceremony.input().and_then(SignInput::digest).map(DigestText),
            threshold_n: session.ceremony.threshold().parties(),
            threshold_t: session.ceremony.threshold().signers(),
            join_tokens: tokens_out(join_tokens),
            fetch_tokens: tokens_out(fetch_tokens),
            status: shown(session.status),
            expires_at: session.expires_at.as_seconds(),
        }
    }
}

/// A session as the account service shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MpcSessionJson {
    /// The id of the session.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// The type of session: keygen or sign.
    #[schema(schema_with = schema::session_kind)]
    pub session_type: SessionKind,
    /// The status; never `created`.
    #[schema(schema_with = schema::session_status)]
    pub status: SessionStatus,
    /// Number of participants that have reported a result.
    pub completed_parties: usize,
    /// Number of participants.
    pub total_parties: usize,
    /// Parties that the session is waiting for.
    #[schema(value_type = Vec<String>)]
    pub waiting_for: Vec<PartyId>,
    /// The key used (sign) or made (completed keygen).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub key_id: Option<KeyId>,
    /// The verifying key, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyText>,
    /// Sign: the verified signature, once completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureText>,
    /// Sign: 0 to 3, with the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<u8>,
    /// The failure, if it failed or expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureJson>,
    /// Deadline, in seconds since 1970.
    pub expires_at: i64,
}

impl From<SessionView> for MpcSessionJson {
    fn from(view: SessionView) -> Self {
        let (completed_parties, total_parties) =
            (view.completed_parties(), view.participants.len());
        let session = SessionJson::from(view);
        Self {
            session_id: session.session_id,
            session_type: session.session_type,
            status: shown(session.status),
            completed_parties,
            total_parties,
            waiting_for: session.waiting_for,
            key_id: session.key_id,
            public_key: session.public_key,
            signature: session.signature,
            recovery_id: session.recovery_id,
            failure: session.failure,
            expires_at: session.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn documented_keygen_request_is_read() {
        let json = r#"{"threshold_n": 3, "threshold_t": 2, "participants": [
            {"party_id": "user_device", "device_type": "iOS", "device_id": "iphone_001"},
            {"party_id": "server_party", "device_type": "server", "device_id": "server_001"},
            {"party_id": "recovery_party", "device_type": "recovery", "device_id": "recovery_001"}
            ]}"#;
        let (account, request) =
            parse::<MpcKeygenJson>(json.as_bytes()).unwrap().into_request(None).unwrap();
        assert!(account.is_none());
        assert_eq!(request.ceremony.kind(), SessionKind::Keygen);
        assert_eq!(request.participants.len(), 3);
    }

    #[test]
    fn documented_sign_request_is_read_and_its_placeholder_account_is_named() {
        let sign = |account: &str| {
            let json = format!(
                r#"{{"account_id": "{account}",
                "message_hash": "8dcd9f3511659638d5c33938ddb7fee9bb63533b94a97c7467d3fd36abbdca81",
                "participants": [
                {{"party_id": "user_device", "device_type": "iOS", "device_id": "iphone_001"}},
                {{"party_id": "server_party", "device_type": "server", "device_id": "server_001"}}
                ]}}"#
            );
            parse::<MpcSignJson>(json.as_bytes())
        };
        let read = sign("550e8400-e29b-41d4-a716-446655440000").unwrap();
        let (_, request) = read.into_request(None).unwrap();
        let (_, _, input) = request.ceremony.into_parts();
        assert_eq!(input.unwrap().digest().unwrap().0[..2], [0x8d, 0xcd]);
        let error = sign("acc-uuid-123").unwrap_err();
        assert!(error.details.fields.contains_key("account_id"), "{error:?}");
    }

    #[test]
    fn a_session_nobody_has_joined_is_shown_as_waiting() {
        let mut view = crate::view::tests::signed();
        view.status = SessionStatus::Created;
        let created = CreatedSession {
            session: view.clone(),
            join_tokens: BTreeMap::new(),
            fetch_tokens: BTreeMap::new(),
        };
        assert_eq!(MpcCreatedJson::new(None, created).status, SessionStatus::Waiting);
        assert_eq!(MpcSessionJson::from(view).status, SessionStatus::Waiting);
    }

    #[test]
    fn a_finished_signature_is_shown_with_its_counts() {
        let value = serde_json::to_value(MpcSessionJson::from(crate::view::tests::signed()));
        let value = value.unwrap();
        assert_eq!(value["status"], "completed");
        assert_eq!((&value["completed_parties"], &value["total_parties"]), (&2.into(), &2.into()));
        assert_eq!(value["signature"], "06".repeat(64));
        assert_eq!(value["recovery_id"], 1);
    }
}
