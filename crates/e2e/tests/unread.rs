//! Streams that nobody reads: what they cost is bounded, and others are served meanwhile.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use quorate_e2e::hostile::{assert_grown_little, grpc, http2, make_key, resident, sign};
use quorate_e2e::{Cluster, call};
use serde_json::json;
use tokio::time::timeout;

const EVENTS: &str = "/mpc.router.v1.MessageRouter/SubscribeSessionEvents";
/// Members of each noisy session, and the parties that are subscribed to.
const PARTIES: usize = 16;

/// A request of `SubscribeSessionEvents`: field 1 is the party.
fn subscription(party: &str) -> Bytes {
    let length = u8::try_from(party.len()).expect("a short name");
    let mut frame = vec![0, 0, 0, 0, length + 2, 0x0a, length];
    frame.extend(party.as_bytes());
    frame.into()
}

#[tokio::test]
async fn unread_event_streams_cost_little() {
    let (cluster, _folder) = Cluster::temporary().await;
    let key = make_key(&cluster).await;
    sign(&cluster, &key, 20).await;
    let before = resident(cluster.pid());
    let address = cluster.address("router", "grpc");
    let names: Vec<_> = (0..PARTIES).map(|n| format!("idle-{n}")).collect();
    let (mut open, mut connections) = (Vec::new(), Vec::new());
    let mut refused = 0;
    for _ in 0..8 {
        // Streams that may receive nothing.
        let mut client = http2(address, 0).await;
        for n in 0..96 {
            client = client.ready().await.expect("a stream");
            let (answer, mut body) =
                client.send_request(grpc(address, EVENTS), false).expect("a call");
            body.send_data(subscription(&names[n % PARTIES]), true).expect("a body");
            let answer = timeout(Duration::from_secs(10), answer).await.expect("an answer");
            let answer = answer.expect("a response");
            // A refusal is in the headers: 8 is RESOURCE_EXHAUSTED.
            match answer.headers().get("grpc-status") {
                Some(status) => {
                    assert_eq!(status, "8");
                    refused += 1;
                }
                None => open.push(answer),
            }
        }
        connections.push(client);
    }
    // Sessions of all these parties, opened and closed.
    let participants: Vec<_> = names.iter().map(|name| json!({"party_id": name})).collect();
    let body = json!({"session_type": "keygen", "threshold_n": PARTIES, "threshold_t": 2,
        "participants": participants});
    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    for _ in 0..25 {
        let noise = (0..10).map(async |_| {
            let (status, created) = call("POST", &sessions, Some(&body)).await;
            assert_eq!(status, 201, "{created}");
            let id = created["session_id"].as_str().expect("an id");
            call("DELETE", &format!("{sessions}/{id}"), None).await
        });
        join_all(noise).await;
    }
    assert_grown_little(&cluster, before, "unread event streams");
    assert!(open.len() >= 256 && refused > 0, "{} open, {refused} refused", open.len());
    sign(&cluster, &key, 3).await;
    drop((open, connections));
}
