//! Results, false results and failures.

use super::*;

#[test]
fn a_keygen_completes_when_all_report_one_key_in_any_encoding() {
    let mut session = running(SessionKind::Keygen, 3);
    for n in 0..2 {
        let (reply, effects) = at(&mut session, 2, made(n, public(1, n == 0)));
        assert_eq!(reply.unwrap(), Reply::Done);
        assert_eq!((effects.persist, effects.ended), (Durability::None, false));
        assert_eq!(session.view().public_key(), None, "not shown before all agree");
    }
    let (_, effects) = at(&mut session, 5, made(2, public(1, true)));
    assert_eq!(effects.persist, Durability::Now);
    assert_eq!(effects.events, [EventKind::SessionCompleted]);
    assert!(effects.ended);
    let key = PublicKey(public(1, false));
    let record = KeyRecord {
        key: Arc::new(KeyEpoch {
            key_id: session.id().into(),
            epoch: 0,
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 3).unwrap(),
            public_key: key.clone(),
            holders: names(&[0, 1, 2]),
        }),
        tenant: Tenant::default(),
        created_at: Timestamp(5),
        label: None,
        frozen: None,
    };
    let epoch = EpochRecord {
        epoch: 0,
        session_id: session.id(),
        made_at: Timestamp(5),
        attestation: None,
    };
    assert_eq!(effects.key, Some((record, epoch)));
    let view = session.view();
    assert_eq!(view.outcome, Some(Outcome::PublicKey(key.clone())));
    assert_eq!((view.key_id(), view.public_key()), (Some(session.id().into()), Some(&key)));
}

#[test]
fn different_keys_fail_the_session_and_name_both_sides() {
    let mut session = running(SessionKind::Keygen, 3);
    at(&mut session, 2, made(2, public(1, true))).0.unwrap();
    let (reply, effects) = at(&mut session, 3, made(0, public(2, true)));
    assert_eq!(reply.unwrap_err().code, ErrorCode::SessionExpired);
    assert_eq!(effects.events, [EventKind::SessionFailed]);
    assert_eq!((effects.persist, effects.ended, effects.key), (Durability::Now, true, None));
    let failure = session.view().failure.unwrap();
    assert_eq!(failure.reason, FailureReason::ResultsDiffer);
    assert_eq!(failure.parties, names(&[2, 0]));
    assert_eq!(session.view().outcome, None);
}

/// What these identities sign of the key that `session` makes, in the epoch that they say.
pub(super) fn attested<const N: usize>(
    session: &Session,
    public_key: &[u8],
    epoch: Option<u32>,
    identities: [u8; N],
) -> Attestation {
    use ed25519_dalek::{Signer as _, SigningKey};
    let signers = identities.map(|seed| SigningKey::from_bytes(&[seed; 32]));
    let identities: Vec<_> = signers.iter().map(|key| key.verifying_key().to_bytes()).collect();
    let key = session.made(&PublicKey(public_key.to_vec()), epoch);
    let statement = quorate_schemes::Statement::new(&key, &[6; 32], &identities);
    let (domain, bytes) = statement.signed();
    let message = quorate_schemes::in_domain(domain, bytes);
    let confirmations = signers.iter().flat_map(|key| key.sign(&message).to_bytes()).collect();
    Attestation { execution: [6; 32], identities, confirmations }
}

fn made_and_attested(n: usize, attestation: &Attestation) -> Command {
    let attestation = Some(Box::new(attestation.clone()));
    let outcome = PartyOutcome::Key { public_key: public(1, true), attestation, epoch: None };
    Command::Report { party: name(n), attempt: 0, outcome }
}

#[test]
fn what_the_holders_signed_is_kept_with_the_key() {
    let mut session = running(SessionKind::Keygen, 3);
    let attestation = attested(&session, &public(1, false), None, [1, 2, 3]);
    at(&mut session, 2, made(0, public(1, true))).0.unwrap();
    at(&mut session, 2, made_and_attested(1, &attestation)).0.unwrap();
    let (_, effects) = at(&mut session, 3, made_and_attested(2, &attestation));
    assert_eq!(effects.key.unwrap().1.attestation, Some(attestation));
}

#[test]
fn an_attestation_of_another_key_is_refused() {
    let mut session = running(SessionKind::Keygen, 3);
    let mut attestation = attested(&session, &public(1, false), None, [1, 2, 3]);
    attestation.execution[0] ^= 1;
    let error = refused(&mut session, 2, made_and_attested(0, &attestation));
    assert!(error.details.fields.contains_key("attestation"), "{error:?}");
}

#[test]
fn holders_that_show_other_identities_fail_the_session() {
    let mut session = running(SessionKind::Keygen, 3);
    let (first, other) = (
        attested(&session, &public(1, false), None, [1, 2, 3]),
        attested(&session, &public(1, false), None, [1, 2, 4]),
    );
    at(&mut session, 2, made_and_attested(0, &first)).0.unwrap();
    let (reply, effects) = at(&mut session, 3, made_and_attested(1, &other));
    assert_eq!(reply.unwrap_err().code, ErrorCode::SessionExpired);
    assert_eq!((effects.ended, effects.key), (true, None));
    assert_eq!(session.view().failure.unwrap().reason, FailureReason::ResultsDiffer);
}

