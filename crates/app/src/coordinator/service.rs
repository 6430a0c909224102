//! The coordinator as its fronts call it.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use quorate_core::policy;
use quorate_core::session::{Command, Reply, Session};
use quorate_ports::store::SessionRow;
use quorate_ports::{ManageSessions, NoteProgress, ReadSession, TakePart};
use quorate_types::*;

use super::authorize::check_approval;
use super::{CoordinatorApp, Look, Step, decode};
use crate::links::ProgressSink;
use crate::lock;
use crate::tokens::JoinTokens;

/// Longest list answered at once.
const MAX_LIST: u32 = 1_000;

#[async_trait]
impl ReadSession for CoordinatorApp {
    async fn status(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        caller.may(Scope::Read)?;
        let found = self.find(session).await?;
        Self::visible(&found, caller)?;
        match wait {
            Some((wait, limit)) => Ok(self.wait(found, limit, |s| reached(s, wait)).await?.view()),
            None => Ok(found.view()),
        }
    }
}

#[async_trait]
impl TakePart for CoordinatorApp {
    async fn join(&self, caller: &Caller, request: JoinSession) -> Result<JoinedSession> {
        self.act_as(caller, &request.party_id)?;
        let id = JoinTokens::session_of(&request.token)?;
        if request.session_id.is_some_and(|asked| asked != id) {
            let asked = request.session_id.unwrap_or(id);
            return Err(Error::not_found("session", asked).with_field("session_id"));
        }
        let unknown = |error: Error| match error.code {
            ErrorCode::NotFound => {
                Error::new(ErrorCode::NotFound, "the session of this join token does not exist")
            }
            _ => error,
        };
        // An ended session may have left the memory: it answers from the store that it is over.
        let session = self.find(id).await.map_err(unknown)?;
        Self::visible(&session, caller).map_err(unknown)?;
        let token_hash = JoinTokens::hash(&request.token);
        let command = match request.awaiting_approval {
            true => Command::AwaitApproval { party: request.party_id, token_hash },
            false => Command::Join {
                party: request.party_id,
                token_hash,
                device: request.device,
                handshake: request.handshake,
                ready: request.ready,
                attempt: request.attempt,
            },
        };
        match self.execute(session.id(), command).await? {
            (Reply::Joined { party_index }, session) => Ok(JoinedSession { party_index, session }),
            _ => Err(Error::internal()),
        }
    }

    async fn ready(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
    ) -> Result<ReadyCount> {
        self.act_as(caller, party)?;
        let session = self.find(session).await?;
        Self::visible(&session, caller)?;
        match self.execute(session.id(), Command::Ready { party: party.clone() }).await? {
            (Reply::Ready(count), _) => Ok(count),
            _ => Err(Error::internal()),
        }
    }

    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView> {
        self.act_as(caller, &report.party_id)?;
        let session = self.find(report.session_id).await?;
        Self::visible(&session, caller)?;
        let Report { party_id: party, attempt, outcome, .. } = report;
        let command = Command::Report { party, attempt, outcome };
        Ok(self.execute(session.id(), command).await?.1)
    }

    async fn submit_share(&self, caller: &Caller, submitted: SubmitShare) -> Result<()> {
        self.submit_package(caller, submitted).await
    }

    async fn fetch_share(&self, caller: &Caller, asked: FetchShare) -> Result<DelegatedShare> {
        self.fetch_package(caller, &asked).await
    }

    async fn confirm_share(&self, caller: &Caller, asked: FetchShare) -> Result<()> {
        self.confirm_package(caller, &asked).await
    }
}

#[async_trait]
impl ManageSessions for CoordinatorApp {
    async fn create(&self, caller: &Caller, request: CreateSession) -> Result<CreatedSession> {
        self.create_session(caller, request).await
    }

    async fn start(&self, caller: &Caller, session: SessionId) -> Result<SessionView> {
        policy::start(caller)?;
        let session = self.find(session).await?;
        Self::visible(&session, caller)?;
        Ok(self.execute(session.id(), Command::Start).await?.1)
    }

    async fn close(&self, caller: &Caller, session: SessionId) -> Result<SessionView> {
        caller.may(Scope::Sessions)?;
        let session = self.find(session).await?;
        Self::visible(&session, caller)?;
        Ok(self.execute(session.id(), Command::Close).await?.1)
    }

    async fn approve(
        &self,
        caller: &Caller,
        session: SessionId,
        approval: Approval,
    ) -> Result<SessionView> {
        caller.may(Scope::Sessions)?;
        let session = self.find(session).await?;
        Self::visible(&session, caller)?;
        if let Some(authorization) = session.authorization() {
            check_approval(&authorization.request, &approval)?;
        }
        Ok(self.execute(session.id(), Command::Approve { approval }).await?.1)
    }

    async fn timeline(&self, caller: &Caller, session: SessionId) -> Result<Timeline> {
        self.follow(caller, session, None).await
    }

    async fn follow(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(usize, Duration)>,
    ) -> Result<Timeline> {
        caller.may(Scope::Read)?;
        let mut found = self.find(session).await?;
        Self::visible(&found, caller)?;
        if let Some((seen, limit)) = wait {
            let news = |s: &Session| s.timeline().len() > seen || s.status().is_final();
            found = self.wait(found, limit, news).await?;
        }
        Ok(Timeline { session: found.view(), entries: found.timeline().to_vec() })
    }

