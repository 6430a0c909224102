//! The policy rule by rule.

use proptest::prelude::*;
use quorate_types::{Digest, KeyLabel, Secret, Threshold};

use super::*;
use crate::AuthoritySecret;
use crate::request::NamedHolder;
use crate::request::tests::sign;

/// Friday, 27 November 2026, 12:00 UTC.
const NOON: Timestamp = Timestamp(1_795_737_600_000 + 12 * 3_600_000);

fn secret(seed: u8) -> AuthoritySecret {
    AuthoritySecret::from_seed(&Secret::new([seed; 32]))
}

const KEY: &str = "550e8400-e29b-41d4-a716-446655440000";

/// A policy for the key of [`sign`] with these lines in its rule.
fn policy(lines: &str) -> Policy {
    let [alice, bob, carol] = [11, 12, 13].map(|seed| secret(seed).public().to_string());
    let text = format!(
        "version = 1\n[approvers]\nalice = \"{alice}\"\nbob = \"{bob}\"\ncarol = \"{carol}\"\n\
         [keys.treasury]\nids = [\"{KEY}\"]\n{lines}\n"
    );
    Policy::read(&text).unwrap()
}

fn verified(request: Request) -> Verified {
    Verified { initiator: "payments".to_owned(), request }
}

fn decide(policy: &Policy, request: Request, used: &[Timestamp], approvers: &[u8]) -> Decision {
    let mut authorization = secret(1).authorize(&request);
    let approvals = approvers.iter().map(|seed| secret(*seed).approve(&authorization.request));
    authorization.approvals = approvals.collect();
    let since = |from: Timestamp| used.iter().filter(|at| **at > from).count() as u64;
    let used = Use { total: used.len() as u64, since: &since };
    policy.decide(NOON, &verified(request), &authorization, &used, None, false)
}

fn rule(lines: &str, request: Request) -> Option<Rule> {
    match decide(&policy(lines), request, &[], &[]) {
        Decision::Deny(denial) => Some(denial.rule),
        _ => None,
    }
}

fn keygen(identity: Option<[u8; 32]>) -> Request {
    let holder = |name: &str| NamedHolder { party_id: name.parse().unwrap(), identity };
    let action = Action::Keygen {
        scheme: Scheme::Ed25519,
        threshold: Threshold::new(2, 2).unwrap(),
        holders: vec![holder("a"), holder("b")],
        label: None,
    };
    Request { action, ..sign() }
}

#[test]
fn each_rule_refuses_by_its_name() {
    assert_eq!(rule("", sign()), None);
    assert_eq!(rule("deny = true", sign()), Some(Rule::Denied));
    assert_eq!(rule("initiators = [\"payments\"]", sign()), None);
    assert_eq!(rule("initiators = [\"ops\"]", sign()), Some(Rule::Initiator));
    assert_eq!(rule("schemes = [\"ecdsa-secp256k1\"]", sign()), None);
    assert_eq!(rule("schemes = [\"ed25519\"]", sign()), Some(Rule::Scheme));
    assert_eq!(rule("hours = [\"mon-fri 08:00-18:00\"]", sign()), None);
    assert_eq!(rule("hours = [\"sat 08:00-18:00\"]", sign()), Some(Rule::Hours));
    assert_eq!(rule("digests = false", sign()), Some(Rule::Digests));
    let mut message = sign();
    if let Action::Sign { input, .. } = &mut message.action {
        *input = RequestedInput::Message([1; 32]);
    }
    assert_eq!(rule("digests = false", message), None);
}

