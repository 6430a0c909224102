//! Whatever a coordinator and a router say: no share is lost or replaced, no ban is lost or made,
//! nothing is signed that not all signers were shown, nobody panics, and every session ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_party::{Compute, MemoryVault, PartyHandle};
use quorate_ports::vault::{Ban, SealedShare};
use quorate_testkit::Seeded;
use quorate_types::*;
use serde_json::Value;
use tokio::time::Instant;

use crate::json::Kind;
use crate::liar::{Account, Act, CONNECTING, Deceived, Liar, Plan, Request, Script};
use crate::lie::{Seen, lies};
use crate::middle::Between;
use crate::world::{Machine, World, party};

/// Chooses the lies and the documents that are replayed. Another one: `QUORATE_SEED`.
const SEED: u64 = 0x6c69_6172;

/// What a party adds to a session's life before it leaves it, and to that for one to join.
const GRACE: Duration = Duration::from_secs(60);

/// The longest that a party stays in a session, whatever it is told.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Honest sessions between the lies: one in so many.
const HONEST: usize = 25;

/// Things of each kind that are told again in another session, early and late ones.
const REPLAYED: usize = 12;

/// A session's life unless something else is said of it.
const LIFE: Duration = Duration::from_secs(300);

/// One in so many lies is told to parties that hear of nothing else.
const HUSHED: usize = 4;

static PANICS: AtomicUsize = AtomicUsize::new(0);

