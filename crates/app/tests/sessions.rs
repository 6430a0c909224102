//! The coordinator and the router together over a real store, without sockets.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use quorate_app::*;
use quorate_core::inbox::{InboxLimits, MESSAGE_COST};
use quorate_ports::{
    Announce as _, Deliver as _, ManageSessions as _, ReadMessages as _, ReadSession as _, Store,
    TakePart as _,
};
use quorate_store::SqliteStore;
use quorate_types::*;
use tempfile::TempDir;

struct World {
    coordinator: Arc<CoordinatorApp>,
    router: Arc<RouterApp>,
    clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
}

const GENERATOR: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

async fn open(folder: &TempDir) -> World {
    open_with(folder, InboxLimits::default(), CoordinatorConfig::default().max_open).await
}

async fn open_with(folder: &TempDir, limits: InboxLimits, max_open: usize) -> World {
    let clock = Arc::new(ManualClock::at(Timestamp(1_700_000_000_000)));
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let late = Arc::new(LateProgress::default());
    let parts = RouterParts {
        config: RouterConfig { limits },
        store: store.clone(),
        progress: late.clone(),
        clock: clock.clone(),
    };
    let router = Arc::new(RouterApp::open(parts).await.unwrap());
    let parts = CoordinatorParts {
        config: CoordinatorConfig { max_open, ..CoordinatorConfig::default() },
        store: store.clone(),
        service_initiator: None,
        join_tokens: JoinTokens::new(Secret::new([7; 32])),
        directory: router.clone(),
        events: router.clone(),
        notifier: None,
        clock: clock.clone(),
    };
    let coordinator = Arc::new(CoordinatorApp::open(parts).await.unwrap());
    let sink: Arc<dyn ProgressSink> = coordinator.clone();
    late.connect(Arc::downgrade(&sink));
    router.forget_unclaimed();
    World { coordinator, router, clock, store }
}

fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

fn keygen(parties: &[&str], idempotency_key: Option<&str>) -> CreateSession {
    let participant = |name: &&str| NewParticipant {
        party_id: party(name),
        device: DeviceInfo::default(),
        on_behalf_of: None,
    };
    let n = i64::try_from(parties.len()).unwrap();
    CreateSession {
        ceremony: CeremonyRequest::Keygen {
            scheme: Scheme::default(),
            threshold: Threshold::new(2, n).unwrap(),
        },
        participants: parties.iter().map(participant).collect(),
        expires_in_seconds: None,
        idempotency_key: idempotency_key.map(Into::into),
        authorization: None,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    }
}

fn join(created: &CreatedSession, name: &str) -> JoinSession {
    JoinSession {
        session_id: None,
        party_id: party(name),
        token: created.join_tokens[&party(name)].clone(),
        device: DeviceInfo::default(),
        handshake: None,
        ready: false,
        awaiting_approval: false,
        attempt: 0,
    }
}

fn message(session: SessionId, from: &str, to: &[&str], round: i32) -> RouteRequest {
    RouteRequest {
        session_id: session,
        from_party: party(from),
        to_parties: to.iter().map(|name| party(name)).collect(),
        round,
        message_type: "test".into(),
        payload: format!("{from} {round}").into_bytes().into(),
        acknowledges: vec![],
        patient: false,
    }
}

