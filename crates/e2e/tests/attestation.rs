//! Keys as their creator verifies them: against what their holders signed, not what a coordinator
//! says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_e2e::{Cluster, binary, last_json, quiet};
use quorate_front_grpc::{Services, routes};
use quorate_ports::{ManageSessions, NoteProgress, ReadNotifications, ReadSession, TakePart};
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::RemoteCoordinator;
use quorate_types::*;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

/// A command of a user with this state folder.
async fn quorate(state: &Path, coordinator: &str, arguments: &[&str]) -> (bool, Value) {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--json", "--coordinator", coordinator]);
    let output = quiet({
        command.env("XDG_STATE_HOME", state);
        command
    })
    .output()
    .await
    .expect("it starts");
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    (output.status.success(), serde_json::from_slice(&text).expect("one line of JSON"))
}

fn grpc(cluster: &Cluster) -> String {
    format!("http://{}", cluster.address("coordinator", "grpc"))
}

/// What `up` tells of its parties, as NAME=HEX.
fn identities(cluster: &Cluster) -> Vec<String> {
    let home = std::env::var("HOME").expect("a home folder");
    let state = std::env::var("XDG_STATE_HOME").unwrap_or_else(|_| format!("{home}/.local/state"));
    let port = cluster.address("coordinator", "grpc").port();
    let text = std::fs::read(format!("{state}/quorate/local-peers/{port}.json")).expect("written");
    let document: Value = serde_json::from_slice(&text).expect("JSON");
    let pair = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().expect("text").to_owned();
        format!("{}={}", text("name"), text("identity"))
    };
    document["peers"].as_array().expect("a list").iter().map(pair).collect()
}

#[tokio::test]
async fn a_key_is_verified_by_the_identities_that_its_creator_knows() {
    let (cluster, folder) = Cluster::temporary().await;
    let coordinator = grpc(&cluster);
    let state = folder.path().join("state");
    let ask = async |arguments: &[&str]| quorate(&state, &coordinator, arguments).await;

    let (ok, made) = ask(&["keygen"]).await;
    assert_eq!((ok, &made["verified"]), (false, &json!(false)), "nobody is known: {made}");
    let key = made["key_id"].as_str().expect("an id");
    let (ok, told) = ask(&["keys", "verify", key]).await;
    assert_eq!((ok, &told["verdict"]), (false, &json!("unverified")));
    let reason = told["reason"].as_str().expect("words");
    assert!(reason.contains("server-party-1, server-party-2, server-party-3"), "{reason}");

    let known = identities(&cluster);
    let add = async |peers: &[String]| {
        let mut command = Command::new(binary());
        command.args(["peers", "add", "--json"]).args(peers).env("XDG_STATE_HOME", &state);
        assert!(last_json(command).await.0);
    };
    add(&known).await;
    let (ok, told) = ask(&["keys", "verify", key]).await;
    assert_eq!((ok, &told["verdict"]), (true, &json!("verified")), "{told}");
    let (ok, made) = ask(&["keygen"]).await;
    assert_eq!((ok, &made["verified"]), (true, &json!(true)), "{made}");

    let other = folder.path().join("other.json");
    let peers =
        json!({"version": 1, "peers": [{"name": "server-party-2", "identity": "07".repeat(32)}]});
    std::fs::write(&other, peers.to_string()).expect("written");
    let other = ["--peers", other.to_str().expect("text")];
    let (ok, told) = ask(&[&["keys", "verify", key][..], &other].concat()).await;
    assert_eq!((ok, &told["verdict"]), (false, &json!("false")), "{told}");
    assert!(told["reason"].as_str().expect("words").contains("server-party-2"), "{told}");
}

/// The key as a coordinator shows it that lies.
type Lie = fn(&mut KeyView);

/// Forwards everything, and changes each key on its way back.
struct Liar(RemoteCoordinator, Lie);

#[async_trait]
impl ReadSession for Liar {
    async fn status(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        self.0.status(caller, session, wait).await
    }
}

#[async_trait]
impl TakePart for Liar {
    async fn join(&self, caller: &Caller, request: JoinSession) -> Result<JoinedSession> {
        self.0.join(caller, request).await
    }

    async fn ready(&self, _: &Caller, _: SessionId, _: &PartyId) -> Result<ReadyCount> {
        Err(Error::internal())
    }

    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView> {
        self.0.complete(caller, report).await
    }

    async fn submit_share(&self, caller: &Caller, submitted: SubmitShare) -> Result<()> {
        self.0.submit_share(caller, submitted).await
    }

