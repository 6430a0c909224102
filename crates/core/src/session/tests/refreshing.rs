//! Refreshes: all holders in their order, the key as it was, the next epoch.

use super::*;

const REFRESH: SessionKind = SessionKind::Refresh;

fn refused_roster(parties: &[usize]) -> Error {
    Session::create(new(REFRESH, 2, 3, parties), &mut Effects::default()).err().unwrap()
}

#[test]
fn all_holders_of_the_key_refresh_it_in_their_order() {
    created(REFRESH, 3);
    let missing = refused_roster(&[0, 2]);
    assert_eq!(missing.code, ErrorCode::ThresholdNotMet);
    assert_eq!(missing.details.waiting_for, names(&[1]));
    for parties in [&[0, 2, 1][..], &[0, 1, 5], &[0, 1, 2, 5]] {
        let error = refused_roster(parties);
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{parties:?}");
        assert!(error.details.fields.contains_key("participants"));
    }
}

#[test]
fn the_next_epoch_is_there_once_all_have_reported_the_same_key() {
    let mut session = running(REFRESH, 2);
    // Nobody changes the key, in whatever encoding.
    let error = refused(&mut session, 2, made(0, public(1, false)));
    assert!(error.details.fields.contains_key("public_key"), "{error}");
    let error = refused(&mut session, 2, signed(0, signature(3)));
    assert!(error.details.fields.contains_key("public_key"), "{error}");
    let (reply, effects) = at(&mut session, 3, made(0, public(7, true)));
    assert_eq!((reply.unwrap(), effects.key), (Reply::Done, None));
    let before = session.view();
    assert_eq!(before.public_key(), Some(&PublicKey(public(7, false))));
    assert_eq!(before.outcome, None, "one holder is not all");
    let (_, effects) = at(&mut session, 4, made(1, public(7, false)));
    let ((made, epoch), key) = (effects.key.unwrap(), before.ceremony.key().unwrap());
    assert_eq!(*made.key, KeyEpoch { epoch: key.epoch + 1, ..(**key).clone() });
    assert_eq!((epoch.epoch, epoch.session_id), (key.epoch + 1, before.session_id));
    assert_eq!(session.status(), SessionStatus::Completed);
    session.verify().unwrap();
}

#[test]
fn the_epoch_is_the_one_that_its_holders_have_signed() {
    let report = |n, epoch, attestation: &Attestation| {
        let attestation = Some(Box::new(attestation.clone()));
        let outcome = PartyOutcome::Key { public_key: public(7, false), attestation, epoch };
        Command::Report { party: name(n), attempt: 0, outcome }
    };
    let mut session = running(REFRESH, 2);
    let before = session.view().ceremony.key().unwrap().epoch;
    // Two refreshes have broken off before this one.
    let made = before + 3;
    let signed = reporting::attested(&session, &public(7, false), Some(made), [1, 2]);
    for wrong in [before, made + 1] {
        let error = refused(&mut session, 2, report(0, Some(wrong), &signed));
        let field = if wrong == before { "epoch" } else { "attestation" };
        assert!(error.details.fields.contains_key(field), "{error}");
    }
    assert!(at(&mut session, 2, report(0, None, &signed)).0.is_err(), "it is not the next one");
    at(&mut session, 3, report(0, Some(made), &signed)).0.unwrap();
    let stored = serde_json::to_vec(&session).unwrap();
    let mut session: Session = serde_json::from_slice(&stored).unwrap();
    let (_, effects) = at(&mut session, 4, report(1, Some(made), &signed));
    let (record, epoch) = effects.key.unwrap();
    assert_eq!((record.epoch, epoch.epoch), (made, made));
    assert_eq!(epoch.attestation, Some(signed));
}

#[test]
fn a_holder_that_gives_up_ends_the_refresh_and_bans_nobody() {
    let mut session = running(REFRESH, 2);
    at(&mut session, 2, made(0, public(7, false))).0.unwrap();
    let cheated = gave_up(1, FailureReason::PartyCheated, &[0]);
    let (_, effects) = at(&mut session, 3, cheated);
    assert_eq!((session.status(), effects.key), (SessionStatus::Failed, None));
    assert!(effects.bans.is_empty(), "the shares it was found with are dropped");
}