async fn started(world: &World, names: &[&str]) -> CreatedSession {
    let created = world.coordinator.create(&Caller::Open, keygen(names, None)).await.unwrap();
    for name in names {
        let mut request = join(&created, name);
        request.ready = true;
        world.coordinator.join(&Caller::Open, request).await.unwrap();
    }
    created
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_simultaneous_readies_all_start_their_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let names = ["a", "b", "c"];
    for _ in 0..200 {
        let created = world.coordinator.create(&Caller::Open, keygen(&names, None)).await.unwrap();
        for name in names {
            world.coordinator.join(&Caller::Open, join(&created, name)).await.unwrap();
        }
        let id = created.session.session_id;
        let readies = names.map(|name| {
            let coordinator = world.coordinator.clone();
            tokio::spawn(async move { coordinator.ready(&Caller::Open, id, &party(name)).await })
        });
        let mut started = 0;
        for ready in readies {
            started += usize::from(ready.await.unwrap().unwrap().all_ready());
        }
        assert!(started >= 1);
        let view = world.coordinator.status(&Caller::Open, id, None).await.unwrap();
        assert_eq!(view.status, SessionStatus::InProgress);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_not_on_disk_is_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let created = started(&world, &["a", "b"]).await;
    started(&world, &["c", "d"]).await;
    let id = created.session.session_id;
    let report = |name: &str| Report {
        session_id: id,
        party_id: party(name),
        attempt: 0,
        outcome: PartyOutcome::Key {
            public_key: hex::decode(GENERATOR).unwrap(),
            attestation: None,
            epoch: None,
        },
    };
    world.coordinator.complete(&Caller::Open, report("a")).await.unwrap();
    let coordinator = world.coordinator.clone();
    let waiting = tokio::spawn(async move {
        let wait = Some((WaitFor::End, Duration::from_secs(60)));
        coordinator.status(&Caller::Open, id, wait).await
    });
    // A table that is gone stands for a disk that fails.
    let database = rusqlite::Connection::open(folder.path().join("quorate.db")).unwrap();
    database.execute_batch("DROP TABLE sessions").unwrap();
    let told = world.coordinator.complete(&Caller::Open, report("b")).await.unwrap_err();
    assert_eq!(told.code, ErrorCode::Unavailable);
    assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::Unavailable);
    let later = world.coordinator.status(&Caller::Open, id, None).await.unwrap_err();
    assert_eq!(later.code, ErrorCode::Unavailable);
    // The other session's deadline passes: that is tried once, and not in a loop.
    world.clock.advance(400_000);
    let stop = tokio_util::sync::CancellationToken::new();
    world.coordinator.watch_deadlines(stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_store_is_told_to_lists_and_other_waiters() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let failing = started(&world, &["a", "b"]).await.session.session_id;
    let other = started(&world, &["c", "d"]).await.session.session_id;
    // Writes fail, reads go on.
    let database = rusqlite::Connection::open(folder.path().join("quorate.db")).unwrap();
    let broken = "CREATE TRIGGER i BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END;
                  CREATE TRIGGER u BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'full'); END;";
    database.execute_batch(broken).unwrap();
    let wait = Some((WaitFor::End, Duration::from_secs(60)));
    let mut waiting = Box::pin(world.coordinator.status(&Caller::Open, other, wait));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    for name in ["a", "b"] {
        let outcome = PartyOutcome::Key {
            public_key: hex::decode(GENERATOR).unwrap(),
            attestation: None,
            epoch: None,
        };
        let report = Report { session_id: failing, party_id: party(name), attempt: 0, outcome };
        let _ = world.coordinator.complete(&Caller::Open, report).await;
    }
    assert!(world.store.health().is_err(), "the store has failed");
    let limit = Duration::from_secs(30);
    let told = tokio::time::timeout(limit, waiting).await.expect("long before its limit");
    assert_eq!(told.unwrap_err().code, ErrorCode::Unavailable);
    let listed = world.coordinator.list(&Caller::Open, None, 10).await;
    assert_eq!(listed.unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let created = started(&world, &["a", "b"]).await;
    let id = created.session.session_id;
    let sent = world.router.route(&Caller::Open, message(id, "a", &["b"], 1)).await.unwrap();
    drop(world);
    let world = open(&folder).await;
    let again = world.coordinator.status(&Caller::Open, id, None).await.unwrap();
    assert_eq!(again.session_id, id);
    let pending = world.router.pending(&Caller::Open, id, &party("b"), Timestamp(0)).await.unwrap();
    assert_eq!(pending.iter().map(|m| m.message_id).collect::<Vec<_>>(), [sent]);
    let fresh = world.router.route(&Caller::Open, message(id, "a", &["b"], 2)).await.unwrap();
    let pending = world.router.pending(&Caller::Open, id, &party("b"), Timestamp(0)).await.unwrap();
    let order: Vec<_> = pending.iter().map(|m| m.message_id).collect();
    assert_eq!(order, [sent, fresh], "a new message does not take the place of an old one");
    // The token that was given out before the restart still opens the session.
    world.coordinator.join(&Caller::Open, join(&created, "a")).await.unwrap();
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_session_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let request = keygen(&["a", "b"], Some("once"));
    let first = world.coordinator.create(&Caller::Open, request.clone()).await.unwrap();
    let second = world.coordinator.create(&Caller::Open, request.clone()).await.unwrap();
    assert_eq!(first.session.session_id, second.session.session_id);
    drop(world);
    let world = open(&folder).await;
    let third = world.coordinator.create(&Caller::Open, request).await.unwrap();
    assert_eq!(first.session.session_id, third.session.session_id);
    let token = |created: &CreatedSession| created.join_tokens[&party("a")].expose().clone();
    assert_eq!(token(&first), token(&third));
    let other = keygen(&["a", "c"], Some("once"));
    let error = world.coordinator.create(&Caller::Open, other).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::IdempotencyMismatch);
}

