//! Before a party joins: its authority decides, and where people are asked first, the session waits.

use std::sync::Arc;
use std::time::Duration;

use quorate_authority::{Denial, Rule};
use quorate_participant::{OpenKey, Permission, busy, could_not, lifetime};
use quorate_ports::CallbackAnswer;
use quorate_types::*;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Joining, started};
use crate::authority::{Authority, Question, Stored, Verdict};

/// Pauses before a callback that has not decided is asked again: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A session that asks for permission.
pub(crate) struct Asking<'a> {
    pub(crate) join: &'a Joining<'a>,
    pub(crate) authority: &'a Arc<Authority>,
    pub(crate) views: &'a mut watch::Receiver<Option<SessionView>>,
    /// Told when the coordinator does not know that this party waits.
    pub(crate) forgotten: &'a Notify,
}

/// The party's authority does not allow the session. The message begins with the rule's name.
pub(crate) fn denied(me: &PartyId, denial: &Denial) -> Failure {
    Failure { reason: FailureReason::PolicyDenied, ..could_not(me, denial.to_string()) }
}

fn lost() -> Error {
    Error::unavailable("the connection to the coordinator is gone; ask it later")
}

impl Asking<'_> {
    /// Asks, as long as that waits for people at most until the session's end. Answers with the
    /// write that a permission is kept by.
    pub(crate) async fn ask(
        &mut self,
        view: SessionView,
        key: Option<&OpenKey>,
    ) -> Result<(Permission, Option<Stored>)> {
        let late = |_| {
            let why = "the session's time is over while its request was being decided";
            Err(Error::new(ErrorCode::SessionExpired, why))
        };
        let limit = lifetime(&view);
        tokio::time::timeout(limit, self.decided(view, key)).await.unwrap_or_else(late)
    }

    fn view(&mut self) -> Result<SessionView> {
        let view = self.views.borrow_and_update().clone().ok_or_else(lost)?;
        Ok(view.by_holder())
    }

    async fn decided(
        &mut self,
        mut view: SessionView,
        key: Option<&OpenKey>,
    ) -> Result<(Permission, Option<Stored>)> {
        let me = self.join.party.id();
        let refused = |denial: &Denial| Ok((Permission::Refused(denied(me, denial)), None));
        let held = key.map(|key| &key.stored.record);
        let keyring = &self.join.party.worker.keyring;
        let mut changes = self.authority.changes();
        let (mut place, mut told) = (None, false);
        let (mut confirmed, mut pause) = (false, RETRY.0);
        loop {
            if view.status.is_final() {
                return Ok((Permission::Ended(Box::new(view)), None));
            }
            changes.mark_unchanged();
            let again;
            let lacking = match self.authority.check(keyring, &view, held, confirmed) {
                Verdict::Allowed(permit) => {
                    let stored = permit.stored();
                    let allowed = Arc::clone(self.authority).allowed(permit, me.clone());
                    return Ok((Permission::Given(allowed), stored));
                }
                Verdict::Denied(denial) => return refused(&denial),
                Verdict::AwaitApproval(lacking) => {
                    // Nothing else tells when the request's time is over.
                    again = Some(Instant::now() + lacking.expires_in);
                    lacking.denial
                }
                Verdict::AskCallback(question) => match self.told(&mut told, &question).await? {
                    Ok(None) => {
                        view = self.view()?;
                        continue;
                    }
                    Ok(Some(CallbackAnswer::Approve)) => {
                        confirmed = true;
                        view = self.view()?;
                        continue;
                    }
                    Ok(Some(CallbackAnswer::Reject)) => {
                        let why = "the callback has rejected the request";
                        return refused(&Denial::new(Rule::Callback, why));
                    }
                    Ok(Some(CallbackAnswer::Retry)) => {
                        again = Some(Instant::now() + pause);
                        pause = (pause * 2).min(RETRY.1);
                        Denial::new(Rule::Callback, "the callback has not decided")
                    }
                    Err(denial) => return refused(&denial),
                },
            };
            // The coordinator does not wait for this party, whatever it says there is.
            if started(&view) {
                return refused(&lacking);
            }
            if place.is_none() {
                let Some(free) = self.authority.place() else {
                    return Ok((Permission::Refused(busy(me)), None));
                };
                place = Some(free);
            }
            if !std::mem::replace(&mut told, true) {
                self.tell().await?;
            }
            let asked_again = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.views.changed() => changed.map_err(|_| lost())?,
                // The sender lives as long as the authority.
                _ = changes.changed() => {}
                () = self.forgotten.notified() => told = false,
                () = asked_again => {}
            }
            view = self.view()?;
        }
    }

    /// What the callback answers. The coordinator, which waits for a party that joins but not for
    /// one that decides, is told before.
    async fn told(
        &mut self,
        told: &mut bool,
        question: &Question,
    ) -> Result<Result<Option<CallbackAnswer>, Denial>> {
        if !std::mem::replace(told, true) {
            self.tell().await?;
        }
        Ok(self.answered(question).await)
    }

    /// What the callback answers, unless the session ends before.
    async fn answered(&mut self, question: &Question) -> Result<Option<CallbackAnswer>, Denial> {
        let over = |view: &Option<SessionView>| view.as_ref().is_none_or(|v| v.status.is_final());
        tokio::select! {
            answer = self.authority.ask(question) => answer.map(Some),
            _ = self.views.wait_for(over) => Ok(None),
        }
    }

    /// Says to the coordinator that this party joins later.
    async fn tell(&self) -> Result<()> {
        let Joining { party, session, attempt, token } = self.join;
        let request = JoinSession {
            session_id: Some(*session),
            party_id: party.id().clone(),
            token: token.clone(),
            device: party.device.clone(),
            handshake: None,
            ready: false,
            awaiting_approval: true,
            attempt: *attempt,
        };
        party.join(request).await.map(drop)
    }
}
