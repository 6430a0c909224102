//! A session without a coordinator: the parties have agreed on the facts among themselves.

use quorate_engine::HelloSecret;
use quorate_types::*;

use super::Worker;
use super::attempt::Attempt;
use crate::transport::Transport;

/// Computes one attempt among the participants of `view`, whose introductions are all in it.
///
/// `hello` and `secret` are what this party introduced itself with. `progress` is told of each
/// round that is waited for. The share of a new key is on disk when this returns; whether the
/// others have theirs is for the caller to ask. There is no time limit here.
///
/// # Errors
/// Why there is no result, and through whom.
pub async fn compute_with_peers(
    worker: &Worker,
    view: &SessionView,
    (hello, secret): (Hello, HelloSecret),
    transport: &mut dyn Transport,
    progress: impl FnMut(u16) + Send,
) -> Result<PartyOutcome, Failure> {
    let attempt = Attempt { worker, session: view.session_id, hello, secret };
    attempt.compute(view, transport, progress).await
}
