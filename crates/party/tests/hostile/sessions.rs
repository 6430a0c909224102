//! Whole sessions between server parties and devices, over services that lose, forge and break.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use quorate_party::{Compute, Keyring, MemoryVault, Party, PartyHandle, SealSource, Worker};
use quorate_ports::vault::{Ban, ShareState};
use quorate_ports::{Deliver, ReadSession as _, TakePart};
use quorate_types::*;

use crate::middle::{Between, Middle, Told};
use crate::world::{FOR_EVER, Machine, World, party};

/// What goes wrong between the parties and the services.
#[derive(Default)]
struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    /// Nothing that these parties send arrives.
    silent: BTreeSet<PartyId>,
    /// Before each true message comes one whose last byte is wrong.
    forging: bool,
    /// Streams break with the n-th message from now.
    cut_at: Option<usize>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn silence(&self, name: &str) {
        self.state().silent.insert(party(name));
    }
}

#[async_trait]
impl Middle for Faults {
    fn message(&self, _: &PartyId, message: Message) -> Told<Message> {
        let mut state = self.state();
        if state.silent.contains(&message.from_party) {
            return Vec::new();
        }
        let mut told = vec![Ok(message.clone())];
        if state.forging {
            let mut payload = message.payload.to_vec();
            *payload.last_mut().unwrap() ^= 1;
            let message_id = MessageId(uuid::Uuid::new_v4());
            told.insert(0, Ok(Message { message_id, payload: payload.into(), ..message }));
        }
        match state.cut_at {
            Some(0) => {
                state.cut_at = None;
                told.push(Err(Error::unavailable("cut")));
            }
            Some(left) => state.cut_at = Some(left - 1),
            None => {}
        }
        told
    }
}

/// The services, and what goes wrong before them.
struct Scene {
    world: Arc<World>,
    faults: Arc<Faults>,
}

fn memory(name: &str) -> Machine {
    Machine::new(name, Arc::<MemoryVault>::default())
}

impl Scene {
    async fn new() -> Self {
        Self { world: Arc::new(World::new().await), faults: Arc::default() }
    }

    fn between(&self, name: &str) -> Arc<Between<Faults>> {
        Between::new(party(name), &self.world, &self.faults)
    }

    async fn serve(&self, machine: &Machine) -> PartyHandle {
        let between = self.between(machine.keyring.party().as_str());
        machine.serve(between.clone(), between, Compute::new(2, 2)).await
    }

    /// Machines with these names, served.
    async fn parties(&self, names: &[&str]) -> (Vec<Machine>, Vec<PartyHandle>) {
        let machines: Vec<_> = names.iter().map(|name| memory(name)).collect();
        let mut servers = Vec::new();
        for machine in &machines {
            servers.push(self.serve(machine).await);
        }
        (machines, servers)
    }

    /// How a signature with `key` ends.
    async fn sign(&self, key: KeyId, names: &[&str]) -> SessionView {
        self.world.ended(&self.world.sign(key, names, Digest([9; 32])).await).await
    }

    async fn started(&self, created: &CreatedSession) -> SessionView {
        let wait = Some((WaitFor::Start, FOR_EVER));
        let session = created.session.session_id;
        self.world.coordinator.status(&Caller::System, session, wait).await.unwrap()
    }

    /// A device's part in a session.
    async fn take_part(&self, machine: &Machine, created: &CreatedSession) -> SessionView {
        let me = machine.keyring.party().clone();
        let between = self.between(me.as_str());
        let (router, coordinator): (Arc<dyn Deliver>, Arc<dyn TakePart>) =
            (between.clone(), between);
        let session = created.session.session_id;
        let (feed, _following) = quorate_party::follow(&router, &coordinator, &me, session, 0);
        let worker = Worker { keyring: machine.keyring.clone(), compute: Compute::new(2, 2) };
        let (device, authority) = (DeviceInfo::default(), None);
        let (delegate, allowed) = (None, None);
        let device = Party { worker, router, coordinator, device, authority, delegate, allowed };
        let token = created.join_tokens[&me].clone();
        quorate_party::take_part(&device, session, token, feed).await.unwrap()
    }

