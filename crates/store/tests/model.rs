//! Random writes against a model in memory: every question has the same answer, before and after
//! reopening.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use quorate_ports::store::{
    ApiKeyRow, DelegateShareRow, IdempotencyRow, LentShareRow, Overtaken, PartyRow, SessionRow,
};
use quorate_ports::{Store, Urgency, Write};
use quorate_store::SqliteStore;
use quorate_types::*;
use uuid::Uuid;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionId, SessionRow>,
    keys: BTreeMap<KeyId, KeyRecord>,
    epochs: BTreeMap<KeyId, EpochRecord>,
    bans: BTreeMap<(KeyId, u32, PartyId, PartyId), ReportedBan>,
    frozen: HashMap<KeyId, Freeze>,
    accounts: BTreeMap<AccountId, Account>,
    pending: HashMap<SessionId, AccountId>,
    idempotency: BTreeMap<(Tenant, String), IdempotencyRow>,
    parties: BTreeMap<(PartyId, NameOwner), PartyRow>,
    messages: Vec<(Arc<MessageRow>, Vec<PartyId>)>,
    delegate_shares: BTreeMap<(SessionId, PartyId), DelegateShareRow>,
    lent_shares: BTreeMap<SessionId, LentShareRow>,
    api_keys: BTreeMap<ApiKeyId, ApiKeyRow>,
}

