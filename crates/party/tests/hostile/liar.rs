//! A coordinator and router that tell the truth but for one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use quorate_types::*;
use serde_json::Value;

use crate::json::{Document, Kind};
use crate::lie::Lie;
use crate::middle::{Call, Middle, Told};

/// The calls with which a connection begins.
pub(crate) const CONNECTING: [&str; 3] = ["register", "subscribe", "subscribe_events"];

/// What is done with the thing that is told.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Lie(Lie),
    /// It is not told.
    Drop,
    Twice,
    /// It is told after the next of its kind.
    Later,
    /// Something of another session or party is told in its place.
    Instead(Arc<Value>),
    /// The same, before it.
    Before(Arc<Value>),
    /// The stream breaks in its place, or the answer is an error.
    Break(ErrorCode),
}

/// One departure from the truth.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// About the `nth` thing of this kind that is told in a session, and from then on.
    Tell { kind: Kind, nth: usize, onward: bool, act: Act },
    /// About the `nth` call by this name, and from then on.
    Refuse { call: &'static str, nth: usize, onward: bool, code: ErrorCode },
}

/// Whom it concerns: one party, or all alike.
#[derive(Clone, Debug, Default)]
pub(crate) enum Deceived {
    #[default]
    All,
    One(PartyId),
}

impl Deceived {
    fn includes(&self, party: &PartyId) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == party,
        }
    }
}

/// The key and the digest that a session is shown with.
pub(crate) type Request = (Option<KeyId>, Option<[u8; 32]>);

/// What a liar does in one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) plan: Option<Plan>,
    pub(crate) deceived: Deceived,
    /// He also delivers no message and tells no end: a party is left to its own clock.
    pub(crate) hushed: bool,
}

/// What happened while the plan was carried out.
#[derive(Default)]
pub(crate) struct Account {
    /// All that was told before it was changed.
    pub(crate) told: Vec<(PartyId, Kind, Value)>,
    /// The calls that were made.
    pub(crate) called: BTreeSet<&'static str>,
    /// What each party was shown that it is asked for.
    pub(crate) shown: BTreeMap<PartyId, BTreeSet<Request>>,
    /// The longest life that a session was shown with, in milliseconds.
    pub(crate) life: u64,
    /// The signatures that parties reported.
    pub(crate) signed: Vec<(PartyId, Signature)>,
    /// What parties said of bugs of their own.
    pub(crate) bugs: Vec<String>,
    counts: BTreeMap<(PartyId, String), usize>,
    held: BTreeMap<(PartyId, Kind), Value>,
}

#[derive(Default)]
pub(crate) struct Liar(Mutex<State>);

#[derive(Default)]
struct State {
    script: Script,
    account: Account,
}

impl Liar {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Begins another script; answers with what happened so far.
    pub(crate) fn begin(&self, script: Script) -> Account {
        let new = State { script, account: Account::default() };
        std::mem::replace(&mut *self.state(), new).account
    }

    /// The longest life that a session was shown with so far, in milliseconds.
    pub(crate) fn life(&self) -> u64 {
        self.state().account.life
    }

