//! Rules about one party, with a key that was really made.

use std::sync::Arc;

use bytes::Bytes;
use quorate_engine::{Fault, FaultCode, Identity, Severity};
use quorate_participant::{
    Bans, Ended, Event, Gate, Input, Me, OpenKey, Session, SessionAction, VaultAction, VaultAnswer,
};
use quorate_types::*;

use crate::world::{World, party};

/// A key of `a`, `b` and `c`, as `a` has it open.
pub(crate) fn key_of_a() -> (World, Me, Arc<OpenKey>) {
    let mut world = World::new(1, &["a", "b", "c"]);
    let made = world.keygen(Scheme::Ed25519, 2, None).view;
    let holder = world.holders.get_mut(&party("a")).unwrap();
    let me = Me {
        party: party("a"),
        identity: Arc::new(Identity::from_secret(&holder.identity)),
        bans: Arc::new(Bans::new(party("a"))),
    };
    let open = VaultAction::OpenKey(made.session_id.into());
    let VaultAnswer::Key(Some(key)) = holder.disk.answer(&me, [1; 16], open) else {
        panic!("it holds a share");
    };
    (world, me, key)
}

fn fault(severity: Severity) -> Fault {
    Fault {
        code: FaultCode::OtCheckFailed,
        severity,
        blame: Some(party("b")),
        message: "b failed the check".into(),
        evidence: vec![Bytes::from_static(b"an envelope")],
    }
}

#[test]
fn of_the_faults_of_a_pair_only_the_first_is_told() {
    let (_, me, key) = key_of_a();
    let now = Timestamp(5);
    let gate = |peer: &str| Gate::new(&me.bans, &key, vec![party("a"), party(peer)]);
    let (first, second) = (gate("b"), gate("b"));
    let (ended, ban) = first.settle(fault(Severity::Ban), now);
    assert!(matches!(ended, Ended::Fault(_)), "the first says what it found");
    let ban = ban.expect("it has set the ban");
    assert_eq!(
        (&ban.peer, ban.at, ban.evidence),
        (&party("b"), now, fault(Severity::Ban).evidence)
    );
    for severity in [Severity::Ban, Severity::Recoverable] {
        let (ended, ban) = second.settle(fault(severity), now);
        assert!(matches!(ended, Ended::Locked(_)) && ban.is_none(), "the second does not");
    }
    let broken = Ended::Transport(Error::unavailable("away"));
    assert!(matches!(second.last_word(broken), Ended::Locked(_)), "however it ended");
    assert!(second.release(|| ()).is_err(), "nothing leaves");
    assert!(gate("c").release(|| ()).is_ok(), "another pair goes on");
}

#[test]
fn a_fault_that_is_no_ban_bans_nobody() {
    let (_, me, key) = key_of_a();
    let gate = Gate::new(&me.bans, &key, vec![party("a"), party("b")]);
    let (ended, ban) = gate.settle(fault(Severity::Recoverable), Timestamp(5));
    assert!(matches!(ended, Ended::Fault(_)) && ban.is_none());
    assert!(gate.check().is_ok() && me.bans.unwritten(&key.stored).is_empty());
}

#[test]
fn a_ban_that_could_not_be_stored_locks_its_key_until_it_is() {
    let (_, me, key) = key_of_a();
    let pair = Gate::new(&me.bans, &key, vec![party("a"), party("b")]);
    let others = Gate::new(&me.bans, &key, vec![party("a"), party("c")]);
    let ban = pair.settle(fault(Severity::Ban), Timestamp(5)).1.unwrap();
    assert!(others.check().is_ok(), "it is on its way");
    let full = || Err(Error::unavailable("no space left on device"));
    assert!(me.bans.written(&ban, full()).is_err());
    assert_eq!(others.check().unwrap_err().code, ErrorCode::KeyLocked);
    assert!(me.bans.written(&ban, Ok(())).is_ok() && others.check().is_ok());
    assert!(me.bans.written(&ban, full()).is_ok(), "it is there whatever comes of a second write");
    assert!(others.check().is_ok() && pair.check().is_err());
}

