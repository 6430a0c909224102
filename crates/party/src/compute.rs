//! Bounded pools for CPU-heavy cryptography, apart from the async workers: one for signatures, one
//! for keygens and refreshes.

use std::sync::Arc;

use quorate_types::{Error, ErrorCode, Result, SessionKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Runs CPU-heavy closures on blocking threads, a bounded number at a time.
///
/// Signatures have places of their own: a step of a keygen takes a hundred times as long as one of
/// a signature and is not preempted, so that no signature may stand in line behind it. Cheap to
/// clone; clones share the bounds. The jobs of one caller run one after the other, since each is
/// awaited; jobs of different sessions wait for a free place in the order they asked.
#[derive(Clone, Debug)]
pub struct Compute {
    signs: Arc<Semaphore>,
    keygens: Arc<Semaphore>,
    kind: SessionKind,
    stop: CancellationToken,
}

impl Default for Compute {
    /// Signatures: two jobs per core and two more, since the system shares the cores out better
    /// than a queue does between jobs of a millisecond each, and a job handing over its result
    /// leaves no core idle. Keygens: one per core and one more, so that the last of three parties
    /// does not compute alone.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new(2 * cores + 2, cores + 1)
    }
}

impl Compute {
    /// Pools of so many places for signatures and for keygens, at least one each.
    pub fn new(signs: usize, keygens: usize) -> Self {
        Self {
            signs: Arc::new(Semaphore::new(signs.max(1))),
            keygens: Arc::new(Semaphore::new(keygens.max(1))),
            kind: SessionKind::Sign,
            stop: CancellationToken::new(),
        }
    }

    /// The same pools for the work of one session, which is dropped once `stop` is.
    #[must_use]
    pub fn for_session(&self, kind: SessionKind, stop: CancellationToken) -> Self {
        Self { kind, stop, ..self.clone() }
    }

    fn places(&self) -> &Arc<Semaphore> {
        match self.kind {
            SessionKind::Keygen | SessionKind::Refresh => &self.keygens,
            SessionKind::Sign => &self.signs,
        }
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(self.places()).acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// Runs `job` on a blocking thread as soon as a place is free.
    ///
    /// A job that has begun runs to its end even when the caller is gone, and keeps its place so
    /// long. A panic of the job goes on in the caller.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        start(self.place().await, job).await
    }

    /// Runs `job` as [`Compute::run`] does, unless the session is stopped before it has begun.
    ///
    /// # Errors
    /// `session_expired` when it was, and the job was dropped.
    pub async fn run_unless_stopped<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let place = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                return Err(Error::new(ErrorCode::SessionExpired, "the session has ended"));
            }
            place = self.place() => place,
        };
        Ok(start(place, job).await)
    }
}

async fn start<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let span = tracing::Span::current();
    let task = tokio::task::spawn_blocking(move || {
        let _place = place;
        span.in_scope(job)
    });
    match task.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down: nobody will read the value any more.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_place_lets_one_job_run_at_a_time() {
        let compute = Compute::new(1, 1);
        let (release, wait) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let compute = compute.clone();
            async move { compute.run(move || wait.recv().is_ok()).await }
        });
        while compute.signs.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut second = tokio_test_poll(compute.run(|| 7));
        assert!(second.is_pending());
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        assert_eq!(second.finish().await, 7);
    }

    struct Polled<F: Future>(std::pin::Pin<Box<F>>, bool);

    /// Polls once and remembers whether it was pending.
    fn tokio_test_poll<F: Future>(future: F) -> Polled<F> {
        let mut future = Box::pin(future);
        let waker = std::task::Waker::noop();
        let pending = future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending();
        Polled(future, pending)
    }

    impl<F: Future> Polled<F> {
        fn is_pending(&mut self) -> bool {
            self.1
        }

        async fn finish(self) -> F::Output {
            self.0.await
        }
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_frees_the_place() {
        let compute = Compute::new(1, 1);
        let inner = compute.clone();
        let task = tokio::spawn(async move { inner.run(|| panic!("of the job")).await });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(compute.run(|| 1).await, 1);
    }

    /// Takes the only place of a kind until the sender says so.
    async fn occupied(compute: &Compute) -> (mpsc::Sender<()>, tokio::task::JoinHandle<bool>) {
        let (release, wait) = mpsc::channel::<()>();
        let holder = compute.clone();
        let task = tokio::spawn(async move { holder.run(move || wait.recv().is_ok()).await });
        while compute.places().available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        (release, task)
    }

    #[tokio::test]
    async fn a_signature_never_waits_behind_a_keygen() {
        let compute = Compute::new(1, 1);
        let keygen = compute.for_session(SessionKind::Keygen, CancellationToken::new());
        let (release, first) = occupied(&keygen).await;
        let mut second = tokio_test_poll(keygen.run(|| 2));
        assert!(second.is_pending(), "the next keygen waits");
        let sign = compute.for_session(SessionKind::Sign, CancellationToken::new());
        assert_eq!(sign.run(|| 7).await, 7);
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        assert_eq!(second.finish().await, 2);
    }

    #[tokio::test]
    async fn work_of_a_stopped_session_is_dropped_while_it_waits() {
        let compute = Compute::new(1, 1);
        let stop = CancellationToken::new();
        let session = compute.for_session(SessionKind::Sign, stop.clone());
        let (release, begun) = occupied(&session).await;
        let mut queued = tokio_test_poll(
            session.run_unless_stopped(|| unreachable!("its session has ended before it began")),
        );
        assert!(queued.is_pending());
        stop.cancel();
        let dropped: Result<()> = queued.finish().await;
        assert_eq!(dropped.unwrap_err().code, ErrorCode::SessionExpired);
        release.send(()).unwrap();
        assert!(begun.await.unwrap(), "what had begun ran to its end");
    }
}