    /// Tells something, changed if that is the plan.
    fn tell<D: Document>(&self, party: &PartyId, document: D) -> Told<D> {
        let mut state = self.state();
        let json = document.to_json();
        state.account.told.push((party.clone(), D::KIND, json.clone()));
        let count = state.count(party, format!("{:?}", D::KIND));
        let deceived = state.script.deceived.includes(party);
        let over = document.session().is_none_or(|view| view.status.is_final());
        let pushed = matches!(D::KIND, Kind::Event | Kind::Message);
        if state.script.hushed && deceived && pushed && over {
            return Vec::new();
        }
        let act = match &state.script.plan {
            Some(Plan::Tell { kind, nth, onward, act })
                if *kind == D::KIND && deceived && (count == *nth || *onward && count > *nth) =>
            {
                Some(act.clone())
            }
            // What is asked at the beginning of a connection is asked when one breaks.
            Some(Plan::Refuse { call, .. })
                if CONNECTING.contains(call)
                    && D::KIND == Kind::Event
                    && deceived
                    && count == 0 =>
            {
                Some(Act::Break(ErrorCode::Unavailable))
            }
            _ => None,
        };
        let slot = (party.clone(), D::KIND);
        let mut told = match act {
            None => vec![Ok(document)],
            Some(Act::Lie(lie)) => {
                let mut json = json;
                lie.apply(&mut json);
                vec![D::from_json(&json)]
            }
            Some(Act::Drop) => Vec::new(),
            Some(Act::Twice) => vec![Ok(document.clone()), Ok(document)],
            Some(Act::Later) => match state.account.held.insert(slot.clone(), json) {
                // One is held at a time.
                Some(earlier) => vec![D::from_json(&earlier)],
                None => return Vec::new(),
            },
            Some(Act::Instead(other)) => vec![D::from_json(&other)],
            Some(Act::Before(other)) => vec![D::from_json(&other), Ok(document)],
            Some(Act::Break(code)) => vec![Err(Error::new(code, "so it says"))],
        };
        if !told.is_empty()
            && let Some(later) = state.account.held.remove(&slot)
        {
            told.push(D::from_json(&later));
        }
        for shown in told.iter().flatten().filter_map(Document::session) {
            state.account.show(party, shown);
        }
        told
    }

    /// The one answer to a call; an answer that is not told is a call that broke.
    fn answer<D: Document>(&self, party: &PartyId, document: D) -> Result<D> {
        let lost = || Err(Error::unavailable("the answer was lost"));
        self.tell(party, document).into_iter().next().unwrap_or_else(lost)
    }
}

impl State {
    /// How many of these there were before for this party.
    fn count(&mut self, party: &PartyId, what: String) -> usize {
        let count = self.account.counts.entry((party.clone(), what)).or_default();
        *count += 1;
        *count - 1
    }
}

impl Account {
    fn show(&mut self, party: &PartyId, view: &SessionView) {
        let shown = self.shown.entry(party.clone()).or_default();
        let digest = view.ceremony.input().and_then(SignInput::digest);
        shown.insert((view.key_id(), digest.map(|digest| digest.0)));
        self.life = self.life.max(view.expires_at.millis_since(view.created_at));
    }
}

fn name(call: &Call<'_>) -> &'static str {
    match call {
        Call::Register => "register",
        Call::Heartbeat => "heartbeat",
        Call::Route(_) => "route",
        Call::Subscribe => "subscribe",
        Call::Acknowledge => "acknowledge",
        Call::SubscribeEvents => "subscribe_events",
        Call::Join => "join",
        Call::Status => "status",
        Call::Report(_) => "report",
    }
}

#[async_trait]
impl Middle for Liar {
    async fn call(&self, party: &PartyId, call: Call<'_>) -> Result<()> {
        let mut state = self.state();
        let name = name(&call);
        state.account.called.insert(name);
        if let Call::Report(report) = &call {
            match &report.outcome {
                PartyOutcome::Signature { bytes, recovery_id } => {
                    let signature = Signature::from_parts(bytes, *recovery_id);
                    state.account.signed.push((
                        party.clone(),
                        signature.expect("a party reports what it verified"),
                    ));
                }
                PartyOutcome::Failure(failure) if failure.message.contains("a bug of its own") => {
                    state.account.bugs.push(failure.message.clone());
                }
                _ => {}
            }
        }
        let count = state.count(party, name.to_owned());
        match &state.script.plan {
            Some(Plan::Refuse { call, nth, onward, code })
                if *call == name
                    && state.script.deceived.includes(party)
                    && (count == *nth || *onward && count > *nth) =>
            {
                Err(Error::new(*code, "so it says"))
            }
            _ => Ok(()),
        }
    }

    fn joined(&self, party: &PartyId, joined: JoinedSession) -> Result<JoinedSession> {
        self.answer(party, joined)
    }

    fn view(&self, party: &PartyId, view: SessionView) -> Result<SessionView> {
        self.answer(party, view)
    }

    fn event(&self, party: &PartyId, event: SessionEvent) -> Told<SessionEvent> {
        self.tell(party, event)
    }

    fn message(&self, party: &PartyId, message: Message) -> Told<Message> {
        self.tell(party, message)
    }
}
