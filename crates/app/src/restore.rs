//! Keys that the store has lost and their holders still have.

use std::collections::HashMap;

use quorate_ports::{Store, Urgency, Write};
use quorate_types::*;

/// Registers the keys that the store knows nothing of, neither as a key nor as the session that
/// made it: of such a session it knows how it ended. Answers with what it has registered.
///
/// # Errors
/// `conflict` when two holders have different records of one key, and the store's.
pub async fn restore_keys(store: &dyn Store, held: Vec<KeyRecord>) -> Result<Vec<KeyRecord>> {
    let mut known: HashMap<KeyId, KeyRecord> = HashMap::new();
    for record in held {
        let first = known.entry(record.key_id).or_insert_with(|| record.clone());
        // When it was confirmed is each holder's own time.
        let same = KeyRecord { created_at: first.created_at, ..record };
        if *first != same {
            let why = format!("the holders of key {} have different records of it", first.key_id);
            return Err(Error::new(ErrorCode::Conflict, why));
        }
        first.created_at = first.created_at.min(record.created_at);
    }
    let mut lost = Vec::new();
    for (id, record) in known {
        if store.key(id).await?.is_none() && store.session(SessionId(id.0)).await?.is_none() {
            lost.push(record);
        }
    }
    lost.sort_by_key(|record| (record.created_at, record.key_id));
    let writes: Vec<_> = lost.iter().cloned().map(Write::Key).collect();
    if !writes.is_empty() {
        store.submit(writes, Urgency::Now).await?;
    }
    Ok(lost)
}
