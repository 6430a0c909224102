//! One party's part in one session: the runtime around [`Session`], from joining to the end.

pub(crate) mod permission;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use quorate_participant::{
    Input, JOIN_LIMIT, OpenKey, Permission, Session, SessionAction, could_not,
};
use quorate_ports::{Deliver, TakePart};
use quorate_types::*;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Stored};
use crate::backoff::retry;
use crate::compute::Compute;
use crate::drive::Driver;
use crate::keyring::Keyring;
use crate::seat::{Delegate, Names, Seat, taken};
use crate::transport::RouterTransport;

pub(crate) use permission::denied;

/// Length of a session's inbox. A keygen of 16 parties brings a party fewer than 256 messages and,
/// after a reconnect, some of them again: a full inbox means that a peer sends what no protocol
/// asks for.
pub const INBOX_LEN: usize = 1024;

/// How long one question for a session's start may wait for its answer.
const START_WAIT: Duration = Duration::from_secs(20);

fn started(view: &SessionView) -> bool {
    !view.status.is_unstarted()
}

/// What a party computes with.
#[derive(Clone)]
pub struct Worker {
    /// Identity, shares, pins and bans. It also says who the party is.
    pub keyring: Arc<Keyring>,
    /// Where its cryptography runs.
    pub compute: Compute,
}

impl Worker {
    /// The party's id.
    pub fn id(&self) -> &PartyId {
        self.keyring.party()
    }
}

/// What a party needs to take part in sessions.
#[derive(Clone)]
pub struct Party {
    /// Its keys and its processor.
    pub worker: Worker,
    /// Carries its messages.
    pub router: Arc<dyn Deliver>,
    /// Lets it join and takes its result.
    pub coordinator: Arc<dyn TakePart>,
    /// What it says about its machine.
    pub device: DeviceInfo,
    /// Decides about sessions before they are joined. A device has none: its user decides.
    pub authority: Option<Arc<Authority>>,
    /// Whether it takes seats for users, and no others.
    pub delegate: Option<Delegate>,
    /// What was allowed before; for a party without an authority of its own.
    pub allowed: Option<Authorization>,
}

impl Party {
    /// The party's id.
    pub fn id(&self) -> &PartyId {
        self.worker.id()
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::Party(self.id().clone())
    }

    pub(crate) async fn status(
        &self,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        let caller = self.caller();
        let view = retry(|| self.coordinator.status(&caller, session, wait)).await?;
        of_session(session, view)
    }

    /// Reports an outcome until it is taken or refused for good.
    ///
    /// A session that has ended meanwhile takes no report; its view is the answer then.
    pub(crate) async fn report(
        &self,
        (session_id, attempt): (SessionId, u32),
        outcome: PartyOutcome,
    ) -> Result<SessionView> {
        let report = Report { session_id, party_id: self.id().clone(), attempt, outcome };
        let caller = self.caller();
        let reported =
            self.once_it_runs(session_id, || self.coordinator.complete(&caller, report.clone()));
        match reported.await? {
            Some(view) => of_session(session_id, view),
            None => self.status(session_id, None).await,
        }
    }

    /// Hands in the package of a delegated seat until it is taken or refused for good.
    async fn submit(&self, submission: SubmitShare) -> Result<()> {
        let caller = self.caller();
        let submitted = self.once_it_runs(submission.session_id, || {
            self.coordinator.submit_share(&caller, submission.clone())
        });
        submitted.await.map(drop)
    }

    /// Makes a call about a session that runs until it is taken or refused for good; `None` when
    /// the session has ended meanwhile.
    async fn once_it_runs<T, F: Future<Output = Result<T>>>(
        &self,
        session_id: SessionId,
        call: impl Fn() -> F,
    ) -> Result<Option<T>> {
        loop {
            let error = match retry(&call).await {
                Err(error) => error,
                Ok(answer) => return Ok(Some(answer)),
            };
            match error.code {
                ErrorCode::SessionExpired => return Ok(None),
                // A restarted coordinator may not know that the session runs. All join again.
                ErrorCode::Conflict if started(&self.status(session_id, None).await?) => {
                    return Err(error);
                }
                ErrorCode::Conflict => {
                    let start = Some((WaitFor::Start, START_WAIT));
                    while !started(&self.status(session_id, start).await?) {}
                }
                _ => return Err(error),
            }
        }
    }

