//! A session as a coordinator leads it: prepare, join, attempt, report, and stay for the end.

use std::sync::Arc;
use std::time::Duration;

use quorate_engine::{HandshakeSecret, make_handshake};
use quorate_types::*;

use crate::Me;
use crate::attempt::{Action, Attempt, Event, Next};
use crate::check;
use crate::failure::restarted;
use crate::key::{OpenKey, shown};
use crate::vault::{VaultAction, VaultAnswer};

/// How long a party tries to join.
pub const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// How much longer than the session a party stays, for the answer to arrive.
const GRACE: Duration = Duration::from_secs(5);

/// Longest life of a session, whatever the coordinator says: what it may grant at most.
const LONGEST_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a session asks of its runtime, beside what its attempt does. At most one action at a time
/// is to be answered; what is marked *aside* is carried out at once, whatever else is under way.
pub enum SessionAction {
    /// Of the attempt: [`Input::Attempt`].
    Attempt(Action),
    /// Ask the party's authority whether it takes part: [`Input::Authorised`]. It may ask people
    /// first, so this may take as long as the session.
    Authorise {
        /// The session as it was shown.
        view: Box<SessionView>,
        /// The key as this party holds it.
        key: Option<Arc<OpenKey>>,
    },
    /// Ask the coordinator for a seat: [`Input::Joined`].
    Join {
        /// The handshake to join with.
        handshake: Handshake,
        /// Whether this party can take part; otherwise it joins to say why not.
        ready: bool,
    },
    /// Report an outcome until it is taken or refused for good: [`Input::Reported`].
    Report(PartyOutcome),
    /// Aside: join again with the same, because the coordinator has forgotten.
    JoinAgain {
        /// As it was.
        handshake: Handshake,
        /// As it was.
        ready: bool,
    },
    /// Aside: [`Input::Late`] comes when so much time has passed.
    Deadline(Duration),
    /// Aside: nothing more is sent, received or begun. What is being computed comes to its end.
    Stop,
    /// Aside: the session is left; this is how it ended. Nothing comes after it.
    Done(Result<Box<SessionView>>),
}

/// What a session is told.
pub enum Input {
    /// What came of the attempt's action.
    Attempt(Event),
    /// What the party's authority has decided.
    Authorised(Result<Permission>),
    /// The answer to joining.
    Joined(Result<Box<JoinedSession>>),
    /// The answer to a report. It is about this session.
    Reported(Result<Box<SessionView>>),
    /// How the session stands; only ever moves forward. See [`Session::minds`].
    View(Box<SessionView>),
    /// The coordinator does not know that this party has joined.
    Forgotten,
    /// No more views will come.
    Lost,
    /// The time that was asked for has passed.
    Late,
}

/// What was allowed before a session was joined: it may start as that and as nothing else.
pub trait Allowed: Send + Sync {
    /// Compares the session that starts with what was allowed. `held` is the key as this party
    /// holds it, `identities` are those of the participants in their order.
    ///
    /// # Errors
    /// Why this party does not take part in it.
    fn check(
        &self,
        view: &SessionView,
        held: Option<&KeyEpoch>,
        identities: &[[u8; 32]],
    ) -> Result<(), Failure>;

    /// What a key that the session makes is called.
    fn label(&self) -> Option<KeyLabel>;
}

/// What a party's authority decides.
pub enum Permission {
    /// Permission to join, used up when the session starts.
    Given(Arc<dyn Allowed>),
    /// It joins to say why it does not take part.
    Refused(Failure),
    /// The session ended while people were asked.
    Ended(Box<SessionView>),
}

/// One party's part in one session.
pub struct Session {
    me: Me,
    session: SessionId,
    /// Whether its authority is asked before it joins.
    asks: bool,
    allowed: Option<Arc<dyn Allowed>>,
    /// The newest view with a start or an end.
    seen: Option<Box<SessionView>>,
    /// No more views will come.
    lost: bool,
    /// What this party has joined with.
    joined: Option<(Handshake, bool)>,
    /// How the session ended while this party was at work.
    over: Option<Result<Box<SessionView>>>,
    stage: Stage,
}

