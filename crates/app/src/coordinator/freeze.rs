//! Freezing a key: nothing is made with it until it is unfrozen.
//!
//! This is the coordinator's word. A party refuses a key by its own with `deny = true` in its
//! policy.

use std::sync::Arc;

use futures_util::future::try_join_all;
use quorate_core::policy;
use quorate_core::session::Command;
use quorate_ports::{Urgency, Write};
use quorate_types::*;

use super::CoordinatorApp;
use super::state::remember_key;
use crate::lock;

impl CoordinatorApp {
    /// Freezes a key and ends its open sessions; goes on when the caller hangs up.
    pub(super) async fn freeze_key(
        &self,
        caller: &Caller,
        key: KeyId,
        reason: String,
    ) -> Result<()> {
        caller.may(Scope::Sessions)?;
        if reason.len() > MAX_FREEZE_REASON || reason.chars().any(char::is_control) {
            let problem = format!("a reason is a line of at most {MAX_FREEZE_REASON} bytes");
            return Err(Error::invalid_field("reason", problem));
        }
        let record = self.owned_key(caller, key).await?;
        let freeze = Freeze { by: name(caller), at: self.0.parts.clock.now(), reason };
        let app = self.clone();
        let frozen = tokio::spawn(async move {
            let (commit, open) = {
                let mut state = lock(&app.0.state);
                let record = state.keys.get(&key).cloned().unwrap_or(record);
                // Again: the first one stays, and is on the disk when this answers.
                let freeze = record.frozen.clone().unwrap_or(freeze);
                let frozen = KeyRecord { frozen: Some(freeze.clone()), ..(*record).clone() };
                remember_key(&mut state.keys, Arc::new(frozen));
                let write = Write::Freeze(key, Some(freeze));
                (app.0.parts.store.submit(vec![write], Urgency::Now), state.open_with(key))
            };
            let ended = open.into_iter().map(|session| app.execute(session, Command::Freeze));
            // One that has ended meanwhile is as good as one that ends now.
            let ended = try_join_all(ended.map(async |ended| match ended.await {
                Err(error) if error.code != ErrorCode::SessionExpired => Err(error),
                _ => Ok(()),
            }));
            commit.await?;
            ended.await.map(drop)
        });
        frozen.await.map_err(|_| Error::internal())?
    }

    /// Ends a freeze.
    pub(super) async fn unfreeze_key(&self, caller: &Caller, key: KeyId) -> Result<()> {
        caller.may(Scope::Sessions)?;
        let record = self.owned_key(caller, key).await?;
        let commit = {
            let mut state = lock(&self.0.state);
            let record = state.keys.get(&key).cloned().unwrap_or(record);
            let record = KeyRecord { frozen: None, ..(*record).clone() };
            remember_key(&mut state.keys, Arc::new(record));
            self.0.parts.store.submit(vec![Write::Freeze(key, None)], Urgency::Now)
        };
        commit.await
    }

    async fn owned_key(&self, caller: &Caller, key: KeyId) -> Result<Arc<KeyRecord>> {
        self.0.parts.store.health()?;
        let record = self.key_by_id(key).await?;
        let owned = record.filter(|record| policy::sees(caller, &record.tenant));
        owned.ok_or_else(|| Error::not_found("key", key))
    }
}

/// How a freeze names who asked for it.
fn name(caller: &Caller) -> String {
    match caller {
        Caller::Open => "an unauthenticated caller".to_owned(),
        Caller::Key { tenant, .. } => format!("an API key of {}", tenant.as_str()),
        Caller::Party(party) => party.to_string(),
        Caller::System => "another role".to_owned(),
    }
}