    async fn join(&self, request: JoinSession) -> Result<JoinedSession> {
        let caller = self.caller();
        let joining = retry(|| self.coordinator.join(&caller, request.clone()));
        let late = |_| Err(Error::unavailable("the join was not answered in time"));
        tokio::time::timeout(JOIN_LIMIT, joining).await.unwrap_or_else(late)
    }
}

/// Refuses an answer about another session than the one asked for.
fn of_session(session: SessionId, view: SessionView) -> Result<SessionView> {
    if view.session_id == session {
        return Ok(view);
    }
    Err(Error::new(
        ErrorCode::Conflict,
        format!(
            "the coordinator answered for session {} when asked for {session}",
            view.session_id
        ),
    ))
}

/// What reaches the task of one attempt at a session from outside.
pub struct Feed {
    /// The attempt, from 0.
    pub attempt: u32,
    /// The session as it is known; only ever moves forward. `None` until it is known.
    pub views: watch::Receiver<Option<SessionView>>,
    /// Told when the session has not started and does not know of our joining: a coordinator
    /// keeps joins in memory only, so one that was restarted has to be told again.
    pub unjoined: Arc<Notify>,
    /// The session's messages. Duplicates are allowed.
    pub inbox: mpsc::Receiver<Message>,
    /// The share that a user lends this party for the session.
    pub lent: Option<LentShare>,
}

/// Joins with `token`, computes, stores the share or reports the signature, and waits for the end:
/// in one attempt. When the session goes on with another, the views end and so does this.
///
/// Answers with the session as it ended, also when it failed: what went wrong is in the view. The
/// share of a keygen stays in the vault however the coordinator says that the session ended:
/// nothing it says removes a share.
///
/// # Errors
/// When the party could not join, or could not learn how the session ended.
pub async fn take_part(
    party: &Party,
    session: SessionId,
    token: JoinToken,
    feed: Feed,
) -> Result<SessionView> {
    let Feed { attempt, mut views, unjoined, inbox, lent } = feed;
    let early = views.borrow_and_update().clone();
    if party.authority.is_some() && early.is_none() {
        return Err(Error::internal());
    }
    let seat = match taken(party, early.as_ref(), lent.as_ref()) {
        Ok(Some((delegate, task))) => Seat::take(task, delegate, &party.worker).await.map(Some),
        Ok(None) => Ok(None),
        Err(refusal) => Err(refusal),
    };
    let seat = match seat {
        Ok(seat) => seat,
        Err(refusal) => {
            let refusal = PartyOutcome::Failure(could_not(party.id(), refusal));
            return party.report((session, attempt), refusal).await;
        }
    };
    let seated = seat.as_ref().map(|seat| Arc::clone(&seat.worker.keyring));
    let worker = seat.as_ref().map_or(&party.worker, |seat| &seat.worker).clone();
    let early = early.map(|view| Box::new(view.by_holder()));
    let (mut machine, mut actions) = Session::begin(worker.keyring.me(), session, early);
    if party.authority.is_some() || party.allowed.is_some() {
        machine.ask_authority();
    }
    let stop = CancellationToken::new();
    let join = Joining { party, session, attempt, token };
    let mut work = Work {
        driver: Driver::new(worker.clone()),
        worker,
        seat,
        transport: None,
        inbox: Some(inbox),
        unjoined: &unjoined,
        views: views.clone(),
        forgotten: Arc::default(),
        held: None,
        join: &join,
        stop: &stop,
    };
    let forgotten = Arc::clone(&work.forgotten);
    let mut outside =
        Outside { views, lost: false, unjoined: &unjoined, again: None, deadline: None };
    loop {
        let mut working = pin!(work.perform(actions).fuse());
        actions = loop {
            let input = tokio::select! {
                // First whether this attempt is over: what its messages say then is no failure.
                biased;
                input = outside.next() => input,
                input = &mut working, if !working.is_terminated() => input,
            };
            if matches!(input, Input::Forgotten) {
                forgotten.notify_one();
            }
            let mut more = Vec::new();
            for action in machine.handle(input) {
                match action {
                    SessionAction::Done(end) => {
                        // Nobody else waits for the bans of a seat that goes now.
                        if let Some(keyring) = &seated {
                            keyring.settled().await;
                        }
                        return end.map(|view| *view);
                    }
                    SessionAction::Stop => stop.cancel(),
                    SessionAction::Deadline(after) => {
                        outside.deadline = Some(Instant::now() + after);
                    }
                    SessionAction::JoinAgain { handshake, ready } => {
                        outside.again = Some(Box::pin(join.again(handshake, ready)));
                    }
                    work => more.push(work),
                }
            }
            if !more.is_empty() {
                break more;
            }
        };
    }
}