fn seed() -> u64 {
    std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// Everything that a party keeps and that lies must not touch.
struct Kept {
    shares: BTreeMap<KeyId, SealedShare>,
    bans: Vec<Ban>,
}

struct Player {
    machine: Machine,
    server: PartyHandle,
}

/// Two parties that hold three keys together, a third that is away, and the liar between.
struct Scene {
    world: Arc<World>,
    liar: Arc<Liar>,
    players: [Player; 2],
    keys: Vec<(KeyId, PublicKey)>,
    seen: Seen,
    /// What was told in sessions that are over.
    library: BTreeMap<Kind, Vec<Arc<Value>>>,
    digests: u8,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Keygen,
    Sign,
}

impl Scene {
    async fn new() -> Self {
        static HOOK: std::sync::Once = std::sync::Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                PANICS.fetch_add(1, Ordering::SeqCst);
                before(panic);
            }));
        });
        let world = Arc::new(World::new().await);
        let liar = Arc::new(Liar::default());
        let player = async |name: &str| {
            let machine = Machine::new(name, Arc::<MemoryVault>::default());
            let between = Between::new(party(name), &world, &liar);
            let server = machine.serve(between.clone(), between, Compute::new(2, 2)).await;
            Player { machine, server }
        };
        let players = [player("a").await, player("b").await];
        let third = Machine::new("c", Arc::<MemoryVault>::default());
        let away = third.serve_plainly(&world).await;
        let tenant = "acme".parse().unwrap();
        let neighbour = Caller::Key { tenant, scopes: vec![Scope::Sessions] };
        let mut keys = Vec::new();
        for (caller, names) in [
            (&Caller::System, &["a", "b", "c"][..]),
            (&Caller::System, &["a", "b"]),
            (&neighbour, &["a", "b"]),
        ] {
            let made = world.ended(&world.keygen(caller, 2, names).await).await;
            keys.push((made.key_id().unwrap(), made.public_key().unwrap().clone()));
        }
        away.shutdown().await;
        for (key, digest) in [(keys[0].0, 1), (keys[1].0, 2)] {
            let signed = world.sign(key, &["a", "b"], Digest([digest; 32])).await;
            assert_eq!(world.ended(&signed).await.status, SessionStatus::Completed);
        }
        // One that fails: `c` is away.
        let failed = world.sign(keys[0].0, &["a", "c"], Digest([3; 32])).await;
        world.ended(&failed).await;
        let ban = Ban {
            key_id: keys[0].0,
            epoch: 0,
            peer: party("c"),
            reason: "cheated before".to_owned(),
            at: Timestamp(1),
            evidence: Vec::new(),
        };
        players[0].machine.vault.ban(ban).await.unwrap();
        let account = liar.begin(Script::default());
        let (mut seen, mut library) = (Seen::default(), BTreeMap::<_, Vec<_>>::new());
        for (_, kind, json) in account.told {
            seen.add(&json);
            library.entry(kind).or_default().push(Arc::new(json));
        }
        for told in library.values_mut() {
            let step = told.len().div_ceil(REPLAYED);
            *told = std::mem::take(told).into_iter().step_by(step).collect();
        }
        Self { world, liar, players, keys, seen, library, digests: 10 }
    }

    async fn kept(&self) -> [Kept; 2] {
        let mut all = Vec::new();
        for Player { machine, .. } in &self.players {
            let (mut shares, mut bans) = (BTreeMap::new(), Vec::new());
            for share in machine.vault.shares().await.unwrap() {
                let key = share.key_id;
                shares.insert(key, machine.vault.share(key).await.unwrap().unwrap());
                bans.extend(machine.vault.bans(key).await.unwrap());
            }
            all.push(Kept { shares, bans });
        }
        all.try_into().ok().unwrap()
    }

    async fn create(&mut self, what: What) -> CreatedSession {
        self.digests = self.digests.checked_add(1).unwrap_or(10);
        let digest = Digest([self.digests; 32]);
        match what {
            What::Keygen => self.world.keygen(&Caller::System, 2, &["a", "b"]).await,
            What::Sign => self.world.sign(self.keys[0].0, &["a", "b"], digest).await,
        }
    }

    fn running(&self) -> usize {
        self.players.iter().map(|player| player.server.status().running_sessions).sum()
    }

    /// Waits until both parties have left their sessions; answers with whether they did in time.
    async fn left(&self, since: Instant) -> bool {
        let mut pause = Duration::from_millis(1);
        while self.running() > 0 {
            if since.elapsed() > LONGEST + GRACE {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(3600));
        }
        let life = Duration::from_millis(self.liar.life()).clamp(LIFE, LONGEST);
        // The last pause may have been as long as all before it.
        since.elapsed() <= 2 * (life + GRACE)
    }

    /// Carries out a plan in one session.
    async fn carry_out(&mut self, what: What, script: Script) -> Outcome {
        let (before, panics) = (self.kept().await, PANICS.load(Ordering::SeqCst));
        self.liar.begin(script);
        let since = Instant::now();
        let created = self.create(what).await;
        let ended = self.world.ended(&created).await;
        let in_time = self.left(since).await;
        let account = self.liar.begin(Script::default());
        for Player { server, .. } in &self.players {
            server.connected().await;
        }
        let after = self.kept().await;
        let mut wrong = Vec::new();
        if !in_time {
            wrong.push("a party stays in its session".to_owned());
        }
        if PANICS.load(Ordering::SeqCst) > panics || !account.bugs.is_empty() {
            wrong.push(format!("a panic: {:?}", account.bugs));
        }
        for (before, after) in before.iter().zip(&after) {
            if before.shares.iter().any(|(key, share)| after.shares.get(key) != Some(share)) {
                wrong.push("a share was lost or replaced".to_owned());
            }
            if before.bans != after.bans {
                wrong.push("a ban was lost or made".to_owned());
            }
        }
        wrong.extend(self.unseen_signatures(&account));
        Outcome { completed: ended.status == SessionStatus::Completed, account, wrong }
    }

    /// Signatures over what not all signers were shown.
    fn unseen_signatures(&self, account: &Account) -> Vec<String> {
        let none = BTreeSet::new();
        let shown = |party: &PartyId| account.shown.get(party).unwrap_or(&none);
        let parties = self.players.iter().map(|player| player.machine.keyring.party());
        let everybody: Vec<_> = parties.collect();
        let all_were_shown =
            |place: &Request| everybody.iter().all(|party| shown(party).contains(place));
        let good = |signer: &PartyId, signature: &Signature| {
            shown(signer).iter().filter(|place| all_were_shown(place)).any(|(key, digest)| {
                let key = self.keys.iter().find(|(id, _)| Some(*id) == *key);
                key.zip(*digest).is_some_and(|((_, key), digest)| {
                    let scheme = Scheme::default();
                    let input = SignInput::Digest(Digest(digest));
                    quorate_schemes::verify(scheme, key, &input, signature).is_ok()
                })
            })
        };
        let bad = account.signed.iter().filter(|(signer, signature)| !good(signer, signature));
        bad.map(|(signer, _)| format!("{signer} signed what not all were shown")).collect()
    }

    /// All plans about one kind of session.
    async fn plans(&mut self, what: What) -> Vec<(String, Plan)> {
        let Account { told, called, .. } = self.carry_out(what, Script::default()).await.account;
        let mut nths: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut plans = Vec::new();
        for (_, kind, json) in told.iter().filter(|(who, _, _)| *who == party("a")) {
            let nth = nths.entry(*kind).or_default();
            let replays = self.library[kind].iter();
            let acts =
                lies(json, &self.seen)
                    .into_iter()
                    .map(|lie| (format!("{kind:?} {}", lie.path), Act::Lie(lie)))
                    .chain(
                        [Act::Drop, Act::Twice, Act::Later]
                            .map(|act| (format!("{kind:?} {nth} {act:?}"), act)),
                    )
                    .chain(replays.clone().map(|other| {
                        (format!("{kind:?} {nth} instead"), Act::Instead(other.clone()))
                    }))
                    .chain(replays.map(|other| {
                        (format!("{kind:?} {nth} before"), Act::Before(other.clone()))
                    }))
                    .chain(
                        ErrorCode::ALL
                            .iter()
                            .map(|code| (format!("{kind:?} {nth} broken"), Act::Break(*code))),
                    );
            for (place, act) in acts {
                for onward in [false, true] {
                    let plan = Plan::Tell { kind: *kind, nth: *nth, onward, act: act.clone() };
                    plans.push((place.clone(), plan));
                }
            }
            *nth += 1;
        }
        for call in called.into_iter().chain(CONNECTING) {
            for code in ErrorCode::ALL {
                for onward in [false, true] {
                    let plan = Plan::Refuse { call, nth: 0, onward, code: *code };
                    plans.push((call.to_owned(), plan));
                }
            }
        }
        plans
    }

    /// Carries out scripts, and honest sessions between.
    async fn carry_out_all(&mut self, what: What, scripts: Vec<Script>) {
        let (count, mut completed) = (scripts.len(), 0);
        for (at, script) in scripts.into_iter().enumerate() {
            let outcome = self.carry_out(what, script.clone()).await;
            completed += usize::from(outcome.completed);
            let wrong = outcome.wrong.join(", ");
            assert!(wrong.is_empty(), "seed {}, {what:?}: {wrong}: {script:?}", seed());
            if at % HONEST == 0 {
                let honest = self.carry_out(What::Sign, Script::default()).await;
                assert!(honest.completed, "seed {}: harm was done by {script:?}", seed());
            }
        }
        assert!(completed > 0 && completed < count, "{completed} of {count}: some lies matter");
    }
}

