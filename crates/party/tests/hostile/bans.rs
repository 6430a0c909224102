//! Many sessions of one pair, parked by a router that helps the cheat among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use quorate_party::{Compute, Keyring, MemoryVault, OpenKey};
use quorate_testkit::Seeded;
use quorate_types::*;
use tokio::sync::{oneshot, watch};

use crate::cheat::Cheat;
use crate::middle::{Between, Call, Middle};
use crate::world::{Machine, World, party};

/// Sessions that are parked at once: as many as the victim has secret bits.
const PARKED: usize = 256;

/// Places of the victim's computations.
const PLACES: usize = 2;

/// Junk sent to each session before the cheat.
const JUNK: usize = 48;

/// Right guesses that are delivered first, so that some are answered before the first fault.
const LUCKY: usize = 8;

/// Longer than any session lives here.
const LIMIT: Duration = Duration::from_secs(3600);

/// Turns given to all tasks, so that whatever can be done without the processor is done.
const TURNS: usize = 20_000;

/// How the router treats the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    /// It delivers.
    Delivers,
    /// It answers no call.
    HoldsBack,
    /// It fills the victim's queues with acknowledgements of junk, which it takes after the fault.
    Floods,
    /// It answers no call until the cheats are being computed, and then refuses them all for good.
    Breaks,
}

#[derive(Default)]
struct Log {
    /// Sessions whose first message the victim has handed over.
    parked: BTreeSet<SessionId>,
    /// Those whose second.
    released: BTreeSet<SessionId>,
    /// What was handed over although the pair was banned.
    late: Vec<String>,
    failures: BTreeMap<SessionId, Failure>,
}

/// Looks at all that the victim hands over.
struct Watcher {
    router: Conduct,
    /// The victim's own knowledge: the key, and whom it must not sign with.
    keyring: Arc<Keyring>,
    key: Arc<OpenKey>,
    peer: PartyId,
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    /// Whether the calls of before are answered.
    answers: watch::Sender<bool>,
}

impl Watcher {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    async fn until(&self, done: impl Fn(&Log) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !done(&self.log()) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("long before its limit");
    }

    fn banned(&self) -> bool {
        self.keyring.check_bans(&self.key, std::slice::from_ref(&self.peer)).is_err()
    }
}

