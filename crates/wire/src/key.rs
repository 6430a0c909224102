//! Keys: the public side only.

use std::sync::Arc;

use quorate_types::{
    Attestation, CONFIRMATION, Cursor, Digest, EpochRecord, Error, Freeze, KeyEpoch, KeyId,
    KeyLabel, KeyRecord, KeyView, PartyId, ReportedBan, Result, Scheme, SessionId, Tenant,
    Threshold, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::codec::{DigestText, IdentityText, PublicKeyText, SignatureText};
use crate::schema;

/// A threshold key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyJson {
    /// The key's id, which is the id of the keygen session.
    #[schema(value_type = Uuid)]
    pub key_id: KeyId,
    /// The active epoch: 0 after the keygen, higher after each refresh.
    #[serde(default)]
    pub epoch: u32,
    /// The key's signature scheme.
    #[schema(schema_with = schema::scheme)]
    pub scheme: Scheme,
    /// Number of signers needed.
    pub threshold_t: u16,
    /// Number of holders of a share.
    pub threshold_n: u16,
    /// The verifying key, the same in every epoch.
    pub public_key: PublicKeyText,
    /// The holders in the order of their shares.
    #[schema(value_type = Vec<String>)]
    pub holders: Vec<PartyId>,
    /// When the last holder confirmed its share, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// Its label, if its creator gave it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub label: Option<KeyLabel>,
    /// Present while the key is frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<FreezeJson>,
}

/// By whom a key was frozen, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FreezeJson {
    /// The caller that froze it, as far as the coordinator knows.
    pub by: String,
    /// Time of the freeze, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// The reason given by the caller; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// Freezes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeKeyJson {
    /// The reason, shown in every refusal: at most 256 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl From<KeyRecord> for KeyJson {
    fn from(record: KeyRecord) -> Self {
        Self {
            key_id: record.key_id,
            epoch: record.epoch,
            scheme: record.scheme,
            threshold_t: record.threshold.signers(),
            threshold_n: record.threshold.parties(),
            public_key: PublicKeyText(record.public_key.clone()),
            holders: record.holders.clone(),
            created_at: record.created_at,
            label: record.label,
            frozen: record.frozen.map(|Freeze { by, at, reason }| FreezeJson { by, at, reason }),
        }
    }
}

impl KeyJson {
    /// The record, as belonging to `tenant`: the wire shows no tenants.
    ///
    /// # Errors
    /// When the threshold is none.
    pub fn into_record(self, tenant: Tenant) -> Result<KeyRecord, Error> {
        let key = KeyEpoch {
            key_id: self.key_id,
            epoch: self.epoch,
            scheme: self.scheme,
            threshold: Threshold::new(self.threshold_t.into(), self.threshold_n.into())?,
            public_key: self.public_key.0,
            holders: self.holders,
        };
        let frozen = self.frozen.map(|FreezeJson { by, at, reason }| Freeze { by, at, reason });
        let (created_at, label) = (self.created_at, self.label);
        Ok(KeyRecord { key: Arc::new(key), tenant, created_at, label, frozen })
    }
}

/// The attestation of a key: the signatures of all its holders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttestationJson {
    /// The id of the execution that made it.
    pub execution: DigestText,
    /// The holders' Ed25519 identity keys, in the order of their shares.
    pub identities: Vec<IdentityText>,
    /// Their signatures, in the same order.
    pub confirmations: Vec<SignatureText>,
}

impl From<Attestation> for AttestationJson {
    fn from(attestation: Attestation) -> Self {
        let Attestation { execution, identities, confirmations } = attestation;
        let each = confirmations.chunks(CONFIRMATION);
        Self {
            execution: DigestText(Digest(execution)),
            identities: identities.into_iter().map(IdentityText).collect(),
            confirmations: each.map(|one| SignatureText(one.to_vec())).collect(),
        }
    }
}

impl From<AttestationJson> for Attestation {
    fn from(json: AttestationJson) -> Self {
        Self {
            execution: json.execution.0.0,
            identities: json.identities.into_iter().map(|identity| identity.0).collect(),
            confirmations: json.confirmations.into_iter().flat_map(|one| one.0).collect(),
        }
    }
}