#[tokio::test]
async fn a_stream_has_the_waiting_messages_first_then_live_ones_and_ends_with_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let id = started(&world, &["a", "b", "c"]).await.session.session_id;
    let route = |request| {
        let router = world.router.clone();
        tokio::spawn(async move { router.route(&Caller::Open, request).await.unwrap() })
    };
    route(message(id, "a", &["b"], 1)).await.unwrap();
    let mut stream =
        world.router.subscribe(&Caller::Open, Some(id), &party("b"), Timestamp(0)).await.unwrap();
    route(message(id, "c", &[], 2)).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    let second = stream.next().await.unwrap().unwrap();
    assert_eq!((first.round, first.is_broadcast), (1, false));
    assert_eq!((second.round, second.is_broadcast), (2, true));
    world.coordinator.close(&Caller::Open, id).await.unwrap();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_message_acknowledged_by_all_never_touches_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let id = started(&world, &["a", "b"]).await.session.session_id;
    let mut stream =
        world.router.subscribe(&Caller::Open, Some(id), &party("b"), Timestamp(0)).await.unwrap();
    let router = world.router.clone();
    let sender =
        tokio::spawn(async move { router.route(&Caller::Open, message(id, "a", &["b"], 1)).await });
    let message = stream.next().await.unwrap().unwrap();
    let ack = Acknowledge {
        message_id: message.message_id,
        party_id: party("b"),
        session_id: id,
        success: true,
    };
    world.router.acknowledge(&Caller::Open, ack).await.unwrap();
    assert_eq!(sender.await.unwrap().unwrap(), message.message_id);
    assert!(world.store.messages().await.unwrap().is_empty());
    let status = world.router.message_status(&Caller::Open, id, message.message_id).await.unwrap();
    assert_eq!(status[0].state, DeliveryState::Acknowledged);
}

#[tokio::test]
async fn each_subscriber_sees_its_own_token_only_and_a_late_one_where_the_session_stands() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let mut events =
        world.router.subscribe_events(&Caller::Open, &party("a"), vec![]).await.unwrap();
    let created = world.coordinator.create(&Caller::Open, keygen(&["a", "b"], None)).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event.kind, EventKind::SessionCreated);
    assert_eq!(event.join_tokens.keys().collect::<Vec<_>>(), [&party("a")]);
    for name in ["a", "b"] {
        let mut request = join(&created, name);
        request.ready = true;
        world.coordinator.join(&Caller::Open, request).await.unwrap();
    }
    let mut late = world.router.subscribe_events(&Caller::Open, &party("b"), vec![]).await.unwrap();
    assert_eq!(late.next().await.unwrap().unwrap().kind, EventKind::SessionStarted);
    let mut stranger =
        world.router.subscribe_events(&Caller::Open, &party("z"), vec![]).await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(1), stranger.next()).await;
    assert!(nothing.is_err(), "a stranger is told nothing");
}

