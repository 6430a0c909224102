//! Talking to a running installation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_ports::ManageSessions;
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::remote::RemoteCoordinator;
use quorate_types::*;

use super::credential::ApiKeyArgs;

/// Where to ask.
#[derive(clap::Args, Clone)]
pub(crate) struct ClientArgs {
    /// Address of the coordinator
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        env = "QUORATE_COORDINATOR"
    )]
    pub(crate) coordinator: String,
    #[command(flatten)]
    pub(crate) api_key: ApiKeyArgs,
    /// Certificate authority that signed the server's certificate, PEM
    #[arg(long, value_name = "FILE", env = "QUORATE_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Allow plaintext HTTP to another machine: only through an encrypted tunnel
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// One long question; asked again until the session has ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

impl ClientArgs {
    /// The coordinator behind its gRPC interface.
    pub(crate) fn connect(&self) -> Result<Arc<dyn ManageSessions>> {
        Ok(Arc::new(self.coordinator()?))
    }

    /// As [`ClientArgs::connect`], for those who take part, too.
    pub(crate) fn coordinator(&self) -> Result<RemoteCoordinator> {
        let endpoint = self.endpoint(&self.coordinator)?;
        let endpoint = endpoint.advise("start one with `quorate up`, or give --coordinator");
        Ok(RemoteCoordinator::new(endpoint))
    }

    pub(crate) fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let ca = self.tls_ca.as_deref();
        crate::serve::peers::endpoint(url, self.api_key.read()?, ca, self.insecure)
    }
}

/// Waits for a session to end, at most until its deadline.
pub(crate) async fn finish(
    coordinator: &dyn ManageSessions,
    session: SessionId,
) -> Result<SessionView> {
    loop {
        let wait = Some((WaitFor::End, PATIENCE));
        let view = coordinator.status(&Caller::Open, session, wait).await?;
        if view.status.is_final() {
            return succeeded(view);
        }
    }
}

/// The view of a completed session, or why it is not.
fn succeeded(view: SessionView) -> Result<SessionView> {
    let Some(failure) = &view.failure else {
        return Ok(view);
    };
    let code = match view.status {
        SessionStatus::Expired => ErrorCode::SessionExpired,
        _ if failure.reason == FailureReason::PolicyDenied => ErrorCode::PolicyDenied,
        _ => ErrorCode::Conflict,
    };
    let mut error = Error::new(
        code,
        format!("session {} {}: {}", view.session_id, view.status.name(), failure.message),
    );
    if failure.reason == FailureReason::DeadlinePassed {
        error.details.waiting_for = failure.parties.clone();
    } else if let Some(party_id) = failure.parties.first().cloned() {
        let reason = failure.reason.name().to_owned();
        error.details.blame = Some(Blame { party_id, reason });
    }
    Err(error)
}
