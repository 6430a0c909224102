//! A ledger that forgets everything with the process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use quorate_ports::Commit;
use quorate_ports::ledger::{Consumed, Ledger, Remembered};
use quorate_types::*;

/// A ledger in memory: for tests, and for parties that are thrown away.
#[derive(Default)]
pub struct MemoryLedger(Mutex<Vec<Consumed>>);

#[async_trait]
impl Ledger for MemoryLedger {
    async fn load(&self, now: Timestamp) -> Result<Remembered> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals: HashMap<_, u64> = HashMap::new();
        for consumed in all.iter() {
            *totals.entry(consumed.key).or_default() += 1;
        }
        let consumed = all.iter().filter(|one| one.keep_until >= now).copied().collect();
        Ok(Remembered { consumed, totals: totals.into_iter().collect() })
    }

    fn consume(&self, consumed: Consumed) -> Commit {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(consumed);
        Commit::new(std::future::ready(Ok(())))
    }
}
