//! Which key a request means.

use std::sync::Arc;

use quorate_core::key::refuse_frozen;
use quorate_core::policy;
use quorate_types::*;

use super::CoordinatorApp;
use super::state::remember_key;
use crate::lock;

/// Keys searched for the one that some participants hold: beyond 10 000 it would take longer than
/// a request should, and the key has to be named.
const SEARCHED_AT_ONCE: u32 = 1_000;
const SEARCHED_PAGES: u32 = 10;

impl CoordinatorApp {
    /// The key that a request means, in its active epoch.
    pub(super) async fn key_of(
        &self,
        caller: &Caller,
        request: &CreateSession,
        key: &KeySelector,
        threshold: Option<Threshold>,
    ) -> Result<Arc<KeyEpoch>> {
        let record = match key {
            KeySelector::Id(id) => self.key_by_id(*id).await?,
            KeySelector::PublicKey(public_key) => {
                let (_, key) = quorate_schemes::identify_public_key(&public_key.0)?;
                self.0.parts.store.key_by_public_key(&key).await?.map(Arc::new)
            }
            KeySelector::ByParticipants => Some(self.key_of_participants(caller, request).await?),
        };
        let owned = |key: &Arc<KeyRecord>| policy::sees(caller, &key.tenant);
        let record = record.filter(owned).ok_or_else(|| {
            let problem = "this key does not exist for this caller; see the list of keys";
            Error::new(ErrorCode::NotFound, problem).with_field("key_id")
        })?;
        refuse_frozen(&record)?;
        check_threshold(threshold, record.threshold)?;
        Ok(record.key.clone())
    }

    pub(super) async fn key_by_id(&self, id: KeyId) -> Result<Option<Arc<KeyRecord>>> {
        if let Some(key) = lock(&self.0.state).keys.get(&id) {
            return Ok(Some(key.clone()));
        }
        let Some(record) = self.0.parts.store.key(id).await?.map(Arc::new) else {
            return Ok(None);
        };
        let mut state = lock(&self.0.state);
        // It may have been frozen or refreshed since it was read.
        if let Some(newer) = state.keys.get(&id) {
            return Ok(Some(newer.clone()));
        }
        remember_key(&mut state.keys, record.clone());
        Ok(Some(record))
    }

    /// The one key that all named participants hold. Several fitting keys are an error: signing
    /// with the wrong one would be worse.
    async fn key_of_participants(
        &self,
        caller: &Caller,
        request: &CreateSession,
    ) -> Result<Arc<KeyRecord>> {
        let ambiguous = |why: &str| {
            Error::invalid_field(
                "key_id",
                format!("{why}: say which one with key_id or public_key"),
            )
        };
        let fits = |key: &KeyRecord| {
            !request.participants.is_empty()
                && request.participants.iter().all(|p| key.holders.contains(p.holder()))
                && request.ceremony.threshold().is_none_or(|threshold| threshold == key.threshold)
        };
        let (mut found, mut before) = (None, None);
        for _ in 0..SEARCHED_PAGES {
            let page = self.0.parts.store.keys(caller.tenant(), before, SEARCHED_AT_ONCE).await?;
            for key in page.items.into_iter().filter(fits) {
                if found.replace(Arc::new(key)).is_some() {
                    return Err(ambiguous("these participants hold several keys"));
                }
            }
            before = page.next;
            if before.is_none() {
                return found.ok_or_else(|| {
                    Error::invalid_field(
                        "key_id",
                        "no key is held by all these participants; make one by a keygen session \
                         first",
                    )
                });
            }
        }
        Err(ambiguous("there are too many keys to search them by their holders"))
    }
}

/// A signature or refresh has the threshold of its key, which a request may repeat.
fn check_threshold(asked: Option<Threshold>, key: Threshold) -> Result<()> {
    if asked.is_none_or(|asked| asked == key) {
        return Ok(());
    }
    let (t, n) = (key.signers(), key.parties());
    Err(Error::invalid_field(
        "threshold_t",
        format!("the key is {t} of {n}; leave the thresholds out or repeat them exactly"),
    ))
}
