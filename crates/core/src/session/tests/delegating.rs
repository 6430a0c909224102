//! Seats that delegates take for users.

use super::*;

/// A point of X25519: its base.
fn seal_key() -> Option<PackageKey> {
    let mut key = vec![0; 32];
    key[0] = 9;
    PackageKey::new(Kem::X25519, key).ok()
}

fn alice() -> PartyId {
    "alice".parse().unwrap()
}

/// A keygen of three in which p1 takes the seat of alice.
fn delegated() -> NewSession {
    let mut new = new(SessionKind::Keygen, 2, 3, &[0, 1, 2]);
    new.participants[1].0.on_behalf_of =
        Some(OnBehalfOf { user_id: alice(), seal_key: seal_key() });
    new
}

fn computing() -> Session {
    let mut session = Session::create(delegated(), &mut Effects::default()).unwrap();
    for n in 0..3 {
        at(&mut session, 1, join(n, None, true)).0.unwrap();
    }
    assert_eq!(session.status(), SessionStatus::InProgress);
    session
}

fn submission(n: usize, place: u16, key: Vec<u8>, package: u8) -> Command {
    Command::Submit(Submission {
        party: name(n),
        party_index: PartyIndex(place),
        public_key: key,
        package: vec![package].into(),
        package_hash: [package; 32],
    })
}

#[test]
fn a_keygen_completes_once_the_users_package_is_in_and_the_user_holds_the_share() {
    for package_first in [true, false] {
        let mut session = computing();
        for n in [0, 2] {
            at(&mut session, 2, made(n, public(7, true))).0.unwrap();
        }
        let (report, package) = (made(1, public(7, true)), submission(1, 1, public(7, false), 5));
        let (first, last) = if package_first { (package, report) } else { (report, package) };
        at(&mut session, 3, first).0.unwrap();
        assert_eq!(session.status(), SessionStatus::InProgress);
        assert_eq!(session.view().waiting_for(), [name(1)]);
        let (reply, effects) = at(&mut session, 4, last);
        reply.unwrap();
        assert_eq!(session.status(), SessionStatus::Completed);
        assert_eq!((effects.persist, effects.package), (Durability::Now, !package_first));
        let (record, _) = effects.key.unwrap();
        assert_eq!(record.holders, [name(0), alice(), name(2)]);
        assert!(session.is_participant(&alice()) && session.is_participant(&name(1)));
    }
}

#[test]
fn a_package_is_taken_once_and_the_same_again_changes_nothing() {
    let mut session = computing();
    let (reply, effects) = at(&mut session, 2, submission(1, 1, public(7, true), 5));
    assert_eq!(
        (reply.unwrap(), effects.persist, effects.package),
        (Reply::Done, Durability::Now, true)
    );
    repeated(&mut session, 3, submission(1, 1, public(7, true), 5));
    let other = refused(&mut session, 3, submission(1, 1, public(7, true), 6));
    assert_eq!(other.code, ErrorCode::Conflict);
    for n in 0..3 {
        at(&mut session, 4, made(n, public(7, true))).0.unwrap();
    }
    assert_eq!(session.status(), SessionStatus::Completed);
    repeated(&mut session, 5, submission(1, 1, public(7, true), 5));
    assert_eq!(
        refused(&mut session, 5, submission(1, 1, public(7, true), 6)).code,
        ErrorCode::Conflict
    );
}

#[test]
fn a_package_that_does_not_fit_is_refused_by_what_is_wrong() {
    let mut unstarted = Session::create(delegated(), &mut Effects::default()).unwrap();
    let early = refused(&mut unstarted, 1, submission(1, 1, public(7, true), 5));
    assert_eq!(early.code, ErrorCode::Conflict);
    let mut session = computing();
    at(&mut session, 2, made(0, public(7, true))).0.unwrap();
    for (field, wrong) in [
        ("party_index", submission(1, 2, public(7, true), 5)),
        ("public_key", submission(1, 1, public(8, true), 5)),
        ("public_key", submission(1, 1, vec![1], 5)),
        ("party_id", submission(0, 0, public(7, true), 5)),
    ] {
        let error = refused(&mut session, 3, wrong);
        assert!(error.details.fields.contains_key(field), "{error:?}");
    }
    let stranger = refused(&mut session, 3, submission(7, 1, public(7, true), 5));
    assert_eq!(stranger.code, ErrorCode::Forbidden);
    at(&mut session, 4, Command::Close).0.unwrap();
    let late = refused(&mut session, 5, submission(1, 1, public(7, true), 5));
    assert_eq!(late.code, ErrorCode::SessionExpired);
}