/// Scripts for plans: against one party or both, some of them hushed.
fn scripts(plans: Vec<Plan>, seeded: &mut Seeded) -> Vec<Script> {
    let script = |plan| {
        let both = seeded.below(2) == 0;
        let deceived = if both { Deceived::All } else { Deceived::One(party("a")) };
        Script { plan: Some(plan), deceived, hushed: seeded.below(HUSHED) == 0 }
    };
    plans.into_iter().map(script).collect()
}

/// Every lie about a number that a party is told when it joins, its times among them, with nothing
/// but its own clock to end the session.
fn left_alone(plans: &[(String, Plan)]) -> Vec<Script> {
    let about_numbers = |plan: &Plan| {
        matches!(plan, Plan::Tell { kind: Kind::Joined, onward: false, act: Act::Lie(lie), .. }
            if lie.value.is_number())
    };
    let plans = plans.iter().filter(|(_, plan)| about_numbers(plan));
    let script = |(_, plan): &(_, Plan)| Script {
        plan: Some(plan.clone()),
        hushed: true,
        ..Script::default()
    };
    plans.map(script).collect()
}

struct Outcome {
    completed: bool,
    account: Account,
    wrong: Vec<String>,
}

/// One plan for each field of each kind of document, and for each other act at each place.
fn one_each(plans: Vec<(String, Plan)>, seeded: &mut Seeded) -> Vec<Plan> {
    let mut places: BTreeMap<String, Vec<Plan>> = BTreeMap::new();
    for (place, plan) in plans {
        places.entry(place).or_default().push(plan);
    }
    let choose = |mut plans: Vec<Plan>| plans.swap_remove(seeded.below(plans.len()));
    places.into_values().map(choose).collect()
}

#[tokio::test(start_paused = true)]
async fn no_lie_about_a_signature_does_harm() {
    let (mut scene, mut seeded) = (Scene::new().await, Seeded(seed()));
    let plans = scene.plans(What::Sign).await;
    let mut all = left_alone(&plans);
    all.extend(scripts(one_each(plans, &mut seeded), &mut seeded));
    scene.carry_out_all(What::Sign, all).await;
}

#[tokio::test(start_paused = true)]
async fn no_lie_about_a_keygen_does_harm() {
    const PLANS: usize = 12;
    let (mut scene, mut seeded) = (Scene::new().await, Seeded(seed()));
    let mut plans = one_each(scene.plans(What::Keygen).await, &mut seeded);
    seeded.shuffle(&mut plans);
    plans.truncate(PLANS);
    let mut all = left_alone(&scene.plans(What::Keygen).await);
    all.extend(scripts(plans, &mut seeded));
    scene.carry_out_all(What::Keygen, all).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes hours: every lie, for the soak"]
async fn none_of_all_lies_does_harm() {
    let (mut scene, mut seeded) = (Scene::new().await, Seeded(seed()));
    for what in [What::Sign, What::Keygen] {
        let plans = scene.plans(what).await.into_iter().map(|(_, plan)| plan).collect();
        scene.carry_out_all(what, scripts(plans, &mut seeded)).await;
    }
}