impl Model {
    /// Applies a transaction, or none of it where it claims an idempotency key that is taken.
    fn apply_all(&mut self, writes: &[Write]) {
        let mut claimed: HashSet<_> = self.idempotency.keys().cloned().collect();
        let stands = writes.iter().all(|write| match write {
            Write::Idempotency(row) => claimed.insert((row.tenant.clone(), row.key.clone())),
            _ => true,
        });
        if stands {
            writes.iter().cloned().for_each(|write| self.apply(write));
        }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Interim(_, overtaken) if overtaken.is_set() => {}
            // Its owner and the time of its creation never change.
            Write::Session(row) | Write::Interim(row, _) => {
                match self.sessions.entry(row.session_id) {
                    Entry::Vacant(place) => drop(place.insert(row)),
                    Entry::Occupied(mut place) => {
                        let SessionRow { is_final, version, document, .. } = row;
                        let known = place.get_mut();
                        *known = SessionRow { is_final, version, document, ..known.clone() };
                    }
                }
            }
            Write::Key(key, epoch) => {
                let known = self.keys.entry(key.key_id).or_insert(key.clone());
                if known.public_key == key.public_key {
                    self.epochs.entry(key.key_id).or_insert(epoch);
                }
            }
            Write::Ban(ban) => {
                let pair = (ban.key_id, ban.epoch, ban.reporter.clone(), ban.peer.clone());
                self.bans.entry(pair).or_insert(ban);
            }
            Write::Freeze(key, Some(freeze)) => drop(self.frozen.insert(key, freeze)),
            Write::Freeze(key, None) => drop(self.frozen.remove(&key)),
            Write::Account(account) => drop(self.accounts.insert(account.id, account)),
            Write::PendingKey { session, account: Some(account) } => {
                self.pending.insert(session, account);
            }
            Write::PendingKey { session, account: None } => drop(self.pending.remove(&session)),
            Write::Idempotency(row) => {
                self.idempotency.insert((row.tenant.clone(), row.key.clone()), row);
            }
            Write::Party(row) => {
                let name = (row.registration.party_id.clone(), row.owner.clone());
                self.parties.insert(name, row);
            }
            Write::ForgetParty(party, owner) => drop(self.parties.remove(&(party, owner))),
            Write::Message(row) => {
                let id = row.message.message_id;
                if !row.is_settled() && self.messages.iter().all(|m| m.0.message.message_id != id) {
                    self.messages.push((row, vec![]));
                }
            }
            Write::Acknowledged { message, party } => {
                for (row, acknowledged) in &mut self.messages {
                    let is_new = row.recipients.contains(&party) && !acknowledged.contains(&party);
                    if row.message.message_id == message && is_new {
                        acknowledged.push(party.clone());
                    }
                }
                self.messages.retain(|(row, done)| done.len() < row.recipients.len());
            }
            Write::ForgetMessages(session) => {
                self.messages.retain(|(row, _)| row.message.session_id != session);
            }
            Write::ForgetEnded(before, most) => {
                let waits = |id| self.delegate_shares.keys().any(|(of, _)| *of == id);
                let ended = |row: &&SessionRow| row.is_final && !waits(row.session_id);
                let old = self.sessions.values().filter(ended);
                let mut old: Vec<_> = old.map(|row| (row.created_at, row.session_id)).collect();
                old.retain(|(at, _)| *at < before);
                old.sort_unstable();
                for (_, id) in old.into_iter().take(most as usize) {
                    self.sessions.remove(&id);
                }
            }
            Write::DelegateShare(row) => {
                let seat = (row.session_id, row.party_id.clone());
                self.delegate_shares.entry(seat).or_insert(row);
            }
            Write::ForgetDelegateShare(session, party) => {
                self.delegate_shares.remove(&(session, party));
            }
            Write::ForgetDelegateShares(session) => {
                self.delegate_shares.retain(|(of, _), _| *of != session);
            }
            Write::LentShare(row) => drop(self.lent_shares.insert(row.session_id, row)),
            Write::ForgetLentShare(session) => drop(self.lent_shares.remove(&session)),
            Write::ApiKey(row) => drop(self.api_keys.insert(row.key.id, row)),
            Write::ForgetApiKey(id) => drop(self.api_keys.remove(&id)),
            // They have tables and tests of their own.
            Write::Group(_)
            | Write::Notification(_)
            | Write::ForgetNotification(_)
            | Write::ForgetNotifications(..) => {}
        }
    }

    fn sessions(&self, tenant: Option<&Tenant>) -> Vec<SessionRow> {
        let fits = |row: &&SessionRow| tenant.is_none_or(|tenant| row.tenant == *tenant);
        let mut rows: Vec<_> = self.sessions.values().filter(fits).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.created_at, row.session_id)));
        rows
    }

    fn keys(&self, tenant: Option<&Tenant>) -> Vec<KeyRecord> {
        let fits = |key: &&KeyRecord| tenant.is_none_or(|tenant| key.tenant == *tenant);
        let shown = |key: &KeyRecord| {
            let frozen = self.frozen.get(&key.key_id).cloned();
            KeyRecord { frozen, ..key.clone() }
        };
        let mut keys: Vec<_> = self.keys.values().filter(fits).map(shown).collect();
        keys.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.key_id)));
        keys
    }

    fn messages(&self) -> Vec<(Message, u64, Vec<PartyId>, Vec<PartyId>)> {
        let shape = |(row, done): &(Arc<MessageRow>, Vec<PartyId>)| {
            let done = row.recipients.iter().filter(|p| done.contains(p)).cloned().collect();
            (row.message.clone(), row.sequence, row.recipients.clone(), done)
        };
        let mut messages: Vec<_> = self.messages.iter().map(shape).collect();
        messages.sort_by_key(|message| message.1);
        messages
    }

    async fn compare(&self, store: &SqliteStore) {
        for tenant in [None, Some(tenant(0)), Some(tenant(1))] {
            for limit in [1, 2, 100] {
                let ask = async |before| store.sessions(tenant.clone(), before, limit).await;
                assert_eq!(paged(limit, ask).await, self.sessions(tenant.as_ref()));
                let ask = async |before| store.keys(tenant.clone(), before, limit).await;
                assert_eq!(paged(limit, ask).await, self.keys(tenant.as_ref()));
            }
            let before = Some(Timestamp(2).into());
            let older = store.sessions(tenant.clone(), before, 100).await.unwrap();
            let mut expected = self.sessions(tenant.as_ref());
            expected.retain(|row| row.created_at.0 < 2);
            assert_eq!(older, Page { items: expected, next: None });
        }
        let mut open: Vec<_> = self.sessions(None);
        open.retain(|row| !row.is_final);
        open.reverse();
        assert_eq!(store.open_sessions().await.unwrap(), open);
        let mut lent = store.lent_shares().await.unwrap();
        lent.sort_by_key(|row| row.session_id);
        assert_eq!(lent, self.lent_shares.values().cloned().collect::<Vec<_>>());
        for n in 0..4 {
            let (session, key) = (session_id(n.into()), KeyId(Uuid::from_u128(n.into())));
            assert_eq!(store.session(session).await.unwrap(), self.sessions.get(&session).cloned());
            let known = self.keys(None).into_iter().find(|known| known.key_id == key);
            assert_eq!(store.key(key).await.unwrap(), known);
            let mut bans: Vec<_> =
                self.bans.values().filter(|ban| ban.key_id == key).cloned().collect();
            bans.sort_by_key(|ban| (ban.epoch, ban.at));
            assert_eq!(store.bans(key).await.unwrap(), bans);
            for party in NAMES.map(party) {
                let found = store.delegate_share(session, &party).await.unwrap();
                assert_eq!(found, self.delegate_shares.get(&(session, party)).cloned());
            }
            let epochs: Vec<_> = self.epochs.get(&key).cloned().into_iter().collect();
            assert_eq!(store.epochs(key).await.unwrap(), epochs);
            let public_key = PublicKey(vec![n; 65]);
            let all = self.keys(None);
            let oldest = all.iter().rev().find(|key| key.public_key == public_key);
            let found = store.key_by_public_key(&public_key).await.unwrap();
            assert_eq!(found.as_ref(), oldest);
        }
        for (tenant, key) in [0, 1].into_iter().flat_map(|n| NAMES.map(|key| (tenant(n), key))) {
            let found = store.idempotency(&tenant, key).await.unwrap();
            assert_eq!(found, self.idempotency.get(&(tenant, key.to_owned())).cloned());
        }
        for tenant in [0, 1].map(tenant) {
            let of = |row: &&DelegateShareRow| row.tenant == tenant;
            let count = self.delegate_shares.values().filter(of).count();
            assert_eq!(store.delegate_shares(&tenant).await.unwrap(), count as u64);
        }
        let mut accounts: Vec<_> = self.accounts.values().cloned().collect();
        accounts.sort_by_key(|account| (account.created_at, account.id));
        assert_eq!(store.accounts().await.unwrap(), accounts);
        assert_eq!(store.pending_keys().await.unwrap(), self.pending);
        // They come in the order of their keys, which is nobody's concern.
        let mut parties = store.parties().await.unwrap();
        parties.sort_by_key(|row| (row.registration.party_id.clone(), row.owner.clone()));
        assert_eq!(parties, values(&self.parties));
        assert_eq!(store.api_keys().await.unwrap(), values(&self.api_keys));
        let found = store.messages().await.unwrap().into_iter().map(|found| {
            let row = found.row;
            (row.message.clone(), row.sequence, row.recipients.clone(), found.acknowledged)
        });
        assert_eq!(found.collect::<Vec<_>>(), self.messages());
    }
}