    async fn list(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionView>> {
        caller.may(Scope::Read)?;
        self.0.parts.store.health()?;
        let limit = limit.clamp(1, MAX_LIST);
        let page = self.0.parts.store.sessions(caller.tenant(), before, limit).await?;
        let mut views = self.views(page.items).await?;
        if let Caller::Party(party) = caller {
            views.retain(|view| view.seat(party).is_some() || view.replaced.contains(party));
        }
        Ok(Page { items: views, next: page.next })
    }

    async fn key(&self, caller: &Caller, key: KeyId) -> Result<KeyView> {
        caller.may(Scope::Read)?;
        self.key_view(caller, key).await
    }

    async fn freeze(&self, caller: &Caller, key: KeyId, reason: String) -> Result<KeyView> {
        self.freeze_key(caller, key, reason).await?;
        self.key_view(caller, key).await
    }

    async fn unfreeze(&self, caller: &Caller, key: KeyId) -> Result<KeyView> {
        self.unfreeze_key(caller, key).await?;
        self.key_view(caller, key).await
    }

    async fn keys(
        &self,
        caller: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>> {
        caller.may(Scope::Read)?;
        let limit = limit.clamp(1, MAX_LIST);
        let mut page = self.0.parts.store.keys(caller.tenant(), before, limit).await?;
        page.items.retain(|key| policy::sees_key(caller, key));
        Ok(page)
    }
}

#[async_trait]
impl NoteProgress for CoordinatorApp {
    async fn progress(&self, session: SessionId, party: &PartyId, round: i32) {
        ProgressSink::progress(self, session, party, round);
    }
}

impl ProgressSink for CoordinatorApp {
    fn progress(&self, session: SessionId, party: &PartyId, round: i32) {
        // A note for the timeline: that the session has just ended is no error.
        let applied = self.apply(session, &Command::Progress { party: party.clone(), round });
        if matches!(applied, Ok(Step::Applied(_)))
            && let Some(entry) = lock(&self.0.state).sessions.get(&session)
        {
            entry.changed.send_replace(());
        }
    }
}

impl CoordinatorApp {
    async fn key_view(&self, caller: &Caller, key: KeyId) -> Result<KeyView> {
        self.0.parts.store.health()?;
        let found = self.0.parts.store.key(key).await?;
        let record = found
            .filter(|record| policy::sees_key(caller, record))
            .ok_or_else(|| Error::not_found("key", key))?;
        let bans = self.0.parts.store.bans(key).await?;
        let mut epochs = self.0.parts.store.epochs(key).await?;
        if epochs.is_empty() {
            // Of a version that kept no epochs: it had the first only.
            epochs.push(EpochRecord {
                epoch: record.epoch,
                session_id: SessionId(key.0),
                made_at: record.created_at,
                attestation: None,
            });
        }
        Ok(KeyView { state: quorate_core::key::state(&record, &bans), record, epochs, bans })
    }

    /// Stored sessions as callers see them, from memory where it is ahead of the disk. What is
    /// damaged is in the log and left out.
    async fn views(&self, rows: Vec<SessionRow>) -> Result<Vec<SessionView>> {
        let live: HashMap<_, _> = {
            let state = lock(&self.0.state);
            // An end that is not on the disk yet is told to nobody.
            let live = |id| state.sessions.get(id).filter(|entry| !entry.ending);
            let ids = rows.iter().map(|row| &row.session_id);
            ids.filter_map(|id| Some((*id, live(id)?.session.view()))).collect()
        };
        // Each stored signature is verified, which takes about 0.1 ms.
        let views = move || {
            let mut live = live;
            let view = |row: &SessionRow| match live.remove(&row.session_id) {
                Some(view) => Some(view),
                None => decode(row).ok().map(|session| session.view()),
            };
            rows.iter().filter_map(view).collect()
        };
        tokio::task::spawn_blocking(views).await.map_err(|_| Error::internal())
    }

    /// Waits until a session is as wanted, at the latest until `limit`; answers with how it stands.
    async fn wait(
        &self,
        mut found: Session,
        limit: Duration,
        done: impl Fn(&Session) -> bool + Send,
    ) -> Result<Session> {
        let deadline = tokio::time::Instant::now() + limit;
        while !done(&found) {
            let changed = match self.look(found.id())? {
                // It has ended and left the memory.
                Look::Gone => return self.find(found.id()).await,
                Look::Ending(changed) => changed,
                Look::Here(session, changed) => {
                    found = *session;
                    changed
                }
            };
            if done(&found) {
                break;
            }
            let next = tokio::time::timeout_at(deadline, self.next_change(changed));
            let next = tokio::select! {
                next = next => next,
                // Who waits for people does not hold the end of the process.
                () = self.stopping(), if found.status() != SessionStatus::InProgress => break,
            };
            let Ok(change) = next else {
                self.0.parts.store.health()?;
                break;
            };
            change?;
        }
        Ok(found)
    }
}

fn reached(session: &Session, wait: WaitFor) -> bool {
    match wait {
        WaitFor::End => session.status().is_final(),
        WaitFor::Start => {
            session.status().is_final() || session.status() == SessionStatus::InProgress
        }
    }
}
