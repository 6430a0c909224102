//! Keys, signatures and refreshes through coordinator, router and three server parties.

use std::time::{Duration, Instant};

use quorate_ports::Coordinator;
use quorate_rpc::remote::RemoteCoordinator;
use quorate_types::*;
use tokio::task::JoinSet;

use crate::Effort;
use crate::bare;
use crate::cluster::Cluster;
use crate::stats::{Times, against, median, ratio};

/// Signatures under way at once in the throughput measurement.
const IN_FLIGHT: usize = 64;

/// What all is measured with but where it says otherwise: its steps are the long ones.
const ECDSA: Scheme = Scheme::EcdsaSecp256k1;

fn request(ceremony: CeremonyRequest) -> CreateSession {
    CreateSession {
        ceremony,
        participants: Vec::new(),
        expires_in_seconds: Some(600),
        idempotency_key: None,
        authorization: None,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    }
}

async fn finish(coordinator: &dyn Coordinator, request: CreateSession) -> SessionView {
    let created = coordinator.create(&Caller::Open, request).await.expect("a session");
    let wait = Some((WaitFor::End, Duration::from_secs(60)));
    loop {
        let id = created.session.session_id;
        let view = coordinator.status(&Caller::Open, id, wait).await.expect("a status");
        if view.status.is_final() {
            assert_eq!(view.status, SessionStatus::Completed, "{:?}", view.failure);
            return view;
        }
    }
}

async fn make_key(coordinator: &dyn Coordinator, scheme: Scheme) -> KeyId {
    let threshold = Threshold::new(2, 3).expect("2 of 3");
    let ceremony = CeremonyRequest::Keygen { scheme, threshold };
    let view = finish(coordinator, request(ceremony));
    view.await.key_id().expect("a completed keygen has a key")
}

async fn sign(coordinator: &dyn Coordinator, scheme: Scheme, key: KeyId, number: usize) {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let input = match scheme {
        Scheme::EcdsaSecp256k1 => SignInput::Digest(Digest(bytes)),
        _ => SignInput::Message(bytes.to_vec().into()),
    };
    let key = KeySelector::Id(key);
    finish(coordinator, request(CeremonyRequest::Sign { key, threshold: None, input })).await;
}

/// The library alone, with a key of its own.
enum Bare {
    Ecdsa(Vec<dkls23_secp256k1::Party>),
    Ed25519(bare::frost::Key),
}

impl Bare {
    fn of(scheme: Scheme) -> Self {
        match scheme {
            Scheme::EcdsaSecp256k1 => Self::Ecdsa(bare::keygen(2, 3)),
            _ => Self::Ed25519(bare::frost::keygen()),
        }
    }

    /// How long a signature takes: both signers one after the other on this thread.
    fn sign(&self, number: usize) -> Duration {
        let began = Instant::now();
        let signed = [u8::try_from(number % 256).expect("below 256"); 32];
        match self {
            Self::Ecdsa(parties) => {
                bare::sign(&[&parties[0], &parties[1]], signed, &number.to_be_bytes());
            }
            Self::Ed25519(key) => bare::frost::sign(key, &signed),
        }
        began.elapsed()
    }
}

/// An installation with what is measured of it.
struct Measured<'a> {
    cluster: &'a Cluster,
    coordinator: RemoteCoordinator,
    key: KeyId,
    times: Vec<Duration>,
}

/// A key in each installation.
async fn with_keys(clusters: &[Cluster], scheme: Scheme) -> Vec<Measured<'_>> {
    let mut all = Vec::new();
    for cluster in clusters {
        let coordinator = cluster.coordinator();
        let key = make_key(&coordinator, scheme).await;
        all.push(Measured { cluster, coordinator, key, times: Vec::new() });
    }
    all
}

/// One line of percentiles for each installation, and their medians.
fn summaries(measured: Vec<Measured<'_>>) -> Vec<Duration> {
    let of = |one: Measured<'_>| {
        let times = Times::new(one.times);
        println!("  {:<26}{}", one.cluster.name, times.summary());
        times.percentile(50)
    };
    measured.into_iter().map(of).collect()
}

/// Sequential signatures, bare and ours in turn.
pub(crate) async fn sequential(scheme: Scheme, clusters: &[Cluster], effort: Effort) {
    let library = Bare::of(scheme);
    let mut measured = with_keys(clusters, scheme).await;
    let mut theirs = Vec::new();
    for number in 0..effort.count(300) + 10 {
        let bare = tokio::task::block_in_place(|| library.sign(number));
        // The first ones warm up caches and connections.
        let counts = number >= 10;
        theirs.extend(counts.then_some(bare));
        for one in &mut measured {
            let began = Instant::now();
            sign(&one.coordinator, scheme, one.key, number).await;
            one.times.extend(counts.then(|| began.elapsed()));
        }
    }
    let theirs = Times::new(theirs);
    println!("\nsequential 2-of-3 signatures over gRPC, {}", scheme.name());
    println!("  bare protocol, one core   {}", theirs.summary());
    let ours = summaries(measured);
    let ratio = ratio(ours[0], theirs.percentile(50));
    match scheme {
        Scheme::EcdsaSecp256k1 => {
            println!("  ratio of p50              {ratio:.2}  (target ≤ 1.45)")
        }
        // So short a protocol is waits, writes and hand-overs: what counts is the time itself.
        _ => println!("  ratio of p50              {ratio:.2}  (target: p50 ≤ 6 ms)"),
    }
    against(&ours);
}

