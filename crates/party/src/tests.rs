//! Whole sessions between server parties and devices, with real cryptography.

use std::sync::Arc;

use quorate_engine::{Identity, SealKey};
use quorate_ports::vault::{Ban, SealedShare, ShareState};
use quorate_ports::{Deliver, TakePart, Vault};
use quorate_types::*;

use crate::testkit::{Machine, Net, parties, party};
use crate::{Compute, Keyring, PartyHandle, SealSource, clock};

async fn serve(net: &Arc<Net>, names: &[&str]) -> (Vec<Machine>, Vec<PartyHandle>) {
    let machines: Vec<_> = names.iter().map(|name| Machine::new(name)).collect();
    let mut servers = Vec::new();
    for machine in &machines {
        servers.push(machine.serve(net).await);
    }
    (machines, servers)
}

/// A key of `a` and `b`.
async fn key(net: &Net) -> KeyId {
    let session = net.keygen(2, &["a", "b"]);
    let view = net.ended(session).await;
    assert_eq!(view.status, SessionStatus::Completed, "{:?}", view.failure);
    session.into()
}

/// A device's part in a session.
async fn take_part(net: &Arc<Net>, machine: &Machine, session: SessionId) -> SessionView {
    let (router, coordinator): (Arc<dyn Deliver>, Arc<dyn TakePart>) = (net.clone(), net.clone());
    let device = crate::Party {
        worker: crate::Worker { keyring: machine.keyring.clone(), compute: Compute::default() },
        router: router.clone(),
        coordinator: coordinator.clone(),
        device: DeviceInfo::default(),
    };
    let (feed, _following) = crate::follow(&router, &coordinator, device.id(), session);
    let token = Secret::new(session.to_string());
    crate::take_part(&device, session, token, feed).await.unwrap()
}

