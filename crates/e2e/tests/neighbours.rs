//! Two tenants of one installation, in one process and with roles apart: with any key of his own a
//! neighbour finds, changes and stops nothing of another tenant's, and the owner is served.

use std::sync::Arc;

use futures_util::StreamExt as _;
use quorate_e2e::{Cluster, Role, api_key, api_key_in, free_ports};
use quorate_ports::{
    Deliver as _, Directory as _, ManageSessions as _, ReadMessages as _, ReadSession as _,
    TakePart as _,
};
use quorate_rpc::endpoint::{ApiKey, Endpoint};
use quorate_rpc::remote::{RemoteCoordinator, RemoteRouter};
use quorate_types::*;
use serde_json::{Value, json};

/// secp256k1's generator: a key whose keygen the tests report by hand.
const PUBLIC_KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// Everything but `system`.
const SCOPES: [&str; 8] =
    ["--scope", "sessions", "--scope", "read", "--scope", "accounts", "--scope", "party"];

/// An installation's addresses, and each tenant's key at each of them.
struct Installation {
    coordinator: String,
    accounts: String,
    router: String,
    router_http: String,
    /// Keys of the owner: at the coordinator, the accounts and the router.
    owner: [String; 3],
    /// Keys of the neighbour at the same places.
    neighbour: [String; 3],
}

async fn ask(method: &str, url: &str, key: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method.parse().expect("a method"), url);
    request = request.header("authorization", format!("Bearer {key}"));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

fn endpoint(url: &str, key: &str) -> Endpoint {
    let key = ApiKey(Secret::new(key.to_owned()));
    Endpoint::new(url, None).expect("an address").with_credentials(Arc::new(key)).expect("loopback")
}