#[test]
fn what_is_no_key_is_refused_and_the_session_goes_on() {
    let mut session = running(SessionKind::Keygen, 2);
    let error = refused(&mut session, 2, made(0, vec![4; 65]));
    assert_eq!(error.code, ErrorCode::InvalidRequest);
}

#[test]
fn a_signature_is_verified_completed_and_shown_when_all_have_it() {
    let mut session = running(SessionKind::Sign, 2);
    let (_, effects) = at(&mut session, 2, signed(0, signature(3)));
    assert_eq!((effects.persist, effects.ended), (Durability::None, false));
    assert_eq!(session.view().outcome, None);
    let (_, effects) = at(&mut session, 3, signed(1, signature(3)));
    assert_eq!((effects.persist, effects.ended), (Durability::Now, true));
    assert_eq!(effects.key, None, "a signature makes no key");
    let Some(Outcome::Signature(made)) = session.view().outcome else {
        panic!("a sign session makes a signature");
    };
    assert_eq!(made.bytes()[..], signature(3));
    assert!(made.recovery_id().is_some());
}

#[test]
fn a_false_signature_fails_the_session_and_blames_its_reporter() {
    let mut session = running(SessionKind::Sign, 2);
    let (reply, effects) = at(&mut session, 2, signed(1, spoiled(signature(3))));
    let error = reply.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.message.contains("does not verify"));
    assert_eq!(error.details.blame.unwrap().party_id, name(1));
    assert_eq!(effects.events, [EventKind::SessionFailed]);
    assert!(effects.ended);
    let failure = session.view().failure.unwrap();
    assert_eq!((failure.reason, failure.parties), (FailureReason::SignatureInvalid, names(&[1])));
    assert_eq!(standing(&session), [ParticipantStatus::Computing, ParticipantStatus::Failed]);
}

#[test]
fn a_false_signature_behind_a_true_one_fails_its_reporter_alone() {
    let mut session = running(SessionKind::Sign, 3);
    at(&mut session, 2, signed(0, signature(3))).0.unwrap();
    let (reply, effects) = at(&mut session, 3, signed(1, spoiled(signature(3))));
    assert_eq!(reply.unwrap_err().details.blame.unwrap().party_id, name(1));
    assert_eq!(effects.events, [EventKind::SessionCompleted]);
    let statuses =
        [ParticipantStatus::Completed, ParticipantStatus::Failed, ParticipantStatus::Computing];
    assert_eq!(standing(&session), statuses);
    // The true signature, copied from the answer afterwards, does not wash it clean.
    repeated(&mut session, 4, signed(1, signature(3)));
    assert_eq!(standing(&session), statuses);
}

#[test]
fn a_signature_of_another_form_is_refused_and_the_session_goes_on() {
    let mut session = running(SessionKind::Sign, 2);
    let error = refused(&mut session, 2, signed(0, vec![1; 63]));
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert_eq!(error.details.blame, None);
}

#[test]
fn two_true_signatures_that_differ_are_not_handed_out() {
    assert_ne!(signature(3), signature(4));
    let mut session = running(SessionKind::Sign, 2);
    at(&mut session, 2, signed(0, signature(3))).0.unwrap();
    let (reply, effects) = at(&mut session, 3, signed(1, signature(4)));
    assert_eq!(reply.unwrap_err().code, ErrorCode::SessionExpired);
    assert_eq!(effects.events, [EventKind::SessionFailed]);
    let view = session.view();
    assert_eq!(view.failure.unwrap().reason, FailureReason::ResultsDiffer);
    assert_eq!(view.outcome, None);
}

#[test]
fn of_a_partys_own_reports_the_first_stands() {
    let mut keygen = running(SessionKind::Keygen, 2);
    at(&mut keygen, 2, made(0, public(1, true))).0.unwrap();
    assert_eq!(repeated(&mut keygen, 3, made(0, public(1, false))), Reply::Done);
    assert_eq!(refused(&mut keygen, 3, made(0, public(2, true))).code, ErrorCode::Conflict);
    let mut sign = running(SessionKind::Sign, 2);
    at(&mut sign, 2, signed(0, signature(3))).0.unwrap();
    assert_eq!(repeated(&mut sign, 3, signed(0, signature(3))), Reply::Done);
    for other in [signature(4), spoiled(signature(3))] {
        assert_eq!(refused(&mut sign, 3, signed(0, other)).code, ErrorCode::Conflict);
    }
    let failure = gave_up(0, FailureReason::PartyFailed, &[]);
    assert_eq!(refused(&mut sign, 3, failure).code, ErrorCode::Conflict);
}

#[test]
fn a_result_before_the_start_is_told_where_the_session_stands() {
    let mut session = created(SessionKind::Keygen, 2);
    at(&mut session, 1, join(0, None, true)).0.unwrap();
    let error = refused(&mut session, 2, made(0, public(1, true)));
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("waiting"));
    assert_eq!(error.details.waiting_for, names(&[1]));
}