#[tokio::test]
async fn a_stranger_announces_only_sessions_of_his_own() {
    let folder = tempfile::tempdir().unwrap();
    let World { coordinator, router, .. } = open(&folder).await;
    let mut events = router.subscribe_events(&Caller::Open, &party("a"), vec![]).await.unwrap();
    coordinator.create(&Caller::Open, keygen(&["a", "b"], None)).await.unwrap();
    let announced = events.next().await.unwrap().unwrap();
    let publish = |caller: &Caller, event: &SessionEvent| {
        let (router, caller, event) = (router.clone(), caller.clone(), event.clone());
        async move { router.publish_event(&caller, event).await.map_err(|error| error.code) }
    };
    let mut ending = announced.clone();
    ending.session.status = SessionStatus::Failed;
    for event in [&announced, &ending] {
        assert_eq!(publish(&Caller::Open, event).await, Err(ErrorCode::Forbidden));
    }
    let mut own = announced.clone();
    own.session.session_id = SessionId(uuid::Uuid::from_u128(1));
    own.session.tenant = "acme".parse().unwrap();
    let key = Caller::Key { tenant: Tenant::default(), scopes: vec![Scope::Party] };
    assert_eq!(publish(&key, &own).await, Err(ErrorCode::Forbidden), "an open caller, not a key");
    assert_eq!(publish(&Caller::Open, &own).await, Ok(1));
    assert_eq!(events.next().await.unwrap().unwrap().session.tenant, Tenant::default());
    let id = own.session.session_id;
    let after = Timestamp(0);
    assert!(router.pending(&Caller::Open, id, &party("a"), after).await.is_ok());
    EventSink::publish(&*router, own.clone());
    let taken = router.pending(&Caller::Open, id, &party("a"), after).await;
    assert_eq!(taken.unwrap_err().code, ErrorCode::NotFound, "it is acme's now");
    assert_eq!(publish(&Caller::Open, &own).await, Err(ErrorCode::Forbidden));
}

#[tokio::test]
async fn a_silent_party_is_named_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let id = started(&world, &["a", "b"]).await.session.session_id;
    let report = Report {
        session_id: id,
        party_id: party("a"),
        attempt: 0,
        outcome: PartyOutcome::Key {
            public_key: hex::decode(GENERATOR).unwrap(),
            attestation: None,
            epoch: None,
        },
    };
    world.coordinator.complete(&Caller::Open, report).await.unwrap();
    world.clock.advance(301_000);
    world.coordinator.expire_due().await.unwrap();
    let view = world.coordinator.status(&Caller::Open, id, None).await.unwrap();
    assert_eq!(view.status, SessionStatus::Failed);
    let failure = view.failure.unwrap();
    assert_eq!(failure.reason, FailureReason::DeadlinePassed);
    assert_eq!(failure.parties, [party("b")]);
}

