//! Keys, their epochs and their bans.

use std::sync::Arc;

use quorate_types::*;

use super::{millis, names, parse_all};
use crate::proto::coordinator::v1 as co;
use crate::proto::router::v1 as ro;

pub(super) fn label_in(label: &str) -> Result<Option<KeyLabel>> {
    (!label.is_empty()).then(|| label.parse()).transpose()
}

pub(super) fn label_out(label: Option<KeyLabel>) -> String {
    label.map(String::from).unwrap_or_default()
}

/// Converts a key to its message.
pub fn key_out(key: KeyRecord) -> co::Key {
    co::Key {
        key_id: key.key_id.to_string(),
        tenant: key.tenant.as_str().into(),
        scheme: key.scheme.name().into(),
        threshold_n: key.threshold.parties().into(),
        threshold_t: key.threshold.signers().into(),
        public_key: key.public_key.0.clone().into(),
        holders: names(&key.holders),
        created_at: millis(key.created_at),
        epoch: key.epoch,
        label: label_out(key.label),
        frozen: key.frozen.map(|Freeze { by, at, reason }| co::Freeze {
            by,
            at: millis(at),
            reason,
        }),
    }
}

/// A key, as it comes back.
pub fn key_in(key: co::Key) -> Result<KeyRecord> {
    let epoch = KeyEpoch {
        key_id: key.key_id.parse()?,
        epoch: key.epoch,
        scheme: key.scheme.parse()?,
        threshold: Threshold::new(key.threshold_t.into(), key.threshold_n.into())?,
        public_key: PublicKey(key.public_key.to_vec()),
        holders: parse_all(&key.holders)?,
    };
    Ok(KeyRecord {
        key: Arc::new(epoch),
        tenant: key.tenant.parse()?,
        created_at: Timestamp(key.created_at),
        label: label_in(&key.label)?,
        frozen: key.frozen.map(|frozen| {
            let co::Freeze { by, at, reason } = frozen;
            Freeze { by, at: Timestamp(at), reason }
        }),
    })
}

/// A key with its bans.
pub fn key_view_out(view: KeyView) -> co::GetKeyResponse {
    let ban = |ban: ReportedBan| co::Ban {
        reporter: ban.reporter.to_string(),
        party_id: ban.peer.to_string(),
        reason: ban.reason,
        session_id: ban.session_id.to_string(),
        at: millis(ban.at),
        epoch: ban.epoch,
    };
    let epoch = |epoch: EpochRecord| co::KeyEpoch {
        epoch: epoch.epoch,
        session_id: epoch.session_id.to_string(),
        made_at: millis(epoch.made_at),
        attestation: epoch.attestation.map(attestation_out),
    };
    co::GetKeyResponse {
        key: Some(key_out(view.record)),
        bans: view.bans.into_iter().map(ban).collect(),
        state: view.state.name().into(),
        epochs: view.epochs.into_iter().map(epoch).collect(),
    }
}

/// A key with its bans, as they come back.
pub fn key_view_in(answer: co::GetKeyResponse) -> Result<KeyView> {
    let record = key_in(answer.key.ok_or_else(|| {
        Error::invalid_field("key", "the other side is not a Quorate server: no key")
    })?)?;
    let ban = |ban: co::Ban| {
        Ok(ReportedBan {
            key_id: record.key_id,
            epoch: ban.epoch,
            reporter: ban.reporter.parse()?,
            peer: ban.party_id.parse()?,
            reason: ban.reason,
            session_id: ban.session_id.parse()?,
            at: Timestamp(ban.at),
        })
    };
    let bans = answer.bans.into_iter().map(ban).collect::<Result<_>>()?;
    let epoch = |epoch: co::KeyEpoch| {
        Ok(EpochRecord {
            epoch: epoch.epoch,
            session_id: epoch.session_id.parse()?,
            made_at: Timestamp(epoch.made_at),
            attestation: epoch.attestation.map(attestation_in).transpose()?,
        })
    };
    let epochs = answer.epochs.into_iter().map(epoch).collect::<Result<_>>()?;
    Ok(KeyView { state: answer.state.parse()?, record, epochs, bans })
}

pub(super) fn attestation_out(attestation: Attestation) -> ro::Attestation {
    let Attestation { execution, identities, confirmations } = attestation;
    ro::Attestation {
        execution: execution.to_vec().into(),
        identities: identities.into_iter().map(|identity| identity.to_vec().into()).collect(),
        confirmations: confirmations.into(),
    }
}

pub(super) fn attestation_in(attestation: ro::Attestation) -> Result<Attestation> {
    let fixed = |bytes: &[u8]| {
        let problem = "execution and each of identities are 32 bytes";
        <[u8; 32]>::try_from(bytes).map_err(|_| Error::invalid_field("attestation", problem))
    };
    Ok(Attestation {
        execution: fixed(&attestation.execution)?,
        identities: attestation.identities.iter().map(|one| fixed(one)).collect::<Result<_>>()?,
        confirmations: attestation.confirmations.to_vec(),
    })
}