    /// A device that joins without a handshake.
    async fn join_plainly(&self, created: &CreatedSession, name: &str) {
        let request = JoinSession {
            session_id: Some(created.session.session_id),
            party_id: party(name),
            token: created.join_tokens[&party(name)].clone(),
            device: DeviceInfo::default(),
            handshake: None,
            ready: true,
            awaiting_approval: false,
            attempt: 0,
        };
        self.world.coordinator.join(&Caller::Party(party(name)), request).await.unwrap();
    }
}

fn assert_completed(view: &SessionView) {
    assert_eq!(view.status, SessionStatus::Completed, "{:?}", view.failure);
}

fn failure(view: SessionView) -> Failure {
    assert_eq!(view.status, SessionStatus::Failed);
    view.failure.unwrap()
}

#[tokio::test(start_paused = true)]
async fn three_servers_make_a_key_and_each_pair_signs() {
    let scene = Scene::new().await;
    let (machines, servers) = scene.parties(&["a", "b", "c"]).await;
    let key = scene.world.key(2, &["a", "b", "c"]).await;
    for (machine, index) in machines.iter().zip(1..) {
        let share = machine.vault.share(key).await.unwrap().unwrap();
        assert_eq!(share.record.holders, ["a", "b", "c"].map(party));
        assert_eq!(share.share_index, ShareIndex(index));
    }
    for pair in [["a", "b"], ["c", "a"], ["b", "c"]] {
        // The coordinator verifies the signature.
        assert_completed(&scene.sign(key, &pair).await);
    }
    for server in servers {
        assert!(server.shutdown().await, "nothing is left running");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keygen_with_a_silent_party_leaves_no_share_and_binds_no_name() {
    let scene = Scene::new().await;
    let (machines, servers) = scene.parties(&["a", "b"]).await;
    scene.faults.silence("b");
    let created = scene.world.keygen(&Caller::System, 2, &["a", "b"]).await;
    let ended = scene.world.ended(&created).await;
    assert_ne!(ended.status, SessionStatus::Completed);
    for (machine, server) in machines.iter().zip(servers) {
        assert!(server.shutdown().await, "the session's task has ended with the session");
        assert!(machine.vault.shares().await.unwrap().is_empty());
        assert_eq!(machine.vault.pins().await.unwrap(), []);
    }
    // Another comes with the name, and its key binds it.
    let scene = Scene::new().await;
    let real = memory("b");
    let _servers = (scene.serve(&machines[0]).await, scene.serve(&real).await);
    scene.world.key(2, &["a", "b"]).await;
    let pins = machines[0].vault.pins().await.unwrap();
    assert_eq!(pins.len(), 1);
    assert_eq!(pins[0].identity, real.keyring.identity().public());
}

#[tokio::test(start_paused = true)]
async fn forged_messages_are_refused_and_do_no_harm() {
    let scene = Scene::new().await;
    let (_machines, _servers) = scene.parties(&["a", "b"]).await;
    scene.faults.state().forging = true;
    let key = scene.world.key(2, &["a", "b"]).await;
    assert_completed(&scene.sign(key, &["a", "b"]).await);
}

#[tokio::test(start_paused = true)]
async fn streams_that_break_in_the_middle_cost_nothing_but_time() {
    let scene = Scene::new().await;
    let (_machines, servers) = scene.parties(&["a", "b"]).await;
    let key = scene.world.key(2, &["a", "b"]).await;
    for message in 0..4 {
        scene.faults.state().cut_at = Some(message);
        assert_completed(&scene.sign(key, &["a", "b"]).await);
        for server in &servers {
            server.connected().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_party_restarted_in_the_middle_says_so() {
    let scene = Scene::new().await;
    let (machines, mut servers) = scene.parties(&["a", "b"]).await;
    scene.faults.silence("a");
    let created = scene.world.keygen(&Caller::System, 2, &["a", "b"]).await;
    scene.started(&created).await;
    drop(servers.pop());
    let _restarted = scene.serve(&machines[1].restarted()).await;
    let failure = failure(scene.world.ended(&created).await);
    assert!(failure.message.contains("b was restarted"), "{}", failure.message);
    assert_eq!(failure.parties, [party("b")]);
}

#[tokio::test(start_paused = true)]
async fn a_participant_without_a_handshake_is_named() {
    let scene = Scene::new().await;
    let (_machines, _servers) = scene.parties(&["a"]).await;
    let created = scene.world.keygen(&Caller::System, 2, &["a", "plain"]).await;
    scene.join_plainly(&created, "plain").await;
    let failure = failure(scene.world.ended(&created).await);
    assert!(failure.message.contains("plain joined without a handshake"));
    assert_eq!(failure.parties, [party("plain")]);
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_has_lost_its_share_says_so_before_the_start() {
    let scene = Scene::new().await;
    let (_machines, mut servers) = scene.parties(&["a", "b"]).await;
    let key = scene.world.key(2, &["a", "b"]).await;
    assert!(servers.remove(0).shutdown().await);
    let _empty = scene.serve(&memory("a")).await;
    let failure = failure(scene.sign(key, &["a", "b"]).await);
    assert!(failure.message.contains("a holds no share of key"), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_another_identity_is_refused() {
    let scene = Scene::new().await;
    let (machines, mut servers) = scene.parties(&["a", "b"]).await;
    let key = scene.world.key(2, &["a", "b"]).await;
    assert!(servers.pop().unwrap().shutdown().await);
    // b comes back with its shares and another identity: it notices first.
    let changed = Machine::new("b", machines[1].vault.clone());
    let _changed = scene.serve(&changed).await;
    let failed = failure(scene.sign(key, &["a", "b"]).await);
    assert!(failed.message.contains("b has another identity"), "{}", failed.message);
    // In a keygen it holds nothing against itself, but a has pinned what it was.
    let created = scene.world.keygen(&Caller::System, 2, &["a", "b"]).await;
    let failed = failure(scene.world.ended(&created).await);
    assert!(failed.message.contains("b is not who it was"), "{}", failed.message);
    assert_eq!(failed.parties, [party("b")]);
}

fn ban(key_id: KeyId) -> Ban {
    let reason = "b sent a wrong multiplication".to_owned();
    let (peer, at, evidence) = (party("b"), Timestamp(1), Vec::new());
    Ban { key_id, epoch: 0, peer, reason, at, evidence }
}

#[tokio::test(start_paused = true)]
async fn a_banned_pair_is_locked_also_after_a_restart() {
    let scene = Scene::new().await;
    let (machines, mut servers) = scene.parties(&["a", "b"]).await;
    let key = scene.world.key(2, &["a", "b"]).await;
    assert!(servers.remove(0).shutdown().await);
    machines[0].vault.ban(ban(key)).await.unwrap();
    // A new process opens the share anew and with it the bans.
    let _restarted = scene.serve(&machines[0].restarted()).await;
    let failure = failure(scene.sign(key, &["a", "b"]).await);
    assert!(failure.message.contains("key_locked"), "{}", failure.message);
    assert!(failure.message.contains("needs a refresh"), "{}", failure.message);
    assert_eq!(failure.parties, [party("b")]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_finishes_its_session_and_takes_no_other() {
    let scene = Scene::new().await;
    let (_machines, mut servers) = scene.parties(&["a", "b"]).await;
    let created = scene.world.keygen(&Caller::System, 2, &["a", "b"]).await;
    scene.started(&created).await;
    assert!(servers.pop().unwrap().shutdown().await, "it waited for its session");
    assert_completed(&scene.world.ended(&created).await);
    let later = scene.world.keygen(&Caller::System, 2, &["a", "b"]).await;
    let ended = scene.world.ended(&later).await;
    let joined = |at: usize| ended.participants[at].status != ParticipantStatus::Waiting;
    assert!(joined(0) && !joined(1), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_device_and_a_server_make_a_key_though_the_streams_break() {
    let scene = Scene::new().await;
    let (_machines, _servers) = scene.parties(&["a"]).await;
    let machine = memory("phone");
    scene.faults.state().cut_at = Some(1);
    let created = scene.world.keygen(&Caller::System, 2, &["a", "phone"]).await;
    assert_completed(&scene.take_part(&machine, &created).await);
    let keys = machine.keyring.keys().await.unwrap();
    assert_eq!(keys[0].holders, ["a", "phone"].map(party));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_back_to_a_running_session_ends_it_at_once() {
    let scene = Scene::new().await;
    let created = scene.world.keygen(&Caller::System, 2, &["phone", "other"]).await;
    scene.join_plainly(&created, "phone").await;
    scene.join_plainly(&created, "other").await;
    let ended = scene.take_part(&memory("phone"), &created).await;
    assert!(failure(ended).message.contains("phone was restarted"));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_passphrase_is_refused_at_the_start() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let vault: Arc<MemoryVault> = Arc::default();
    let open = async |passphrase: &str| {
        let passphrase = Secret::new(passphrase.to_owned());
        let seal = SealSource::Passphrase { passphrase, salt: folder.path().join("salt") };
        let identity = folder.path().join("identity");
        Keyring::open(party("a"), &identity, seal, vault.clone(), false).await
    };
    let keyring = Arc::new(open("right passphrase").await.unwrap());
    let identity = keyring.identity().secret();
    let _a = scene.serve(&Machine { identity, vault: vault.clone(), keyring }).await;
    let (_machines, _b) = scene.parties(&["b"]).await;
    scene.world.key(2, &["a", "b"]).await;
    assert!(open("right passphrase").await.is_ok());
    let error = open("wrong passphrase").await.err().unwrap();
    assert!(error.message.contains("passphrase does not open"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_exported_share_comes_back_with_its_bans_and_opens_for_its_party_only() {
    let scene = Scene::new().await;
    let (machines, _servers) = scene.parties(&["a", "b"]).await;
    let key = scene.world.key(2, &["a", "b"]).await;
    let (a, compute) = (&machines[0], Compute::new(2, 2));
    a.vault.ban(ban(key)).await.unwrap();
    let open = a.keyring.key(key, &compute).await.unwrap().unwrap();
    let secret = Secret::new("correct horse".to_owned());
    let file = a.keyring.export(key, &secret, &compute).await.unwrap();
    let held = a.keyring.import(&file, &secret, &compute).await.unwrap_err();
    assert_eq!(held.code, ErrorCode::Conflict);

    let new = memory("a");
    let wrong = Secret::new("wrong passphrase".to_owned());
    assert!(new.keyring.import(&file, &wrong, &compute).await.is_err());
    for at in [0, 20, 40, file.len() - 1] {
        let mut bad = file.clone();
        bad[at] ^= 1;
        assert!(new.keyring.import(&bad, &secret, &compute).await.is_err(), "byte {at}");
    }
    assert!(memory("b").keyring.import(&file, &secret, &compute).await.is_err());
    let record = new.keyring.import(&file, &secret, &compute).await.unwrap();
    assert_eq!(record, open.stored.record);
    let again = new.keyring.key(key, &compute).await.unwrap().unwrap();
    assert_eq!(again.stored.identities, open.stored.identities);
    let locked = new.keyring.check_bans(&again, &[party("b")]).unwrap_err();
    assert_eq!(locked.code, ErrorCode::KeyLocked);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ends_bans_and_old_copies_of_a_share_sign_nothing() {
    let scene = Scene::new().await;
    let (machines, mut servers) = scene.parties(&["a", "b", "c"]).await;
    let key = scene.world.key(2, &["a", "b", "c"]).await;
    let (compute, secret) = (Compute::new(2, 2), Secret::new("correct horse".to_owned()));
    let old = machines[1].keyring.export(key, &secret, &compute).await.unwrap();
    machines[0].vault.ban(ban(key)).await.unwrap();
    assert!(servers.remove(0).shutdown().await);
    servers.insert(0, scene.serve(&machines[0].restarted()).await);
    let locked = failure(scene.sign(key, &["a", "b"]).await);
    assert!(locked.message.contains("key_locked"), "{}", locked.message);

    let refreshed = scene.world.ended(&scene.world.refresh(key).await).await;
    assert_completed(&refreshed);
    for machine in &machines {
        let share = machine.vault.share(key).await.unwrap().unwrap();
        assert_eq!((share.epoch, share.state), (1, ShareState::Active));
        assert!(machine.vault.later_shares(key).await.unwrap().is_empty());
    }
    for pair in [["a", "b"], ["b", "c"]] {
        assert_completed(&scene.sign(key, &pair).await);
    }
    // b comes back from its backup of before.
    assert!(servers.remove(1).shutdown().await);
    let vault = Arc::<MemoryVault>::default();
    let restored = Machine::with("b", machines[1].identity_copy(), vault);
    restored.keyring.import(&old, &secret, &compute).await.unwrap();
    let _restored = scene.serve(&restored).await;
    let stale = failure(scene.sign(key, &["b", "c"]).await);
    let rolled_back = stale.message.contains("--accept-rollback");
    assert!(stale.message.contains("stale_epoch") || rolled_back, "{}", stale.message);
    assert_completed(&scene.sign(key, &["a", "c"]).await);
}