    async fn fetch_share(&self, caller: &Caller, asked: FetchShare) -> Result<DelegatedShare> {
        self.0.fetch_share(caller, asked).await
    }

    async fn confirm_share(&self, caller: &Caller, asked: FetchShare) -> Result<()> {
        self.0.confirm_share(caller, asked).await
    }
}

#[async_trait]
impl ManageSessions for Liar {
    async fn create(&self, caller: &Caller, request: CreateSession) -> Result<CreatedSession> {
        self.0.create(caller, request).await
    }

    async fn start(&self, caller: &Caller, session: SessionId) -> Result<SessionView> {
        self.0.start(caller, session).await
    }

    async fn close(&self, caller: &Caller, session: SessionId) -> Result<SessionView> {
        self.0.close(caller, session).await
    }

    async fn approve(
        &self,
        caller: &Caller,
        session: SessionId,
        approval: Approval,
    ) -> Result<SessionView> {
        self.0.approve(caller, session, approval).await
    }

    async fn timeline(&self, caller: &Caller, session: SessionId) -> Result<Timeline> {
        self.0.timeline(caller, session).await
    }

    async fn list(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionView>> {
        self.0.list(caller, before, limit).await
    }

    async fn freeze(&self, caller: &Caller, key: KeyId, reason: String) -> Result<KeyView> {
        self.0.freeze(caller, key, reason).await
    }

    async fn unfreeze(&self, caller: &Caller, key: KeyId) -> Result<KeyView> {
        self.0.unfreeze(caller, key).await
    }

    async fn key(&self, caller: &Caller, key: KeyId) -> Result<KeyView> {
        let mut view = self.0.key(caller, key).await?;
        (self.1)(&mut view);
        Ok(view)
    }

    async fn keys(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>> {
        self.0.keys(caller, before, limit).await
    }
}

#[async_trait]
impl ReadNotifications for Liar {
    async fn notifications(
        &self,
        caller: &Caller,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>> {
        self.0.notifications(caller, state, before, limit).await
    }
}

#[async_trait]
impl NoteProgress for Liar {
    async fn progress(&self, _: SessionId, _: &PartyId, _: i32) {}
}

/// A coordinator in front of the real one that tells this lie.
async fn liar(honest: &str, lie: Lie) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let honest = RemoteCoordinator::new(Endpoint::new(honest, None).expect("an address"));
    let services =
        Services { coordinator: Some(Arc::new(Liar(honest, lie))), ..Services::default() };
    let app = routes(services).await.layer(axum::Extension(Caller::Open));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn change(view: &mut KeyView, change: impl FnOnce(&mut KeyEpoch)) {
    change(Arc::make_mut(&mut view.record.key));
}

#[tokio::test]
async fn a_creator_refuses_a_key_that_a_coordinator_has_swapped() {
    let (cluster, folder) = Cluster::temporary().await;
    let state = folder.path().join("state");
    let mut command = Command::new(binary());
    command.args(["peers", "add", "--json"]).args(identities(&cluster));
    assert!(
        last_json({
            command.env("XDG_STATE_HOME", &state);
            command
        })
        .await
        .0
    );
    let lies: [(&str, Lie); 5] = [
        ("public key", |view| {
            change(view, |key| key.public_key = PublicKey([&[4][..], &[9; 64]].concat()))
        }),
        ("2-of-2", |view| {
            change(view, |key| {
                key.threshold = Threshold::new(2, 2).expect("a threshold");
                key.holders.truncate(2);
            })
        }),
        ("not signed by all", |view| change(view, |key| key.holders.reverse())),
        ("another session", |view| {
            change(view, |key| {
                key.key_id = "550e8400-e29b-41d4-a716-446655440000".parse().expect("an id")
            })
        }),
        ("not signed by all", |view| {
            let attestation = view.epochs[0].attestation.as_mut().expect("one");
            attestation.confirmations[5] ^= 1;
        }),
    ];
    for (named, lie) in lies {
        let coordinator = liar(&grpc(&cluster), lie).await;
        let (ok, refused) = quorate(&state, &coordinator, &["keygen"]).await;
        assert!(!ok, "{refused}");
        let message = refused["message"].as_str().unwrap_or_else(|| panic!("{named}: {refused}"));
        assert!(
            message.contains("do not use key") && message.contains(named),
            "{named}: {message}"
        );
    }
    let (ok, made) = quorate(&state, &liar(&grpc(&cluster), |_| ()).await, &["keygen"]).await;
    assert!(ok && made["verified"] == json!(true), "the same way without a lie: {made}");
}