/// A seat that is asked for, maybe more than once.
pub(crate) struct Joining<'a> {
    pub(crate) party: &'a Party,
    pub(crate) session: SessionId,
    pub(crate) attempt: u32,
    pub(crate) token: JoinToken,
}

impl Joining<'_> {
    async fn ask(&self, handshake: Handshake, ready: bool) -> Result<JoinedSession> {
        let request = JoinSession {
            session_id: Some(self.session),
            party_id: self.party.id().clone(),
            token: self.token.clone(),
            device: self.party.device.clone(),
            handshake: Some(handshake),
            ready,
            awaiting_approval: false,
            attempt: self.attempt,
        };
        self.party.join(request).await
    }

    async fn again(&self, handshake: Handshake, ready: bool) {
        match self.ask(handshake, ready).await {
            Ok(_) => tracing::info!("joined again: the coordinator had forgotten it"),
            Err(error) => tracing::debug!(%error, "could not join again"),
        }
    }
}

/// What happens beside the work.
struct Outside<'a> {
    views: watch::Receiver<Option<SessionView>>,
    /// No more views come.
    lost: bool,
    unjoined: &'a Notify,
    /// Joining again, while that is under way.
    again: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    deadline: Option<Instant>,
}

impl Outside<'_> {
    async fn next(&mut self) -> Input {
        loop {
            let late = async {
                match self.deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.views.changed(), if !self.lost => match changed {
                    Ok(()) => {
                        let view = self.views.borrow_and_update();
                        let minded = view.as_ref().filter(|view| Session::minds(view.status));
                        if let Some(view) = minded {
                            return Input::View(Box::new(view.clone().by_holder()));
                        }
                    }
                    Err(_) => {
                        self.lost = true;
                        return Input::Lost;
                    }
                },
                () = async {
                    match &mut self.again {
                        Some(again) => again.await,
                        None => std::future::pending().await,
                    }
                } => self.again = None,
                () = self.unjoined.notified(), if self.again.is_none() => return Input::Forgotten,
                () = late => {
                    self.deadline = None;
                    return Input::Late;
                }
            }
        }
    }
}

/// What carries out a session's work, one thing at a time.
struct Work<'a> {
    driver: Driver,
    /// What is computed with: the party's own, or of the seat that it takes for a user.
    worker: Worker,
    seat: Option<Seat>,
    transport: Option<RouterTransport>,
    /// The session's messages, until the transport takes them.
    inbox: Option<mpsc::Receiver<Message>>,
    unjoined: &'a Notify,
    /// The session as it is known, for the authority.
    views: watch::Receiver<Option<SessionView>>,
    /// Told when the coordinator has forgotten what this party said.
    forgotten: Arc<Notify>,
    /// The write of what was allowed.
    held: Option<Stored>,
    join: &'a Joining<'a>,
    stop: &'a CancellationToken,
}

