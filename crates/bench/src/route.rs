//! One routed message that its recipient acknowledges, against a bare gRPC call.

use std::time::Instant;

use futures_util::StreamExt as _;
use quorate_ports::{Deliver as _, ManageSessions as _};
use quorate_types::*;

use crate::Effort;
use crate::cluster::Cluster;
use crate::stats::{Times, ratio};

/// A heartbeat is the smallest call the router answers: the baseline of a gRPC round trip.
pub(crate) async fn route(cluster: &Cluster, effort: Effort) {
    let (coordinator, router) = (cluster.coordinator(), cluster.router());
    let [a, b]: [PartyId; 2] = ["bench-a", "bench-b"].map(|name| name.parse().expect("a name"));
    let participant = |party: &PartyId| NewParticipant {
        party_id: party.clone(),
        device: DeviceInfo::default(),
        on_behalf_of: None,
    };
    let request = CreateSession {
        ceremony: CeremonyRequest::Keygen {
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 2).expect("2 of 2"),
        },
        participants: vec![participant(&a), participant(&b)],
        expires_in_seconds: Some(3_600),
        idempotency_key: None,
        authorization: None,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    };
    let created = coordinator.create(&Caller::Open, request).await.expect("a session");
    let session = created.session.session_id;
    let registration = Registration {
        party_id: a.clone(),
        role: PartyRole::Temporary,
        version: String::new(),
        notification: NotificationChannel::default(),
        identity: None,
        delegate_key: None,
    };
    router.register(&Caller::Open, registration).await.expect("registered");
    let receiver = cluster.router();
    let mut inbox =
        receiver.subscribe(&Caller::Open, Some(session), &b, Timestamp(0)).await.expect("a stream");
    let acknowledging = b.clone();
    let acker = tokio::spawn(async move {
        while let Some(Ok(message)) = inbox.next().await {
            let ack = Acknowledge {
                message_id: message.message_id,
                party_id: acknowledging.clone(),
                session_id: session,
                success: true,
            };
            receiver.acknowledge(&Caller::Open, ack).await.expect("acknowledged");
        }
    });
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for number in 0..effort.count(3_000) {
        let began = Instant::now();
        router.heartbeat(&Caller::Open, &a).await.expect("a pulse");
        bare.push(began.elapsed());
        let request = RouteRequest {
            session_id: session,
            from_party: a.clone(),
            to_parties: vec![b.clone()],
            round: i32::try_from(number).unwrap_or(0),
            message_type: String::new(),
            payload: vec![7; 200].into(),
            acknowledges: vec![],
            patient: false,
        };
        let began = Instant::now();
        router.route(&Caller::Open, request).await.expect("routed");
        ours.push(began.elapsed());
    }
    coordinator.close(&Caller::Open, session).await.expect("closed");
    acker.await.expect("the stream ends with the session");
    let (bare, ours) = (Times::new(bare), Times::new(ours));
    println!("\none routed message of 200 B, answered when its recipient has acknowledged it");
    println!("  smallest gRPC call        {}", bare.summary());
    println!("  RouteMessage              {}", ours.summary());
    println!("  ratio of p50              {:.2}", ratio(ours.percentile(50), bare.percentile(50)));
}
