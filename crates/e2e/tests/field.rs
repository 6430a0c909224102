//! What common clients send, and what they get: inputs that users of such systems report.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use quorate_e2e::{Cluster, binary, call, quiet};
use quorate_ports::{Deliver as _, ReadMessages as _};
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::RemoteRouter;
use quorate_types::*;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Posts a body as it is.
async fn post(url: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = reqwest::Client::new().post(url).header("content-type", "application/json");
    let answer = request.body(body).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn bodies_of_common_clients_are_read_and_lists_are_no_objects() {
    let (cluster, _folder) = Cluster::temporary().await;
    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    let keygen = r#"{"session_type":"keygen","threshold_n":3,"threshold_t":2,"participants":null,"replace":null,"label":null}"#;
    let (status, answer) = post(&sessions, keygen).await;
    assert_eq!(status, 201, "what Go sends for an empty list: {answer}");
    let (status, answer) = post(&sessions, format!("\u{feff}{keygen}")).await;
    assert_eq!(status, 201, "a byte order mark: {answer}");
    for list in [
        r#"["keygen",3,2]"#,
        "[]",
        r#"{"session_type":"keygen","threshold_n":2,"threshold_t":2,"participants":[["a"],["b"]]}"#,
    ] {
        let (status, answer) = post(&sessions, list).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")), "{list}");
        assert!(answer["message"].as_str().unwrap().contains("expected an object"), "{answer}");
    }
    let blank = format!(r#"{{"session_type":"sign","message_hash":"{} 0"}}"#, "09".repeat(31));
    let (status, answer) = post(&sessions, blank).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().contains("' ' is not a hex digit"), "{answer}");
}

#[tokio::test]
async fn accounts_of_one_person_are_one() {
    let (cluster, _folder) = Cluster::temporary().await;
    let accounts = cluster.url("accounts", "/api/v1/accounts");
    let create = |name: &str, email: &str| {
        let body = json!({ "username": name, "email": email });
        let accounts = accounts.clone();
        async move { call("POST", &accounts, Some(&body)).await }
    };
    let (status, made) = create(" Jose\u{301} ", "frank@example.com").await;
    assert_eq!((status, &made["username"]), (201, &json!("Jos\u{e9}")), "{made}");
    for (name, email, field) in [
        ("JOS\u{c9}", "a@example.com", "username"),
        ("u6", " Frank@example.com", "email"),
        ("u6", "frank@EXAMPLE.com\t", "email"),
    ] {
        let (status, answer) = create(name, email).await;
        assert_eq!((status, &answer["error"]), (409, &json!("conflict")), "{answer}");
        assert!(answer["details"][field].is_string(), "{answer}");
    }
    for (name, email, field) in [
        ("a\u{202e}b", "b@example.com", "username"),
        ("zero\u{200b}width", "b@example.com", "username"),
        ("u7", "b c@example.com", "email"),
    ] {
        let (status, answer) = create(name, email).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")), "{answer}");
        assert!(answer["details"][field].is_string(), "{answer}");
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The text of the next frame.
async fn next(socket: &mut Socket) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(10), socket.next()).await;
    let frame = frame.expect("in time").expect("a frame").expect("readable");
    frame.into_text().expect("text").to_string()
}

#[tokio::test]
async fn the_group_relay_carries_numbers_as_they_were_written() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = format!("ws://{}/mpc", cluster.endpoints["jsonrpc"].as_str().unwrap());
    let (mut one, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let (mut two, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let text = |text: String| Frame::Text(text.into());
    let id = "123456789012345678901234567890";
    let create = format!(
        r#"{{"id":{id},"method":"Group.create","params":["g",{{"parties":2,"threshold":1}}]}}"#
    );
    one.send(text(format!("\u{feff}{create}"))).await.unwrap();
    let answer = next(&mut one).await;
    assert!(answer.contains(&format!(r#""id":{id},"result""#)), "{answer}");
    let group = answer.rsplit('"').nth(1).unwrap().to_owned();
    two.send(text(format!(r#"{{"id":1,"method":"Group.join","params":"{group}"}}"#)))
        .await
        .unwrap();
    next(&mut two).await;
    let value = r#"{"z":1e400,"f":0.1000000000000000055511151231257827,"n":-123456789012345678901234567890}"#;
    let sorted = r#"{"f":0.1000000000000000055511151231257827,"n":-123456789012345678901234567890,"z":1e400}"#;
    let call =
        format!(r#"{{"id":2,"method":"Session.create","params":["{group}","keygen",{value}]}}"#);
    one.send(text(call)).await.unwrap();
    assert!(next(&mut one).await.contains(sorted));
    assert!(next(&mut two).await.contains(sorted));
    // A message's parts as a list are no message.
    let list = format!(
        r#"{{"id":3,"method":"Session.message","params":["{group}","{group}","keygen",[1,null,1,1,"u"]]}}"#
    );
    one.send(text(list)).await.unwrap();
    assert!(next(&mut one).await.contains("-32602"));
    one.send(text(r#"["Group.create"]"#.to_owned())).await.unwrap();
    assert!(next(&mut one).await.contains("-32600"));
}

#[tokio::test]
async fn what_waits_is_polled_in_pages_that_fit() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let body = json!({ "session_type": "keygen", "threshold_n": 2, "threshold_t": 2,
                       "participants": [{ "party_id": "a" }, { "party_id": "b" }] });
    let (status, created) = call("POST", &url, Some(&body)).await;
    assert_eq!(status, 201, "{created}");
    let session: SessionId = created["session_id"].as_str().unwrap().parse().unwrap();
    for party in ["a", "b"] {
        let join = json!({ "party_id": party, "join_token": created["join_tokens"][party] });
        let (status, joined) = call("POST", &format!("{url}/join"), Some(&join)).await;
        assert_eq!(status, 200, "{joined}");
    }
    let endpoint = format!("http://{}", cluster.address("router", "grpc"));
    let router = RemoteRouter::new(Endpoint::new(&endpoint, None).unwrap());
    let (a, b): (PartyId, PartyId) = ("a".parse().unwrap(), "b".parse().unwrap());
    for round in 0..8 {
        let request = RouteRequest {
            session_id: session,
            from_party: a.clone(),
            to_parties: vec![b.clone()],
            round,
            message_type: String::new(),
            payload: vec![7; 900 << 10].into(),
            acknowledges: Vec::new(),
            patient: false,
        };
        router.route(&Caller::Open, request).await.unwrap();
    }
    let (mut got, mut after) = (Vec::new(), Timestamp(0));
    loop {
        let page = router.pending(&Caller::Open, session, &b, after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.created_at;
        got.extend(page.iter().map(|message| message.round));
    }
    assert_eq!(got, (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn verify_takes_signatures_as_other_programs_write_them() {
    let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let r = "531fe6068134503d2723133227c867ac8fa6c83c537e9a44c3c5bdbdcb1fe337";
    let s = "63aad8a2883166ea471c692a85986eafa70705a414997149ec16268c91fd7a02";
    let compact = hex::decode(format!("{r}{s}")).unwrap();
    let der = k256::ecdsa::Signature::from_slice(&compact).unwrap().to_der();
    let answer = |signature: String, digest: String| async move {
        let mut command = Command::new(binary());
        command.args(["verify", "--json", "-k", key, "-s", &signature, "--digest", &digest]);
        let output = quiet(command).output().await.expect("it starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).expect("text"))
    };
    let digest = "09".repeat(32);
    let (valid, shown) = answer(format!("{r}{s}"), digest.clone()).await;
    assert!(valid, "{shown}");
    let id = serde_json::from_str::<Value>(&shown).unwrap()["recovery_id"].as_u64().unwrap();
    for signature in [
        format!("0x{r}{s}{:02x}", id + 27),
        format!("{r}{s}{id:02x}"),
        format!("{r}||{s}"),
        format!("0x{r}||0x{s}"),
        hex::encode(der.as_bytes()),
    ] {
        let (valid, shown) = answer(signature.clone(), digest.clone()).await;
        assert!(valid, "{signature}: {shown}");
    }
    for signature in [format!("{r}{s}{:02x}", 28 - id), format!("{s}||{r}")] {
        let (valid, shown) = answer(signature.clone(), digest.clone()).await;
        assert!(!valid && shown.contains("does not verify"), "{signature}: {shown}");
    }
}