fn code<T>(result: Result<T>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

impl Installation {
    async fn in_one_process(folder: &std::path::Path) -> (Self, Cluster) {
        let owner = api_key(folder, &[&SCOPES[..], &["--tenant", "acme"]].concat()).await;
        let neighbour = api_key(folder, &[&SCOPES[..], &["--tenant", "evil"]].concat()).await;
        let cluster = Cluster::start_with(folder, &["--auth", "required"]).await;
        let installation = Self {
            coordinator: cluster.url("coordinator", ""),
            accounts: cluster.url("accounts", ""),
            router: format!("http://{}", cluster.address("router", "grpc")),
            router_http: cluster.url("router", ""),
            owner: [(); 3].map(|()| owner.clone()),
            neighbour: [(); 3].map(|()| neighbour.clone()),
        };
        (installation, cluster)
    }

    async fn with_roles_apart(folder: &std::path::Path) -> (Self, [Role; 3]) {
        let mut keys = [[const { String::new() }; 3], [const { String::new() }; 3]];
        for (own, tenant) in keys.iter_mut().zip(["acme", "evil"]) {
            for (key, role) in own.iter_mut().zip(["coordinator", "accounts", "router"]) {
                let arguments = [&SCOPES[..], &["--tenant", tenant]].concat();
                *key = api_key_in(&folder.join(role), &arguments).await;
            }
        }
        let ports = free_ports::<6>();
        let url = |port: usize| format!("http://127.0.0.1:{}", ports[port]);
        let (router, coordinator) = (url(1), url(3));
        let required = ["--auth", "required"];
        let to_coordinator = [&required[..], &["--coordinator", &coordinator]].concat();
        let to_router = [&required[..], &["--router", &router]].concat();
        let roles = [
            Role::start(folder, "router", [ports[0], ports[1]], &to_coordinator).await,
            Role::start(folder, "coordinator", [ports[2], ports[3]], &to_router).await,
            Role::start(folder, "accounts", [ports[4], ports[5]], &to_coordinator).await,
        ];
        let [owner, neighbour] = keys;
        let (coordinator, accounts, router_http) = (url(2), url(4), url(0));
        (Self { coordinator, accounts, router, router_http, owner, neighbour }, roles)
    }

    /// A keygen among two devices of the owner that have joined, and one's token.
    async fn keygen(&self) -> SessionId {
        let sessions = format!("{}/api/v1/sessions", self.coordinator);
        let body = json!({
            "session_type": "keygen", "threshold_n": 2, "threshold_t": 2,
            "participants": [{"party_id": "dev-1"}, {"party_id": "dev-2"}],
        });
        // Roles apart: the coordinator may still be connecting.
        let created = loop {
            let (status, created) =
                ask("POST", &sessions, &self.owner[0], Some(body.clone())).await;
            if status != 503 {
                assert_eq!(status, 201, "{created}");
                break created;
            }
            tokio::task::yield_now().await;
        };
        for party in ["dev-1", "dev-2"] {
            let join = json!({"join_token": created["join_tokens"][party], "party_id": party});
            let url = format!("{sessions}/join");
            let (status, joined) = ask("POST", &url, &self.owner[0], Some(join)).await;
            assert_eq!(status, 200, "{joined}");
        }
        created["session_id"].as_str().expect("an id").parse().expect("a session id")
    }

    /// The owner's devices say that they are ready and report a key.
    async fn finish(&self, session: SessionId) {
        let url = format!("{}/api/v1/sessions/{session}", self.coordinator);
        for party in ["dev-1", "dev-2"] {
            let ready = format!("{url}/parties/{party}/ready");
            let (status, answer) = ask("PUT", &ready, &self.owner[0], None).await;
            assert_eq!(status, 200, "{answer}");
        }
        for party in ["dev-1", "dev-2"] {
            let report = json!({"party_id": party, "public_key": PUBLIC_KEY});
            let complete = format!("{url}/complete");
            let (status, answer) = ask("POST", &complete, &self.owner[0], Some(report)).await;
            assert_eq!(status, 200, "{answer}");
        }
    }

    async fn accounts_are_apart(&self, session: SessionId) {
        let accounts = format!("{}/api/v1/accounts", self.accounts);
        let sign = format!("{}/api/v1/mpc/sign", self.accounts);
        for (key, status) in [(&self.owner[1], 201), (&self.neighbour[1], 404)] {
            let account = json!({"username": "alice", "publicKey": PUBLIC_KEY});
            let (made, account) = ask("POST", &accounts, key, Some(account)).await;
            assert_eq!(made, 201, "{account}");
            let body = json!({
                "account_id": account["id"], "message_hash": "11".repeat(32),
                "participants": [{"party_id": "dev-1"}, {"party_id": "dev-2"}],
            });
            let (signing, answer) = ask("POST", &sign, key, Some(body)).await;
            assert_eq!(signing, status, "the key belongs to its tenant: {answer}");
        }
        let url = format!("{}/api/v1/mpc/sessions/{session}", self.accounts);
        assert_eq!(ask("GET", &url, &self.owner[1], None).await.0, 200);
        assert_eq!(ask("GET", &url, &self.neighbour[1], None).await.0, 404);
    }

    async fn the_coordinator_keeps_tenants_apart(&self, session: SessionId) {
        let url = format!("{}/api/v1/sessions/{session}", self.coordinator);
        for (key, status) in [(&self.owner[0], 200), (&self.neighbour[0], 404)] {
            assert_eq!(ask("GET", &url, key, None).await.0, status);
            let timeline = format!("{url}/timeline");
            assert_eq!(ask("GET", &timeline, key, None).await.0, status);
        }
        for (method, path, body) in [
            ("PUT", "/parties/dev-1/ready", None),
            ("POST", "/start", None),
            ("POST", "/complete", Some(json!({"party_id": "dev-1", "failure": {"message": "x"}}))),
        ] {
            let stolen = ask(method, &format!("{url}{path}"), &self.neighbour[0], body).await;
            assert_eq!(stolen.0, 404, "{path}: {}", stolen.1);
        }
        assert_eq!(ask("DELETE", &url, &self.neighbour[0], None).await.0, 404);
    }

    /// The session calls that the router passes on, and its own.
    async fn the_router_keeps_tenants_apart(&self, session: SessionId) {
        let none = &Caller::Open;
        let party: PartyId = "dev-1".parse().expect("a name");
        let at = |key: &str| RemoteRouter::new(endpoint(&self.router, key));
        let (owner, thief) = (at(&self.owner[2]), at(&self.neighbour[2]));
        let failure =
            Failure { reason: FailureReason::PartyFailed, message: "stop".into(), parties: vec![] };
        let report = Report {
            session_id: session,
            party_id: party.clone(),
            attempt: 0,
            outcome: PartyOutcome::Failure(failure),
        };
        let sessions = thief.sessions();
        assert_eq!(code(sessions.status(none, session, None).await), Some(ErrorCode::NotFound));
        assert_eq!(code(sessions.ready(none, session, &party).await), Some(ErrorCode::NotFound));
        assert_eq!(code(sessions.complete(none, report).await), Some(ErrorCode::NotFound));
        let message = |from: &str| RouteRequest {
            session_id: session,
            from_party: from.parse().expect("a name"),
            to_parties: vec![],
            round: 1,
            message_type: "x".into(),
            payload: vec![1].into(),
            acknowledges: vec![],
            patient: false,
        };
        let after = Timestamp(0);
        assert_eq!(code(thief.route(none, message("dev-2")).await), Some(ErrorCode::NotFound));
        let found = thief.pending(none, session, &party, after).await;
        assert_eq!(code(found), Some(ErrorCode::NotFound));
        let stream = thief.subscribe(none, Some(session), &party, after).await;
        assert_eq!(code(stream), Some(ErrorCode::NotFound));

        let mut all = thief.subscribe(none, None, &party, after).await.expect("his own sessions");
        let routed = tokio::spawn({
            let (owner, message) = (owner.clone(), message("dev-2"));
            async move { owner.route(&Caller::Open, message).await }
        });
        let mut own = owner.subscribe(none, Some(session), &party, after).await.expect("a stream");
        let received = own.next().await.expect("one").expect("a message");
        let message_id = routed.await.expect("no panic").expect("routed");
        assert_eq!(received.message_id, message_id);
        let status = thief.message_status(none, session, message_id).await;
        assert_eq!(code(status), Some(ErrorCode::NotFound));
        let ack = |id| Acknowledge {
            message_id: id,
            party_id: party.clone(),
            session_id: session,
            success: true,
        };
        assert_eq!(code(thief.acknowledge(none, ack(message_id)).await), Some(ErrorCode::NotFound));
        owner.acknowledge(none, ack(message_id)).await.expect("the owner may");
        assert!(all.next().now_or_never_is_none(), "the neighbour's stream stays silent");
        let forged = RemoteRouter::new(endpoint(&self.router, &self.neighbour[2]).forwarding());
        let forged = forged.parties(&Caller::System, None, false).await;
        assert_eq!(code(forged), Some(ErrorCode::Forbidden), "only roles ask for others");
    }

    async fn the_directory_shows_no_contact_data(&self) {
        let parties = format!("{}/api/v1/parties", self.router_http);
        let phone = json!({
            "party_id": "phone", "party_role": "temporary",
            "notification": {"email": "alice@acme.example"},
        });
        let (status, answer) = ask("POST", &parties, &self.owner[2], Some(phone)).await;
        assert!(status < 300, "{answer}");
        for (key, known) in [(&self.owner[2], true), (&self.neighbour[2], false)] {
            let (_, listed) = ask("GET", &parties, key, None).await;
            assert!(!listed.to_string().contains("alice@"), "{listed}");
            let list = listed["parties"].as_array().expect("a list");
            let phone = list.iter().find(|party| party["party_id"] == "phone");
            assert_eq!(phone.is_some(), known, "a name is its tenant's: {listed}");
            if let Some(phone) = phone {
                assert_eq!(phone["notification"], json!({}), "offline mode shows: {phone}");
            }
        }
        let other = json!({"party_id": "phone", "party_role": "temporary"});
        let (status, answer) = ask("POST", &parties, &self.neighbour[2], Some(other)).await;
        assert!(status < 300, "a neighbour may use the name as well: {answer}");
        let claim = json!({"party_id": "a-first", "party_role": "persistent"});
        let (status, answer) = ask("POST", &parties, &self.neighbour[2], Some(claim)).await;
        assert_eq!(status, 403, "a key does not make a server party: {answer}");
    }

    async fn neighbours_stay_apart(&self) {
        let made = self.keygen().await;
        self.finish(made).await;
        let waiting = self.keygen().await;
        self.accounts_are_apart(made).await;
        self.the_coordinator_keeps_tenants_apart(waiting).await;
        self.the_router_keeps_tenants_apart(waiting).await;
        self.the_directory_shows_no_contact_data().await;
        self.finish(waiting).await;
    }
}

/// Whether a stream has nothing to say now.
trait Silent {
    fn now_or_never_is_none(self) -> bool;
}

impl<F: Future> Silent for F {
    fn now_or_never_is_none(self) -> bool {
        futures_util::FutureExt::now_or_never(self).is_none()
    }
}

#[tokio::test]
async fn neighbours_stay_apart_in_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (installation, cluster) = Installation::in_one_process(folder.path()).await;
    installation.neighbours_stay_apart().await;
    let thief = RemoteRouter::new(endpoint(&installation.router, &installation.neighbour[2]));
    let server: PartyId = "server-party-1".parse().expect("a name");
    let spied = thief.subscribe_events(&Caller::Open, &server, vec![]).await;
    assert_eq!(code(spied), Some(ErrorCode::Forbidden), "its events are its own");
    let coordinator = RemoteCoordinator::new(endpoint(
        &format!("http://{}", cluster.address("coordinator", "grpc")),
        &installation.neighbour[0],
    ));
    let sessions = coordinator.list(&Caller::Open, None, 10).await.expect("his own").items;
    assert!(sessions.is_empty());
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
    let url = format!("{}/api/v1/sessions", installation.coordinator);
    let (_, made) = ask("POST", &url, &installation.owner[0], Some(keygen)).await;
    let id = made["session_id"].as_str().expect("an id");
    let end = format!("{url}/{id}?wait=end&wait_seconds=60");
    let (_, ended) = ask("GET", &end, &installation.owner[0], None).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let address = cluster.endpoints["parties"][0]["http"].as_str().expect("an address");
    let keys = format!("http://{address}/api/v1/keys");
    for (key, count) in [(&installation.owner[0], 1), (&installation.neighbour[0], 0)] {
        let (_, held) = ask("GET", &keys, key, None).await;
        assert_eq!(held["keys"].as_array().map(Vec::len), Some(count), "{held}");
    }
}