#[test]
fn a_result_of_the_other_kind_names_the_field_that_is_missing() {
    let error = refused(&mut running(SessionKind::Keygen, 2), 2, signed(0, signature(3)));
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.details.fields.contains_key("public_key"));
    let error = refused(&mut running(SessionKind::Sign, 2), 2, made(0, public(7, true)));
    assert!(error.details.fields.contains_key("signature"));
}

#[test]
fn a_strangers_report_is_forbidden() {
    for kind in [SessionKind::Keygen, SessionKind::Sign] {
        let mut session = running(kind, 2);
        for report in [made(7, public(7, true)), gave_up(7, FailureReason::PartyFailed, &[])] {
            assert_eq!(refused(&mut session, 2, report).code, ErrorCode::Forbidden);
        }
    }
}

#[test]
fn a_party_that_gives_up_ends_the_session_in_its_own_words() {
    let mut session = running(SessionKind::Keygen, 3);
    let (reply, effects) = at(&mut session, 2, gave_up(1, FailureReason::PartyFailed, &[]));
    assert_eq!(reply.unwrap(), Reply::Done);
    assert_eq!(effects.events, [EventKind::SessionFailed]);
    assert_eq!((effects.persist, effects.ended), (Durability::Now, true));
    let failure = session.view().failure.unwrap();
    assert_eq!((failure.reason, failure.parties), (FailureReason::PartyFailed, names(&[1])));
    assert_eq!(failure.message, "p1: no power");
    assert_eq!(standing(&session)[1], ParticipantStatus::Failed);
    repeated(&mut session, 3, gave_up(1, FailureReason::PartyFailed, &[]));
    let other = refused(&mut session, 3, gave_up(0, FailureReason::PartyFailed, &[]));
    assert_eq!(other.code, ErrorCode::SessionExpired);
}

#[test]
fn a_party_may_blame_participants_once_each_and_only_for_cheating() {
    let mut session = running(SessionKind::Keygen, 3);
    let blame = gave_up(0, FailureReason::PartyCheated, &[2, 9, 2, 2]);
    at(&mut session, 2, blame).0.unwrap();
    let failure = session.view().failure.unwrap();
    assert_eq!((failure.reason, failure.parties), (FailureReason::PartyCheated, names(&[2])));
    let mut session = running(SessionKind::Keygen, 2);
    at(&mut session, 2, gave_up(0, FailureReason::Closed, &[])).0.unwrap();
    assert_eq!(session.view().failure.unwrap().reason, FailureReason::PartyFailed);
}

#[test]
fn only_cheating_in_a_signature_bans_and_nobody_bans_itself() {
    let bans = |kind, reason, blamed: &[usize]| {
        let (reply, effects) = at(&mut running(kind, 3), 2, gave_up(0, reason, blamed));
        assert_eq!(reply.unwrap(), Reply::Done);
        effects.bans.into_iter().map(|ban| (ban.reporter, ban.peer, ban.reason)).collect::<Vec<_>>()
    };
    let ban = |peer| (name(0), name(peer), "no power".to_owned());
    let cheated = FailureReason::PartyCheated;
    assert_eq!(bans(SessionKind::Sign, cheated, &[2, 1]), [ban(1), ban(2)]);
    assert_eq!(bans(SessionKind::Sign, cheated, &[0]), []);
    assert_eq!(bans(SessionKind::Sign, FailureReason::PartyFailed, &[1]), []);
    assert_eq!(bans(SessionKind::Keygen, cheated, &[1]), []);
}

#[test]
fn a_party_may_give_up_before_the_start() {
    let mut session = created(SessionKind::Keygen, 2);
    at(&mut session, 1, join(0, None, true)).0.unwrap();
    at(&mut session, 2, gave_up(0, FailureReason::PartyFailed, &[])).0.unwrap();
    assert_eq!(session.status(), SessionStatus::Failed);
}

#[test]
fn a_known_signature_outlives_a_party_that_gives_up() {
    let mut session = running(SessionKind::Sign, 2);
    at(&mut session, 2, signed(0, signature(3))).0.unwrap();
    let (_, effects) = at(&mut session, 3, gave_up(1, FailureReason::PartyFailed, &[]));
    assert_eq!(effects.events, [EventKind::SessionCompleted]);
    let view = session.view();
    assert!(view.outcome.is_some() && view.failure.is_none());
    assert_eq!(standing(&session), [ParticipantStatus::Completed, ParticipantStatus::Failed]);
}

#[test]
fn a_long_complaint_is_cut_at_a_character() {
    let mut session = running(SessionKind::Keygen, 2);
    let message = "ü".repeat(MAX_FAILURE_TEXT);
    let failure = Failure { reason: FailureReason::PartyFailed, message, parties: vec![] };
    let outcome = PartyOutcome::Failure(failure);
    at(&mut session, 2, Command::Report { party: name(0), attempt: 0, outcome }).0.unwrap();
    let text = session.view().failure.unwrap().message;
    assert_eq!(text.len(), "p0: ".len() + MAX_FAILURE_TEXT);
}
