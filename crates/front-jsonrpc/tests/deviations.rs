//! Where the strict rules differ from the original's, each in both modes.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use common::{Client, Server};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// Three members of a group with a session of this kind, and the parameters of its calls.
async fn session(server: &Server, kind: &str) -> (Vec<Client>, Value, Value) {
    let (mut clients, group) = server.group(3, 1).await;
    let session = clients[0].ask("Session.create", json!([group, kind, null])).await;
    if kind == "keygen" {
        for client in &mut clients[1..] {
            client.event("sessionCreate").await;
        }
    }
    let id = session["uuid"].clone();
    (clients, group, id)
}

fn message(round: u16, sender: u16, receiver: Option<u16>) -> Value {
    json!({"round": round, "sender": sender, "receiver": receiver, "uuid": "u", "body": 1})
}

async fn settled(clients: &mut [Client]) {
    for client in clients {
        client.settle().await;
    }
}

#[tokio::test]
async fn an_unknown_session_is_called_a_session() {
    for (server, word) in [(Server::strict().await, "session"), (Server::original().await, "group")]
    {
        let (mut clients, group) = server.group(2, 1).await;
        let refusal = clients[0].refused("Session.join", json!([group, NOBODY, "keygen"])).await;
        assert_eq!(refusal, (-32603, format!("{word} {NOBODY} does not exist")));
    }
}

#[tokio::test]
async fn a_member_joins_its_full_group_again() {
    let server = Server::strict().await;
    let (mut clients, group) = server.group(2, 1).await;
    let joined = clients[1].ask("Group.join", group.clone()).await;
    assert_eq!(joined["params"], json!({"parties": 2, "threshold": 1}));
    let mut stranger = server.client().await;
    let answer = stranger.answer("Group.join", group.clone()).await;
    assert_eq!(answer["error"]["data"], "close-connection");
    assert_eq!(stranger.closed().await, 1005);

    let server = Server::original().await;
    let (mut clients, group) = server.group(2, 1).await;
    let answer = clients[1].answer("Group.join", group).await;
    assert_eq!(answer["error"]["data"], "close-connection");
    assert_eq!(clients[1].closed().await, 1005);
}

#[tokio::test]
async fn a_second_signup_gives_the_same_number_and_one_delivery() {
    for (server, number, copies) in
        [(Server::strict().await, 1, 1), (Server::original().await, 2, 2)]
    {
        let (mut clients, group, id) = session(&server, "keygen").await;
        let params = json!([group, id, "keygen"]);
        assert_eq!(clients[0].ask("Session.signup", params.clone()).await, 1);
        assert_eq!(clients[0].ask("Session.signup", params.clone()).await, number);
        let sender = clients[1].ask("Session.signup", params).await.as_u64().unwrap();
        if sender == 3 {
            // The original counts all signups, and tells the first client twice.
            for client in [0, 0, 1] {
                clients[client].event("sessionSignup").await;
            }
        }
        let message = message(1, u16::try_from(sender).unwrap(), None);
        clients[1].notify("Session.message", json!([group, id, "keygen", message])).await;
        for _ in 0..copies {
            clients[0].event("sessionMessage").await;
        }
        clients[1].settle().await;
        settled(&mut clients).await;
    }
}

#[tokio::test]
async fn a_signup_beyond_the_quorum_is_refused() {
    let server = Server::strict().await;
    let (mut clients, group, id) = session(&server, "sign").await;
    let params = json!([group, id, "sign"]);
    for client in &mut clients[..2] {
        client.ask("Session.signup", params.clone()).await;
    }
    let full = format!("session {} is full", id.as_str().unwrap());
    assert_eq!(clients[2].refused("Session.signup", params.clone()).await, (-32603, full.clone()));
    let load = json!([group, id, "sign", 3]);
    assert_eq!(clients[2].refused("Session.load", load).await, (-32603, full));
    for client in &mut clients[..2] {
        client.event("sessionSignup").await;
    }
    settled(&mut clients).await;

    let server = Server::original().await;
    let (mut clients, group, id) = session(&server, "sign").await;
    let params = json!([group, id, "sign"]);
    for client in &mut clients[..2] {
        client.ask("Session.signup", params.clone()).await;
    }
    assert_eq!(clients[2].ask("Session.signup", params).await, 3);
}

#[tokio::test]
async fn only_who_signed_up_speaks_and_under_its_own_number() {
    let server = Server::strict().await;
    let (mut clients, group, id) = session(&server, "keygen").await;
    let params = json!([group, id, "keygen"]);
    clients[0].ask("Session.signup", params.clone()).await;
    clients[1].ask("Session.signup", params).await;
    for (client, sender) in [(0, 2), (0, 9), (2, 3), (2, 1)] {
        let words = json!([group, id, "keygen", message(1, sender, None)]);
        let refusal = clients[client].refused("Session.message", words).await;
        assert_eq!(refusal, (-32603, format!("party {sender} is not valid in this context")));
    }
    let own = json!([group, id, "keygen", message(1, 1, Some(1))]);
    let refusal = clients[0].refused("Session.message", own).await.1;
    assert_eq!(refusal, "receiver 1 for peer to peer message does not exist");
    settled(&mut clients).await;

    let server = Server::original().await;
    let (mut clients, group, id) = session(&server, "keygen").await;
    clients[0].ask("Session.signup", json!([group, id, "keygen"])).await;
    let words = json!([group, id, "keygen", message(1, 9, None)]);
    clients[2].ask("Session.message", words).await;
    clients[0].event("sessionMessage").await;
}