#[test]
fn another_key_and_a_keygen_get_what_is_said_of_them() {
    let mut other = sign();
    if let Action::Sign { key_id, .. } = &mut other.action {
        *key_id = "550e8400-e29b-41d4-a716-446655440001".parse().unwrap();
    }
    let decided = |text: &str, request: Request| {
        let policy = Policy::read(&format!("version = 1\n{text}")).unwrap();
        match decide(&policy, request, &[], &[]) {
            Decision::Deny(denial) => Err(denial.rule),
            decision => Ok(decision),
        }
    };
    assert_eq!(rule("", other.clone()), Some(Rule::Denied), "nothing is said of it");
    assert_eq!(decided("otherwise = \"allow\"", other.clone()), Ok(Decision::Allow));
    assert_eq!(decided("[default]\ndigests = false", other.clone()), Err(Rule::Digests));
    assert_eq!(decided("[default]", keygen(Some([1; 32]))), Ok(Decision::Allow));
    assert_eq!(decided("[default]", keygen(None)), Err(Rule::Holders));
    let unidentified = "[keygen]\nunidentified_holders = true";
    assert_eq!(decided(unidentified, keygen(None)), Ok(Decision::Allow));
    assert_eq!(decided(unidentified, other), Err(Rule::Denied));
    assert_eq!(decided("[keygen]\ndeny = true\n[default]", keygen(None)), Err(Rule::Denied));
    let authorization = secret(1).authorize(&keygen(None));
    let used = Use { total: 0, since: &|_| 0 };
    let permissive = Policy::permissive();
    let request = verified(keygen(None));
    let decision = permissive.decide(NOON, &request, &authorization, &used, None, false);
    assert_eq!(decision, Decision::Allow);
}

#[test]
fn rates_count_a_span_that_ends_now_and_counts_everything() {
    let ago = |millis: i64| Timestamp(NOON.0 - millis);
    let denied = |lines: &str, used: &[Timestamp]| match decide(&policy(lines), sign(), used, &[]) {
        Decision::Deny(denial) => Some(denial.rule),
        _ => None,
    };
    let two = "rate = [\"2/minute\", \"3/day\"]";
    assert_eq!(denied(two, &[ago(1)]), None);
    assert_eq!(denied(two, &[ago(59_999), ago(1)]), Some(Rule::Rate));
    assert_eq!(denied(two, &[ago(60_000), ago(1)]), None);
    assert_eq!(denied(two, &[ago(86_399_999), ago(60_000), ago(1)]), Some(Rule::Rate));
    assert_eq!(denied("count = 2", &[ago(1)]), None);
    assert_eq!(denied("count = 2", &[ago(i64::MAX / 4), ago(1)]), Some(Rule::Count));
}

#[test]
fn approvals_count_once_each_of_those_who_are_named_and_not_the_initiator() {
    let lines = "approvals = { needed = 2, of = [\"alice\", \"bob\"] }";
    let given = |approvers: &[u8]| decide(&policy(lines), sign(), &[], approvers);
    let awaited = |given| Decision::AwaitApproval { needed: 2, given };
    assert_eq!(given(&[]), awaited(0));
    assert_eq!(given(&[11, 11]), awaited(1));
    assert_eq!(given(&[11, 13, 14]), awaited(1), "carol is not named by the rule");
    assert_eq!(given(&[11, 12]), Decision::Allow);

    let policy = policy(lines);
    let mut authorization = secret(11).authorize(&sign());
    authorization.approvals =
        [11, 12].map(|seed| secret(seed).approve(&authorization.request)).to_vec();
    let used = Use { total: 0, since: &|_| 0 };
    let request = verified(sign());
    let own = policy.decide(NOON, &request, &authorization, &used, None, false);
    assert_eq!(own, awaited(1), "an initiator does not approve its own request");

    let mut authorization = secret(1).authorize(&sign());
    let other = Request { nonce: [1; 16], ..sign() }.encode();
    authorization.approvals = [11, 12].map(|seed| secret(seed).approve(&other)).to_vec();
    let other = policy.decide(NOON, &request, &authorization, &used, None, false);
    assert_eq!(other, awaited(0), "approvals of another request are none of this one");
}

#[test]
fn the_callback_is_asked_last_and_once() {
    let policy = policy(
        "callback = { url = \"https://policy.example/ask\", deadline_seconds = 3 }\n\
         approvals = { needed = 1, of = [\"alice\"] }",
    );
    let awaited = Decision::AwaitApproval { needed: 1, given: 0 };
    assert_eq!(decide(&policy, sign(), &[], &[]), awaited);
    let callback =
        Callback { url: "https://policy.example/ask".into(), deadline: Duration::from_secs(3) };
    assert_eq!(decide(&policy, sign(), &[], &[11]), Decision::AskCallback(callback));
    let mut authorization = secret(1).authorize(&sign());
    authorization.approvals = vec![secret(11).approve(&authorization.request)];
    let used = Use { total: 0, since: &|_| 0 };
    let decision = policy.decide(NOON, &verified(sign()), &authorization, &used, None, true);
    assert_eq!(decision, Decision::Allow);
}

