//! Push through a service that takes messages as Firebase Cloud Messaging does (HTTP v1).

use std::process::Stdio;
use std::time::{Duration, Instant};

use http::{HeaderValue, header};
use quorate_ports::{Delivery, Undelivered};
use quorate_types::Secret;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::http::{Reach, Target, Trust, tell};
use crate::outcome;
use crate::text::Message;

/// The command that prints an access token ends in this time.
const COMMAND: Duration = Duration::from_secs(10);
/// Longest token.
const MAX_TOKEN: usize = 16 << 10;

/// A push service.
pub(crate) struct Push {
    pub(crate) target: Target,
    pub(crate) reach: Reach,
    pub(crate) trust: Trust,
    pub(crate) access: Access,
}

impl Push {
    pub(crate) async fn send(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<(), Undelivered> {
        let notification = &delivery.notification;
        let mut data = json!({
            "delivery_id": notification.id.to_string(),
            "event": notification.step.name(),
            "session_id": notification.session_id.to_string(),
        });
        if let Some(link) = &message.link {
            data["link"] = link.clone().into();
        }
        let body = json!({
            "message": {
                "token": notification.recipient.address,
                // The link stays out of what a locked screen shows.
                "notification": { "title": message.subject },
                "data": data,
            }
        });
        let token = self.access.token().await.map_err(Undelivered::Later)?;
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()));
        let mut bearer =
            bearer.map_err(|_| Undelivered::Later("the access token is no header".into()))?;
        bearer.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let headers = [(header::CONTENT_TYPE, json), (header::AUTHORIZATION, bearer)];
        let body = body.to_string().into_bytes();
        let status = tell(&self.target, self.reach, &self.trust, headers, body).await;
        let status = status.map_err(Undelivered::Later)?;
        if status == 401 {
            self.access.forget().await;
        }
        outcome(status)
    }
}

/// Access tokens, printed by a command and used until they are old.
pub(crate) struct Access {
    command: Vec<String>,
    lasts: Duration,
    held: Mutex<Option<(Secret<String>, Instant)>>,
}

impl Access {
    pub(crate) fn new(command: Vec<String>, lasts: Duration) -> Self {
        Self { command, lasts, held: Mutex::new(None) }
    }

    /// The token in use, or a fresh one. Others wait meanwhile.
    async fn token(&self) -> Result<Secret<String>, String> {
        let mut held = self.held.lock().await;
        if let Some((token, at)) = &*held
            && at.elapsed() < self.lasts
        {
            return Ok(token.clone());
        }
        let token = self.fetch().await?;
        *held = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    async fn forget(&self) {
        *self.held.lock().await = None;
    }

    async fn fetch(&self) -> Result<Secret<String>, String> {
        let (program, arguments) =
            self.command.split_first().ok_or("no command prints an access token")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND, command.output()).await;
        let output = output.map_err(|_| "the command for access tokens does not end")?;
        let output = output.map_err(|error| format!("the command for access tokens: {error}"))?;
        if !output.status.success() {
            return Err(format!("the command for access tokens: {}", output.status));
        }
        let token = Secret::new(String::from_utf8(output.stdout).unwrap_or_default());
        let trimmed = token.expose().trim();
        if trimmed.is_empty() || trimmed.len() > MAX_TOKEN {
            return Err("the command for access tokens prints none".to_owned());
        }
        Ok(Secret::new(trimmed.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(parts: &[&str]) -> Vec<String> {
        parts.iter().map(|part| (*part).to_owned()).collect()
    }

    #[tokio::test]
    async fn a_token_is_fetched_once_while_it_lasts_and_again_when_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let calls = folder.path().join("calls");
        let script = format!("echo x >> {0}; wc -l < {0}", calls.display());
        let access = Access::new(command(&["sh", "-c", &script]), Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(access.token().await.unwrap().expose(), "1");
        }
        access.forget().await;
        assert_eq!(access.token().await.unwrap().expose(), "2");
    }

    #[tokio::test]
    async fn a_command_that_fails_is_named_without_what_it_printed() {
        for (script, problem) in
            [("echo secret; exit 3", "exit status: 3"), ("true", "prints none")]
        {
            let access = Access::new(command(&["sh", "-c", script]), Duration::from_secs(60));
            let error = access.token().await.err().unwrap();
            assert!(error.contains(problem) && !error.contains("secret"), "{error}");
        }
    }
}
