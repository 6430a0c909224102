//! A disk that does not take a ban.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_party::{Compute, MemoryVault, PartyHandle};
use quorate_ports::Vault;
use quorate_ports::vault::*;
use quorate_types::*;
use tokio::sync::{Notify, watch};

use crate::cheat::Cheat;
use crate::middle::{Between, Call, Middle};
use crate::world::{Machine, World, party};

/// A vault that takes no bans while its disk is full.
#[derive(Default)]
struct Full {
    inner: MemoryVault,
    full: AtomicBool,
    /// The next ban is held until `slow` is told, and then fails.
    slow_once: AtomicBool,
    slow: Notify,
    refused: AtomicUsize,
}

impl Full {
    fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn refuse<T>(&self) -> Result<T> {
        self.refused.fetch_add(1, Ordering::SeqCst);
        Err(Error::unavailable("no space left on device"))
    }
}

#[async_trait]
impl Vault for Full {
    async fn ban(&self, ban: Ban) -> Result<()> {
        if self.slow_once.swap(false, Ordering::SeqCst) {
            self.slow.notified().await;
            return self.refuse();
        }
        if self.full.load(Ordering::SeqCst) {
            return self.refuse();
        }
        self.inner.ban(ban).await
    }

    async fn contents(&self) -> Result<Contents> {
        self.inner.contents().await
    }

    async fn unlock(&self, key: Arc<dyn VaultKey>, how: Unlock) -> Result<()> {
        self.inner.unlock(key, how).await
    }

    async fn generation(&self) -> Result<u64> {
        self.inner.generation().await
    }

    async fn insert(&self, share: SealedShare) -> Result<()> {
        self.inner.insert(share).await
    }

    async fn activate(&self, key: KeyId, epoch: u32, confirmations: Vec<u8>) -> Result<()> {
        self.inner.activate(key, epoch, confirmations).await
    }

    async fn discard(&self, key: KeyId, epoch: u32) -> Result<bool> {
        self.inner.discard(key, epoch).await
    }

    async fn share(&self, key: KeyId) -> Result<Option<SealedShare>> {
        self.inner.share(key).await
    }

    async fn later_shares(&self, key: KeyId) -> Result<Vec<SealedShare>> {
        self.inner.later_shares(key).await
    }

    async fn shares(&self) -> Result<Vec<SealedShare>> {
        self.inner.shares().await
    }

    async fn pending(&self, tenant: &Tenant) -> Result<u64> {
        self.inner.pending(tenant).await
    }

    async fn bans(&self, key: KeyId) -> Result<Vec<Ban>> {
        self.inner.bans(key).await
    }

    async fn pinned(&self, tenant: &Tenant, peer: &PartyId) -> Result<Option<[u8; 32]>> {
        self.inner.pinned(tenant, peer).await
    }

    async fn pin(&self, pin: Pin) -> Result<[u8; 32]> {
        self.inner.pin(pin).await
    }

    async fn pins(&self) -> Result<Vec<Pin>> {
        self.inner.pins().await
    }

    async fn unpin(&self, tenant: Option<&Tenant>, peer: &PartyId) -> Result<bool> {
        self.inner.unpin(tenant, peer).await
    }

    async fn witnessed(&self, identity: &[u8; 32]) -> Result<Option<(u64, Bytes)>> {
        self.inner.witnessed(identity).await
    }

    async fn witness(&self, identity: [u8; 32], generation: u64, handshake: Bytes) -> Result<()> {
        self.inner.witness(identity, generation, handshake).await
    }
}

/// Holds back what the honest holder sends, and counts what the victim hands over.
struct Parking {
    open: watch::Sender<bool>,
    rounds: watch::Sender<Vec<(SessionId, i32)>>,
}

impl Parking {
    /// Waits until the victim has handed over its first message.
    async fn parked(&self, created: &CreatedSession) {
        let first = (created.session.session_id, 1);
        self.rounds.subscribe().wait_for(|rounds| rounds.contains(&first)).await.unwrap();
    }

    fn handed_over(&self, created: &CreatedSession) -> usize {
        let session = created.session.session_id;
        self.rounds.borrow().iter().filter(|(id, _)| *id == session).count()
    }
}

#[async_trait]
impl Middle for Parking {
    async fn call(&self, who: &PartyId, call: Call<'_>) -> Result<()> {
        let Call::Route(request) = call else { return Ok(()) };
        if *who == party("a") {
            self.rounds.send_modify(|rounds| rounds.push((request.session_id, request.round)));
        } else {
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
        }
        Ok(())
    }
}

/// A key of three: the victim `a` on a disk that fills up, `b` that cheats, and `c`.
struct Holders {
    world: Arc<World>,
    disk: Arc<Full>,
    a: Machine,
    b: Machine,
    key: KeyId,
    parking: Arc<Parking>,
    server: Option<PartyHandle>,
    _honest: PartyHandle,
}

