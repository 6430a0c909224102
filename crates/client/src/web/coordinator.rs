//! The coordinator over REST.

use std::time::Duration;

use async_trait::async_trait;
use quorate_ports::{ReadSession, TakePart};
use quorate_types::*;
use quorate_wire::{
    CompletedJson, DelegatedShareJson, JoinSessionJson, JoinedSessionJson, ReadyAnswerJson,
    ReadyJson, ReportJson, SessionJson, ShareStepJson, SubmitShareJson,
};
use reqwest::{Method, Url};

use super::Rest;

/// Longest wait the server accepts.
const MAX_WAIT: u64 = 60;

/// Joins, reports and asks over REST.
pub(crate) struct WebCoordinator(Rest);

impl WebCoordinator {
    pub(crate) fn new(rest: Rest) -> Self {
        Self(rest)
    }

    fn session(&self, session: SessionId, more: &[&str]) -> Url {
        let id = session.to_string();
        self.0.url(&[&["sessions", &id], more].concat())
    }

    fn share(&self, asked: &FetchShare) -> Url {
        let mut url = self.session(asked.session_id, &["delegate-share"]);
        url.query_pairs_mut().append_pair("party_id", asked.party_id.as_str());
        url
    }
}

#[async_trait]
impl ReadSession for WebCoordinator {
    async fn status(
        &self,
        _: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        let mut url = self.session(session, &[]);
        let mut patience = Duration::ZERO;
        if let Some((goal, limit)) = wait {
            let goal = match goal {
                WaitFor::Start => "start",
                WaitFor::End => "end",
            };
            let seconds = limit.as_secs().clamp(1, MAX_WAIT);
            patience = Duration::from_secs(seconds);
            let seconds = seconds.to_string();
            url.query_pairs_mut().append_pair("wait", goal).append_pair("wait_seconds", &seconds);
        }
        self.0.get::<SessionJson>(url, patience).await?.try_into()
    }
}

#[async_trait]
impl TakePart for WebCoordinator {
    async fn join(&self, _: &Caller, request: JoinSession) -> Result<JoinedSession> {
        let url = self.0.url(&["sessions", "join"]);
        let body = JoinSessionJson::from(request);
        self.0.send::<JoinedSessionJson>(Method::POST, url, &body).await?.try_into()
    }

    async fn ready(&self, _: &Caller, session: SessionId, party: &PartyId) -> Result<ReadyCount> {
        let url = self.session(session, &["parties", party.as_str(), "ready"]);
        let body = ReadyJson { party_id: Some(party.clone()) };
        let answer: ReadyAnswerJson = self.0.send(Method::PUT, url, &body).await?;
        Ok(ReadyCount { ready: answer.ready_count, total: answer.total_parties })
    }

    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView> {
        let session = report.session_id;
        let url = self.session(session, &["complete"]);
        let body = ReportJson::from(report);
        let _: CompletedJson = self.0.send(Method::POST, url, &body).await?;
        self.status(caller, session, None).await
    }

    async fn submit_share(&self, _: &Caller, submitted: SubmitShare) -> Result<()> {
        let url = self.session(submitted.session_id, &["delegate-share"]);
        let body = SubmitShareJson::from(submitted);
        let _: ShareStepJson = self.0.send(Method::POST, url, &body).await?;
        Ok(())
    }

    async fn fetch_share(&self, _: &Caller, asked: FetchShare) -> Result<DelegatedShare> {
        let url = self.share(&asked);
        let share: DelegatedShareJson = self.0.show(Method::GET, url, &asked.token).await?;
        Ok(share.into())
    }

    async fn confirm_share(&self, _: &Caller, asked: FetchShare) -> Result<()> {
        let url = self.share(&asked);
        let _: ShareStepJson = self.0.show(Method::DELETE, url, &asked.token).await?;
        Ok(())
    }
}
