//! Keys over a real store and a clock that is set.

use quorate_store::SqliteStore;

use super::*;
use crate::clock::ManualClock;

struct Server {
    keys: ApiKeys,
    clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let keys = ApiKeys::open(store, clock.clone()).await.unwrap();
        Self { keys, clock, folder }
    }

    /// The same folder after a restart.
    async fn restart(self) -> Self {
        let Self { keys, clock, folder } = self;
        drop(keys);
        let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let keys = ApiKeys::open(store, clock.clone()).await.unwrap();
        Self { keys, clock, folder }
    }

    async fn make(&self, expires_at: Option<i64>) -> MadeApiKey {
        let new = NewApiKey {
            label: Some("billing".parse().unwrap()),
            tenant: "acme".parse().unwrap(),
            scopes: vec![Scope::Read],
            expires_at: expires_at.map(Timestamp),
        };
        self.keys.create_api_key(&Caller::System, new).await.unwrap()
    }

    async fn listed(&self) -> Vec<ApiKey> {
        self.keys.api_keys(&Caller::System, None).await.unwrap()
    }

    fn why(&self, secret: &str) -> String {
        let error = self.keys.authenticate(secret).err().unwrap();
        assert_eq!(error.code, ErrorCode::Unauthorized);
        error.message
    }
}

#[tokio::test]
async fn a_key_works_until_it_is_revoked_and_not_after_a_restart() {
    let server = Server::start().await;
    let made = server.make(None).await;
    let known = server.keys.authenticate(made.secret.expose()).unwrap();
    assert_eq!(known.caller, made.key.caller());
    assert!(!known.revoked.is_cancelled() && known.lifetime.is_none());
    for wrong in
        ["", "qk_", made.key.id.to_string().as_str(), &format!("{}x", made.secret.expose())]
    {
        assert!(server.why(wrong).contains("unknown or revoked"));
    }
    server.keys.revoke_api_key(&Caller::System, made.key.id).await.unwrap();
    assert!(known.revoked.is_cancelled(), "what it opened ends");
    assert!(server.why(made.secret.expose()).contains("revoked"));
    let again = server.keys.revoke_api_key(&Caller::System, made.key.id).await.unwrap();
    assert!(again.revoked);
    let server = server.restart().await;
    assert!(server.why(made.secret.expose()).contains("revoked"));
    let nobody = server.keys.revoke_api_key(&Caller::System, ApiKeyId([1; 8])).await;
    assert_eq!(nobody.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_key_expires_at_its_moment() {
    let server = Server::start().await;
    let made = server.make(Some(1_005_000)).await;
    server.clock.advance(4_999);
    let known = server.keys.authenticate(made.secret.expose()).unwrap();
    assert_eq!(known.lifetime, Some(Duration::from_millis(1)));
    server.clock.advance(1);
    assert!(server.why(made.secret.expose()).contains("expired"));
}

#[tokio::test]
async fn the_last_use_is_known_to_within_a_minute_after_a_restart() {
    let server = Server::start().await;
    let made = server.make(None).await;
    assert_eq!(server.listed().await[0].last_used_at, None);
    server.keys.authenticate(made.secret.expose()).unwrap();
    server.clock.advance(59_999);
    server.keys.authenticate(made.secret.expose()).unwrap();
    assert_eq!(server.listed().await[0].last_used_at, Some(Timestamp(1_059_999)));
    let server = server.restart().await;
    assert_eq!(server.listed().await[0].last_used_at, Some(Timestamp(1_000_000)));
    server.clock.advance(1);
    server.keys.authenticate(made.secret.expose()).unwrap();
    let server = server.restart().await;
    assert_eq!(server.listed().await[0].last_used_at, Some(Timestamp(1_060_000)));
}

#[tokio::test]
async fn a_use_that_is_noted_late_does_not_bring_a_revoked_key_back() {
    let server = Server::start().await;
    let made = server.make(None).await;
    server.keys.authenticate(made.secret.expose()).unwrap();
    server.keys.revoke_api_key(&Caller::System, made.key.id).await.unwrap();
    let server = server.restart().await;
    assert!(server.listed().await[0].revoked);
}

#[tokio::test]
async fn only_the_operator_manages_keys_and_bad_ones_are_refused() {
    let server = Server::start().await;
    let scopes = Scope::ALL.iter().copied().filter(|scope| *scope != Scope::System).collect();
    let tenant = Caller::Key { tenant: Tenant::default(), scopes };
    let new = |scopes: &[Scope], tenant: &str, expires_at| NewApiKey {
        label: None,
        tenant: tenant.parse().unwrap(),
        scopes: scopes.to_vec(),
        expires_at,
    };
    for caller in [Caller::Open, Caller::Party("p".parse().unwrap()), tenant] {
        let made = server.keys.create_api_key(&caller, new(&[Scope::Read], "acme", None)).await;
        let listed = server.keys.api_keys(&caller, None).await;
        let revoked = server.keys.revoke_api_key(&caller, ApiKeyId([1; 8])).await;
        let errors = [made.err(), listed.err(), revoked.err()];
        assert!(errors.into_iter().all(|error| error.unwrap().code == ErrorCode::Forbidden));
    }
    for (field, bad) in [
        ("scopes", new(&[], "acme", None)),
        ("tenant", new(&[Scope::System], "acme", None)),
        ("expires_at", new(&[Scope::Read], "acme", Some(Timestamp(1_000_000)))),
    ] {
        let error = server.keys.create_api_key(&Caller::System, bad).await.err().unwrap();
        assert!(error.details.fields.contains_key(field), "{error:?}");
    }
    assert!(server.listed().await.is_empty());
}

#[tokio::test]
async fn past_the_bound_a_key_that_works_no_more_makes_room() {
    let server = Server::start().await;
    let made = server.make(None).await;
    {
        let mut entries = lock(&server.keys.entries);
        for number in 1..MOST as u64 {
            let key = ApiKey { id: ApiKeyId(number.to_be_bytes()), ..made.key.clone() };
            entries.insert(key.id, Entry::new(ApiKeyRow { hash: [0; 32], key }));
        }
    }
    let new = || NewApiKey {
        label: None,
        tenant: Tenant::default(),
        scopes: vec![Scope::Read],
        expires_at: None,
    };
    let full = server.keys.create_api_key(&Caller::System, new()).await.err().unwrap();
    assert_eq!(full.code, ErrorCode::Conflict);
    server.keys.revoke_api_key(&Caller::System, made.key.id).await.unwrap();
    server.keys.create_api_key(&Caller::System, new()).await.unwrap();
    assert_eq!(lock(&server.keys.entries).len(), MOST);
    let server = server.restart().await;
    assert!(server.listed().await.iter().all(|key| key.id != made.key.id), "forgotten for good");
}

#[tokio::test]
async fn keys_come_in_pages() {
    let server = Server::start().await;
    {
        let made = server.make(None).await;
        let mut entries = lock(&server.keys.entries);
        entries.clear();
        for number in 0..=API_KEYS_PAGE as u64 {
            let key = ApiKey { id: ApiKeyId(number.to_be_bytes()), ..made.key.clone() };
            entries.insert(key.id, Entry::new(ApiKeyRow { hash: [0; 32], key }));
        }
    }
    let first = server.listed().await;
    assert_eq!(first.len(), API_KEYS_PAGE);
    let rest = server.keys.api_keys(&Caller::System, first.last().map(|key| key.id)).await.unwrap();
    assert_eq!(rest.len(), 1);
}
