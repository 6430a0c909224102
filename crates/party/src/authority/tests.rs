//! A party's authority on its own: replay, counts over a restart, a start that differs.

use quorate_authority::{Action, AuthoritySecret, Request, RequestedInput, Signers};
use quorate_engine::{Identity, SealKey};

use super::*;
use crate::{MemoryLedger, MemoryVault};

const NOW: Timestamp = Timestamp(1_000_000);

fn now() -> Timestamp {
    NOW
}

fn secret(seed: u8) -> AuthoritySecret {
    AuthoritySecret::from_seed(&Secret::new([seed; 32]))
}

fn keyring() -> Keyring {
    let seal = SealKey::from_bytes(Secret::new([7; 32]));
    Keyring::new("a".parse().unwrap(), Identity::generate(), seal, Arc::<MemoryVault>::default())
}

fn rules(policy: &str) -> Rules {
    let mut initiators = Initiators::default();
    initiators.pin("ops", secret(1).public().clone()).unwrap();
    Rules::new(initiators, Policy::read(&format!("version = 1\n{policy}")).unwrap()).unwrap()
}

async fn authority(policy: &str, ledger: &Arc<MemoryLedger>) -> Authority {
    let (rules, ledger) = (rules(policy), ledger.clone());
    let callback = Arc::new(NoCallback);
    Authority::open(AuthorityParts { rules, ledger, callback, now }).await.unwrap()
}

fn key() -> Arc<KeyEpoch> {
    Arc::new(KeyEpoch {
        key_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
        epoch: 0,
        scheme: Scheme::EcdsaSecp256k1,
        threshold: Threshold::new(2, 2).unwrap(),
        public_key: PublicKey(vec![4; 65]),
        holders: vec!["a".parse().unwrap(), "b".parse().unwrap()],
    })
}

fn record(label: Option<&str>) -> KeyRecord {
    let label = label.map(|label| label.parse().unwrap());
    KeyRecord { key: key(), tenant: Tenant::default(), created_at: NOW, label, frozen: None }
}

fn request(nonce: u8) -> Request {
    Request {
        action: Action::Sign {
            key_id: key().key_id,
            epoch: 0,
            scheme: Scheme::EcdsaSecp256k1,
            public_key: key().public_key.clone(),
            input: RequestedInput::Digest(Digest([3; 32])),
            path: Vec::new(),
            signers: Signers::Any,
        },
        expires_at: NOW.plus_seconds(60),
        nonce: [nonce; 16],
        purpose: String::new(),
    }
}

fn view(session: u128, request: &Request) -> SessionView {
    let seat = |(index, name): (u16, &str)| ParticipantView {
        party_id: name.parse().unwrap(),
        party_index: PartyIndex(index),
        status: ParticipantStatus::Waiting,
        device: DeviceInfo::default(),
        handshake: None,
        on_behalf_of: None,
    };
    SessionView {
        session_id: SessionId(uuid::Uuid::from_u128(session)),
        tenant: Tenant::default(),
        ceremony: Ceremony::Sign { key: key(), input: SignInput::Digest(Digest([3; 32])) },
        status: SessionStatus::Created,
        participants: [(0, "a"), (1, "b")].map(seat).to_vec(),
        attempt: 0,
        replaced: Vec::new(),
        authorization: Some(Arc::new(secret(1).authorize(request))),
        outcome: None,
        failure: None,
        created_at: NOW,
        expires_at: NOW.plus_seconds(60),
    }
}

fn rule(authority: &Authority, view: &SessionView) -> Option<Rule> {
    match authority.check(&keyring(), view, Some(&record(None)), false) {
        Verdict::Denied(denial) => Some(denial.rule),
        _ => None,
    }
}