/// Bare signatures a second with every core at work: less than the sum of the cores one by one
/// where two of them are threads of one, or share what they are short of.
async fn saturated(each: usize) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut tasks = JoinSet::new();
    for _ in 0..cores {
        tasks.spawn_blocking(move || {
            let library = Bare::of(ECDSA);
            let began = Instant::now();
            for number in 0..each {
                library.sign(number);
            }
            (each as f64) / began.elapsed().as_secs_f64()
        });
    }
    tasks.join_all().await.iter().sum()
}

/// Signs `total` times with [`IN_FLIGHT`] under way at once.
async fn sign_at_once(coordinator: &RemoteCoordinator, key: KeyId, total: usize) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    let mut times = Vec::new();
    let mut started = 0;
    while started < total || !tasks.is_empty() {
        while started < total && tasks.len() < IN_FLIGHT {
            let coordinator = coordinator.clone();
            tasks.spawn(async move {
                let began = Instant::now();
                sign(&coordinator, ECDSA, key, started).await;
                began.elapsed()
            });
            started += 1;
        }
        if let Some(done) = tasks.join_next().await {
            times.push(done.expect("no signature fails"));
        }
    }
    times
}

/// Many signatures at once, against what the cores can compute; in rounds, each installation and
/// the bare library in turn.
pub(crate) async fn throughput(clusters: &[Cluster], effort: Effort) {
    const ROUNDS: usize = 5;
    let mut measured = with_keys(clusters, ECDSA).await;
    let total = effort.count(2_000) / ROUNDS;
    let (mut bare, mut rates) = (Vec::new(), vec![Vec::new(); clusters.len()]);
    let mut cpu = vec![0.0; clusters.len()];
    for _ in 0..ROUNDS {
        bare.push(saturated(effort.count(150)).await);
        for (at, one) in measured.iter_mut().enumerate() {
            let (used, began) = (one.cluster.cpu_seconds(), Instant::now());
            one.times.extend(sign_at_once(&one.coordinator, one.key, total).await);
            rates[at].push(total as f64 / began.elapsed().as_secs_f64());
            cpu[at] += (one.cluster.cpu_seconds() - used) / (total * ROUNDS) as f64 * 1e3;
        }
    }
    let bare = median(bare);
    println!("\nthroughput with {IN_FLIGHT} signatures in flight, medians of {ROUNDS} rounds");
    println!("  bare on all cores at once {bare:.0} /s");
    summaries(measured);
    for (cluster, (rates, cpu)) in clusters.iter().zip(rates.into_iter().zip(cpu)) {
        let (name, rate) = (cluster.name, median(rates));
        let share = rate / bare * 100.0;
        println!("  {name:<26}{rate:.0} /s, {share:.0} % of bare, {cpu:.2} ms of server CPU each");
    }
}

/// Keys: our wall time against the protocol's CPU time spread over the cores.
pub(crate) async fn keygen(clusters: &[Cluster], effort: Effort) {
    let mut measured = with_keys(clusters, ECDSA).await;
    let mut theirs = Vec::new();
    for _ in 0..effort.count(20) {
        let began = Instant::now();
        tokio::task::block_in_place(|| drop(bare::keygen(2, 3)));
        theirs.push(began.elapsed());
        for one in &mut measured {
            let began = Instant::now();
            make_key(&one.coordinator, ECDSA).await;
            one.times.push(began.elapsed());
        }
    }
    let theirs = Times::new(theirs);
    let floor = theirs.percentile(50) / cores();
    println!("\n2-of-3 ECDSA keys");
    println!("  bare protocol, one core   {}", theirs.summary());
    let ours = summaries(measured);
    println!("  ratio of p50 to CPU/cores {:.2}  (target ≤ 1.25)", ratio(ours[0], floor));
    against(&ours);
}

/// Refreshes of one key, as [`keygen`] is measured. Another version may not have them.
pub(crate) async fn refresh(clusters: &[Cluster], effort: Effort) {
    let mut measured = with_keys(&clusters[..1], ECDSA).await;
    let mut parties = bare::keygen(2, 3);
    let mut theirs = Vec::new();
    for _ in 0..effort.count(20) {
        let began = Instant::now();
        parties = tokio::task::block_in_place(|| bare::refresh(&parties));
        theirs.push(began.elapsed());
        for one in &mut measured {
            let ceremony =
                CeremonyRequest::Refresh { key: KeySelector::Id(one.key), threshold: None };
            let began = Instant::now();
            finish(&one.coordinator, request(ceremony)).await;
            one.times.push(began.elapsed());
        }
    }
    let theirs = Times::new(theirs);
    let floor = theirs.percentile(50) / cores();
    println!("\n2-of-3 ECDSA refreshes");
    println!("  bare protocol, one core   {}", theirs.summary());
    let ours = summaries(measured);
    println!("  ratio of p50 to CPU/cores {:.2}  (target ≤ 1.25)", ratio(ours[0], floor));
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// Memory that stays flat.
pub(crate) async fn memory(clusters: &[Cluster], effort: Effort) {
    let thousand = effort.count(1_000);
    for Measured { cluster, coordinator, key, .. } in with_keys(clusters, ECDSA).await {
        println!("\nresident memory of the whole installation: {}", cluster.name);
        println!("  before the first          {:.1} MiB", cluster.resident());
        for part in 1..=5 {
            for number in 0..thousand {
                sign(&coordinator, ECDSA, key, part * thousand + number).await;
            }
            println!("  after {:>5} signatures    {:.1} MiB", part * thousand, cluster.resident());
        }
        sign_at_once(&coordinator, key, effort.count(1_000)).await;
        println!("  after {IN_FLIGHT} at a time        {:.1} MiB", cluster.resident());
    }
}