fn values<K: Ord, V: Clone>(map: &BTreeMap<K, V>) -> Vec<V> {
    map.values().cloned().collect()
}

fn tenant(n: u8) -> Tenant {
    format!("tenant-{n}").parse().unwrap()
}

fn small_id() -> impl Strategy<Value = u128> {
    0..4_u128
}

fn name() -> impl Strategy<Value = PartyId> {
    proptest::sample::select(&NAMES[..]).prop_map(party)
}

fn any_session() -> impl Strategy<Value = Write> {
    let overtaken = proptest::option::of(any::<bool>());
    (small_id(), 0..2_u8, any::<bool>(), 0..4_i64, any::<[u8; 2]>(), overtaken).prop_map(
        |(id, owner, is_final, at, document, overtaken)| {
            let row = SessionRow {
                session_id: session_id(id),
                tenant: tenant(owner),
                is_final,
                created_at: Timestamp(at),
                version: 1,
                document: document.to_vec(),
            };
            let Some(is_overtaken) = overtaken else { return Write::Session(row) };
            let overtaken = Overtaken::default();
            if is_overtaken {
                overtaken.set();
            }
            Write::Interim(row, overtaken)
        },
    )
}

fn any_message() -> impl Strategy<Value = Write> {
    let recipients = proptest::sample::subsequence(NAMES.to_vec(), 1..=3);
    let body = proptest::collection::vec(any::<u8>(), 0..9);
    let sequence = prop_oneof![0..5_u64, Just(u64::from(u32::MAX)), Just(u64::MAX)];
    (small_id(), small_id(), sequence, any::<i32>(), recipients, body, any::<bool>()).prop_map(
        |(id, session, sequence, round, recipients, body, settled)| {
            let message = Message {
                message_id: message_id(id),
                session_id: session_id(session),
                from_party: party("s"),
                is_broadcast: recipients.len() > 1,
                round,
                message_type: "ünïcode \0".into(),
                payload: body.into(),
                created_at: Timestamp(i64::from(round)),
            };
            let row =
                MessageRow::new(message, sequence, recipients.into_iter().map(party).collect());
            if settled {
                row.settle();
            }
            Write::Message(Arc::new(row))
        },
    )
}

