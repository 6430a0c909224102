//! A coordinator that says there are approvals enough: every party counts for itself.

use quorate_authority::{Policy, Request};
use quorate_types::*;

use crate::authority::{Lie, Scene, authorization, lie, now, secret};

/// The initiator of the scene, an approver as well.
const OPS: u8 = 1;
const ALICE: u8 = 11;
const BOB: u8 = 12;
const STRANGER: u8 = 13;

/// Two of three approve of each signature.
fn policy() -> Policy {
    let of = [("alice", ALICE), ("bob", BOB), ("ops", OPS)];
    let approvers = of.map(|(name, seed)| format!("{name} = \"{}\"\n", secret(seed).public()));
    let text = format!(
        "version = 1\n[keygen]\n[approvers]\n{}[default]\n\
         approvals = {{ needed = 2, of = [\"alice\", \"bob\", \"ops\"] }}\n",
        approvers.concat()
    );
    Policy::read(&text).unwrap()
}

fn approved(request: &Request, by: &[u8]) -> Authorization {
    let mut signed = secret(OPS).authorize(request);
    let approval = |seed: &u8| secret(*seed).approve(&signed.request);
    signed.approvals = by.iter().map(approval).collect();
    signed
}

/// A coordinator that puts these in beside what it was given.
fn with(approvals: Vec<Approval>) -> Lie {
    lie(move |view| authorization(view, |signed| signed.approvals.extend(approvals.clone())))
}

/// A coordinator that starts a session for which a party still waits.
fn start() -> Lie {
    lie(|view| view.status = SessionStatus::InProgress)
}

#[tokio::test(start_paused = true)]
async fn a_session_that_starts_without_the_approvals_that_a_party_wants_is_refused_by_it() {
    let mut scene = Scene::new(policy()).await;
    let key = scene.keygen().await;
    assert_eq!(key.status, SessionStatus::Completed, "{:?}", key.failure);
    let other = secret(OPS).authorize(&scene.signature(&key)).request;
    for (given, claimed) in [
        (vec![], vec![]),
        (vec![ALICE], vec![]),
        (vec![ALICE, STRANGER], vec![]),
        (vec![ALICE, OPS], vec![]),
        (vec![ALICE], vec![(ALICE, None)]),
        (vec![ALICE], vec![(BOB, Some(&other))]),
    ] {
        for who in ["a", "b"] {
            let request = scene.signature(&key);
            let signed = approved(&request, &given);
            let approval = |(seed, of): &(u8, Option<&bytes::Bytes>)| {
                secret(*seed).approve(of.unwrap_or(&signed.request))
            };
            scene.tell_the_truth();
            let more = with(claimed.iter().map(approval).collect());
            scene.tell(who, EventKind::SessionCreated, &more);
            scene.tell(who, EventKind::AwaitingApproval, &more);
            scene.tell(who, EventKind::AwaitingApproval, &start());
            let ended = scene.sign(&key, Some(signed)).await.unwrap();
            assert_eq!(scene.refused(&ended), "approvals", "{who}: {given:?}, {claimed:?}");
            assert!(ended.failure.unwrap().message.starts_with(who), "{who} has refused");
        }
    }
    scene.tell_the_truth();
    let request = scene.signature(&key);
    let signed = scene.sign(&key, Some(approved(&request, &[BOB, ALICE]))).await.unwrap();
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_expires_before_it_is_approved_is_refused_at_once() {
    let mut scene = Scene::new(policy()).await;
    let key = scene.keygen().await;
    let request = Request { expires_at: now().plus_seconds(20), ..scene.signature(&key) };
    let ended = scene.sign(&key, Some(approved(&request, &[ALICE]))).await.unwrap();
    assert_eq!(scene.refused(&ended), "expiry");
    let life = ended.expires_at.millis_since(ended.created_at);
    assert!(life > 60_000, "the session would have lasted {life} ms");
}