#[tokio::test]
async fn an_account_with_an_initiator_asks_through_it_only() {
    use quorate_authority::AuthoritySecret;
    use quorate_ports::Accounts;
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let (store, coordinator) = (world.store.clone(), world.coordinator.clone());
    let accounts =
        AccountsApp::open(store, coordinator, world.clock.clone(), Default::default()).await;
    let accounts = accounts.unwrap();
    let secret = |seed| AuthoritySecret::from_seed(&Secret::new([seed; 32]));
    let new = |initiator_key| NewAccount {
        username: "alice".into(),
        initiator_key,
        ..NewAccount::default()
    };
    let neutral: AuthorityKey = format!("ed25519:01{}", "00".repeat(31)).parse().unwrap();
    let refused = accounts.create(&Caller::Open, new(Some(neutral.clone()))).await.unwrap_err();
    assert!(refused.details.fields.contains_key("initiatorKey"), "{refused}");
    let own = secret(1).public().clone();
    let account = accounts.create(&Caller::Open, new(Some(own.clone()))).await.unwrap();
    assert_eq!(account.initiator_key.as_ref(), Some(&own));
    let change = |key| AccountChange { initiator_key: key, ..AccountChange::default() };
    assert!(accounts.update(&Caller::Open, account.id, change(Some(neutral))).await.is_err());
    let kept = accounts.update(&Caller::Open, account.id, change(None)).await.unwrap();
    assert_eq!(kept.initiator_key, Some(own));

    let unsigned = keygen(&["a", "b"], None);
    let asked = accounts.keygen(&Caller::Open, Some(account.id), unsigned.clone()).await;
    let refused = asked.map(|_| ()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PolicyDenied);
    assert!(refused.message.starts_with("unsigned: "), "{refused}");
    let request = quorate_authority::Request {
        action: quorate_authority::Action::Keygen {
            scheme: Scheme::default(),
            threshold: unsigned.ceremony.threshold().unwrap(),
            holders: ["a", "b"]
                .map(|name| quorate_authority::NamedHolder {
                    party_id: party(name),
                    identity: None,
                })
                .to_vec(),
            label: None,
        },
        expires_at: world.clock.now().plus_seconds(60),
        nonce: [1; 16],
        purpose: String::new(),
    };
    let signed = |seed| {
        let authorization = Some(secret(seed).authorize(&request));
        CreateSession { authorization, ..unsigned.clone() }
    };
    let foreign = accounts.keygen(&Caller::Open, Some(account.id), signed(2)).await;
    let refused = foreign.map(|_| ()).unwrap_err();
    assert!(refused.message.starts_with("initiator: "), "{refused}");
    accounts.keygen(&Caller::Open, Some(account.id), signed(1)).await.unwrap();
}

#[tokio::test]
async fn a_finished_key_is_attached_to_its_account() {
    use quorate_ports::Accounts;
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let accounts = AccountsApp::open(
        world.store.clone(),
        world.coordinator.clone(),
        world.clock.clone(),
        stop.clone(),
    )
    .await
    .unwrap();
    let new = NewAccount { username: "alice".into(), ..NewAccount::default() };
    let account = accounts.create(&Caller::Open, new).await.unwrap();
    let created =
        accounts.keygen(&Caller::Open, Some(account.id), keygen(&["a", "b"], None)).await.unwrap();
    for name in ["a", "b"] {
        let mut request = join(&created, name);
        request.ready = true;
        world.coordinator.join(&Caller::Open, request).await.unwrap();
    }
    for name in ["a", "b"] {
        let report = Report {
            session_id: created.session.session_id,
            party_id: party(name),
            attempt: 0,
            outcome: PartyOutcome::Key {
                public_key: hex::decode(GENERATOR).unwrap(),
                attestation: None,
                epoch: None,
            },
        };
        world.coordinator.complete(&Caller::Open, report).await.unwrap();
    }
    // The watcher ends when it has attached the key.
    accounts.closed().await;
    let account = accounts.get(&Caller::Open, account.id).await.unwrap();
    assert_eq!(account.key_id, Some(created.session.session_id.into()));
    let keys = world.coordinator.keys(&Caller::Open, None, 10).await.unwrap().items;
    assert_eq!(Some(&keys[0].public_key), account.public_key.as_ref());
}