impl Work<'_> {
    /// Carries actions out in their order, up to the first that has an answer.
    async fn perform(&mut self, actions: Vec<SessionAction>) -> Input {
        for action in actions {
            match action {
                SessionAction::Attempt(action) => {
                    let event = match &mut self.transport {
                        Some(transport) => self.driver.over_router(action, transport).await,
                        None => self.driver.perform(action).await,
                    };
                    if let Some(event) = event {
                        return Input::Attempt(event);
                    }
                }
                SessionAction::Authorise { view, key } => {
                    return Input::Authorised(self.authorise(*view, key).await);
                }
                SessionAction::Join { handshake, ready } => {
                    return Input::Joined(self.join(handshake, ready).await.map(Box::new));
                }
                SessionAction::Report(outcome) => {
                    return Input::Reported(self.report(outcome).await.map(Box::new));
                }
                _ => {}
            }
        }
        std::future::pending().await
    }

    async fn authorise(
        &mut self,
        view: SessionView,
        key: Option<Arc<OpenKey>>,
    ) -> Result<Permission> {
        let Party { authority, allowed, .. } = self.join.party;
        if let Some(allowed) = allowed {
            let signed = crate::authority::signed(allowed, self.join.party.id())?;
            return Ok(Permission::Given(signed));
        }
        let Some(authority) = authority else { return Err(Error::internal()) };
        let mut asking = permission::Asking {
            join: self.join,
            authority,
            views: &mut self.views,
            forgotten: &self.forgotten,
        };
        let (permission, held) = asking.ask(view, key.as_deref()).await?;
        self.held = held;
        Ok(permission)
    }

    async fn join(&mut self, handshake: Handshake, ready: bool) -> Result<JoinedSession> {
        let mut joined = self.join.ask(handshake, ready).await?;
        // What was told before we joined.
        let _ = self.unjoined.notified().now_or_never();
        tracing::debug!(index = joined.party_index.0, "joined");
        let Joining { party, session, .. } = self.join;
        let stop = self.stop.clone();
        let compute = &self.worker.compute;
        let compute = compute.for_session(joined.session.ceremony.kind(), stop.clone());
        self.driver = Driver::new(Worker { compute, ..self.worker.clone() });
        if let Some(inbox) = self.inbox.take() {
            let (router, me) = (Arc::clone(&party.router), party.id().clone());
            let me = (me, Names::new(self.views.clone()));
            let mut transport = RouterTransport::start(router, *session, me, inbox, stop);
            transport.hold_results(self.held.take());
            self.transport = Some(transport);
        }
        joined.session = joined.session.by_holder();
        Ok(joined)
    }

    /// Reports; what was sent before goes its way beside it. Of a seat that was taken for a user its
    /// package is handed in first.
    async fn report(&mut self, mut outcome: PartyOutcome) -> Result<SessionView> {
        if let (Some(seat), PartyOutcome::Key { .. }) = (&mut self.seat, &outcome) {
            let Joining { party, session, .. } = self.join;
            let submitted = match seat.submission(*session, party.id()).await {
                Ok(submission) => party.submit(submission).await,
                Err(error) => Err(error),
            };
            if let Err(error) = submitted {
                tracing::error!(%error, "a user's package could not be handed in");
                let why = format!("{} could not hand in its user's share", party.id());
                outcome = PartyOutcome::Failure(could_not(party.id(), why));
            }
        }
        if let PartyOutcome::Failure(failure) = &outcome {
            tracing::warn!(reason = failure.reason.name(), "gave up: {}", failure.message);
        }
        let Joining { party, session, attempt, .. } = self.join;
        let reporting = party.report((*session, *attempt), outcome);
        match self.transport.take() {
            Some(transport) => tokio::join!(reporting, transport.close()).0,
            None => reporting.await,
        }
    }
}