#[test]
fn what_is_wrong_in_a_policy_is_named_with_its_line() {
    let rule = format!("version = 1\n[keys.a]\nids = [\"{KEY}\"]\n");
    let approver = format!("[approvers]\nalice = \"{}\"\n", secret(11).public());
    for (line, names, text) in [
        (1, "version", String::new()),
        (1, "version 1", "version = 2".to_owned()),
        (2, "unknown field `colour`", "version = 1\ncolour = 1".to_owned()),
        (2, "deny", "version = 1\notherwise = \"maybe\"".to_owned()),
        (3, "ids", "version = 1\n\n[keys.a]".to_owned()),
        (3, "key_id", "version = 1\n[keys.a]\nids = [\"nothing\"]".to_owned()),
        (4, "unknown field `hour`", format!("{rule}hour = []")),
        (4, "mon-fri", format!("{rule}hours = [\"always\"]")),
        (4, "10/hour", format!("{rule}rate = [\"10 an hour\"]")),
        (4, "deny = true", format!("{rule}rate = [\"0/hour\"]")),
        (4, "scheme is one of", format!("{rule}schemes = [\"rsa\"]")),
        (4, "none of [approvers]", format!("{rule}approvals = {{ needed = 1, of = [\"eve\"] }}")),
        (
            6,
            "1 to 1",
            format!("{rule}approvals = {{ needed = 2, of = [\"alice\"] }}\n{approver}").replacen(
                "approvals",
                "\n\napprovals",
                1,
            ),
        ),
        (4, "https", format!("{rule}callback = {{ url = \"http://policy.example\" }}")),
        (4, "https", format!("{rule}callback = {{ url = \"http://127.0.0.1.evil.example\" }}")),
        (3, "PEM", "version = 1\n[initiators]\nops = \"nobody\"".to_owned()),
        (4, "two rules", format!("{rule}[keys.b]\nids = [\"{KEY}\"]")),
        (
            4,
            "two rules",
            "version = 1\n[keys.a]\nlabels = [\"x\"]\n[keys.b]\nlabels = [\"x\"]".to_owned(),
        ),
        (3, "label", "version = 1\n[keys.a]\nlabels = [\"two words\"]".to_owned()),
        (2, "", "version = 1\n[".to_owned()),
    ] {
        let error = Policy::read(&text).unwrap_err();
        let expected = format!("line {line} of the policy");
        assert!(error.message.starts_with(&expected), "{text:?}: {}", error.message);
        assert!(error.message.contains(names), "{text:?}: {}", error.message);
    }
    let local = format!("{rule}callback = {{ url = \"http://127.0.0.1:9/ask\" }}");
    assert!(Policy::read(&local).is_ok());
}

#[test]
fn a_key_may_name_its_rule_itself_and_initiators_must_be_known() {
    let text = format!("version = 1\n[keys.\"{KEY}\"]\ninitiators = [\"payments\"]");
    let policy = Policy::read(&text).unwrap();
    assert_eq!(decide(&policy, sign(), &[], &[]), Decision::Allow);
    let mut known = Initiators::default();
    let refused = policy.check_initiators(&known).unwrap_err();
    assert!(refused.message.contains("payments"), "{refused}");
    known.pin("payments", secret(1).public().clone()).unwrap();
    assert!(policy.check_initiators(&known).is_ok());
}

