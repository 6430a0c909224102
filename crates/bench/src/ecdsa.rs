//! ECDSA: keys and signatures through coordinator, router and three server parties.

use std::time::{Duration, Instant};

use quorate_ports::Coordinator;
use quorate_types::*;
use tokio::task::JoinSet;

use crate::Effort;
use crate::bare;
use crate::cluster::Cluster;
use crate::stats::{Times, ratio};

/// Signatures under way at once in the throughput measurement.
const IN_FLIGHT: usize = 64;

fn request(kind: SessionKind) -> CreateSession {
    CreateSession {
        kind,
        scheme: Scheme::default(),
        threshold: None,
        participants: Vec::new(),
        key: KeySelector::ByParticipants,
        digest: None,
        expires_in_seconds: Some(600),
        idempotency_key: None,
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

async fn make_key(coordinator: &dyn Coordinator) -> KeyId {
    let threshold = Some(Threshold::new(2, 3).expect("2 of 3"));
    let view = finish(coordinator, CreateSession { threshold, ..request(SessionKind::Keygen) });
    view.await.key_id.expect("a completed keygen has a key")
}

async fn sign(coordinator: &dyn Coordinator, key: KeyId, number: usize) {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let request = CreateSession {
        key: KeySelector::Id(key),
        digest: Some(Digest(digest)),
        ..request(SessionKind::Sign)
    };
    finish(coordinator, request).await;
}

/// One bare signature: both signers one after the other on this thread.
fn bare_sign(parties: &[dkls23_secp256k1::Party], number: usize) -> Duration {
    let began = Instant::now();
    let digest = [u8::try_from(number % 256).expect("below 256"); 32];
    bare::sign(&[&parties[0], &parties[1]], digest, &number.to_be_bytes());
    began.elapsed()
}

/// Sequential signatures, bare and ours in turn.
pub(crate) async fn sequential(cluster: &Cluster, effort: Effort) {
    let parties = bare::keygen(2, 3);
    let coordinator = cluster.coordinator();
    let key = make_key(&coordinator).await;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for number in 0..effort.count(300) + 10 {
        let bare = tokio::task::block_in_place(|| bare_sign(&parties, number));
        let began = Instant::now();
        sign(&coordinator, key, number).await;
        // The first ones warm up caches and connections.
        if number >= 10 {
            theirs.push(bare);
            ours.push(began.elapsed());
        }
    }
    let (theirs, ours) = (Times::new(theirs), Times::new(ours));
    println!("\nsequential 2-of-3 ECDSA signatures");
    println!("  bare protocol, one core   {}", theirs.summary());
    println!("  Quorate, over gRPC        {}", ours.summary());
    let p50 = ratio(ours.percentile(50), theirs.percentile(50));
    println!("  ratio of p50              {p50:.2}  (target ≤ 1.50)");
}

/// Bare signatures a second with every core at work: less than the sum of the cores one by one
/// where two of them are threads of one, or share what they are short of.
async fn saturated(each: usize) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut tasks = JoinSet::new();
    for _ in 0..cores {
        tasks.spawn_blocking(move || {
            let parties = bare::keygen(2, 3);
            let began = Instant::now();
            for number in 0..each {
                bare_sign(&parties, number);
            }
            (each as f64) / began.elapsed().as_secs_f64()
        });
    }
    tasks.join_all().await.iter().sum()
}

/// Many signatures at once, against what the cores can compute.
pub(crate) async fn throughput(cluster: &Cluster, effort: Effort) {
    let parties = bare::keygen(2, 3);
    let bare_once = |n| tokio::task::block_in_place(|| bare_sign(&parties, n));
    let before = Times::new((0..50).map(bare_once).collect());
    let all_cores = saturated(effort.count(300)).await;
    let coordinator = cluster.coordinator();
    let key = make_key(&coordinator).await;
    let total = effort.count(2_000);
    let cpu = cluster.cpu_seconds();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    let mut times = Vec::new();
    let mut started = 0;
    while started < total || !tasks.is_empty() {
        while started < total && tasks.len() < IN_FLIGHT {
            let coordinator = coordinator.clone();
            tasks.spawn(async move {
                let began = Instant::now();
                sign(&coordinator, key, started).await;
                began.elapsed()
            });
            started += 1;
        }
        if let Some(done) = tasks.join_next().await {
            times.push(done.expect("no signature fails"));
        }
    }
    let wall = began.elapsed().as_secs_f64();
    let cpu = (cluster.cpu_seconds() - cpu) / total as f64 * 1e3;
    let after = Times::new((50..100).map(bare_once).collect());
    let bare = (before.percentile(50) + after.percentile(50)) / 2;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bound = cores as f64 / bare.as_secs_f64();
    let rate = total as f64 / wall;
    println!("\nthroughput with {IN_FLIGHT} signatures in flight");
    println!(
        "  CPU bound                 {bound:.0} /s  ({cores} cores, {:.2} ms each)",
        bare.as_secs_f64() * 1e3
    );
    println!("  bare on all cores at once {all_cores:.0} /s");
    println!("  Quorate                   {rate:.0} /s  {}", Times::new(times).summary());
    println!("  server CPU a signature    {cpu:.2} ms");
    println!("  share of the bound        {:.0} %  (target ≥ 80 %)", rate / bound * 100.0);
    println!("  share of bare at once     {:.0} %", rate / all_cores * 100.0);
}

/// Keys: our wall time against the protocol's CPU time spread over the cores.
pub(crate) async fn keygen(cluster: &Cluster, effort: Effort) {
    let coordinator = cluster.coordinator();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..effort.count(20) {
        let began = Instant::now();
        tokio::task::block_in_place(|| drop(bare::keygen(2, 3)));
        theirs.push(began.elapsed());
        let began = Instant::now();
        make_key(&coordinator).await;
        ours.push(began.elapsed());
    }
    let (theirs, ours) = (Times::new(theirs), Times::new(ours));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let floor = theirs.percentile(50) / u32::try_from(cores).unwrap_or(1);
    println!("\n2-of-3 ECDSA keys");
    println!("  bare protocol, one core   {}", theirs.summary());
    println!("  Quorate                   {}", ours.summary());
    let p50 = ratio(ours.percentile(50), floor);
    println!("  ratio of p50 to CPU/cores {p50:.2}  (target ≤ 1.25)");
}

/// Memory that stays flat.
pub(crate) async fn memory(cluster: &Cluster, effort: Effort) {
    let coordinator = cluster.coordinator();
    let key = make_key(&coordinator).await;
    println!("\nresident memory of the whole installation");
    println!("  before the first          {:.1} MiB", cluster.resident());
    let thousand = effort.count(1_000);
    for part in 0..5 {
        for number in 0..thousand {
            sign(&coordinator, key, part * thousand + number).await;
        }
        println!(
            "  after {:>5} signatures    {:.1} MiB",
            (part + 1) * thousand,
            cluster.resident()
        );
    }
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let coordinator = coordinator.clone();
        tasks.spawn(async move { sign(&coordinator, key, number).await });
    }
    tasks.join_all().await;
    println!("  after 100 at once         {:.1} MiB", cluster.resident());
}
