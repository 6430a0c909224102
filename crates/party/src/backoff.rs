//! Growing, jittered pauses between attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder, Retryable};
use quorate_types::{Error, ErrorCode};

/// First pause: a restarted router is often back at once.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause before its jitter, which may double it: what a user still takes for "it came back
/// by itself".
const LONGEST: Duration = Duration::from_secs(1);

/// The jitter keeps parties that lost the same router from coming back in step.
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(FIRST)
        .with_max_delay(LONGEST)
        .without_max_times()
        .with_jitter()
}

/// Pauses that double from 50 ms to 1 s, each made longer by a random part of up to itself.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(pauses().build())
    }
}

impl Backoff {
    /// Starts over after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The next pause.
    pub fn delay(&mut self) -> Duration {
        self.0.next().unwrap_or(LONGEST)
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }
}

/// Calls until the answer is not "later". Bound it by a deadline around it.
///
/// A conflict is final here: it says that the state is another than the caller believes.
pub(crate) async fn retry<T, F>(call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let later =
        |error: &Error| matches!(error.code, ErrorCode::Unavailable | ErrorCode::RateLimited);
    call.retry(pauses())
        .when(later)
        .notify(|error, _| tracing::debug!(%error, "refused for now; trying again"))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_their_jitter_and_stop_growing() {
        let mut backoff = Backoff::default();
        let mut full = FIRST;
        for _ in 0..10 {
            let delay = backoff.delay();
            assert!(delay >= full && delay <= full * 2, "{delay:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        assert_eq!(full, LONGEST);
        backoff.reset();
        assert!(backoff.delay() <= FIRST * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_repeats_what_may_work_later_and_nothing_else() {
        let mut calls = 0;
        let answer = retry(|| {
            calls += 1;
            let answer = match calls {
                1 | 2 => Err(Error::unavailable("later")),
                _ => Err(Error::new(ErrorCode::Conflict, "never")),
            };
            async move { answer as Result<(), Error> }
        })
        .await;
        assert_eq!(answer.unwrap_err().code, ErrorCode::Conflict);
        assert_eq!(calls, 3);
    }
}