fn entry() -> impl Strategy<Value = Entry> {
    let names = || proptest::option::of(proptest::collection::vec("[ab]", 0..3));
    let schemes = proptest::option::of(proptest::collection::vec(
        proptest::sample::select(Scheme::ALL),
        0..2,
    ));
    let limits = (proptest::option::of(0_u64..4), 0_u32..4);
    (any::<bool>(), names(), schemes, limits, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(deny, initiators, schemes, (count, rate), digests, approved, asked)| Entry {
            name: "e".to_owned(),
            ids: vec![KEY.parse().unwrap()],
            labels: Vec::new(),
            deny,
            initiators,
            schemes,
            hours: Vec::new(),
            rates: (rate > 0)
                .then_some(Rate { count: rate, per: Period::Hour })
                .into_iter()
                .collect(),
            count,
            digests,
            unidentified_holders: false,
            approvals: approved.then(|| Approvals {
                needed: 1,
                of: vec![("alice".to_owned(), secret(11).public().clone())],
            }),
            callback: asked.then(|| Callback {
                url: "https://x".to_owned(),
                deadline: Duration::from_secs(1),
            }),
        },
    )
}

proptest! {
    /// Against the rules written out another way: allowed is what meets every condition.
    #[test]
    fn allowed_is_what_meets_every_condition(
        entry in entry(), initiator in "[abc]", total in 0_u64..5, approved in any::<bool>(),
        confirmed in any::<bool>(), message in any::<bool>(),
    ) {
        let policy = Policy { keys: vec![entry.clone()], ..Policy::default() };
        let mut request = sign();
        if let (Action::Sign { input, .. }, true) = (&mut request.action, message) {
            *input = RequestedInput::Message([1; 32]);
        }
        let mut authorization = secret(1).authorize(&request);
        if approved {
            authorization.approvals = vec![secret(11).approve(&authorization.request)];
        }
        let verified = Verified { initiator: initiator.clone(), request };
        let used = Use { total, since: &|_| total };
        let decision = policy.decide(NOON, &verified, &authorization, &used, None, confirmed);
        let meets = !entry.deny
            && entry.initiators.as_ref().is_none_or(|all| all.contains(&initiator))
            && entry.schemes.as_ref().is_none_or(|all| all.contains(&Scheme::EcdsaSecp256k1))
            && (message || entry.digests)
            && entry.count.is_none_or(|count| total < count)
            && entry.rates.iter().all(|rate| total < u64::from(rate.count));
        let awaited = entry.approvals.is_some() && !approved;
        match decision {
            Decision::Deny(_) => prop_assert!(!meets),
            Decision::AwaitApproval { .. } => prop_assert!(meets && awaited),
            Decision::AskCallback(_) => {
                prop_assert!(meets && !awaited && entry.callback.is_some() && !confirmed);
            }
            Decision::Allow => {
                prop_assert!(meets && !awaited && (entry.callback.is_none() || confirmed));
            }
        }
    }
}

#[test]
fn a_request_with_a_digest_is_named_by_what_it_signs() {
    let input = RequestedInput::of(&quorate_types::SignInput::Message(b"pay".as_slice().into()));
    assert!(matches!(input, RequestedInput::Message(_)));
    let digest = RequestedInput::of(&quorate_types::SignInput::Digest(Digest([7; 32])));
    assert_eq!(digest, RequestedInput::Digest(Digest([7; 32])));
}

#[test]
fn a_rule_by_label_is_about_keys_of_that_label_that_no_rule_names_by_id() {
    let text = format!(
        "version = 1\n[keys.one]\nids = [\"{KEY}\"]\n[keys.cold]\nlabels = [\"cold\", \"vault\"]\n\
         [default]\n"
    );
    let policy = Policy::read(&text).unwrap();
    let mut other = sign();
    if let Action::Sign { key_id, .. } = &mut other.action {
        *key_id = "550e8400-e29b-41d4-a716-446655440099".parse().unwrap();
    }
    let label = |label: &str| label.parse::<KeyLabel>().unwrap();
    let entry = |request: &Request, label: Option<KeyLabel>| {
        policy.entry(request, label.as_ref()).map(|entry| entry.name.clone()).unwrap()
    };
    assert_eq!(entry(&other, Some(label("cold"))), "cold");
    assert_eq!(entry(&other, Some(label("vault"))), "cold");
    assert_eq!(entry(&other, Some(label("hot"))), "default");
    assert_eq!(entry(&other, None), "default");
    assert_eq!(entry(&sign(), Some(label("cold"))), "one", "the id comes first");
}