fn any_account() -> impl Strategy<Value = Write> {
    (small_id(), 0..3_i64, proptest::option::of("[a-z]{1,3}"), any::<bool>()).prop_map(
        |(id, at, email, active)| {
            Write::Account(Account {
                id: AccountId(Uuid::from_u128(id)),
                tenant: tenant(0),
                username: format!("user {id}"),
                email,
                phone: None,
                public_key: active.then(|| PublicKey(vec![4; 65])),
                key_id: active.then(|| KeyId(Uuid::from_u128(id))),
                initiator_key: active
                    .then(|| format!("ed25519:{}", "ab".repeat(32)).parse().expect("a key")),
                status: if active { AccountStatus::Active } else { AccountStatus::Disabled },
                created_at: Timestamp(at),
                updated_at: Timestamp(at + 1),
            })
        },
    )
}

fn owner() -> impl Strategy<Value = NameOwner> {
    prop_oneof![
        Just(NameOwner::Operator),
        (0..2_u8).prop_map(|n| NameOwner::Tenant(tenant(n))),
        Just(NameOwner::Unclaimed),
    ]
}

fn any_party() -> impl Strategy<Value = Write> {
    (name(), owner(), any::<i64>(), proptest::option::of(any::<[u8; 32]>())).prop_map(
        |(party_id, owner, at, identity)| {
            let registration = Registration {
                party_id,
                role: PartyRole::Persistent,
                version: "1".into(),
                notification: NotificationChannel { email: "x@y".into(), ..Default::default() },
                identity,
                delegate_key: None,
            };
            Write::Party(PartyRow { owner, registration, registered_at: Timestamp(at) })
        },
    )
}

fn any_api_key() -> impl Strategy<Value = Write> {
    (0..4_u8, any::<[u8; 32]>(), any::<Option<i64>>(), any::<bool>()).prop_map(
        |(id, hash, time, revoked)| {
            let key = ApiKey {
                id: ApiKeyId([id; 8]),
                label: time.map(|_| "billing".parse().unwrap()),
                tenant: tenant(1),
                scopes: vec![Scope::Read, Scope::Sessions],
                created_at: Timestamp(7),
                expires_at: time.map(Timestamp),
                last_used_at: time.map(Timestamp),
                revoked,
            };
            match revoked && time.is_none() {
                true => Write::ForgetApiKey(key.id),
                false => Write::ApiKey(ApiKeyRow { hash, key }),
            }
        },
    )
}

fn any_delegate_share() -> impl Strategy<Value = Write> {
    let share = (small_id(), name(), 0..2_u8, any::<[u8; 3]>()).prop_map(
        |(session, party_id, owner, package)| {
            Write::DelegateShare(DelegateShareRow {
                session_id: session_id(session),
                party_id,
                tenant: tenant(owner),
                package: package.to_vec().into(),
            })
        },
    );
    let lent = (small_id(), name(), any::<u16>(), any::<[u8; 3]>()).prop_map(
        |(session, delegate, place, package)| {
            let (holder_index, package) = (PartyIndex(place), package.to_vec().into());
            let lent = LentShare { delegate, holder_index, package };
            Write::LentShare(LentShareRow { session_id: session_id(session), lent })
        },
    );
    prop_oneof![
        4 => share,
        4 => lent,
        2 => small_id().prop_map(|n| Write::ForgetLentShare(session_id(n))),
        1 => (small_id(), name()).prop_map(|(n, p)| Write::ForgetDelegateShare(session_id(n), p)),
        1 => small_id().prop_map(|n| Write::ForgetDelegateShares(session_id(n))),
    ]
}