#[tokio::test]
async fn a_number_is_mapped_by_its_owner_only() {
    for (server, strict) in [(Server::strict().await, true), (Server::original().await, false)] {
        let (mut clients, group, id) = session(&server, "sign").await;
        clients[0].ask("Session.load", json!([group, id, "sign", 2])).await;
        let params = json!([group, id, 1, 2]);
        let answer = clients[1].answer("Session.participant", params.clone()).await;
        assert_eq!(answer.get("error").is_some(), strict, "{answer}");
        clients[0].ask("Session.participant", params).await;
    }
}

#[tokio::test]
async fn a_proposal_comes_from_a_member() {
    let server = Server::strict().await;
    let (mut clients, group, id) = session(&server, "sign").await;
    let mut stranger = server.client().await;
    let params = json!([group, id, "p", "m"]);
    let (code, message) = stranger.refused("Notify.proposal", params.clone()).await;
    assert_eq!(code, -32603);
    assert!(message.starts_with("client 4 does not belong to the group"), "{message}");
    assert_eq!(clients[0].ask("Notify.proposal", params.clone()).await, Value::Null);
    let payload = json!({"message": "m", "proposalId": "p", "sessionId": id});
    for client in &mut clients[1..] {
        assert_eq!(client.event("notifyProposal").await, payload);
    }
    settled(&mut clients).await;

    let server = Server::original().await;
    let (mut clients, group, id) = session(&server, "sign").await;
    let mut stranger = server.client().await;
    stranger.ask("Notify.proposal", json!([group, id, "p", "m"])).await;
    for client in &mut clients {
        client.event("notifyProposal").await;
    }
}

#[tokio::test]
async fn the_kind_of_a_call_is_the_sessions() {
    for (server, strict) in [(Server::strict().await, true), (Server::original().await, false)] {
        let (mut clients, group, id) = session(&server, "sign").await;
        let answer = clients[1].answer("Session.join", json!([group, id, "keygen"])).await;
        assert_eq!(answer.get("error").is_some(), strict, "{answer}");
    }
}

#[tokio::test]
async fn numbers_stay_unique_after_loading() {
    for (server, last) in [(Server::strict().await, 2), (Server::original().await, 4)] {
        let (mut clients, group, id) = session(&server, "keygen").await;
        clients[0].ask("Session.load", json!([group, id, "keygen", 1])).await;
        clients[1].ask("Session.load", json!([group, id, "keygen", 3])).await;
        assert_eq!(clients[2].ask("Session.signup", json!([group, id, "keygen"])).await, last);
    }
}

#[tokio::test]
async fn who_leaves_before_the_start_leaves_its_number() {
    let server = Server::strict().await;
    let (mut clients, group, id) = session(&server, "keygen").await;
    let params = json!([group, id, "keygen"]);
    for client in &mut clients {
        if client.ask("Session.signup", params.clone()).await == 2 {
            break;
        }
    }
    clients.remove(1).leave().await;
    let mut late = server.client().await;
    late.ask("Group.join", group.clone()).await;
    assert_eq!(late.ask("Session.signup", params.clone()).await, 2);
    assert_eq!(clients[1].ask("Session.signup", params).await, 3);
    clients.push(late);
    for client in &mut clients {
        client.event("sessionSignup").await;
        client.settle().await;
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_the_connection_stays() {
    let table = [
        ("{oops", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":77}"#, -32600),
        (r#"[{"jsonrpc":"2.0","id":79,"method":"Group.join","params":"x"}]"#, -32600),
    ];
    let server = Server::strict().await;
    let mut client = server.client().await;
    for (text, code) in table {
        client.send(text).await;
        let frame = client.json().await;
        assert_eq!((&frame["error"]["code"], frame.get("id")), (&json!(code), None), "{text}");
    }
    assert_eq!(client.refused("Nope", json!([])).await.0, -32601);

    let server = Server::original().await;
    let mut client = server.client().await;
    for (text, _) in table {
        client.send(text).await;
    }
    client.settle().await;
    assert_eq!(client.refused("Nope", json!([])).await.0, -32601);
}

#[tokio::test]
async fn binary_frames_are_ignored_and_large_ones_end_the_connection() {
    let server = Server::strict().await;
    let mut client = server.client().await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"Nope"}"#;
    client.socket.send(Message::binary(call)).await.unwrap();
    client.settle().await;
    assert_eq!(server.relay.metrics().ignored, 1);
    client.send("x".repeat((1 << 20) + 1)).await;
    assert_eq!(client.closed().await, 1009);
}