#[tokio::test]
async fn neighbours_stay_apart_with_roles_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (installation, _roles) = Installation::with_roles_apart(folder.path()).await;
    installation.neighbours_stay_apart().await;
}

#[tokio::test]
async fn a_herd_of_keygens_costs_another_tenant_one_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    let (installation, _cluster) = Installation::in_one_process(folder.path()).await;
    let [owner, ..] = &installation.owner;
    let [neighbour, ..] = &installation.neighbour;
    let url = format!("{}/api/v1/sessions", installation.coordinator);
    let keygen = json!({
        "session_type": "keygen", "threshold_n": 3, "threshold_t": 2, "expires_in_seconds": 90,
    });
    // Until another one of its own would come too late.
    let mut herd = 0;
    loop {
        let (status, answer) = ask("POST", &url, neighbour, Some(keygen.clone())).await;
        if status == 429 {
            break;
        }
        assert_eq!(status, 201, "{answer}");
        herd += 1;
    }
    assert!(herd > 5, "{herd} are no herd");
    let (status, made) = ask("POST", &url, owner, Some(keygen)).await;
    assert_eq!(status, 201, "{made}");
    let id = made["session_id"].as_str().expect("an id");
    let end = format!("{url}/{id}?wait=end&wait_seconds=60");
    let (_, ended) = ask("GET", &end, owner, None).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let (_, sessions) = ask("GET", &format!("{url}?limit=100"), neighbour, None).await;
    let sessions = sessions["sessions"].as_array().unwrap_or_else(|| panic!("{sessions}"));
    let made = sessions.iter().filter(|session| session["status"] == "completed").count();
    assert!(made < herd / 2, "{made} of {herd} were made before one of another tenant");
}

