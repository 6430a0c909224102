//! One party's part in one session, from joining to the session's end.

mod attempt;
mod failure;
mod peers;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use quorate_engine::make_handshake;
use quorate_ports::{Deliver, TakePart};
use quorate_types::*;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::retry;
use crate::compute::Compute;
use crate::keyring::Keyring;
use crate::transport::RouterTransport;
use attempt::{Attempt, prepare};
pub(crate) use failure::{busy, could_not, restarted};
pub use peers::compute_with_peers;

/// Length of a session's inbox. A keygen of 16 parties brings a party fewer than 256 messages and,
/// after a reconnect, some of them again: a full inbox means that a peer sends what no protocol
/// asks for.
pub const INBOX_LEN: usize = 1024;

/// How long a party tries to join.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// How much longer than the session a party's task lives, for the answer to arrive.
const GRACE: Duration = Duration::from_secs(5);

/// Longest life of a session, whatever the coordinator says: what it may grant at most.
const LONGEST_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long one question for a session's start may wait for its answer.
const START_WAIT: Duration = Duration::from_secs(20);

fn started(view: &SessionView) -> bool {
    !matches!(view.status, SessionStatus::Created | SessionStatus::Waiting)
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
}

impl Party {
    /// The party's id.
    pub fn id(&self) -> &PartyId {
        self.worker.id()
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::Party(self.id().clone())
    }

