//! Keys that the store has lost and their holders still have.

use std::collections::HashMap;

use quorate_ports::{Store, Urgency, Write};
use quorate_types::*;

/// A key as one of its holders has it, with what all have signed of it where it has that.
pub type HeldKey = (KeyRecord, Option<Attestation>);

/// Registers the keys that the store knows nothing of, neither as a key nor as the session that
/// made it: of such a session it knows how it ended. Of keys that it has it takes the attestation
/// where it has none. Answers with what it has registered.
///
/// # Errors
/// `conflict` when two holders have different records of one key, `invalid_request` for an
/// attestation that is not of its key, and the store's.
pub async fn restore_keys(store: &dyn Store, held: Vec<HeldKey>) -> Result<Vec<KeyRecord>> {
    let mut known: HashMap<KeyId, HeldKey> = HashMap::new();
    for (record, attestation) in held {
        if let Some(attestation) = &attestation {
            quorate_schemes::check_attestation(&record.key, attestation)?;
        }
        let (first, shown) =
            known.entry(record.key_id).or_insert_with(|| (record.clone(), attestation.clone()));
        // When it was confirmed is each holder's own time.
        let same = KeyRecord { created_at: first.created_at, ..record };
        if *first != same {
            let why = format!("the holders of key {} have different records of it", first.key_id);
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        first.created_at = first.created_at.min(record.created_at);
        *shown = shown.take().or(attestation);
    }
    let (mut lost, mut writes) = (Vec::new(), Vec::new());
    for (id, (record, attestation)) in known {
        let unknown = match store.key(id).await? {
            // Written as it is here: only what is not known of its epoch is taken.
            Some(known) if known.key == record.key && attestation.is_some() => false,
            Some(_) => continue,
            None if store.session(SessionId(id.0)).await?.is_none() => true,
            None => continue,
        };
        let epoch = EpochRecord {
            epoch: record.epoch,
            session_id: SessionId(id.0),
            made_at: record.created_at,
            attestation,
        };
        writes.push(Write::Key(record.clone(), epoch));
        if unknown {
            lost.push(record);
        }
    }
    lost.sort_by_key(|record| (record.created_at, record.key_id));
    if !writes.is_empty() {
        store.submit(writes, Urgency::Now).await?;
    }
    Ok(lost)
}
