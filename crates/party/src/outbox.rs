//! What a session sends, handed to the router in order beside the computation.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quorate_participant::Gate;
use quorate_ports::Deliver;
use quorate_types::*;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::retry;
use crate::drive::release;

/// Calls that wait to be started. A step of a run makes at most one message per peer and one
/// broadcast, 16; the acknowledgements of a round are as many.
const QUEUE_LEN: usize = 64;

/// Calls under way at once: a step's messages need not wait for each other's durability.
const WINDOW: usize = 16;

/// How long `close` waits for calls under way.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

enum Post {
    Route(RouteRequest, Gate),
    Acknowledge(Acknowledge, Gate),
}

/// A bounded queue and the task that empties it.
///
/// Calls are *started* strictly in order, up to [`WINDOW`] of them at once; retryable refusals are
/// tried again. A final refusal of a message is kept and answers every later call; refused
/// acknowledgements only cost a redelivery and are ignored.
pub(crate) struct Outbox {
    posts: mpsc::Sender<Post>,
    last_error: watch::Receiver<Option<Error>>,
    task: AbortOnDropHandle<()>,
}

impl Outbox {
    /// Starts the task on the current runtime; it ends with the outbox.
    pub(crate) fn start(router: Arc<dyn Deliver>, caller: Caller) -> Self {
        let (posts, queue) = mpsc::channel(QUEUE_LEN);
        let (report, last_error) = watch::channel(None);
        let task = tokio::spawn(empty(router, caller, queue, report));
        Self { posts, last_error, task: AbortOnDropHandle::new(task) }
    }

    /// Queues a message. The gate is asked again right before it leaves, however long the router
    /// keeps the queue from moving.
    pub(crate) async fn route(&mut self, request: RouteRequest, gate: Gate) -> Result<()> {
        self.post(Post::Route(request, gate)).await
    }

    /// Queues an acknowledgement, which asks the gate like a message.
    pub(crate) async fn acknowledge(&mut self, ack: Acknowledge, gate: Gate) -> Result<()> {
        self.post(Post::Acknowledge(ack, gate)).await
    }

    async fn post(&mut self, post: Post) -> Result<()> {
        let failed = self.last_error.borrow().clone();
        match failed {
            Some(error) => Err(error),
            None => self.posts.send(post).await.map_err(|_| Error::internal()),
        }
    }

    /// Waits for a message to be refused for good.
    pub(crate) async fn last_error(&mut self) -> Error {
        match self.last_error.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(Error::internal),
            Err(_) => Error::internal(),
        }
    }

    /// Waits until everything queued is answered, for a bounded time.
    pub(crate) async fn close(self) {
        drop(self.posts);
        if tokio::time::timeout(CLOSE_LIMIT, self.task).await.is_err() {
            tracing::warn!("messages were still on their way when the session was left");
        }
    }
}

async fn empty(
    router: Arc<dyn Deliver>,
    caller: Caller,
    mut queue: mpsc::Receiver<Post>,
    report: watch::Sender<Option<Error>>,
) {
    let mut flight = FuturesUnordered::new();
    let mut open = true;
    while open || !flight.is_empty() {
        tokio::select! {
            biased;
            Some(answer) = flight.next() => {
                if let Err(error) = answer {
                    report.send_if_modified(|kept| {
                        let first = kept.is_none();
                        kept.get_or_insert(error);
                        first
                    });
                }
            }
            post = queue.recv(), if open && flight.len() < WINDOW => match post {
                Some(post) => flight.push(carry(router.as_ref(), &caller, post)),
                None => open = false,
            },
        }
    }
}

async fn carry(router: &dyn Deliver, caller: &Caller, post: Post) -> Result<()> {
    match post {
        Post::Route(request, gate) => {
            let routed = retry(|| release(&gate, router.route(caller, request.clone()))).await;
            routed.map(drop).inspect_err(|error| {
                tracing::warn!(round = request.round, %error, "a message was refused");
            })
        }
        Post::Acknowledge(ack, gate) => {
            if let Err(error) = release(&gate, router.acknowledge(caller, ack)).await {
                tracing::debug!(%error, "an acknowledgement was refused");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_testkit::Fake;

    use super::*;

    fn request(round: i32) -> RouteRequest {
        RouteRequest {
            session_id: quorate_testkit::session().session_id,
            from_party: "a".parse().unwrap(),
            to_parties: vec![],
            round,
            message_type: String::new(),
            payload: bytes::Bytes::from_static(b"x"),
            acknowledges: vec![],
            patient: false,
        }
    }

    fn start(router: &Arc<Fake>) -> Outbox {
        Outbox::start(router.clone(), Caller::Party("a".parse().unwrap()))
    }

    #[tokio::test]
    async fn messages_leave_in_the_order_they_were_queued() {
        let router = Arc::<Fake>::default();
        let mut outbox = start(&router);
        for round in 0..200 {
            outbox.route(request(round), Gate::open()).await.unwrap();
        }
        outbox.close().await;
        let left: Vec<_> = (0..200).map(|round| format!("route a {round} 1")).collect();
        assert_eq!(router.seen(), left);
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_is_away_is_asked_again() {
        let router = Fake::refusing(Error::unavailable("away"));
        let mut outbox = start(&router);
        outbox.route(request(1), Gate::open()).await.unwrap();
        while router.seen().len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        router.refusal.lock().unwrap().take();
        let refused = router.seen().len();
        outbox.close().await;
        assert_eq!(router.seen().len(), refused + 1, "and no more once it is taken");
    }
}