#[test]
fn a_keygen_of_a_key_that_is_held_is_refused() {
    let (mut world, _, key) = key_of_a();
    let before = world.disk("a").share(key.stored.key_id).unwrap().clone();
    world.rewind();
    let again = world.keygen(Scheme::Ed25519, 2, None).view;
    assert_eq!(KeyId::from(again.session_id), key.stored.key_id);
    let refused = again.failure.expect("it ends without a key");
    assert!(refused.message.contains("does not replace it"), "{}", refused.message);
    assert!(*world.disk("a").share(key.stored.key_id).unwrap() == before);
}

/// A session of these that signs with a key, as it is shown when it is created.
pub(crate) fn signature(key: &OpenKey, names: [&str; 2]) -> SessionView {
    let seat = |(index, name): (u16, &str)| ParticipantView {
        party_id: party(name),
        party_index: PartyIndex(index),
        status: ParticipantStatus::Waiting,
        device: DeviceInfo::default(),
        handshake: None,
        on_behalf_of: None,
    };
    let input = SignInput::Message(vec![9; 40].into());
    SessionView {
        tenant: Tenant::default(),
        session_id: SessionId(key.stored.key_id.0),
        ceremony: Ceremony::Sign { key: key.stored.record.key.clone(), input },
        status: SessionStatus::Created,
        participants: (0..).zip(names).map(seat).collect(),
        authorization: None,
        attempt: 0,
        replaced: Vec::new(),
        outcome: None,
        failure: None,
        created_at: Timestamp(1),
        expires_at: Timestamp(60_001),
    }
}

#[test]
fn a_party_that_cannot_take_part_joins_all_the_same_and_says_why() {
    let (_, me, key) = key_of_a();
    let view = signature(&key, ["a", "stranger"]);
    let vault = |answer| Input::Attempt(Event::Vault(Ok(answer)));
    let (mut session, _) = Session::begin(me, view.session_id, Some(Box::new(view.clone())));
    session.handle(vault(VaultAnswer::Key(Some(key))));
    let asked = session.handle(vault(VaultAnswer::Standing((1, [1; 16]))));
    assert!(matches!(asked.as_slice(), [SessionAction::Join { ready: false, .. }]));
    let joined = JoinedSession { party_index: PartyIndex(0), session: view };
    let mut told = session.handle(Input::Joined(Ok(Box::new(joined))));
    let Some(SessionAction::Report(PartyOutcome::Failure(failure))) = told.pop() else {
        panic!("it reports a failure");
    };
    assert_eq!(failure.parties, [party("stranger")]);
    assert!(failure.message.contains("is not a holder of key"), "{}", failure.message);
    // A minute and the grace.
    let [SessionAction::Deadline(after)] = told.as_slice() else { panic!("and has a deadline") };
    assert_eq!(after.as_secs(), 65);
}

#[test]
fn a_report_that_the_coordinator_has_forgotten_is_made_again() {
    let (_, me, key) = key_of_a();
    let mut view = signature(&key, ["a", "stranger"]);
    let vault = |answer| Input::Attempt(Event::Vault(Ok(answer)));
    let (mut session, _) = Session::begin(me, view.session_id, Some(Box::new(view.clone())));
    session.handle(vault(VaultAnswer::Key(Some(key))));
    session.handle(vault(VaultAnswer::Standing((1, [1; 16]))));
    let joined = JoinedSession { party_index: PartyIndex(0), session: view.clone() };
    session.handle(Input::Joined(Ok(Box::new(joined))));
    view.status = SessionStatus::InProgress;
    view.participants[0].status = ParticipantStatus::Failed;
    assert!(session.handle(Input::View(Box::new(view.clone()))).is_empty());
    let reported = session.handle(Input::Reported(Ok(Box::new(view.clone()))));
    assert!(reported.is_empty(), "it stays for the end");
    assert!(session.handle(Input::View(Box::new(view.clone()))).is_empty(), "it is known");
    view.participants[0].status = ParticipantStatus::Computing;
    let again = session.handle(Input::View(Box::new(view.clone())));
    assert!(matches!(again.as_slice(), [SessionAction::Report(PartyOutcome::Failure(_))]));
    view.status = SessionStatus::Failed;
    session.handle(Input::View(Box::new(view.clone())));
    view.status = SessionStatus::InProgress;
    let end = session.handle(Input::Reported(Ok(Box::new(view))));
    let [SessionAction::Done(Ok(end))] = end.as_slice() else { panic!("it has seen the end") };
    assert_eq!(end.status, SessionStatus::Failed);
}
