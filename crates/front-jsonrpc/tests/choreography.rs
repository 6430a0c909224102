//! A whole keygen and a whole signature as clients do them, under the strict rules.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use common::{Client, Server};
use serde_json::{Value, json};

fn message(round: u16, sender: u16, receiver: Option<u16>, body: Value) -> Value {
    json!({"round": round, "sender": sender, "receiver": receiver, "uuid": "s", "body": body})
}

async fn say(client: &mut Client, place: &[Value; 2], kind: &str, message: Value) {
    client.notify("Session.message", json!([place[0], place[1], kind, message])).await;
}

/// Everybody says something to all; everybody hears each of the others once and nobody else.
async fn broadcast_round(clients: &mut [Client], place: &[Value; 2], kind: &str, words: &[Value]) {
    for (client, words) in clients.iter_mut().zip(words) {
        say(client, place, kind, words.clone()).await;
    }
    for (own, client) in clients.iter_mut().enumerate() {
        let mut heard = Vec::new();
        for _ in 1..words.len() {
            heard.push(client.event("sessionMessage").await);
        }
        client.settle().await;
        heard.sort_by_key(|message| message["sender"].as_u64());
        let others = words.iter().enumerate().filter(|(at, _)| *at != own);
        assert_eq!(heard, others.map(|(_, words)| words.clone()).collect::<Vec<_>>());
    }
}

async fn finish(clients: &mut [Client], place: &[Value; 2], numbers: &[u16]) {
    for (client, number) in clients.iter_mut().zip(numbers) {
        client.notify("Session.finish", json!([place[0], place[1], number])).await;
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    for client in clients {
        assert_eq!(client.event("sessionClosed").await, json!(sorted));
        client.settle().await;
    }
}

async fn keygen(clients: &mut [Client], group: &Value) {
    let session = clients[0].ask("Session.create", json!([group, "keygen", null])).await;
    let place = [group.clone(), session["uuid"].clone()];
    let params = json!([place[0], place[1], "keygen"]);
    for client in &mut clients[1..] {
        assert_eq!(client.event("sessionCreate").await, session);
        assert_eq!(client.ask("Session.join", params.clone()).await, session);
    }
    let mut numbers = Vec::new();
    for client in clients.iter_mut() {
        numbers.push(client.ask("Session.signup", params.clone()).await);
    }
    assert_eq!(numbers, [json!(1), json!(2), json!(3)]);
    for client in clients.iter_mut() {
        assert_eq!(client.event("sessionSignup").await, place[1]);
    }
    for round in 1..=2 {
        let words: Vec<_> =
            (1..=3).map(|sender| message(round, sender, None, json!({"of": sender}))).collect();
        broadcast_round(clients, &place, "keygen", &words).await;
    }
    for sender in 1..=3_u16 {
        for receiver in (1..=3).filter(|receiver| *receiver != sender) {
            let words = message(3, sender, Some(receiver), json!([sender, receiver]));
            say(&mut clients[usize::from(sender) - 1], &place, "keygen", words).await;
        }
    }
    for (receiver, client) in (1..).zip(clients.iter_mut()) {
        let mut from = Vec::new();
        for _ in 0..2 {
            let heard = client.event("sessionMessage").await;
            assert_eq!(heard["body"][1], receiver);
            from.push(heard["sender"].as_u64().unwrap());
        }
        from.sort_unstable();
        assert_eq!(from, (1..=3).filter(|sender| *sender != receiver).collect::<Vec<_>>());
    }
    finish(clients, &place, &[1, 2, 3]).await;
}

/// Two of three sign. Their key indices are 1 and 3; they take numbers, then tell each other both.
async fn sign(clients: &mut [Client], group: &Value, numbers: [Option<u16>; 2]) {
    let value = json!({"message": "hi", "digest": [1, 2, 3]});
    let session = clients[0].ask("Session.create", json!([group, "sign", value])).await;
    let place = [group.clone(), session["uuid"].clone()];
    let params = json!([place[0], place[1], "sign"]);
    let joined = clients[2].ask("Session.join", params.clone()).await;
    assert_eq!(joined["value"], value);
    let (pair, outside) = signers(clients);
    let mut taken = Vec::new();
    for (client, number) in pair.iter_mut().zip(numbers) {
        let answer = match number {
            None => client.ask("Session.signup", params.clone()).await,
            Some(number) => {
                client.ask("Session.load", json!([place[0], place[1], "sign", number])).await
            }
        };
        taken.push(u16::try_from(answer.as_u64().unwrap()).unwrap());
    }
    let event = if numbers[0].is_some() { "sessionLoad" } else { "sessionSignup" };
    for client in pair.iter_mut() {
        assert_eq!(client.event(event).await, place[1]);
    }
    // Round 0: the sender is the key index, the body the number.
    let words = [message(0, 1, None, json!(taken[0])), message(0, 3, None, json!(taken[1]))];
    broadcast_round(pair, &place, "sign", &words).await;
    let mut sorted = taken.clone();
    sorted.sort_unstable();
    let index =
        |number: &u16| u16::try_from(sorted.iter().position(|n| n == number).unwrap()).unwrap() + 1;
    let indices: Vec<u16> = taken.iter().map(index).collect();
    for at in 0..2 {
        let params = json!([place[0], place[1], indices[at], taken[at]]);
        assert_eq!(pair[at].ask("Session.participant", params).await, Value::Null);
    }
    for at in 0..2 {
        let words = message(1, indices[at], Some(indices[1 - at]), json!(at));
        say(&mut pair[at], &place, "sign", words).await;
    }
    for (at, client) in pair.iter_mut().enumerate() {
        assert_eq!(client.event("sessionMessage").await["body"], 1 - at);
    }
    let words =
        [message(2, indices[0], None, json!("a")), message(2, indices[1], None, json!("b"))];
    broadcast_round(pair, &place, "sign", &words).await;
    pair[0].notify("Notify.signed", json!([place[0], place[1], {"r": 1}])).await;
    assert_eq!(outside.event("notifySigned").await, json!({"r": 1}));
    finish(pair, &place, &taken).await;
    outside.settle().await;
}

/// The first and the third client sign, the second one does not.
fn signers(clients: &mut [Client]) -> (&mut [Client], &mut Client) {
    clients.swap(1, 2);
    let (pair, rest) = clients.split_at_mut(2);
    (pair, &mut rest[0])
}

#[tokio::test]
async fn a_key_is_made_and_signs_twice() {
    let server = Server::strict().await;
    let (mut clients, group) = server.group(3, 1).await;
    keygen(&mut clients, &group).await;
    sign(&mut clients, &group, [None, None]).await;
    clients.swap(1, 2);
    sign(&mut clients, &group, [Some(3), Some(1)]).await;
}

#[tokio::test]
async fn the_original_mode_lets_the_same_pass() {
    let server = Server::original().await;
    let (mut clients, group) = server.group(3, 1).await;
    keygen(&mut clients, &group).await;
    sign(&mut clients, &group, [None, None]).await;
}
