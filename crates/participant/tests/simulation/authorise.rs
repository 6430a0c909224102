//! A session that asks its party's authority before it joins.

use std::sync::Arc;

use quorate_participant::{
    Action, Allowed, Event, Input, Permission, Session, SessionAction, VaultAnswer, could_not,
};
use quorate_types::*;

use crate::rules::{key_of_a, signature};
use crate::world::party;

/// An authority that allows whatever starts.
struct Anything;

impl Allowed for Anything {
    fn check(
        &self,
        _: &SessionView,
        _: Option<&KeyEpoch>,
        _: &[[u8; 32]],
    ) -> std::result::Result<(), Failure> {
        Ok(())
    }

    fn label(&self) -> Option<KeyLabel> {
        None
    }
}

fn given() -> Input {
    Input::Authorised(Ok(Permission::Given(Arc::new(Anything))))
}

fn refused() -> Input {
    let why = could_not(&party("a"), "denied: not on a Sunday".to_owned());
    let failure = Failure { reason: FailureReason::PolicyDenied, ..why };
    Input::Authorised(Ok(Permission::Refused(failure)))
}

fn vault(answer: VaultAnswer) -> Input {
    Input::Attempt(Event::Vault(Ok(answer)))
}

fn standing() -> Input {
    vault(VaultAnswer::Standing((1, [1; 16])))
}

fn shown(view: &SessionView, status: SessionStatus) -> Input {
    Input::View(Box::new(SessionView { status, ..view.clone() }))
}

fn joined(view: &SessionView) -> Input {
    let joined = JoinedSession { party_index: PartyIndex(0), session: view.clone() };
    Input::Joined(Ok(Box::new(joined)))
}

/// A session of `a` that has asked its authority, and how it was shown.
fn asking() -> (Session, SessionView) {
    let (_, me, key) = key_of_a();
    let view = signature(&key, ["a", "b"]);
    let (mut session, _) = Session::begin(me, view.session_id, Some(Box::new(view.clone())));
    session.ask_authority();
    let asked = session.handle(vault(VaultAnswer::Key(Some(key))));
    let [SessionAction::Authorise { view: about, key: Some(_) }] = asked.as_slice() else {
        panic!("it asks before it joins");
    };
    assert_eq!(**about, view);
    (session, view)
}

fn reads_standing(actions: &[SessionAction]) -> bool {
    matches!(actions, [SessionAction::Attempt(Action::Vault(_))])
}

#[test]
fn what_the_authority_refuses_is_joined_without_being_ready_and_reported() {
    let (mut session, view) = asking();
    assert!(reads_standing(&session.handle(refused())));
    let asked = session.handle(standing());
    assert!(matches!(asked.as_slice(), [SessionAction::Join { ready: false, .. }]));
    let mut told = session.handle(joined(&view));
    let Some(SessionAction::Report(PartyOutcome::Failure(failure))) = told.pop() else {
        panic!("it reports a failure");
    };
    assert_eq!(failure.reason, FailureReason::PolicyDenied);
    assert!(failure.message.contains("denied: not on a Sunday"), "{}", failure.message);
}

#[test]
fn a_refusal_is_reported_also_where_the_session_has_started_without_it() {
    let (mut session, view) = asking();
    session.handle(shown(&view, SessionStatus::InProgress));
    session.handle(refused());
    session.handle(standing());
    let conflict = Error::new(ErrorCode::Conflict, "the session runs already");
    let told = session.handle(Input::Joined(Err(conflict)));
    let Some(SessionAction::Report(PartyOutcome::Failure(failure))) = told.last() else {
        panic!("it reports a failure");
    };
    assert_eq!(failure.reason, FailureReason::PolicyDenied);
}

#[test]
fn an_answer_after_the_end_of_its_session_joins_nothing() {
    for answer in [given, refused] {
        for status in [SessionStatus::Completed, SessionStatus::Failed, SessionStatus::Expired] {
            let (mut session, view) = asking();
            assert!(session.handle(shown(&view, status)).is_empty(), "the answer is on its way");
            let end = session.handle(answer());
            let [SessionAction::Done(Ok(end))] = end.as_slice() else { panic!("it leaves") };
            assert_eq!(end.status, status);
            assert!(session.handle(given()).is_empty(), "nothing comes after it");
        }
    }
}

#[test]
fn a_second_answer_changes_nothing() {
    for (first, second, ready) in [(given(), refused(), true), (refused(), given(), false)] {
        let (mut session, view) = asking();
        assert!(reads_standing(&session.handle(first)));
        assert!(session.handle(second).is_empty());
        let asked = session.handle(standing());
        let [SessionAction::Join { ready: said, .. }] = asked.as_slice() else {
            panic!("it joins")
        };
        assert_eq!(*said, ready);
        assert!(session.handle(refused()).is_empty(), "while it joins");
        let reports = |actions: &[SessionAction]| {
            actions.iter().any(|action| matches!(action, SessionAction::Report(_)))
        };
        assert_eq!(reports(&session.handle(joined(&view))), !ready);
        assert!(session.handle(refused()).is_empty(), "once it has joined");
    }
}

#[test]
fn an_authority_that_cannot_decide_ends_the_session_at_this_party() {
    let (mut session, _) = asking();
    let end = session.handle(Input::Authorised(Err(Error::unavailable("the disk is away"))));
    let [SessionAction::Done(Err(error))] = end.as_slice() else { panic!("it leaves") };
    assert_eq!(error.code, ErrorCode::Unavailable);
}

#[test]
fn without_an_answer_nothing_is_joined_whatever_is_shown() {
    let (mut session, view) = asking();
    for status in [SessionStatus::Waiting, SessionStatus::InProgress] {
        assert!(session.handle(shown(&view, status)).is_empty());
    }
    assert!(session.handle(Input::Forgotten).is_empty());
    assert!(session.handle(joined(&view)).is_empty(), "an answer to what it has not asked");
    assert!(session.handle(standing()).is_empty());
    assert!(reads_standing(&session.handle(given())), "it still waits for the authority");
}