fn failure(view: SessionView) -> Failure {
    assert_eq!(view.status, SessionStatus::Failed);
    view.failure.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_make_a_key_and_each_pair_signs() {
    let net = Net::new();
    let (machines, servers) = serve(&net, &["a", "b", "c"]).await;
    let session = net.keygen(2, &["a", "b", "c"]);
    let made = net.ended(session).await;
    assert_eq!(made.status, SessionStatus::Completed, "{:?}", made.failure);
    let Some(Outcome::PublicKey(key)) = made.outcome else { panic!("no key") };
    for (machine, index) in machines.iter().zip(1..) {
        let share = machine.vault.share(session.into()).await.unwrap().unwrap();
        assert_eq!(share.record.public_key, key);
        assert_eq!(share.record.holders, parties(&["a", "b", "c"]));
        assert_eq!(share.share_index, ShareIndex(index));
    }
    for pair in [["a", "b"], ["c", "a"], ["b", "c"]] {
        // The coordinator of the kit verifies the signature.
        let signed = net.ended(net.sign(session.into(), &pair)).await;
        assert_eq!(signed.status, SessionStatus::Completed, "{pair:?}: {:?}", signed.failure);
    }
    for server in servers {
        assert!(server.shutdown().await, "nothing is left running");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_a_coordinator_forgot_is_reported_again() {
    let net = Net::new();
    let (_machines, _servers) = serve(&net, &["a", "b"]).await;
    net.forget_next_result();
    let session = net.keygen(2, &["a", "b"]);
    net.until(session, |view| view.status == SessionStatus::InProgress).await;
    // Again and again: the forgotten report may still be on its way.
    for _ in 0..600 {
        net.republish(session);
        let end =
            tokio::time::timeout(std::time::Duration::from_millis(100), net.ended(session)).await;
        if let Ok(view) = end {
            assert_eq!(view.status, SessionStatus::Completed, "{:?}", view.failure);
            return;
        }
    }
    panic!("it was not reported again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keygen_with_a_silent_party_expires_and_leaves_no_share() {
    let net = Net::new();
    let (machines, servers) = serve(&net, &["a", "b"]).await;
    net.silence("b");
    let session = net.keygen(2, &["a", "b"]);
    net.until(session, |view| view.status == SessionStatus::InProgress).await;
    net.expire(session);
    for (machine, server) in machines.iter().zip(servers) {
        assert!(server.shutdown().await, "the session's task has ended with the session");
        assert!(machine.vault.shares().await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keygen_that_is_told_to_have_failed_keeps_its_share() {
    let net = Net::new();
    let (machines, servers) = serve(&net, &["a", "b"]).await;
    let session = net.keygen(2, &["a", "b"]);
    net.until(session, |view| {
        view.participants.iter().any(|p| p.status == ParticipantStatus::Completed)
    })
    .await;
    net.expire(session);
    for server in servers {
        server.shutdown().await;
    }
    let mut kept = 0;
    for machine in &machines {
        kept += machine.vault.shares().await.unwrap().len();
    }
    assert!(kept > 0, "what a coordinator says about the end removes no share");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_messages_are_refused_and_do_no_harm() {
    let net = Net::new();
    let (_, _servers) = serve(&net, &["a", "b"]).await;
    net.forge();
    let session: SessionId = SessionId(key(&net).await.0);
    let (accepted, failed) = net.acknowledged(session);
    assert!(failed > 0 && accepted > 0, "{accepted} accepted, {failed} failed");
    let signed = net.ended(net.sign(session.into(), &["a", "b"])).await;
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
}

#[tokio::test(flavor = "multi_thread")]
async fn parties_that_are_shown_different_digests_never_sign() {
    let net = Net::new();
    let (_, _servers) = serve(&net, &["a", "b"]).await;
    let key = key(&net).await;
    net.deceive("b");
    let session = net.sign(key, &["a", "b"]);
    // Each refuses what the other says, and neither feeds it to the protocol.
    net.until(session, |_| net.acknowledged(session) == (0, 2)).await;
    assert_eq!(net.view(session).status, SessionStatus::InProgress);
    net.expire(session);
    assert_eq!(net.ended(session).await.outcome, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_in_the_middle_cost_nothing_but_time() {
    let net = Net::new();
    let (_, servers) = serve(&net, &["a", "b"]).await;
    let key = key(&net).await;
    for message in 0..4 {
        net.cut_at(message);
        let signed = net.ended(net.sign(key, &["a", "b"])).await;
        assert_eq!(signed.status, SessionStatus::Completed, "{message}: {:?}", signed.failure);
        for server in &servers {
            server.connected().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_restarted_in_the_middle_says_so() {
    let net = Net::new();
    let (machines, mut servers) = serve(&net, &["a", "b"]).await;
    net.silence("a");
    let session = net.keygen(2, &["a", "b"]);
    net.until(session, |view| view.status == SessionStatus::InProgress).await;
    drop(servers.pop());
    let _restarted = machines[1].serve(&net).await;
    let failure = failure(net.ended(session).await);
    assert!(failure.message.contains("b was restarted"), "{}", failure.message);
    assert_eq!(failure.parties, parties(&["b"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_without_an_handshake_is_named() {
    let net = Net::new();
    let (_, _servers) = serve(&net, &["a"]).await;
    let session = net.keygen(2, &["a", "plain"]);
    net.join_plainly(session, "plain").await;
    let failure = failure(net.ended(session).await);
    assert!(failure.message.contains("plain joined without a handshake"));
    assert_eq!(failure.parties, parties(&["plain"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_without_a_share_says_so_before_the_start() {
    let net = Net::new();
    let (_, _servers) = serve(&net, &["a"]).await;
    let session = net.sign(KeyId(uuid::Uuid::nil()), &["a", "z"]);
    let failure = failure(net.ended(session).await);
    assert!(failure.message.contains("a holds no share of key"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_identity_is_refused() {
    let net = Net::new();
    let (machines, mut servers) = serve(&net, &["a", "b"]).await;
    let key = key(&net).await;
    assert!(servers.pop().unwrap().shutdown().await);
    // b comes back with its shares and another identity: it notices first.
    let changed = Machine::with_vault("b", machines[1].vault.clone());
    let _changed = changed.serve(&net).await;
    let failed = failure(net.ended(net.sign(key, &["a", "b"])).await);
    assert!(failed.message.contains("b has another identity"), "{}", failed.message);
    // In a keygen it holds nothing against itself, but a has pinned what it was.
    let failed = failure(net.ended(net.keygen(2, &["a", "b"])).await);
    assert!(failed.message.contains("b is not who it was"), "{}", failed.message);
    assert_eq!(failed.parties, parties(&["b"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keygen_that_fails_binds_no_name() {
    let net = Net::new();
    let (machines, mut servers) = serve(&net, &["a", "b"]).await;
    net.silence("b");
    let session = net.keygen(2, &["a", "b"]);
    net.until(session, |view| view.status == SessionStatus::InProgress).await;
    net.expire(session);
    let (posing, a) = (servers.pop().unwrap(), servers.pop().unwrap());
    assert!(posing.shutdown().await && a.shutdown().await, "both runs have ended");
    assert_eq!(machines[0].vault.pins().await.unwrap(), []);
    // Another comes with the name, and its key binds it.
    let net = Net::new();
    let (real, _a) = (Machine::new("b"), machines[0].serve(&net).await);
    let _real = real.serve(&net).await;
    key(&net).await;
    let pins = machines[0].vault.pins().await.unwrap();
    assert_eq!(pins.len(), 1);
    assert_eq!(pins[0].identity, real.keyring.identity().public());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_pair_is_locked_also_after_a_restart() {
    let net = Net::new();
    let (machines, mut servers) = serve(&net, &["a", "b"]).await;
    let key = key(&net).await;
    assert!(servers.remove(0).shutdown().await);
    let (vault, peer) = (machines[0].vault.clone(), party("b"));
    let reason = "b sent a wrong multiplication".to_owned();
    let evidence = Vec::new();
    vault
        .ban(Ban { key_id: key, epoch: 0, peer, reason, at: clock::now(), evidence })
        .await
        .unwrap();
    // A new process opens the share anew and with it the bans.
    let seal = SealKey::from_bytes(Secret::new([7; 32]));
    let identity = Identity::from_secret(&machines[0].keyring.identity().secret());
    let keyring = Arc::new(Keyring::new(party("a"), identity, seal, vault.clone()));
    let _restarted = Machine { vault, keyring }.serve(&net).await;
    let failure = failure(net.ended(net.sign(key, &["a", "b"])).await);
    assert!(failure.message.starts_with("key_locked"), "{}", failure.message);
    assert!(failure.message.contains("needs a refresh"), "{}", failure.message);
    assert_eq!(failure.parties, parties(&["b"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_finishes_its_session_and_takes_no_other() {
    let net = Net::new();
    let (_, mut servers) = serve(&net, &["a", "b"]).await;
    let session = net.keygen(2, &["a", "b"]);
    net.until(session, |view| view.status == SessionStatus::InProgress).await;
    assert!(servers.pop().unwrap().shutdown().await, "it waited for its session");
    assert_eq!(net.view(session).status, SessionStatus::Completed);
    let later = net.keygen(2, &["a", "b"]);
    net.until(later, |view| view.participants[0].status == ParticipantStatus::Ready).await;
    assert_eq!(net.view(later).participants[1].status, ParticipantStatus::Waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_and_a_server_make_a_key_though_the_streams_break() {
    let net = Net::new();
    let (_, _servers) = serve(&net, &["a"]).await;
    let machine = Machine::new("phone");
    net.cut_at(1);
    let session = net.keygen(2, &["a", "phone"]);
    let ended = take_part(&net, &machine, session).await;
    assert_eq!(ended.status, SessionStatus::Completed, "{:?}", ended.failure);
    let keys = machine.keyring.keys().await.unwrap();
    assert_eq!(keys[0].holders, parties(&["a", "phone"]));
}

#[tokio::test]
async fn a_device_that_comes_back_to_a_running_session_ends_it_at_once() {
    let net = Net::new();
    let session = net.keygen(2, &["phone", "other"]);
    net.join_plainly(session, "phone").await;
    net.join_plainly(session, "other").await;
    let ended = take_part(&net, &Machine::new("phone"), session).await;
    assert!(failure(ended).message.contains("phone was restarted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_passphrase_is_refused_at_the_start() {
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let vault: Arc<crate::MemoryVault> = Arc::default();
    let open = |passphrase: &str| {
        let seal = SealSource::Passphrase {
            passphrase: Secret::new(passphrase.to_owned()),
            salt: folder.path().join("salt"),
        };
        let identity = folder.path().join("identity");
        let vault = vault.clone();
        async move { Keyring::open(party("a"), &identity, seal, vault, false).await }
    };
    let keyring = Arc::new(open("right passphrase").await.unwrap());
    let machine = Machine { vault: vault.clone(), keyring };
    let _a = machine.serve(&net).await;
    let (_, _b) = serve(&net, &["b"]).await;
    key(&net).await;
    assert!(open("right passphrase").await.is_ok());
    let error = open("wrong passphrase").await.err().unwrap();
    assert!(error.message.contains("passphrase does not open"), "{error}");
}

/// The machine with its share of `key` as a run left it that broke off before all had confirmed.
async fn unconfirmed(machine: &Machine, key: KeyId) -> Machine {
    let vault = machine.vault.clone();
    let row = vault.share(key).await.unwrap().unwrap();
    assert_eq!(row.state, ShareState::Active);
    assert!(vault.discard(key, row.epoch).await.unwrap());
    let pending = SealedShare { state: ShareState::Pending, confirmations: Vec::new(), ..row };
    vault.insert(pending).await.unwrap();
    let seal = SealKey::from_bytes(Secret::new([7; 32]));
    let identity = Identity::from_secret(&machine.keyring.identity().secret());
    let name = machine.keyring.party().clone();
    let keyring = Arc::new(Keyring::new(name, identity, seal, vault.clone()));
    Machine { vault, keyring }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_missed_confirmations_signs_once_a_holder_shows_them() {
    let net = Net::new();
    let (machines, servers) = serve(&net, &["a", "b"]).await;
    let key = key(&net).await;
    for server in servers {
        server.shutdown().await;
    }
    let late = unconfirmed(&machines[0], key).await;
    let both = [late.clone(), unconfirmed(&machines[1], key).await];
    let servers = [both[0].serve(&net).await, both[1].serve(&net).await];
    let failed = failure(net.ended(net.sign(key, &["a", "b"])).await);
    assert!(failed.message.contains("not confirmed by all holders"), "{}", failed.message);
    for server in servers {
        server.shutdown().await;
    }
    let row = machines[1].vault.share(key).await.unwrap().unwrap();
    let all = machines[0].keyring.key(key, &Compute::default()).await.unwrap().unwrap();
    let confirmations = all.stored.confirmations.clone();
    machines[1].vault.activate(key, row.epoch, confirmations).await.unwrap();
    let _servers = (late.serve(&net).await, machines[1].serve(&net).await);
    let ended = net.ended(net.sign(key, &["a", "b"])).await;
    assert_eq!(ended.status, SessionStatus::Completed, "{:?}", ended.failure);
    let row = late.vault.share(key).await.unwrap().unwrap();
    assert_eq!(row.state, ShareState::Active, "it is told for good");
}
