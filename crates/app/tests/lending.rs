//! Shares that users lend delegates: who sees them, for how long, and what they must fit.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::sync::Arc;

use common::*;
use futures_util::StreamExt as _;
use quorate_app::{CoordinatorApp, RouterApp};
use quorate_authority::{Action, AuthoritySecret, Request, RequestedInput, Signers};
use quorate_ports::{Deliver as _, ManageSessions as _, Store as _, TakePart as _};
use quorate_store::SqliteStore;
use quorate_types::*;

const DIGEST: Digest = Digest([7; 32]);

/// A request of holder a, signed, with its share lent to the delegate.
async fn lending(coordinator: &CoordinatorApp, key: KeyId) -> CreateSession {
    let record = coordinator.key(&Caller::Open, key).await.unwrap().record;
    let asked = Request {
        action: Action::Sign {
            key_id: key,
            epoch: record.epoch,
            scheme: record.scheme,
            public_key: record.public_key.clone(),
            input: RequestedInput::Digest(DIGEST),
            path: Vec::new(),
            signers: Signers::Any,
        },
        expires_at: Timestamp(1_700_000_060_000),
        nonce: [1; 16],
        purpose: String::new(),
    };
    let authorization = AuthoritySecret::from_seed(&Secret::new([1; 32])).authorize(&asked);
    let lent = LentShare {
        delegate: party("delegate"),
        holder_index: PartyIndex(0),
        package: vec![9; 500].into(),
    };
    let input = SignInput::Digest(DIGEST);
    let ceremony = CeremonyRequest::Sign { key: KeySelector::Id(key), threshold: None, input };
    CreateSession {
        authorization: Some(authorization),
        lent: Some(lent),
        ..request(ceremony, &["b"])
    }
}

/// The share in the first event that a party is shown.
async fn seen(router: &Arc<RouterApp>, name: &str) -> Option<LentShare> {
    let name = party(name);
    let events = router.subscribe_events(&Caller::Open, &name, Vec::new()).await;
    events.unwrap().next().await.unwrap().unwrap().lent
}

async fn stored(folder: &tempfile::TempDir) -> usize {
    SqliteStore::open(folder.path()).unwrap().lent_shares().await.unwrap().len()
}

#[tokio::test]
async fn a_lent_share_is_shown_to_its_delegate_only_and_goes_with_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, router) = open_both(&folder).await;
    let key = make_key(&coordinator).await;
    let request = lending(&coordinator, key).await;
    let created = coordinator.create(&Caller::Open, request.clone()).await.unwrap();
    let session = created.session.session_id;
    let seat = created.session.seat(&party("delegate")).unwrap();
    assert_eq!(seat.holder(), &party("a"), "the delegate takes its user's seat");
    assert_eq!(seen(&router, "delegate").await, request.lent);
    assert_eq!(seen(&router, "b").await, None);
    drop((coordinator, router));
    let (coordinator, router) = open_both(&folder).await;
    assert_eq!(seen(&router, "delegate").await, request.lent, "also after a restart");
    assert_eq!(seen(&router, "b").await, None);
    let (party_id, token) = (party("delegate"), created.join_tokens[&party("delegate")].clone());
    let asked = FetchShare { session_id: session, party_id, token };
    let fetched = coordinator.fetch_share(&Caller::Open, asked).await.err().unwrap();
    assert_eq!(fetched.code, ErrorCode::NotFound, "nothing is handed over here");
    coordinator.close(&Caller::Open, session).await.unwrap();
    drop((coordinator, router));
    assert_eq!(stored(&folder).await, 0);
}

#[tokio::test]
async fn a_share_that_does_not_fit_its_request_is_refused_by_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _router) = open_both(&folder).await;
    let key = make_key(&coordinator).await;
    let good = lending(&coordinator, key).await;
    fn share(request: &mut CreateSession) -> &mut LentShare {
        request.lent.as_mut().unwrap()
    }
    let seat = |name: &str, user: Option<&str>| NewParticipant {
        party_id: party(name),
        device: DeviceInfo::default(),
        on_behalf_of: user.map(|user| OnBehalfOf { user_id: party(user), seal_key: None }),
    };
    type Change<'a> = &'a dyn Fn(&mut CreateSession);
    let changes: [(&str, Change<'_>); 8] = [
        ("authorization", &|r| r.authorization = None),
        ("party_index", &|r| share(r).holder_index = PartyIndex(3)),
        ("encrypted_share", &|r| share(r).package = Vec::new().into()),
        ("user_id", &|r| share(r).holder_index = PartyIndex(1)),
        ("user_id", &|r| r.participants.push(seat("delegate", Some("c")))),
        ("on_behalf_of", &|r| r.participants.push(seat("other", Some("c")))),
        ("delegate_user_share", &|r| {
            r.lent = None;
            r.participants.push(seat("delegate", Some("a")));
        }),
        ("delegate_user_share", &|r| r.ceremony = refresh(key)),
    ];
    for (field, change) in changes {
        let mut request = good.clone();
        change(&mut request);
        let refused = coordinator.create(&Caller::Open, request).await.err().unwrap();
        assert!(refused.details.fields.contains_key(field), "{field}: {refused:?}");
    }
    let mut large = good.clone();
    share(&mut large).package = vec![0; MAX_PACKAGE + 1].into();
    let refused = coordinator.create(&Caller::Open, large).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::MessageTooLarge);
    coordinator.create(&Caller::Open, good).await.unwrap();
}

#[tokio::test]
async fn a_tenant_lends_so_many_shares_at_once_and_others_have_room() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _router) = open_both(&folder).await;
    let key = make_key(&coordinator).await;
    let mut request = lending(&coordinator, key).await;
    request.lent.as_mut().unwrap().package = vec![9; MAX_PACKAGE].into();
    let mut open = Vec::new();
    let refused = loop {
        match coordinator.create(&Caller::Open, request.clone()).await {
            Ok(created) => open.push(created.session.session_id),
            Err(refused) => break refused,
        }
    };
    assert_eq!((open.len(), refused.code), (128, ErrorCode::RateLimited), "{refused}");
    coordinator.close(&Caller::Open, open[0]).await.unwrap();
    coordinator.create(&Caller::Open, request).await.unwrap();
}
