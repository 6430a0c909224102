//! Request bodies that begin and never end: what they cost is bounded, and others are served.

use bytes::Bytes;
use quorate_e2e::Cluster;
use quorate_e2e::hostile::{assert_grown_little, grpc, http2, make_key, resident, sign};

/// Half-sent requests of each connection.
const STREAMS: usize = 100;
/// What each of them sends, in bytes: less than it announces.
const SENT: usize = 1_900_000;

/// Sends requests whose bodies stop in the middle, on several connections; ends with the sender.
async fn half_sent(
    address: std::net::SocketAddr,
    connections: usize,
    head: &http::Request<()>,
    body: &Bytes,
) -> Vec<tokio::task::AbortHandle> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut client = http2(address, 1 << 20).await;
        for _ in 0..STREAMS {
            let Ok(ready) = client.clone().ready().await else { break };
            client = ready;
            let Ok((answer, mut stream)) = client.send_request(head.clone(), false) else { break };
            let _ = stream.send_data(body.clone(), false);
            // Neither the answer nor the stream is dropped: that would end the request.
            let task = tokio::spawn(async move {
                let answer = answer.await;
                std::future::pending::<()>().await;
                drop((answer, stream));
            });
            held.push(task.abort_handle());
        }
        let task = tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(client);
        });
        held.push(task.abort_handle());
    }
    held
}

#[tokio::test]
async fn bodies_that_never_end_cost_little() {
    let (cluster, _folder) = Cluster::temporary().await;
    let key = make_key(&cluster).await;
    sign(&cluster, &key, 20).await;
    let before = resident(cluster.pid());
    let address = cluster.address("router", "grpc");
    let route = grpc(address, "/mpc.router.v1.MessageRouter/RouteMessage");
    let mut message = vec![0; SENT];
    // A message of 4 MiB less one byte.
    message[..5].copy_from_slice(&[0, 0, 0x3f, 0xff, 0xff]);
    let calls = half_sent(address, 6, &route, &message.into()).await;
    sign(&cluster, &key, 3).await;
    assert_grown_little(&cluster, before, "calls");

    let address = cluster.address("router", "http");
    let path = "/api/v1/sessions/550e8400-e29b-41d4-a716-446655440000/messages";
    let post = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/json")
        .body(())
        .expect("a request");
    let posts = half_sent(address, 8, &post, &vec![b' '; SENT].into()).await;
    sign(&cluster, &key, 3).await;
    assert_grown_little(&cluster, before, "posts");
    for task in calls.into_iter().chain(posts) {
        task.abort();
    }
}
