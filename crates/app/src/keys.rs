//! API keys: made, listed and revoked while the server runs; shown once, kept as hashes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quorate_ports::store::ApiKeyRow;
use quorate_ports::{ManageApiKeys, Store, Urgency, Write};
use quorate_types::*;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::lock;

/// Keys of one server, about 500 bytes each. Past it, those that work no more are forgotten.
const MOST: usize = 10_000;

/// The last use is written this often: it tells which keys are needed, and is no log.
const NOTE_USE_EVERY: i64 = 60_000;

/// The API keys of this server.
pub struct ApiKeys {
    entries: Mutex<BTreeMap<ApiKeyId, Entry>>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

struct Entry {
    row: ApiKeyRow,
    /// Ends what the key has opened.
    revoked: CancellationToken,
    /// The last use that was written.
    written_use: Option<Timestamp>,
}

impl Entry {
    fn new(row: ApiKeyRow) -> Self {
        let (revoked, written_use) = (CancellationToken::new(), row.key.last_used_at);
        if row.key.revoked {
            revoked.cancel();
        }
        Self { row, revoked, written_use }
    }

    fn works_at(&self, now: Timestamp) -> bool {
        !self.row.key.revoked && self.row.key.expires_at.is_none_or(|end| now < end)
    }
}

/// Whom a key stands for, and how long.
pub struct Authenticated {
    /// Whom.
    pub caller: Caller,
    /// Cancelled when the key is revoked.
    pub revoked: CancellationToken,
    /// What remains of the key's time; `None` = it has no end.
    pub lifetime: Option<Duration>,
}

impl ApiKeys {
    /// Loads the keys from the store.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self> {
        let rows = store.api_keys().await?.into_iter();
        let entries = rows.map(|row| (row.key.id, Entry::new(row))).collect();
        Ok(Self { entries: Mutex::new(entries), store, clock })
    }

    /// The caller a key stands for.
    ///
    /// # Errors
    /// `unauthorized` when nobody made it, it was revoked or has expired.
    pub fn authenticate(&self, secret: &str) -> Result<Authenticated> {
        let refused = |why| Err(Error::new(ErrorCode::Unauthorized, why));
        let id = secret.get(..ApiKeyId::LEN).and_then(|id| id.parse::<ApiKeyId>().ok());
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let now = self.clock.now();
        let mut entries = lock(&self.entries);
        let known = id.and_then(|id| entries.get_mut(&id));
        let known = known.filter(|entry| bool::from(entry.row.hash.ct_eq(&hash)));
        let Some(entry) = known.filter(|entry| !entry.row.key.revoked) else {
            return refused(
                "this API key is unknown or revoked; make one with `quorate api-keys create`",
            );
        };
        if !entry.works_at(now) {
            return refused("this API key has expired; make one with `quorate api-keys create`");
        }
        let key = &mut entry.row.key;
        key.last_used_at = Some(now);
        let authenticated = Authenticated {
            caller: key.caller(),
            revoked: entry.revoked.clone(),
            lifetime: key
                .expires_at
                .map(|end| Duration::from_millis(u64::try_from(end.0 - now.0).unwrap_or_default())),
        };
        if entry.written_use.is_none_or(|written| now.0 - written.0 >= NOTE_USE_EVERY) {
            entry.written_use = Some(now);
            // Nobody waits for it. What is urgent is written in the order of its submission, so this
            // cannot come after a revocation.
            drop(self.store.submit(vec![Write::ApiKey(entry.row.clone())], Urgency::Now));
        }
        Ok(authenticated)
    }

    /// Room for one more: where there are too many, the oldest one that works no more is forgotten.
    fn make_room(&self) -> Result<Option<Write>> {
        let now = self.clock.now();
        let mut entries = lock(&self.entries);
        if entries.len() < MOST {
            return Ok(None);
        }
        let useless = entries.values().filter(|entry| !entry.works_at(now));
        let oldest = useless.min_by_key(|entry| entry.row.key.created_at);
        let id = oldest.map(|entry| entry.row.key.id).ok_or_else(|| {
            let why = format!("{MOST} API keys are in use here; revoke some that are not needed");
            Error::new(ErrorCode::Conflict, why)
        })?;
        entries.remove(&id);
        Ok(Some(Write::ForgetApiKey(id)))
    }
}

fn operator_only(caller: &Caller) -> Result<()> {
    if caller.is_system() {
        return Ok(());
    }
    let why = "only the operator manages API keys: show one with the scope system";
    Err(Error::new(ErrorCode::Forbidden, why))
}

#[async_trait]
impl ManageApiKeys for ApiKeys {
    async fn create_api_key(&self, caller: &Caller, new: NewApiKey) -> Result<MadeApiKey> {
        operator_only(caller)?;
        let NewApiKey { label, tenant, scopes, expires_at } = new;
        let now = self.clock.now();
        if scopes.is_empty() {
            let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.name()).collect();
            let why = format!("give one scope at least: {}", known.join(", "));
            return Err(Error::invalid_field("scopes", why));
        }
        if scopes.contains(&Scope::System) && tenant != Tenant::default() {
            let why = "a key with the scope system acts on every tenant: leave the tenant out, or \
                       give the scopes that the tenant needs";
            return Err(Error::invalid_field("tenant", why));
        }
        if expires_at.is_some_and(|end| end <= now) {
            return Err(Error::invalid_field("expires_at", "the key would have expired already"));
        }
        let mut random = [0_u8; 40];
        getrandom::fill(&mut random).map_err(|_| Error::internal())?;
        let (id, secret) = random.split_first_chunk().expect("40 bytes");
        let id = ApiKeyId(*id);
        let secret = format!("{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let (last_used_at, revoked) = (None, false);
        let created_at = now;
        let key =
            ApiKey { id, label, tenant, scopes, created_at, expires_at, last_used_at, revoked };
        let row = ApiKeyRow { hash: Sha256::digest(&secret).into(), key: key.clone() };
        let writes = self.make_room()?.into_iter().chain([Write::ApiKey(row.clone())]).collect();
        self.store.submit(writes, Urgency::Now).await?;
        lock(&self.entries).insert(key.id, Entry::new(row));
        Ok(MadeApiKey { secret: Secret::new(secret), key })
    }

    async fn api_keys(&self, caller: &Caller, after: Option<ApiKeyId>) -> Result<Vec<ApiKey>> {
        operator_only(caller)?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = lock(&self.entries);
        let page = entries.range((after, Bound::Unbounded)).take(API_KEYS_PAGE);
        Ok(page.map(|(_, entry)| entry.row.key.clone()).collect())
    }

    async fn revoke_api_key(&self, caller: &Caller, id: ApiKeyId) -> Result<ApiKey> {
        operator_only(caller)?;
        let (row, commit) = {
            let mut entries = lock(&self.entries);
            let entry = entries.get_mut(&id).ok_or_else(|| Error::not_found("API key", id))?;
            // At once in memory, also where the disk fails; and under the lock, so that no note of
            // its use is written after it.
            entry.row.key.revoked = true;
            entry.revoked.cancel();
            let row = entry.row.clone();
            (row.clone(), self.store.submit(vec![Write::ApiKey(row)], Urgency::Now))
        };
        commit.await?;
        Ok(row.key)
    }
}

#[cfg(test)]
mod tests;
