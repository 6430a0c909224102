//! The least recently used opened shares leave first.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_participant::OpenKey;
use quorate_types::KeyId;

/// A bounded map of opened shares. Small enough that finding the oldest is a scan.
pub(super) struct ShareCache {
    limit: usize,
    clock: u64,
    open: HashMap<KeyId, (u64, Arc<OpenKey>)>,
}

impl ShareCache {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, clock: 0, open: HashMap::new() }
    }

    pub(super) fn get(&mut self, key: KeyId) -> Option<Arc<OpenKey>> {
        self.clock += 1;
        let (used, open) = self.open.get_mut(&key)?;
        *used = self.clock;
        Some(Arc::clone(open))
    }

    pub(super) fn insert(&mut self, open: Arc<OpenKey>) {
        self.clock += 1;
        let key = open.stored.key_id;
        if self.open.len() >= self.limit && !self.open.contains_key(&key) {
            let oldest = self.open.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.open.remove(&oldest);
            }
        }
        self.open.insert(key, (self.clock, open));
    }
}