/// An epoch of a key: the keygen makes the first, each refresh the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EpochJson {
    /// Number of the epoch, from 0.
    pub epoch: u32,
    /// `active`, or `retired` once there is a later one.
    pub state: String,
    /// The id of the session that made it.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// When its last holder reported it, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub made_at: Timestamp,
    /// The signatures of its holders. Absent if a holder took part without an identity, and for
    /// keys of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationJson>,
}

/// A holder's report that it no longer signs with another holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportedBanJson {
    /// The epoch of the key to which the ban applies: a refresh ends it.
    #[serde(default)]
    pub epoch: u32,
    /// The holder that reports the ban.
    #[schema(value_type = String)]
    pub reporter: PartyId,
    /// The holder that is banned.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// Description of what the banned holder did, as reported.
    pub reason: String,
    /// The id of the session in which it happened.
    #[schema(value_type = Uuid)]
    pub session_id: SessionId,
    /// Time of the report, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub at: Timestamp,
}

/// A key with its epochs and the bans that its holders have reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyDetailJson {
    /// The key itself.
    #[serde(flatten)]
    pub key: KeyJson,
    /// `active`, `frozen` by its owner, or `locked` when bans leave no set of holders that is large
    /// enough to sign.
    pub state: String,
    /// All epochs, oldest first.
    pub epochs: Vec<EpochJson>,
    /// Bans between holders, oldest first.
    pub bans: Vec<ReportedBanJson>,
}

impl From<KeyView> for KeyDetailJson {
    fn from(view: KeyView) -> Self {
        let active = view.record.epoch;
        let epoch = |epoch: EpochRecord| EpochJson {
            epoch: epoch.epoch,
            state: if epoch.epoch == active { "active" } else { "retired" }.to_owned(),
            session_id: epoch.session_id,
            made_at: epoch.made_at,
            attestation: epoch.attestation.map(Into::into),
        };
        let ban = |ban: ReportedBan| ReportedBanJson {
            epoch: ban.epoch,
            reporter: ban.reporter,
            party_id: ban.peer,
            reason: ban.reason,
            session_id: ban.session_id,
            at: ban.at,
        };
        Self {
            key: view.record.into(),
            state: view.state.name().to_owned(),
            epochs: view.epochs.into_iter().map(epoch).collect(),
            bans: view.bans.into_iter().map(ban).collect(),
        }
    }
}

/// A ban, as the party that enforces it stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldBanJson {
    /// The id of the banned party.
    #[schema(value_type = String)]
    pub party_id: PartyId,
    /// The epoch of the key to which the ban applies: a refresh ends it.
    pub epoch: u32,
    /// Description of what the banned party did.
    pub reason: String,
    /// Time of the ban, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// Number of messages signed by the banned party that are kept as evidence.
    pub signed_messages: usize,
}

/// A key, as one of its holders stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldKeyJson {
    /// The key itself.
    #[serde(flatten)]
    pub key: KeyJson,
    /// The epoch of the share.
    pub epoch: u32,
    /// `pending` until all holders have confirmed the key, then `active`.
    pub state: String,
    /// The signatures of all holders, once they are complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationJson>,
    /// Parties that this party no longer signs with under this key.
    pub bans: Vec<HeldBanJson>,
}

/// Keys, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeysJson {
    /// At most as many keys as the request limits.
    pub keys: Vec<KeyJson>,
    /// Give this as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_json() {
        let key = KeyEpoch {
            key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            epoch: 2,
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: quorate_types::PublicKey([&[4][..], &[1; 64]].concat()),
            holders: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        };
        let (key, tenant) = (Arc::new(key), Tenant::default());
        let label = Some("treasury".parse().unwrap());
        let frozen = Freeze { by: "open".into(), at: Timestamp(6), reason: "lost".into() };
        let frozen = Some(frozen);
        let record = KeyRecord { key, tenant, created_at: Timestamp(5), label, frozen };
        let text = serde_json::to_string(&KeyJson::from(record.clone())).unwrap();
        let back: KeyJson = serde_json::from_str(&text).unwrap();
        assert_eq!(back.into_record(Tenant::default()).unwrap(), record);
    }
}
