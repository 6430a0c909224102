//! A session without a coordinator: the parties have agreed on the facts among themselves.

use quorate_engine::HandshakeSecret;
use quorate_types::*;

use super::Worker;
use super::attempt::Attempt;
use crate::transport::Transport;

/// Computes one attempt among the participants of `view`, whose handshakes are all in it.
///
/// `handshake` and `secret` are what this party sent a handshake with. `progress` is told of each
/// round that is waited for. The share of a new key is on disk when this returns; whether the
/// others have theirs is for the caller to ask. There is no time limit here.
///
/// # Errors
/// Why there is no result, and through whom.
pub async fn compute_with_peers(
    worker: &Worker,
    view: &SessionView,
    (handshake, secret): (Handshake, HandshakeSecret),
    transport: &mut dyn Transport,
    progress: impl FnMut(u16) + Send,
) -> Result<PartyOutcome, Failure> {
    let attempt = Attempt { worker, session: view.session_id, handshake, secret };
    attempt.compute(view, transport, progress).await
}