#[async_trait]
impl Middle for Watcher {
    async fn call(&self, _: &PartyId, call: Call<'_>) -> Result<()> {
        match call {
            Call::Route(request) => {
                let mut log = self.log();
                if self.banned() {
                    log.late.push(format!("a message of round {}", request.round));
                }
                let sessions = if request.round == 1 { &mut log.parked } else { &mut log.released };
                sessions.insert(request.session_id);
            }
            Call::Acknowledge => {
                if self.banned() {
                    self.log().late.push("an acknowledgement".to_owned());
                }
            }
            Call::Report(report) => {
                if let PartyOutcome::Failure(failure) = &report.outcome {
                    self.log().failures.insert(report.session_id, failure.clone());
                }
                self.changed.send_replace(());
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.changed.send_replace(());
        match self.router {
            Conduct::Delivers => Ok(()),
            Conduct::HoldsBack => std::future::pending().await,
            Conduct::Floods | Conduct::Breaks => {
                self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
                match self.router {
                    Conduct::Breaks => Err(Error::new(ErrorCode::Forbidden, "refused for good")),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Takes all places of a pool until what it answers with is dropped.
async fn occupy(compute: &Compute) -> Vec<mpsc::Sender<()>> {
    let mut held = Vec::new();
    for _ in 0..PLACES {
        let (release, wait) = mpsc::channel::<()>();
        let (begun, begins) = oneshot::channel();
        let pool = compute.clone();
        tokio::spawn(async move {
            let job = move || {
                let _ = begun.send(());
                let _ = wait.recv();
            };
            pool.run(job).await;
        });
        begins.await.unwrap();
        held.push(release);
    }
    held
}

async fn turns() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

async fn attack(router: Conduct) {
    const SEED: u64 = 0x6761_7465;
    let mut seeded = Seeded(SEED);
    let world = Arc::new(World::new().await);
    let machine = |name| Machine::new(name, Arc::<MemoryVault>::default());
    let (victim, peer) = (machine("a"), machine("b"));
    let key = {
        let servers = [victim.serve_plainly(&world).await, peer.serve_plainly(&world).await];
        let key = world.key(2, &["a", "b"]).await;
        for server in servers {
            server.shutdown().await;
        }
        key
    };
    let compute = Compute::new(PLACES, 1);
    let watcher = Arc::new(Watcher {
        router,
        keyring: victim.keyring.clone(),
        key: victim.keyring.key(key, &compute).await.unwrap().unwrap(),
        peer: party("b"),
        log: Mutex::default(),
        changed: watch::Sender::new(()),
        answers: watch::Sender::new(false),
    });
    let between = Between::new(party("a"), &world, &watcher);
    let server = victim.serve(between.clone(), between, compute.clone()).await;
    let cheat = Cheat::new(&world, &peer, &victim, key).await;
    assert_eq!(cheat.rows(), PARKED, "each guesses another bit");

    let mut right: Vec<bool> = (0..PARKED).map(|n| n % 2 == 0).collect();
    seeded.shuffle(&mut right);
    let mut cheats = Vec::new();
    for (row, right) in right.into_iter().enumerate() {
        let created = world.sign(key, &["a", "b"], Digest([1; 32])).await;
        let message = cheat.message(&created, row, right).await;
        cheats.push((created, message, right));
    }
    watcher.until(|log| log.parked.len() == PARKED).await;

    // Every cheat is in the victim's hands before the first is looked at.
    let held = occupy(&compute).await;
    seeded.shuffle(&mut cheats);
    for lucky in 0..LUCKY {
        let at = (lucky..PARKED).find(|at| cheats[*at].2).unwrap();
        cheats.swap(lucky, at);
    }
    for (created, message, _) in &cheats {
        if router == Conduct::Floods {
            for junk in 0..JUNK {
                cheat.send(created, &victim, vec![0; junk].into()).await;
            }
        }
        cheat.send(created, &victim, message.clone()).await;
    }
    turns().await;
    if router == Conduct::Breaks {
        watcher.answers.send_replace(true);
        turns().await;
    }
    drop(held);
    if router == Conduct::Floods {
        watcher.until(|log| !log.failures.is_empty()).await;
        watcher.answers.send_replace(true);
    }
    watcher.until(|log| log.failures.len() == PARKED).await;
    server.shutdown().await;

    let log = std::mem::take(&mut *watcher.log());
    assert_eq!(log.late, [""; 0], "{router:?}: handed over after the ban");
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for (created, _, right) in &cheats {
        let session = created.session.session_id;
        let failure = &log.failures[&session];
        let what = match failure.reason {
            FailureReason::PartyCheated => "cheated",
            _ if failure.message.starts_with("key_locked") => failure.message.as_str(),
            // It ended before the first fault, with nothing handed over.
            _ if router == Conduct::Breaks => "refused",
            _ => panic!("{router:?}: {failure:?}"),
        };
        assert!(*right || what != "refused", "a fault is told whatever becomes of the router");
        assert!(*right || !log.released.contains(&session), "a fault releases nothing");
        assert!(*right || what != "cheated" || failure.parties == [party("b")]);
        *told.entry(what).or_default() += 1;
    }
    let refused = told.remove("refused").unwrap_or_default();
    assert_eq!(told.remove("cheated"), Some(1), "{router:?}: only the first fault is told");
    assert_eq!(told.len(), 1, "{router:?}: all others end alike: {told:?}");
    assert_eq!(told.values().sum::<usize>(), PARKED - 1 - refused);
    let bits = log.released.len() + refused;
    assert!(
        (1..PARKED / 8).contains(&bits) || router == Conduct::Floods,
        "{router:?}: {bits} guesses were answered before the first fault"
    );
    let bans = victim.vault.bans(key).await.unwrap();
    assert_eq!((bans.len(), &bans[0].peer), (1, &party("b")));
    assert!(!bans[0].evidence.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cheat_in_each_of_many_parked_sessions_learns_nothing_after_the_first_fault() {
    attack(Conduct::Delivers).await;
}

#[tokio::test(start_paused = true)]
async fn a_router_that_answers_nothing_helps_no_cheat() {
    attack(Conduct::HoldsBack).await;
}

#[tokio::test(start_paused = true)]
async fn a_router_that_floods_helps_no_cheat() {
    attack(Conduct::Floods).await;
}

#[tokio::test(start_paused = true)]
async fn a_router_that_breaks_helps_no_cheat() {
    attack(Conduct::Breaks).await;
}