#[tokio::test]
async fn a_key_shows_which_of_its_holders_sign_no_more_together() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let made = started(&world, &["a", "b"]).await.session.session_id;
    for name in ["a", "b"] {
        let outcome = PartyOutcome::Key {
            public_key: hex::decode(GENERATOR).unwrap(),
            attestation: None,
            epoch: None,
        };
        let report = Report { session_id: made, party_id: party(name), attempt: 0, outcome };
        world.coordinator.complete(&Caller::Open, report).await.unwrap();
    }
    let sign = CreateSession {
        ceremony: CeremonyRequest::Sign {
            key: KeySelector::Id(made.into()),
            threshold: None,
            input: SignInput::Digest(Digest([7; 32])),
        },
        ..keygen(&["a", "b"], None)
    };
    let created = world.coordinator.create(&Caller::Open, sign).await.unwrap();
    for name in ["a", "b"] {
        let request = JoinSession { ready: true, ..join(&created, name) };
        world.coordinator.join(&Caller::Open, request).await.unwrap();
    }
    let failure = Failure {
        reason: FailureReason::PartyCheated,
        message: "ot_check_failed: a check failed".into(),
        parties: vec![party("b")],
    };
    let outcome = PartyOutcome::Failure(failure);
    let session_id = created.session.session_id;
    let report = Report { session_id, party_id: party("a"), attempt: 0, outcome };
    world.coordinator.complete(&Caller::Open, report).await.unwrap();
    let view = world.coordinator.key(&Caller::Open, made.into()).await.unwrap();
    let [ban] = view.bans.as_slice() else { panic!("{view:?}") };
    assert_eq!((&ban.reporter, &ban.peer, ban.session_id), (&party("a"), &party("b"), session_id));
    let stranger = Caller::Party(party("c"));
    let refused = world.coordinator.key(&stranger, made.into()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn streams_of_one_party_and_caller_are_bounded_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let mut unread = Vec::new();
    let refused = loop {
        match world.router.subscribe_events(&Caller::Open, &party("a"), vec![]).await {
            Ok(events) => unread.push(events),
            Err(error) => break error,
        }
        assert!(unread.len() < 100, "there is a bound");
    };
    assert_eq!(refused.code, ErrorCode::RateLimited);
    let more = world.router.subscribe(&Caller::Open, None, &party("a"), Timestamp(0)).await;
    assert_eq!(more.err().map(|error| error.code), Some(ErrorCode::RateLimited), "messages too");
    assert!(world.router.subscribe_events(&Caller::Open, &party("b"), vec![]).await.is_ok());
    let created = world.coordinator.create(&Caller::Open, keygen(&["a", "b"], None)).await.unwrap();
    for events in &mut unread {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!(event.session.session_id, created.session.session_id);
        assert!(event.join_tokens.keys().eq([&party("a")]), "its own token only");
    }
    unread.pop();
    assert!(world.router.subscribe_events(&Caller::Open, &party("a"), vec![]).await.is_ok());
}

fn tenant_key(tenant: &str) -> Caller {
    let scopes = vec![Scope::Sessions, Scope::Party];
    Caller::Key { tenant: tenant.parse().unwrap(), scopes }
}

#[tokio::test]
async fn one_tenant_cannot_fill_the_router_or_the_sessions_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let limits = InboxLimits { total_bytes: 20 * (8 + MESSAGE_COST), ..InboxLimits::default() };
    let world = open_with(&folder, limits, 10).await;
    let (evil, acme) = (tenant_key("evil"), tenant_key("acme"));
    let mut squatted = Vec::new();
    let refused = loop {
        match world.coordinator.create(&evil, keygen(&["x", "y"], None)).await {
            Ok(created) => squatted.push(created.session.session_id),
            Err(error) => break error,
        }
    };
    assert_eq!((refused.code, squatted.len()), (ErrorCode::RateLimited, 5), "{refused}");
    assert!(refused.details.retry_after.is_some());
    let filled = (0..100).map(|round| message(squatted[0], "x", &["y"], round));
    let mut sent = 0;
    for message in filled {
        match world.router.route(&evil, message).await {
            Ok(_) => sent += 1,
            Err(error) => {
                assert_eq!(error.code, ErrorCode::RateLimited, "{error}");
                break;
            }
        }
    }
    assert!((5..=10).contains(&sent), "{sent}: half of the bytes");
    let created = world.coordinator.create(&acme, keygen(&["a", "b"], None)).await.unwrap();
    let honest = message(created.session.session_id, "a", &["b"], 1);
    world.router.route(&acme, honest).await.unwrap();
    world.coordinator.close(&evil, squatted[0]).await.unwrap();
    assert!(world.coordinator.create(&evil, keygen(&["x", "y"], None)).await.is_ok());
}