enum Stage {
    /// The vault is asked for what the early view needs.
    Preparing(Box<SessionView>),
    /// The party's authority is asked.
    Asking(Option<Arc<OpenKey>>),
    /// The vault is asked what to show of itself.
    Showing(Option<Arc<OpenKey>>, Option<Failure>),
    Joining(HandshakeSecret, Option<Failure>),
    /// The session runs with a handshake of an earlier process, which is being reported.
    Disowning,
    /// The start is awaited.
    Waiting(HandshakeSecret),
    Attempting(Box<Attempt>),
    Reporting(PartyOutcome),
    /// The outcome was taken; the session's end is awaited.
    Staying(PartyOutcome),
    Over,
}

impl Session {
    /// Begins, with the view by which this party heard of the session, if there was one. A party
    /// that cannot take part joins all the same and reports why, so that the creator reads the
    /// reason instead of a deadline.
    pub fn begin(
        me: Me,
        session: SessionId,
        early: Option<Box<SessionView>>,
    ) -> (Self, Vec<SessionAction>) {
        let (stage, question) = match early {
            Some(view) => {
                let question = check::question(&view);
                (Stage::Preparing(view), question)
            }
            None => (Stage::Showing(None, None), VaultAction::ReadStanding),
        };
        let (seen, lost, joined, over) = (None, false, None, None);
        let (asks, allowed) = (false, None);
        let session = Self { me, session, asks, allowed, seen, lost, joined, over, stage };
        (session, vec![vault(question)])
    }

    /// Asks the party's authority before it joins.
    pub fn ask_authority(&mut self) {
        self.asks = true;
    }

    /// Whether a session that stands so is news to a machine: others need not be shown.
    pub fn minds(status: SessionStatus) -> bool {
        status == SessionStatus::InProgress || status.is_final()
    }

    /// Takes one thing in and says what is to be done.
    pub fn handle(&mut self, input: Input) -> Vec<SessionAction> {
        match input {
            Input::View(view) => self.viewed(view),
            Input::Forgotten => self.forgotten(),
            Input::Lost => self.lost(),
            Input::Late => self.end(Err(silent())),
            answer => self.answered(answer),
        }
    }

    fn done(&mut self, end: Result<Box<SessionView>>) -> Vec<SessionAction> {
        self.stage = Stage::Over;
        vec![SessionAction::Done(end)]
    }

    fn answered(&mut self, input: Input) -> Vec<SessionAction> {
        match (std::mem::replace(&mut self.stage, Stage::Over), input) {
            (Stage::Preparing(view), Input::Attempt(Event::Vault(answer))) => {
                match check::judge(&self.me, &view, answer) {
                    Ok(key) if self.asks => {
                        self.stage = Stage::Asking(key.clone());
                        vec![SessionAction::Authorise { view, key }]
                    }
                    Ok(key) => self.standing(key, None),
                    Err(failure) => self.standing(None, Some(failure)),
                }
            }
            (Stage::Asking(key), Input::Authorised(decided)) => self.decided(key, decided),
            (Stage::Showing(key, refusal), Input::Attempt(Event::Vault(answer))) => {
                self.show(key.as_ref(), refusal, answer)
            }
            (Stage::Joining(secret, refusal), Input::Joined(joined)) => {
                self.seated(secret, refusal, joined)
            }
            (Stage::Disowning, Input::Reported(end)) => self.done(end),
            (Stage::Attempting(attempt), Input::Attempt(event)) => self.advance(attempt, event),
            (Stage::Reporting(outcome), Input::Reported(view)) => self.reported(outcome, view),
            // An answer that nobody waits for any more.
            (stage, _) => {
                self.stage = stage;
                Vec::new()
            }
        }
    }

