//! A bounded pool for CPU-heavy cryptography, apart from the async workers.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs CPU-heavy closures on blocking threads, a bounded number at a time.
///
/// Cheap to clone; clones share the bound. The jobs of one caller run one after the other, since
/// each is awaited; jobs of different sessions wait for a free place in the order they asked.
#[derive(Clone, Debug)]
pub struct Compute {
    places: Arc<Semaphore>,
}

impl Default for Compute {
    /// Two jobs per core and two more: the system shares the cores out better than a queue does
    /// between jobs of a millisecond each, and a job handing over its result leaves no core idle.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new(2 * cores + 2)
    }
}

impl Compute {
    /// A pool of `jobs` places, at least one.
    pub fn new(jobs: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(jobs.max(1))) }
    }

    /// Runs `job` on a blocking thread as soon as a place is free.
    ///
    /// A job that has begun runs to its end even when the caller is gone, and keeps its place so
    /// long. A panic of the job goes on in the caller.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
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
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_place_lets_one_job_run_at_a_time() {
        let compute = Compute::new(1);
        let (release, wait) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let compute = compute.clone();
            async move { compute.run(move || wait.recv().is_ok()).await }
        });
        while compute.places.available_permits() > 0 {
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
        let compute = Compute::new(1);
        let inner = compute.clone();
        let task = tokio::spawn(async move { inner.run(|| panic!("of the job")).await });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(compute.run(|| 1).await, 1);
    }
}
