//! watch: a session's timeline as it grows.

use std::time::Duration;

use quorate_types::*;
use serde_json::json;

use super::Answer;
use super::client::ClientArgs;
use super::output::{Output, tell};
use super::values::value;

/// Arguments of `watch`.
#[derive(clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of the session
    #[arg(value_parser = value::<SessionId>)]
    session: SessionId,
}

/// One long question; asked again until the session has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints each entry as it comes, until the session has ended or nobody reads any more. The answer
/// is yes when the session is completed.
pub(crate) async fn run(args: WatchArgs, out: Output) -> Result<Answer> {
    let coordinator = args.client.connect()?;
    let mut seen = 0;
    let mut began = None;
    loop {
        let wait = Some((seen, PATIENCE));
        let timeline = coordinator.follow(&Caller::Open, args.session, wait).await?;
        let begin = *began.get_or_insert(timeline.session.created_at);
        for entry in timeline.entries.iter().skip(seen) {
            let value = json!({
                "at": entry.at,
                "party_id": entry.party_id.as_ref().map(PartyId::as_str),
                "what": entry.what,
            });
            let read = out.show(&value, || {
                let party = entry.party_id.as_ref().map_or("", PartyId::as_str);
                format!("{:>9} ms  {party:<20}  {}", entry.at.millis_since(begin), entry.what)
            });
            if !read {
                return Ok(Answer::Yes);
            }
        }
        seen = timeline.entries.len();
        let session = timeline.session;
        if session.status.is_final() {
            let value = json!({ "status": session.status.name(), "failure": session.failure });
            out.show(&value, || match &session.failure {
                Some(failure) => format!("{}: {}", session.status.name(), failure.message),
                None => session.status.name().to_owned(),
            });
            return Ok(match session.status {
                SessionStatus::Completed => Answer::Yes,
                _ => Answer::No,
            });
        }
        if !out.json {
            let waiting: Vec<_> = session.waiting_for().iter().map(|p| p.to_string()).collect();
            if !waiting.is_empty() {
                tell(&format!("           waiting for {}", waiting.join(", ")));
            }
        }
    }
}