    async fn status(
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
        session_id: SessionId,
        outcome: PartyOutcome,
    ) -> Result<SessionView> {
        let report = Report { session_id, party_id: self.id().clone(), outcome };
        let caller = self.caller();
        loop {
            let error = match retry(|| self.coordinator.complete(&caller, report.clone())).await {
                Err(error) => error,
                Ok(view) => return of_session(session_id, view),
            };
            match error.code {
                ErrorCode::SessionExpired => return self.status(session_id, None).await,
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

/// What reaches one session's task from outside.
pub struct Feed {
    /// The session as it is known; only ever moves forward. `None` until it is known.
    pub views: watch::Receiver<Option<SessionView>>,
    /// Told when the session has not started and does not know of our joining: a coordinator
    /// keeps joins in memory only, so one that was restarted has to be told again.
    pub unjoined: Arc<Notify>,
    /// The session's messages. Duplicates are allowed.
    pub inbox: mpsc::Receiver<Message>,
}

/// Joins with `token`, computes, stores the share or reports the signature, and waits for the end.
///
/// Answers with the session as it ended, also when it failed: what went wrong is in the view. A
/// party that cannot take part joins all the same and reports why, so that the creator reads the
/// reason instead of a deadline. The share of a keygen is on disk before it is reported, and stays
/// there however the coordinator says that the session ended: nothing it says removes a share.
///
/// # Errors
/// When the party could not join, or could not learn how the session ended.
pub async fn take_part(
    party: &Party,
    session: SessionId,
    token: JoinToken,
    feed: Feed,
) -> Result<SessionView> {
    let early = feed.views.borrow().clone();
    let (key, refusal) = match &early {
        Some(view) => match prepare(&party.worker, view).await {
            Ok(key) => (key, None),
            Err(failure) => (None, Some(failure)),
        },
        None => (None, None),
    };
    let ready = refusal.is_none();
    let keyring = &party.worker.keyring;
    let shown = keyring.shown(key.as_deref()).await?;
    let (handshake, secret) = make_handshake(keyring.identity(), session, party.id(), &shown);
    let joining = || join(party, session, token.clone(), handshake.clone(), ready);
    let joined = match joining().await {
        // It runs with a handshake whose secret half this process does not have.
        Err(error) if error.code == ErrorCode::Conflict => {
            let outcome = PartyOutcome::Failure(restarted(party.id()));
            return in_time(Instant::now() + JOIN_LIMIT, party.report(session, outcome)).await;
        }
        joined => joined?,
    };
    tracing::debug!(index = joined.party_index.0, "joined");

    let unjoined = Arc::clone(&feed.unjoined);
    let deadline = deadline(&joined.session);
    let stop = CancellationToken::new();
    let compute = party.worker.compute.for_session(joined.session.ceremony.kind(), stop.clone());
    let worker = Worker { compute, ..party.worker.clone() };
    let attempt = Attempt { worker: &worker, session, handshake: handshake.clone(), secret };
    let staying = stay(party, attempt, refusal, feed, deadline, stop);
    let joined_again = async {
        // What was told before we joined.
        let _ = unjoined.notified().now_or_never();
        loop {
            unjoined.notified().await;
            match joining().await {
                Ok(_) => tracing::info!("joined again: the coordinator had forgotten it"),
                Err(error) => tracing::debug!(%error, "could not join again"),
            }
        }
    };
    let ended = tokio::select! {
        ended = staying => ended?,
        () = joined_again => return Err(Error::internal()),
    };
    Ok(ended)
}

/// Computes, reports and waits for the end.
async fn stay(
    party: &Party,
    attempt: Attempt<'_>,
    refusal: Option<Failure>,
    Feed { mut views, inbox, .. }: Feed,
    deadline: Instant,
    stop: CancellationToken,
) -> Result<SessionView> {
    let session = attempt.session;
    let router = Arc::clone(&party.router);
    let me = party.id().clone();
    let mut transport = RouterTransport::start(router, session, me, inbox, stop.clone());
    let left = match refusal {
        Some(failure) => Left::Outcome(PartyOutcome::Failure(failure)),
        None => work(attempt, &mut views, &mut transport, &stop, deadline).await?,
    };
    match left {
        Left::Ended(view) => Ok(*view),
        Left::Outcome(outcome) => {
            let report =
                async { tokio::join!(party.report(session, outcome.clone()), transport.close()).0 };
            let view = in_time(deadline, report).await?;
            if view.status.is_final() {
                return Ok(view);
            }
            in_time(deadline, ended(party, session, outcome, &mut views)).await
        }
    }
}

/// Waits for the end of a session whose outcome has been reported. A coordinator that was restarted
/// has forgotten a report that was not the last one: it is told again.
async fn ended(
    party: &Party,
    session: SessionId,
    outcome: PartyOutcome,
    views: &mut watch::Receiver<Option<SessionView>>,
) -> Result<SessionView> {
    let forgotten = |view: &SessionView| {
        let me = view.participants.iter().find(|seat| seat.party_id == *party.id());
        view.status == SessionStatus::InProgress
            && me.is_some_and(|seat| {
                !matches!(seat.status, ParticipantStatus::Completed | ParticipantStatus::Failed)
            })
    };
    loop {
        // What was shown before the report tells nothing about it.
        let shown = views.borrow_and_update().clone();
        if let Some(view) = shown.filter(|view| view.status.is_final()) {
            return Ok(view);
        }
        views.changed().await.map_err(|_| lost())?;
        let again = views.borrow().as_ref().is_some_and(forgotten);
        if again {
            tracing::info!("reporting again: the coordinator had forgotten it");
            let view = party.report(session, outcome.clone()).await?;
            if view.status.is_final() {
                return Ok(view);
            }
        }
    }
}

fn lost() -> Error {
    Error::unavailable("the connection to the coordinator is gone; ask it later")
}

async fn join(
    party: &Party,
    session: SessionId,
    token: JoinToken,
    handshake: Handshake,
    ready: bool,
) -> Result<JoinedSession> {
    let request = JoinSession {
        session_id: Some(session),
        party_id: party.id().clone(),
        token,
        device: party.device.clone(),
        handshake: Some(handshake),
        ready,
    };
    let caller = party.caller();
    let joining = retry(|| party.coordinator.join(&caller, request.clone()));
    let late = |_| Err(Error::unavailable("the join was not answered in time"));
    tokio::time::timeout(JOIN_LIMIT, joining).await.unwrap_or_else(late)
}

/// How the work on a session was left.
enum Left {
    /// The session is over.
    Ended(Box<SessionView>),
    /// This is to be reported.
    Outcome(PartyOutcome),
}

/// Waits for the start and computes until there is an outcome, the session ends or its time is up.
///
/// The computation is stopped, never cut off: a fault it has come upon must reach the vault.
async fn work(
    attempt: Attempt<'_>,
    views: &mut watch::Receiver<Option<SessionView>>,
    transport: &mut RouterTransport,
    stop: &CancellationToken,
    deadline: Instant,
) -> Result<Left> {
    let goes_on = |status: SessionStatus| status == SessionStatus::InProgress || status.is_final();
    let view = in_time(deadline, until(views, goes_on)).await?;
    if view.status.is_final() {
        return Ok(Left::Ended(Box::new(view)));
    }
    let mut computation = pin!(attempt.compute(&view, transport, |_| ()));
    let over = tokio::select! {
        biased;
        outcome = &mut computation => return Ok(Left::Outcome(outcome.unwrap_or_else(give_up))),
        ended = in_time(deadline, until(views, SessionStatus::is_final)) => ended,
    };
    stop.cancel();
    let _ = computation.await;
    over.map(|view| Left::Ended(Box::new(view)))
}

fn give_up(failure: Failure) -> PartyOutcome {
    tracing::warn!(reason = failure.reason.name(), "gave up: {}", failure.message);
    PartyOutcome::Failure(failure)
}

async fn in_time<T>(deadline: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(silent()))
}

/// Waits for a view whose status is as wanted.
async fn until(
    views: &mut watch::Receiver<Option<SessionView>>,
    wanted: impl Fn(SessionStatus) -> bool,
) -> Result<SessionView> {
    let fits = |view: &Option<SessionView>| view.as_ref().is_some_and(|v| wanted(v.status));
    let view = views.wait_for(fits).await.map_err(|_| lost())?;
    view.clone().ok_or_else(lost)
}

/// When to give up on a session, by this machine's own clock: its lifetime from now and a grace.
/// A device's wall clock may be hours off, so the deadline itself is not compared with it; and a
/// coordinator that lies about it gets no more than the longest lifetime there is.
fn deadline(session: &SessionView) -> Instant {
    let millis = session.expires_at.millis_since(session.created_at);
    Instant::now() + Duration::from_millis(millis).min(LONGEST_LIFE) + GRACE
}

fn silent() -> Error {
    Error::new(
        ErrorCode::SessionExpired,
        "the session's time is over and how it ended is not known; ask the coordinator for it",
    )
}
