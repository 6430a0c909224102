//! Keys that the store has lost and their holders still have.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use quorate_ports::{Store, Urgency, Write};
use quorate_types::*;

/// A key as one of its holders has it, with what all have signed of it where it has that.
pub type HeldKey = (KeyRecord, Option<Attestation>);

/// Registers the keys that the store knows nothing of, neither as a key nor as the session that
/// made it: of such a session it knows how it ended. Of keys that it has it takes the attestation
/// where it has none, and the next epoch where its holders have signed one whose end it missed.
/// Holders need not be at one epoch: one that was away has yet to hear of the newest. Answers with
/// what it has registered.
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
        let mut entry = match known.entry(record.key_id) {
            Entry::Vacant(entry) => {
                entry.insert((record, attestation));
                continue;
            }
            Entry::Occupied(entry) => entry,
        };
        let (first, shown) = entry.get_mut();
        if !same_key(first, &record) {
            let why = format!("the holders of key {} have different records of it", first.key_id);
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        let created_at = first.created_at.min(record.created_at);
        // Not every holder has kept it: only those who check requests.
        let label = first.label.clone().or_else(|| record.label.clone());
        match record.epoch.cmp(&first.epoch) {
            Ordering::Less => {}
            Ordering::Equal => *shown = shown.take().or(attestation),
            Ordering::Greater => (*first, *shown) = (record, attestation),
        }
        first.created_at = created_at;
        first.label = label;
    }
    let (mut lost, mut writes) = (Vec::new(), Vec::new());
    for (id, (record, attestation)) in known {
        let unknown = match store.key(id).await? {
            // Written as it is here: only what is not known of its epoch is taken, or the next one.
            Some(known) if attestation.is_some() && same_key(&known, &record) => false,
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

/// Whether two records are of one key: its epoch may be another, when it was confirmed is each
/// holder's own time, not each has kept its label, and none knows whether it is frozen.
fn same_key(one: &KeyRecord, other: &KeyRecord) -> bool {
    let key = KeyEpoch { epoch: one.epoch, ..(*other.key).clone() };
    *one == KeyRecord {
        key: Arc::new(key),
        tenant: other.tenant.clone(),
        created_at: one.created_at,
        label: one.label.clone(),
        frozen: one.frozen.clone(),
    }
}
