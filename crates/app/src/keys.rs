//! API keys: made once, shown once, kept as hashes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quorate_ports::store::ApiKeyRow;
use quorate_ports::{Store, Urgency, Write};
use quorate_types::*;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::clock::Clock;
use crate::lock;

/// The prefix by which people and secret scanners know a key.
const PREFIX: &str = "qk_";

/// The API keys of this installation.
pub struct ApiKeys {
    rows: Mutex<HashMap<String, ApiKeyRow>>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl ApiKeys {
    /// Loads the keys from the store.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self> {
        let rows = store.api_keys().await?;
        let rows = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        Ok(Self { rows: Mutex::new(rows), store, clock })
    }

    /// Makes a key and returns it, the only time it is in clear.
    pub async fn create(&self, tenant: Tenant, scopes: Vec<Scope>) -> Result<Secret<String>> {
        let mut random = [0_u8; 40];
        getrandom::fill(&mut random).map_err(|_| Error::internal())?;
        let (id, secret) = random.split_at(8);
        let id = format!("{PREFIX}{}", hex::encode(id));
        let key = format!("{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let row = ApiKeyRow {
            id: id.clone(),
            hash: Sha256::digest(&key).into(),
            tenant,
            scopes,
            created_at: self.clock.now(),
            revoked: false,
        };
        self.store.submit(vec![Write::ApiKey(row.clone())], Urgency::Now).await?;
        lock(&self.rows).insert(id, row);
        Ok(Secret::new(key))
    }

    /// The caller a key stands for.
    pub fn authenticate(&self, key: &str) -> Result<Caller> {
        let refused = || {
            Error::new(
                ErrorCode::Unauthorized,
                "this API key is unknown or revoked; make one with `quorate api-keys create`",
            )
        };
        let id = key.get(..PREFIX.len() + 16).unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(key).into();
        let rows = lock(&self.rows);
        let row = rows.get(id).ok_or_else(refused)?;
        if row.revoked || !bool::from(row.hash.ct_eq(&hash)) {
            return Err(refused());
        }
        Ok(Caller::Key { tenant: row.tenant.clone(), scopes: row.scopes.clone() })
    }

    /// All keys, oldest first; never the secret part.
    pub fn list(&self) -> Vec<ApiKeyRow> {
        let mut rows: Vec<_> = lock(&self.rows).values().cloned().collect();
        rows.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        rows
    }

    /// Revokes a key by its id.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        let mut row =
            lock(&self.rows).get(id).cloned().ok_or_else(|| Error::not_found("API key", id))?;
        row.revoked = true;
        self.store.submit(vec![Write::ApiKey(row.clone())], Urgency::Now).await?;
        lock(&self.rows).insert(id.to_owned(), row);
        Ok(())
    }
}