/// A list, page by page.
async fn paged<T>(limit: u32, ask: impl AsyncFn(Option<Cursor>) -> Result<Page<T>>) -> Vec<T> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = ask(before).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        found.extend(page.items);
        before = page.next;
        if before.is_none() {
            return found;
        }
    }
}

fn any_write() -> impl Strategy<Value = Write> {
    let any_key = (small_id(), name(), 0..4_u8, 0..3_i64, 0..2_u8).prop_map(
        |(id, holder, key_byte, at, owner)| {
            Write::Key(key(id, holder.as_str(), key_byte, at, tenant(owner)), epoch(id))
        },
    );
    let ban = (small_id(), 0..2_u32, (name(), name()), any::<i32>(), "\\PC*").prop_map(
        |(key, epoch, (reporter, peer), at, reason)| {
            Write::Ban(ReportedBan {
                key_id: KeyId(Uuid::from_u128(key)),
                epoch,
                reporter,
                peer,
                reason,
                session_id: session_id(key),
                at: Timestamp(at.into()),
            })
        },
    );
    let freeze = (small_id(), proptest::option::of(("\\PC*", 0..9_i64))).prop_map(|(key, why)| {
        let freeze = |(reason, at)| Freeze { by: "open".into(), at: Timestamp(at), reason };
        Write::Freeze(KeyId(Uuid::from_u128(key)), why.map(freeze))
    });
    let pending = (small_id(), proptest::option::of(small_id())).prop_map(|(session, account)| {
        let account = account.map(|n| AccountId(Uuid::from_u128(n)));
        Write::PendingKey { session: session_id(session), account }
    });
    let slot = (0..2_u8, name(), any::<[u8; 32]>(), small_id()).prop_map(
        |(owner, key, request_hash, session)| {
            let (tenant, session_id) = (tenant(owner), session_id(session));
            let (key, version) = (key.into(), 2);
            Write::Idempotency(IdempotencyRow { tenant, key, version, request_hash, session_id })
        },
    );
    let acknowledged = (small_id(), name())
        .prop_map(|(n, party)| Write::Acknowledged { message: message_id(n), party });
    prop_oneof![
        3 => any_session(),
        2 => any_key,
        1 => ban,
        1 => freeze,
        1 => any_account(),
        1 => pending,
        1 => slot,
        1 => prop_oneof![3 => any_party(), 1 => (name(), owner()).prop_map(|(n, o)| Write::ForgetParty(n, o))],
        4 => any_message(),
        4 => acknowledged,
        1 => small_id().prop_map(|n| Write::ForgetMessages(session_id(n))),
        // Of one millisecond all go: which are the oldest of them is nobody's business.
        1 => (0..5_i64).prop_map(|at| Write::ForgetEnded(Timestamp(at), 9)),
        2 => any_delegate_share(),
        1 => any_api_key(),
    ]
}

proptest! {
    // Every case opens two databases and syncs a few times: milliseconds each on a slow disk.
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_the_models(
        transactions in proptest::collection::vec(
            proptest::collection::vec(any_write(), 0..4),
            1..40,
        ),
        urgency in proptest::sample::select(&[Urgency::Now, Urgency::Soon, Urgency::Later][..]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = SqliteStore::open(folder.path()).unwrap();
            let mut model = Model::default();
            for writes in transactions {
                model.apply_all(&writes);
                drop(store.submit(writes, urgency));
            }
            store.submit(vec![], urgency).await.unwrap();
            model.compare(&store).await;
            drop(store);
            model.compare(&SqliteStore::open(folder.path()).unwrap()).await;
        });
    }
}
