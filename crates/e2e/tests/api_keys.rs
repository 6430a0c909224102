//! API keys of a running server: made, listed, shown, revoked and expired, without a restart.

use std::sync::Arc;

use futures_util::StreamExt as _;
use quorate_e2e::{Cluster, api_key, binary, last_json};
use quorate_ports::Deliver as _;
use quorate_rpc::endpoint::{ApiKey, Endpoint};
use quorate_rpc::remote::RemoteRouter;
use quorate_types::{Caller, ErrorCode, Secret};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

struct World {
    cluster: Cluster,
    operator: String,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let operator = api_key(folder.path(), &["--scope", "system"]).await;
        let cluster = Cluster::start_with(folder.path(), &["--auth", "required"]).await;
        Self { cluster, operator, _folder: folder }
    }

    /// Calls REST at the router with a key.
    async fn rest(&self, method: &str, path: &str, key: &str, body: Option<Value>) -> (u16, Value) {
        let url = self.cluster.url("router", path);
        let request = reqwest::Client::new().request(method.parse().expect("a method"), url);
        let request = request.bearer_auth(key);
        let request = body.iter().fold(request, |request, body| request.json(body));
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    /// A key that may act as a party, and that party's registration.
    async fn party(&self) -> Value {
        let made = ["create", "--scope", "party", "--label", "watcher", "--expires-in", "1"];
        let (done, made) = api_keys(&self.cluster, &self.operator, &made).await;
        assert!(done, "{made}");
        let key = made["api_key"].as_str().expect("a key");
        let party = json!({"party_id": "watcher", "party_role": "temporary"});
        let (status, said) = self.rest("POST", "/api/v1/parties", key, Some(party)).await;
        assert!(status < 300, "{said}");
        made
    }
}

/// `quorate api-keys` at the running coordinator, with this key.
async fn api_keys(cluster: &Cluster, key: &str, arguments: &[&str]) -> (bool, Value) {
    let mut command = Command::new(binary());
    let server = format!("http://{}", cluster.address("coordinator", "grpc"));
    command.args(["api-keys", "--json", "--server", &server]).args(arguments);
    command.env("QUORATE_API_KEY", key);
    last_json(command).await
}

#[tokio::test]
async fn a_key_that_is_revoked_is_served_no_more_and_what_it_follows_ends() {
    let world = World::start().await;
    let made = world.party().await;
    let key = made["api_key"].as_str().expect("a key");
    let id = made["id"].as_str().expect("an id");

    let url = world.cluster.url("router", "/api/v1/events/subscribe?party_id=watcher");
    let mut handshake = url.replacen("http", "ws", 1).into_client_request().expect("a URL");
    let bearer = format!("Bearer {key}").parse().expect("header text");
    handshake.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = connect_async(handshake).await.expect("it may");
    let (_, ticket) = world.rest("POST", "/api/v1/tickets", key, None).await;
    let ticket = ticket["ticket"].as_str().expect("a ticket");
    let page = format!("{}&ticket={ticket}", url.replacen("http", "ws", 1));
    let (mut page, _) = connect_async(page).await.expect("the ticket is good");
    let router = format!("http://{}", world.cluster.address("router", "grpc"));
    let shown = Arc::new(ApiKey(Secret::new(key.to_owned())));
    let endpoint = Endpoint::new(&router, None).expect("an address");
    let router = RemoteRouter::new(endpoint.with_credentials(shown).expect("loopback"));
    let watcher = "watcher".parse().expect("a name");
    let mut events =
        router.subscribe_events(&Caller::Open, &watcher, vec![]).await.expect("it may");

    let (_, listed) = api_keys(&world.cluster, &world.operator, &["list"]).await;
    let listed = listed.as_array().expect("a list");
    let watcher = listed.iter().find(|key| key["id"] == id).expect("it is there");
    assert_eq!(watcher["label"], "watcher");
    assert!(watcher["expires_at"].is_i64() && watcher["last_used_at"].is_i64(), "{watcher}");
    assert!(!json!(listed).to_string().contains(key), "no secret");

    let (done, said) = api_keys(&world.cluster, &world.operator, &["revoke", id]).await;
    assert!(done, "{said}");
    for socket in [&mut socket, &mut page] {
        let end = loop {
            let frame = socket.next().await.expect("it is closed with words");
            if let Message::Close(Some(frame)) = frame.expect("a frame") {
                break frame;
            }
        };
        assert_eq!(u16::from(end.code), 1008);
        assert!(end.reason.contains("revoked"), "{}", end.reason);
    }
    let end = loop {
        if let Err(error) = events.next().await.expect("it ends with words") {
            break error;
        }
    };
    assert_eq!(end.code, ErrorCode::Unauthorized);
    assert!(end.message.contains("revoked"), "{end}");
    let (status, said) = world.rest("GET", "/api/v1/parties", key, None).await;
    assert_eq!((status, &said["error"]), (401, &json!("unauthorized")));
}

#[tokio::test]
async fn who_is_not_the_operator_manages_no_keys() {
    let world = World::start().await;
    let made = world.party().await;
    let key = made["api_key"].as_str().expect("a key");
    for arguments in
        [&["list"][..], &["create", "--scope", "read"], &["revoke", "qk_0000000000000000"]]
    {
        let (done, said) = api_keys(&world.cluster, key, arguments).await;
        assert!(!done);
        assert_eq!(said["error"], "forbidden", "{said}");
    }
    let (done, said) =
        api_keys(&world.cluster, &world.operator, &["revoke", "qk_0000000000000000"]).await;
    assert!(!done);
    assert_eq!(said["error"], "not_found", "{said}");
}

#[tokio::test]
async fn a_server_that_asks_for_no_keys_says_so() {
    let (cluster, _folder) = Cluster::temporary().await;
    let (done, said) = api_keys(&cluster, "", &["list"]).await;
    assert!(!done);
    assert!(said["message"].as_str().is_some_and(|why| why.contains("--auth required")), "{said}");
}