#[test]
fn a_delegate_that_names_another_key_than_the_others_ends_the_keygen() {
    let mut session = computing();
    at(&mut session, 2, submission(1, 1, public(8, true), 5)).0.unwrap();
    assert!(at(&mut session, 3, made(0, public(7, true))).0.is_err());
    let failure = session.view().failure.unwrap();
    assert_eq!(failure.reason, FailureReason::ResultsDiffer);
    assert_eq!(failure.parties, names(&[1, 0]));
}

#[test]
fn who_computes_may_blame_a_delegated_seat_by_its_holder() {
    let mut session = computing();
    let failure = Failure {
        reason: FailureReason::PartyCheated,
        message: "no".into(),
        parties: vec![alice(), "nobody".parse().unwrap()],
    };
    let report =
        Command::Report { party: name(0), attempt: 0, outcome: PartyOutcome::Failure(failure) };
    at(&mut session, 2, report).0.unwrap();
    assert_eq!(session.view().failure.unwrap().parties, names(&[1]));
}

#[test]
fn a_delegated_seat_that_cannot_be_is_refused_at_the_creation() {
    let seat = |user: &str, seal_key| Some(OnBehalfOf { user_id: user.parse().unwrap(), seal_key });
    let refused = |field: &str, change: &dyn Fn(&mut NewSession)| {
        let mut new = delegated();
        change(&mut new);
        let error = Session::create(new, &mut Effects::default()).unwrap_err();
        assert!(error.details.fields.contains_key(field), "{error:?}");
    };
    refused("seal_key", &|new| new.participants[1].0.on_behalf_of = seat("alice", None));
    let nowhere = || PackageKey::new(Kem::X25519, vec![0; 32]).ok();
    refused("seal_key", &|new| new.participants[1].0.on_behalf_of = seat("alice", nowhere()));
    for twice in ["p0", "p1"] {
        refused("user_id", &|new| new.participants[2].0.on_behalf_of = seat(twice, seal_key()));
    }
    refused("user_id", &|new| new.participants[2].0.on_behalf_of = seat("alice", seal_key()));
    // A signature has one seat for which a share is lent, of a holder that takes no other.
    let sign = |seats: &[(usize, Option<OnBehalfOf>)]| {
        let mut sign = new(SessionKind::Sign, 2, 3, &[0, 1]);
        for (at, of) in seats {
            sign.participants[*at].0.on_behalf_of = of.clone();
        }
        Session::create(sign, &mut Effects::default())
    };
    sign(&[(1, seat("p2", None))]).unwrap();
    for (field, seats) in [
        ("seal_key", &[(1, seat("p2", seal_key()))][..]),
        ("on_behalf_of", &[(0, seat("p1", None)), (1, seat("p2", None))]),
        ("user_id", &[(1, seat("p0", None))]),
        ("participants", &[(1, seat("stranger", None))]),
    ] {
        let error = sign(seats).unwrap_err();
        assert!(error.details.fields.contains_key(field), "{field}: {error:?}");
    }
    // A delegate may have its user's name.
    let mut same = delegated();
    same.participants[1].0.on_behalf_of = seat("p1", seal_key());
    Session::create(same, &mut Effects::default()).unwrap();
}

#[test]
fn a_delegated_seat_survives_its_document() {
    let mut session = computing();
    at(&mut session, 2, submission(1, 1, public(7, true), 5)).0.unwrap();
    let text = serde_json::to_string(&session).unwrap();
    let mut again: Session = serde_json::from_str(&text).unwrap();
    assert_eq!(again.view(), session.view());
    repeated(&mut again, 3, submission(1, 1, public(7, true), 5));
    let plain = serde_json::to_string(&running(SessionKind::Keygen, 2)).unwrap();
    assert!(!plain.contains("on_behalf_of") && !plain.contains("package"), "{plain}");
}
