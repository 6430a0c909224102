//! Whether a service can do its work now.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout};

/// An answer serves everybody who asks within this time: nobody makes a service ask others more
/// often.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// An answer that takes longer is a no.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a service cannot do its work, one sentence each; none where it can.
pub type Reasons = Vec<String>;

type Check = dyn Fn() -> BoxFuture<'static, Reasons> + Send + Sync;
type Answer = Shared<BoxFuture<'static, Reasons>>;

/// Says whether a service can do its work now.
#[derive(Clone)]
pub struct Readiness {
    check: Arc<Check>,
    last: Arc<Mutex<Option<(Instant, Answer)>>>,
}

impl Readiness {
    /// Readiness by a check.
    pub fn new<F>(check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reasons> + Send + 'static,
    {
        Self { check: Arc::new(move || check().boxed()), last: Arc::default() }
    }

    /// Readiness by a check that does not wait.
    pub fn at_once(check: impl Fn() -> Reasons + Send + Sync + 'static) -> Self {
        Self::new(move || ready(check()))
    }

    /// Why the service cannot do its work, as it was within the last second.
    pub async fn reasons(&self) -> Reasons {
        let answer = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((asked, answer)) if asked.elapsed() < GOOD_FOR => answer.clone(),
                _ => {
                    let check = timeout(PATIENCE, (self.check)());
                    let answer = check.map(|reasons| {
                        let late = || {
                            vec![format!(
                                "no answer within {} s to what it asks",
                                PATIENCE.as_secs()
                            )]
                        };
                        reasons.unwrap_or_else(|_| late())
                    });
                    let answer = answer.boxed().shared();
                    *last = Some((Instant::now(), answer.clone()));
                    answer
                }
            }
        };
        answer.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::{join, pending};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_often_gets_one_answer_a_second() {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = asked.clone();
        let readiness = Readiness::at_once(move || {
            vec![format!("reason {}", counter.fetch_add(1, Ordering::Relaxed))]
        });
        let (one, two) = join(readiness.reasons(), readiness.reasons()).await;
        assert_eq!((one, two), (vec!["reason 0".to_owned()], vec!["reason 0".to_owned()]));
        tokio::time::advance(GOOD_FOR).await;
        assert_eq!(readiness.reasons().await, ["reason 1"]);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_does_not_end_is_a_no() {
        let readiness = Readiness::new(pending);
        assert_eq!(readiness.reasons().await.len(), 1);
    }
}