    fn decided(
        &mut self,
        key: Option<Arc<OpenKey>>,
        decided: Result<Permission>,
    ) -> Vec<SessionAction> {
        if let Some(end) = self.seen.take_if(|view| view.status.is_final()) {
            return self.done(Ok(end));
        }
        match decided {
            Ok(Permission::Given(allowed)) => {
                self.allowed = Some(allowed);
                self.standing(key, None)
            }
            Ok(Permission::Refused(failure)) => self.standing(None, Some(failure)),
            Ok(Permission::Ended(view)) => self.done(Ok(view)),
            Err(error) => self.done(Err(error)),
        }
    }

    /// Asks the vault what to show of itself.
    fn standing(
        &mut self,
        key: Option<Arc<OpenKey>>,
        refusal: Option<Failure>,
    ) -> Vec<SessionAction> {
        self.stage = Stage::Showing(key, refusal);
        vec![vault(VaultAction::ReadStanding)]
    }

    fn show(
        &mut self,
        key: Option<&Arc<OpenKey>>,
        refusal: Option<Failure>,
        answer: Result<VaultAnswer>,
    ) -> Vec<SessionAction> {
        let standing = match answer {
            Ok(VaultAnswer::Standing(standing)) => standing,
            Ok(_) => return self.done(Err(Error::internal())),
            Err(error) => return self.done(Err(error)),
        };
        let Me { party, identity, .. } = &self.me;
        let shown = shown(identity, standing, key);
        let (handshake, secret) = make_handshake(identity, self.session, party, &shown);
        let ready = refusal.is_none();
        self.joined = Some((handshake.clone(), ready));
        self.stage = Stage::Joining(secret, refusal);
        vec![SessionAction::Join { handshake, ready }]
    }

    fn seated(
        &mut self,
        secret: HandshakeSecret,
        refusal: Option<Failure>,
        joined: Result<Box<JoinedSession>>,
    ) -> Vec<SessionAction> {
        let joined = match joined {
            // It runs with a handshake whose secret half this process does not have, or without
            // having waited for this party.
            Err(error) if error.code == ErrorCode::Conflict => {
                self.stage = Stage::Disowning;
                let failure = refusal.unwrap_or_else(|| restarted(&self.me.party));
                let report = SessionAction::Report(PartyOutcome::Failure(failure));
                return vec![SessionAction::Deadline(JOIN_LIMIT), report];
            }
            Err(error) => return self.done(Err(error)),
            Ok(joined) => joined,
        };
        let mut actions = vec![SessionAction::Deadline(lifetime(&joined.session))];
        match refusal {
            Some(failure) => actions.push(self.report(PartyOutcome::Failure(failure))),
            None => actions.extend(self.wait(secret)),
        }
        actions
    }

    /// Waits for the start, which may have been shown already.
    fn wait(&mut self, secret: HandshakeSecret) -> Vec<SessionAction> {
        match self.seen.take() {
            Some(view) if view.status.is_final() => self.done(Ok(view)),
            Some(view) => self.attempt(secret, view),
            None if self.lost => self.done(Err(lost())),
            None => {
                self.stage = Stage::Waiting(secret);
                Vec::new()
            }
        }
    }

    fn attempt(&mut self, secret: HandshakeSecret, view: Box<SessionView>) -> Vec<SessionAction> {
        let Some((handshake, _)) = &self.joined else {
            return self.done(Err(Error::internal()));
        };
        let allowed = self.allowed.clone();
        if self.asks && allowed.is_none() {
            return self.done(Err(Error::internal()));
        }
        let (attempt, actions) =
            Attempt::begin(&self.me, (handshake.clone(), secret), view, allowed);
        self.stage = Stage::Attempting(Box::new(attempt));
        actions.into_iter().map(SessionAction::Attempt).collect()
    }

    fn advance(&mut self, mut attempt: Box<Attempt>, event: Event) -> Vec<SessionAction> {
        let outcome = match attempt.handle(event) {
            Next::Do(actions) => {
                self.stage = Stage::Attempting(attempt);
                return actions.into_iter().map(SessionAction::Attempt).collect();
            }
            Next::Over(outcome) => outcome.unwrap_or_else(PartyOutcome::Failure),
        };
        match self.over.take() {
            Some(end) => self.done(end),
            None => vec![self.report(outcome)],
        }
    }

