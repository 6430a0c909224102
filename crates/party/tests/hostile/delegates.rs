//! Delegates: a user's share is made in its absence, handed over, and nowhere else.

use std::sync::Arc;

use quorate_authority::{Action, AuthoritySecret, Request, RequestedInput, Signers};
use quorate_engine::Package;
use quorate_party::{Compute, MemoryVault, PartyConfig, PartyHandle, PartyServer};
use quorate_ports::{Directory as _, ManageSessions as _, TakePart as _};
use quorate_schemes::{PackageSecret, Purpose, Seat, seal_package};
use quorate_types::*;

use crate::world::{FOR_EVER, Machine, World, party};

fn memory(name: &str) -> Machine {
    Machine::new(name, Arc::<MemoryVault>::default())
}

async fn serve_delegate(machine: &Machine, world: &World) -> PartyHandle {
    let (role, heartbeat) = (PartyRole::Delegate, FOR_EVER);
    let config = PartyConfig { role, heartbeat, ..PartyConfig::default() };
    let (router, coordinator) = (world.router.clone(), world.coordinator.clone());
    let keyring = machine.keyring.clone();
    let handle = PartyServer::start(config, router, coordinator, keyring, Compute::new(2, 2));
    handle.connected().await;
    handle
}

/// A keygen in which the delegate takes alice's seat, beside these.
async fn keygen(
    world: &World,
    scheme: Scheme,
    key: &PackageKey,
    others: &[&str],
) -> CreatedSession {
    let named = |name: &str, of| NewParticipant {
        party_id: party(name),
        device: DeviceInfo::default(),
        on_behalf_of: of,
    };
    let of = OnBehalfOf { user_id: party("alice"), seal_key: Some(key.clone()) };
    let mut participants = vec![named("delegate", Some(of))];
    participants.extend(others.iter().map(|name| named(name, None)));
    let threshold = Threshold::new(2, i64::try_from(participants.len()).unwrap()).unwrap();
    let request = CreateSession {
        ceremony: CeremonyRequest::Keygen { scheme, threshold },
        participants,
        expires_in_seconds: None,
        idempotency_key: None,
        authorization: None,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    };
    world.coordinator.create(&Caller::Open, request).await.unwrap()
}

