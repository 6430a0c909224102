//! The services' store in memory: what is written is there at once, and ends with the test.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use async_trait::async_trait;
use quorate_ports::store::*;
use quorate_types::*;

/// Sessions and keys. What was reported of holders is not asked for; the rest is read at a start
/// only, of which there is one.
#[derive(Default)]
pub(crate) struct MemoryStore(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    sessions: BTreeMap<SessionId, SessionRow>,
    keys: Vec<KeyRecord>,
    delegate_shares: BTreeMap<(SessionId, PartyId), DelegateShareRow>,
}

#[async_trait]
impl Store for MemoryStore {
    fn submit(&self, writes: Vec<Write>, _: Urgency) -> Commit {
        let mut rows = self.0.lock().unwrap();
        for write in writes {
            match write {
                Write::Session(row) => drop(rows.sessions.insert(row.session_id, row)),
                Write::Key(key, _) => rows.keys.push(key),
                Write::DelegateShare(row) => {
                    let seat = (row.session_id, row.party_id.clone());
                    rows.delegate_shares.insert(seat, row);
                }
                Write::ForgetDelegateShare(session, party) => {
                    rows.delegate_shares.remove(&(session, party));
                }
                _ => {}
            }
        }
        Commit::new(async { Ok(()) })
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn failed(&self) -> Error {
        std::future::pending().await
    }

    async fn open_sessions(&self) -> Result<Vec<SessionRow>> {
        Ok(Vec::new())
    }

    async fn session(&self, id: SessionId) -> Result<Option<SessionRow>> {
        Ok(self.0.lock().unwrap().sessions.get(&id).cloned())
    }

    async fn sessions(
        &self,
        _: Option<Tenant>,
        _: Option<Cursor>,
        _: u32,
    ) -> Result<Page<SessionRow>> {
        Ok(Page { items: self.0.lock().unwrap().sessions.values().cloned().collect(), next: None })
    }

    async fn keys(&self, _: Option<Tenant>, _: Option<Cursor>, _: u32) -> Result<Page<KeyRecord>> {
        Ok(Page { items: self.0.lock().unwrap().keys.clone(), next: None })
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>> {
        Ok(self.0.lock().unwrap().keys.iter().rev().find(|key| key.key_id == id).cloned())
    }

    async fn epochs(&self, _: KeyId) -> Result<Vec<EpochRecord>> {
        Ok(Vec::new())
    }

    async fn bans(&self, _: KeyId) -> Result<Vec<ReportedBan>> {
        Ok(Vec::new())
    }

    async fn key_by_public_key(&self, public_key: &PublicKey) -> Result<Option<KeyRecord>> {
        let rows = self.0.lock().unwrap();
        Ok(rows.keys.iter().find(|key| key.public_key == *public_key).cloned())
    }

    async fn idempotency(&self, _: &Tenant, _: &str) -> Result<Option<IdempotencyRow>> {
        Ok(None)
    }

    async fn delegate_share(
        &self,
        session: SessionId,
        party: &PartyId,
    ) -> Result<Option<DelegateShareRow>> {
        let seat = (session, party.clone());
        Ok(self.0.lock().unwrap().delegate_shares.get(&seat).cloned())
    }

    async fn delegate_shares(&self, _: &Tenant) -> Result<u64> {
        Ok(self.0.lock().unwrap().delegate_shares.len() as u64)
    }

    async fn lent_shares(&self) -> Result<Vec<LentShareRow>> {
        Ok(Vec::new())
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        Ok(Vec::new())
    }

    async fn pending_keys(&self) -> Result<HashMap<SessionId, AccountId>> {
        Ok(HashMap::new())
    }

    async fn messages(&self) -> Result<Vec<RecoveredMessage>> {
        Ok(Vec::new())
    }

    async fn parties(&self) -> Result<Vec<PartyRow>> {
        Ok(Vec::new())
    }

    async fn waiting_notifications(&self) -> Result<Vec<Notification>> {
        Ok(Vec::new())
    }

    async fn notifications(
        &self,
        _: Option<NotificationState>,
        _: Option<Cursor>,
        _: u32,
    ) -> Result<Page<Notification>> {
        Ok(Page { items: Vec::new(), next: None })
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyRow>> {
        Ok(Vec::new())
    }
}
