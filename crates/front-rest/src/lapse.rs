//! The end of a credential, while something that it opened is still open.

use quorate_types::{Error, ErrorCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// When a request's credential stops to be good. A server puts it among a request's extensions;
/// without one, the credential is good for as long as the connection.
#[derive(Clone, Default)]
pub struct Lapse {
    /// Cancelled when it is revoked.
    pub revoked: CancellationToken,
    /// When it expires.
    pub expires: Option<Instant>,
}

impl Lapse {
    /// Returns once the credential is good no more, with the words for its holder.
    pub async fn over(&self) -> Error {
        let expired = async {
            match self.expires {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            () = self.revoked.cancelled() => "the API key was revoked",
            () = expired => "the API key has expired",
        };
        Error::new(ErrorCode::Unauthorized, why)
    }
}