/// What the user fetches, opened.
async fn fetched(world: &World, created: &CreatedSession, secret: &PackageSecret) -> Package {
    let session_id = created.session.session_id;
    let token = created.fetch_tokens[&party("delegate")].clone();
    let asked = FetchShare { session_id, party_id: party("alice"), token };
    let share = world.coordinator.fetch_share(&Caller::Open, asked).await.unwrap();
    let seat = Seat {
        key_id: session_id.into(),
        epoch: 0,
        holder: &share.user_id,
        index: share.party_index,
        scheme: created.session.ceremony.scheme(),
    };
    let associated = seat.associated_data(session_id);
    let plain = secret.open(Purpose::ToUser, &associated, &share.package).unwrap();
    Package::decode(&plain).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_user_signs_alone_with_the_share_that_its_delegate_made() {
    for (scheme, kem) in Scheme::ALL.iter().zip(Kem::ALL) {
        let world = World::new().await;
        let (delegate, one, two) = (memory("delegate"), memory("one"), memory("two"));
        let _serving = (
            serve_delegate(&delegate, &world).await,
            one.serve_plainly(&world).await,
            two.serve_plainly(&world).await,
        );
        let secret = PackageSecret::generate(*kem);
        let created = keygen(&world, *scheme, &secret.public().unwrap(), &["one", "two"]).await;
        let ended = world.ended(&created).await;
        assert_eq!(ended.status, SessionStatus::Completed, "{:?}", ended.failure);
        let key = ended.key_id().unwrap();
        let made = world.coordinator.key(&Caller::Open, key).await.unwrap();
        assert_eq!(made.record.holders, ["alice", "one", "two"].map(party));
        assert!(delegate.keyring.keys().await.unwrap().is_empty(), "the delegate keeps nothing");
        assert!(delegate.vault.shares().await.unwrap().is_empty());
        for peer in [&one, &two] {
            let pins = peer.vault.pins().await.unwrap();
            assert!(pins.iter().all(|pin| pin.peer != party("alice")), "a name for one key only");
        }
        let package = fetched(&world, &created, &secret).await;
        let alice =
            Machine::with("alice", package.identity.secret(), Arc::<MemoryVault>::default());
        let record = alice.keyring.receive(package, &Compute::new(1, 1)).await.unwrap();
        assert_eq!(record.key_id, key);
        let _alone = alice.serve_plainly(&world).await;
        let input = match scheme {
            Scheme::EcdsaSecp256k1 => SignInput::Digest(Digest([5; 32])),
            _ => SignInput::Message(vec![5; 9].into()),
        };
        let named = ["alice", "two"].map(|name| NewParticipant {
            party_id: party(name),
            device: DeviceInfo::default(),
            on_behalf_of: None,
        });
        let request = CreateSession {
            ceremony: CeremonyRequest::Sign { key: KeySelector::Id(key), threshold: None, input },
            participants: named.to_vec(),
            expires_in_seconds: None,
            idempotency_key: None,
            authorization: None,
            label: None,
            replace: false,
            lent: None,
            webhook: None,
        };
        let created = world.coordinator.create(&Caller::Open, request).await.unwrap();
        let ended = world.ended(&created).await;
        assert_eq!(ended.status, SessionStatus::Completed, "{:?}", ended.failure);
    }
}

/// A signature for which alice's share is lent to the delegate, for the request `sealed_for`.
async fn lent(
    world: &World,
    alice: &Machine,
    key: KeyId,
    asked: &Request,
    sealed_for: &Request,
) -> SessionView {
    let registered = world.router.parties(&Caller::Open, None, false).await.unwrap();
    let delegate = registered.iter().find(|one| one.registration.party_id == party("delegate"));
    let to = delegate.unwrap().registration.delegate_key.clone().unwrap().key;
    let package = alice.keyring.package(key, &Compute::new(1, 1)).await.unwrap();
    let plain = package.encode().unwrap();
    let package = seal_package(&to, Purpose::ToDelegate, &sealed_for.encode(), plain).unwrap();
    let secret = AuthoritySecret::from_seed(&Secret::new([1; 32]));
    let request = CreateSession {
        ceremony: CeremonyRequest::Sign {
            key: KeySelector::Id(key),
            threshold: None,
            input: SignInput::Message(vec![5; 9].into()),
        },
        participants: Vec::new(),
        expires_in_seconds: None,
        idempotency_key: None,
        authorization: Some(secret.authorize(asked)),
        label: None,
        webhook: None,
        replace: true,
        lent: Some(LentShare {
            delegate: party("delegate"),
            holder_index: PartyIndex(0),
            package: package.into(),
        }),
    };
    let created = world.coordinator.create(&Caller::Open, request).await.unwrap();
    world.ended(&created).await
}

#[tokio::test(start_paused = true)]
async fn a_lent_share_signs_one_request_and_no_other() {
    let world = World::new().await;
    let (delegate, one) = (memory("delegate"), memory("one"));
    let _serving = (serve_delegate(&delegate, &world).await, one.serve_plainly(&world).await);
    let secret = PackageSecret::generate(Kem::P256);
    let created = keygen(&world, Scheme::Ed25519, &secret.public().unwrap(), &["one"]).await;
    let made = world.ended(&created).await;
    let key = made.key_id().unwrap();
    let package = fetched(&world, &created, &secret).await;
    let alice = Machine::with("alice", package.identity.secret(), Arc::<MemoryVault>::default());
    alice.keyring.receive(package, &Compute::new(1, 1)).await.unwrap();
    let request = |nonce| Request {
        action: Action::Sign {
            key_id: key,
            epoch: 0,
            scheme: Scheme::Ed25519,
            public_key: made.public_key().unwrap().clone(),
            input: RequestedInput::of(&SignInput::Message(vec![5; 9].into())),
            path: Vec::new(),
            signers: Signers::Any,
        },
        expires_at: Timestamp(1_700_000_600_000),
        nonce: [nonce; 16],
        purpose: String::new(),
    };
    let ended = lent(&world, &alice, key, &request(1), &request(1)).await;
    assert_eq!(ended.status, SessionStatus::Completed, "{:?}", ended.failure);
    assert!(delegate.vault.shares().await.unwrap().is_empty(), "the delegate keeps nothing");
    let ended = lent(&world, &alice, key, &request(2), &request(3)).await;
    let failure = ended.failure.unwrap();
    assert!(failure.message.contains("another request"), "{failure:?}");
    assert_eq!(failure.parties, [party("delegate")], "and nobody takes its seat");
}

#[tokio::test(start_paused = true)]
async fn a_delegate_serves_one_user_after_the_other_and_each_key_has_its_own_identity() {
    let world = World::new().await;
    let (delegate, one) = (memory("delegate"), memory("one"));
    let _serving = (serve_delegate(&delegate, &world).await, one.serve_plainly(&world).await);
    let secret = PackageSecret::generate(Kem::X25519);
    let mut identities = Vec::new();
    for _ in 0..2 {
        let public = secret.public().unwrap();
        let created = keygen(&world, Scheme::Ed25519, &public, &["one"]).await;
        let ended = world.ended(&created).await;
        assert_eq!(ended.status, SessionStatus::Completed, "{:?}", ended.failure);
        identities.push(fetched(&world, &created, &secret).await.identity.public());
    }
    assert_ne!(identities[0], identities[1]);
    assert!(!identities.contains(&delegate.keyring.identity().public()));
}

#[tokio::test(start_paused = true)]
async fn who_is_no_delegate_takes_no_users_seat_and_a_delegate_none_of_its_own() {
    let world = World::new().await;
    let (delegate, one, two) = (memory("delegate"), memory("one"), memory("two"));
    let _serving = (
        serve_delegate(&delegate, &world).await,
        one.serve_plainly(&world).await,
        two.serve_plainly(&world).await,
    );
    let public = PackageSecret::generate(Kem::P256).public().unwrap();
    let of = OnBehalfOf { user_id: party("alice"), seal_key: Some(public) };
    for (delegate, of, word) in [("delegate", None, "on_behalf_of"), ("one", Some(of), "delegate")]
    {
        let named = |name: &str, on_behalf_of| NewParticipant {
            party_id: party(name),
            device: DeviceInfo::default(),
            on_behalf_of,
        };
        let request = CreateSession {
            ceremony: CeremonyRequest::Keygen {
                scheme: Scheme::default(),
                threshold: Threshold::new(2, 2).unwrap(),
            },
            participants: vec![named(delegate, of), named("two", None)],
            expires_in_seconds: None,
            idempotency_key: None,
            authorization: None,
            label: None,
            replace: false,
            lent: None,
            webhook: None,
        };
        let refused = world.coordinator.create(&Caller::Open, request).await.err().unwrap();
        assert!(refused.details.fields.contains_key("participants"), "{refused:?}");
        assert!(refused.message.contains(word), "{refused:?}");
    }
}
