//! Growing, jittered pauses between attempts.

use std::time::Duration;

use quorate_types::{Error, ErrorCode};

/// First pause: a restarted router is often back at once.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause: what a user still takes for "it came back by itself".
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses that double from 50 ms to 2 s, each shortened by a random part of up to a half.
///
/// The jitter keeps parties that lost the same router from coming back in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next pause.
    pub fn delay(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        // Without randomness the pause is merely not jittered.
        let random = getrandom::u32().unwrap_or(0);
        full - full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }
}

/// Calls until the answer is not "later". Bound it by a deadline around it.
///
/// A conflict is final here: it says that the state is another than the caller believes.
pub(crate) async fn retry<T, F>(mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(error) if matches!(error.code, ErrorCode::Unavailable | ErrorCode::RateLimited) => {
                tracing::debug!(%error, "refused for now; trying again");
                backoff.pause().await;
            }
            answer => return answer,
        }
    }
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
            assert!(delay <= full && delay >= full / 2, "{delay:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        assert_eq!(full, LONGEST);
        backoff.reset();
        assert!(backoff.delay() <= FIRST);
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