impl Holders {
    async fn new() -> Self {
        let (world, disk) = (Arc::new(World::new().await), Arc::new(Full::default()));
        let memory = |name| Machine::new(name, Arc::<MemoryVault>::default());
        let a = Machine::new("a", disk.clone());
        let (b, c) = (memory("b"), memory("c"));
        let parking = Arc::new(Parking {
            open: watch::Sender::new(true),
            rounds: watch::Sender::new(Vec::new()),
        });
        let through = |name| Between::new(party(name), &world, &parking);
        let server = a.serve(through("a"), through("a"), Compute::new(2, 2)).await;
        let honest = c.serve(through("c"), through("c"), Compute::new(2, 2)).await;
        let cheating = b.serve_plainly(&world).await;
        let key = world.key(2, &["a", "b", "c"]).await;
        cheating.shutdown().await;
        Self { world, disk, a, b, key, parking, server: Some(server), _honest: honest }
    }

    async fn sign(&self, names: &[&str]) -> CreatedSession {
        self.world.sign(self.key, names, Digest([2; 32])).await
    }

    /// Lets `b` cheat once, and answers with what `a` says of it.
    async fn cheat(&self) -> Failure {
        let cheat = Cheat::new(&self.world, &self.b, &self.a, self.key).await;
        let created = self.sign(&["a", "b"]).await;
        let message = cheat.message(&created, 0, false).await;
        cheat.send(&created, &self.a, message).await;
        self.world.failure(&created).await
    }

    async fn bans(&self) -> usize {
        self.disk.bans(self.key).await.unwrap().len()
    }

    /// The honest pair signs, and the cheat's does not.
    async fn assert_only_the_pair_is_locked(&self) {
        let signed = self.world.ended(&self.sign(&["a", "c"]).await).await;
        assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
        let refused = self.world.failure(&self.sign(&["a", "b"]).await).await;
        assert!(refused.message.contains("a must not sign with b"), "{}", refused.message);
    }

    async fn shut_down(&mut self) {
        let finished = self.server.take().unwrap().shutdown().await;
        assert!(finished, "its sessions have ended");
    }
}

fn assert_locked_by_the_disk(failure: &Failure) {
    let message = &failure.message;
    assert!(message.contains("key_locked: a ban under key"), "{message}");
    assert!(message.contains("is not on the disk yet"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_ban_that_cannot_be_stored_locks_the_key_until_it_is() {
    let mut holders = Holders::new().await;
    holders.parking.open.send_replace(false);
    let parked = holders.sign(&["a", "c"]).await;
    holders.parking.parked(&parked).await;

    holders.disk.fill(true);
    let cheated = holders.cheat().await;
    assert_eq!(cheated.reason, FailureReason::PartyCheated);
    assert!(cheated.message.contains("could not be stored"), "{}", cheated.message);
    assert_eq!(holders.bans().await, 0);
    let refused = holders.sign(&["a", "c"]).await;
    assert_locked_by_the_disk(&holders.world.failure(&refused).await);
    holders.parking.open.send_replace(true);
    assert_locked_by_the_disk(&holders.world.failure(&parked).await);
    assert_eq!(holders.parking.handed_over(&parked), 1, "the key is locked for everybody");

    let refused = holders.disk.refused.load(Ordering::SeqCst);
    while holders.disk.refused.load(Ordering::SeqCst) < refused + 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    holders.disk.fill(false);
    while holders.bans().await == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    holders.assert_only_the_pair_is_locked().await;
    holders.shut_down().await;
    holders.server = Some(holders.a.restarted().serve_plainly(&holders.world).await);
    holders.assert_only_the_pair_is_locked().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_of_a_ban_that_fails_late_does_not_undo_one_that_worked() {
    let holders = Holders::new().await;
    holders.disk.slow_once.store(true, Ordering::SeqCst);
    let written_by_another = async {
        while holders.bans().await == 0 {
            tokio::task::yield_now().await;
        }
        holders.disk.slow.notify_one();
    };
    let (cheated, ()) = tokio::join!(holders.cheat(), written_by_another);
    assert_eq!(cheated.reason, FailureReason::PartyCheated);
    while holders.disk.refused.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    holders.assert_only_the_pair_is_locked().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_waits_for_a_ban_to_be_stored() {
    let mut holders = Holders::new().await;
    holders.disk.fill(true);
    holders.cheat().await;
    let disk = holders.disk.clone();
    let repaired = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        disk.fill(false);
    });
    holders.shut_down().await;
    assert!(repaired.is_finished(), "the process has waited for it");
    assert_eq!(holders.bans().await, 1);
}