#[tokio::test]
async fn a_system_key_belongs_to_no_tenant() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let run = async |arguments: &[&str]| {
        let line = [&["api-keys", "--data", data, "create", "--scope", "system"], arguments];
        let mut command = tokio::process::Command::new(quorate_e2e::binary());
        command.args(line.concat()).output().await.expect("it runs")
    };
    let refused = run(&["--tenant", "acme"]).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("acts on every tenant"), "{said}");
    assert!(run(&[]).await.status.success());
}

#[tokio::test]
async fn an_open_server_lets_nobody_pose_as_its_parties() {
    let (cluster, _folder) = Cluster::temporary().await;
    let parties = cluster.url("router", "/api/v1/parties");
    for number in 1..=3 {
        let name = format!("server-party-{number}");
        let posing = json!({"party_id": name, "party_role": "temporary"});
        let (status, answer) = ask("POST", &parties, "", Some(posing)).await;
        assert_eq!(status, 403, "{answer}");
    }
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
    let (status, made) = ask("POST", &url, "", Some(keygen)).await;
    assert_eq!(status, 201, "default key generation goes on: {made}");
    let event = json!({});
    let (status, _) =
        ask("POST", &format!("{parties}/server-party-1/heartbeat"), "", Some(event)).await;
    assert_eq!(status, 403);
}