    fn report(&mut self, outcome: PartyOutcome) -> SessionAction {
        self.stage = Stage::Reporting(outcome.clone());
        // What was shown before the report tells nothing about it, but for the end.
        self.seen.take_if(|view| !view.status.is_final());
        SessionAction::Report(outcome)
    }

    fn reported(
        &mut self,
        outcome: PartyOutcome,
        view: Result<Box<SessionView>>,
    ) -> Vec<SessionAction> {
        match (view, self.seen.take_if(|view| view.status.is_final())) {
            (Err(error), _) => self.done(Err(error)),
            (Ok(view), _) if view.status.is_final() => self.done(Ok(view)),
            (Ok(_), Some(end)) => self.done(Ok(end)),
            (Ok(_), None) if self.lost => self.done(Err(lost())),
            (Ok(_), None) => {
                self.stage = Stage::Staying(outcome);
                Vec::new()
            }
        }
    }

    fn viewed(&mut self, view: Box<SessionView>) -> Vec<SessionAction> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting(secret) if Self::minds(view.status) => {
                self.seen = Some(view);
                self.wait(secret)
            }
            Stage::Attempting(attempt) if view.status.is_final() => {
                self.stage = Stage::Attempting(attempt);
                self.end(Ok(view))
            }
            Stage::Staying(_) if view.status.is_final() => self.done(Ok(view)),
            // A coordinator that was restarted has forgotten a report that was not the last one.
            Stage::Staying(outcome) if self.has_forgotten(&view) => vec![self.report(outcome)],
            stage => {
                self.stage = stage;
                if Self::minds(view.status) {
                    self.seen = Some(view);
                }
                Vec::new()
            }
        }
    }

    fn has_forgotten(&self, view: &SessionView) -> bool {
        let me = view.seat(&self.me.party);
        view.status == SessionStatus::InProgress
            && me.is_some_and(|seat| {
                !matches!(seat.status, ParticipantStatus::Completed | ParticipantStatus::Failed)
            })
    }

    fn forgotten(&mut self) -> Vec<SessionAction> {
        let seated = !matches!(
            self.stage,
            Stage::Preparing(_)
                | Stage::Asking(_)
                | Stage::Showing(..)
                | Stage::Joining(..)
                | Stage::Over
        );
        match &self.joined {
            Some((handshake, ready)) if seated => {
                vec![SessionAction::JoinAgain { handshake: handshake.clone(), ready: *ready }]
            }
            _ => Vec::new(),
        }
    }

    fn lost(&mut self) -> Vec<SessionAction> {
        self.lost = true;
        match self.stage {
            Stage::Waiting(_) | Stage::Staying(_) | Stage::Attempting(_) => self.end(Err(lost())),
            _ => Vec::new(),
        }
    }

    /// The session has ended or its time is up. A computation is stopped, never cut off: a fault
    /// it has come upon must reach the vault.
    fn end(&mut self, end: Result<Box<SessionView>>) -> Vec<SessionAction> {
        match self.stage {
            Stage::Attempting(_) => {
                let first = self.over.is_none();
                self.over.get_or_insert(end);
                if first { vec![SessionAction::Stop] } else { Vec::new() }
            }
            _ => self.done(end),
        }
    }
}

fn vault(action: VaultAction) -> SessionAction {
    SessionAction::Attempt(Action::Vault(action))
}

/// When to give up on a session: its lifetime from now and a grace, by this machine's own clock. A
/// device's wall clock may be hours off, so the deadline itself is not compared with it; and a
/// coordinator that lies about it gets no more than the longest lifetime there is.
pub fn lifetime(session: &SessionView) -> Duration {
    let millis = session.expires_at.millis_since(session.created_at);
    Duration::from_millis(millis).min(LONGEST_LIFE) + GRACE
}

fn lost() -> Error {
    Error::unavailable("the connection to the coordinator is gone; ask it later")
}

fn silent() -> Error {
    Error::new(
        ErrorCode::SessionExpired,
        "the session's time is over and how it ended is not known; ask the coordinator for it",
    )
}