#[tokio::test]
async fn a_policy_by_label_goes_by_what_the_party_has_kept() {
    let policy = "otherwise = \"allow\"\n[keys.treasury]\nlabels = [\"treasury\"]\ndeny = true";
    let authority = authority(policy, &Arc::default()).await;
    let mut nonce = 0;
    let mut refused = |label| {
        nonce += 1;
        let view = view(nonce.into(), &request(nonce));
        match authority.check(&keyring(), &view, Some(&record(label)), false) {
            Verdict::Denied(denial) => Some(denial.rule),
            _ => None,
        }
    };
    assert_eq!(refused(Some("treasury")), Some(Rule::Denied));
    assert_eq!(refused(Some("petty-cash")), None);
    assert_eq!(refused(None), None);
}

const ALLOW: &str = "otherwise = \"allow\"";

#[tokio::test]
async fn a_request_serves_for_one_session_also_after_a_restart() {
    let ledger = Arc::new(MemoryLedger::default());
    {
        let authority = authority(ALLOW, &ledger).await;
        assert_eq!(rule(&authority, &view(1, &request(1))), None);
        assert_eq!(rule(&authority, &view(1, &request(1))), None, "its session may ask again");
        assert_eq!(rule(&authority, &view(2, &request(1))), Some(Rule::Nonce));
        assert_eq!(rule(&authority, &view(2, &request(2))), None);
    }
    let restarted = authority(ALLOW, &ledger).await;
    assert_eq!(rule(&restarted, &view(3, &request(1))), Some(Rule::Nonce));
    assert_eq!(rule(&restarted, &view(1, &request(1))), None);
}

#[tokio::test]
async fn counts_and_rates_go_on_after_a_restart_and_a_refused_request_counts_nothing() {
    for policy in ["[default]\ncount = 2", "[default]\nrate = [\"2/hour\"]"] {
        let expected = if policy.contains("count") { Rule::Count } else { Rule::Rate };
        let ledger = Arc::new(MemoryLedger::default());
        {
            let authority = authority(policy, &ledger).await;
            let mut foreign = view(9, &request(9));
            foreign.authorization = Some(Arc::new(secret(2).authorize(&request(9))));
            assert_eq!(rule(&authority, &foreign), Some(Rule::UnknownInitiator));
            assert_eq!(rule(&authority, &view(1, &request(1))), None);
        }
        let restarted = authority(policy, &ledger).await;
        assert_eq!(rule(&restarted, &view(2, &request(2))), None);
        assert_eq!(rule(&restarted, &view(3, &request(3))), Some(expected));
        assert_eq!(rule(&restarted, &view(2, &request(2))), None, "it is counted already");
    }
}

#[tokio::test]
async fn other_rules_hold_from_the_next_question_on() {
    let authority = authority(ALLOW, &Arc::default()).await;
    let mut changes = authority.changes();
    authority.replace(rules("[default]\ndeny = true"));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(rule(&authority, &view(1, &request(1))), Some(Rule::Denied));
}

#[tokio::test]
async fn a_session_starts_as_it_was_allowed_or_not_at_all() {
    let authority = authority(ALLOW, &Arc::default()).await;
    let allowed = view(1, &request(1));
    let verdict = authority.check(&keyring(), &allowed, Some(&record(None)), false);
    let Verdict::Allowed(permit) = verdict else { panic!("it is allowed") };
    let starts = |view: &SessionView| {
        let checked = permit.check(view, Some(&key()), &[[1; 32], [2; 32]], NOW);
        checked.err().map(|denial| denial.rule)
    };
    assert_eq!(starts(&allowed), None);
    let digest = SignInput::Digest(Digest([4; 32]));
    let other =
        SessionView { ceremony: Ceremony::Sign { key: key(), input: digest }, ..allowed.clone() };
    assert_eq!(starts(&other), Some(Rule::Input));
    assert_eq!(starts(&view(1, &request(2))), Some(Rule::Signature));
    assert_eq!(starts(&SessionView { authorization: None, ..allowed }), Some(Rule::Signature));
}
