//! Many calls on one stream, answered in any order.
//!
//! The stream is opened by the first call and again by the first one after it broke. Calls that
//! were under way then fail with `unavailable`, which is retryable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use quorate_types::*;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::proto::router::v1::link_answer::Answer;
use crate::proto::router::v1::link_call::Call;
use crate::proto::router::v1::{LinkAnswer, LinkCall};
use crate::remote::RouterClient;
use crate::status::{from_refusal, to_error};

/// Calls under way at once. A session has at most 16, so a thousand busy ones fit; the rest are
/// refused and try again.
const MAX_UNDER_WAY: usize = 16_384;

/// A stream of calls to a router. Clones share it.
#[derive(Clone)]
pub(crate) struct CallStream {
    client: RouterClient,
    open: Arc<Mutex<Option<Open>>>,
}

#[derive(Clone)]
struct Open {
    calls: mpsc::UnboundedSender<LinkCall>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    last_id: u64,
    callers: HashMap<u64, oneshot::Sender<Result<Answer>>>,
    /// Why the stream ended.
    broken: Option<Error>,
}

impl Waiting {
    fn answer(&mut self, id: u64, answer: Result<Answer>) {
        // Who has given up waiting is no longer interested.
        if let Some(caller) = self.callers.remove(&id) {
            let _ = caller.send(answer);
        }
    }

    fn fail(&mut self, error: &Error) {
        self.broken = Some(error.clone());
        for (_, caller) in self.callers.drain() {
            let _ = caller.send(Err(error.clone()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CallStream {
    /// A link that no call has opened yet.
    pub(crate) fn new(client: RouterClient) -> Self {
        Self { client, open: Arc::default() }
    }

    /// Makes a call. Calls reach the router in the order in which these futures are first polled.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer> {
        let open = self.open();
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = lock(&open.waiting);
            if let Some(error) = &waiting.broken {
                return Err(error.clone());
            }
            if waiting.callers.len() >= MAX_UNDER_WAY {
                return Err(Error::new(
                    ErrorCode::RateLimited,
                    "too many calls wait for the router",
                ));
            }
            waiting.last_id += 1;
            let id = waiting.last_id;
            waiting.callers.insert(id, answer);
            // A stream that has just broken answers all who wait, so this need not be looked at.
            let _ = open.calls.send(LinkCall { id, call: Some(call) });
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The stream, opened anew where it has ended.
    fn open(&self) -> Open {
        let mut place = lock(&self.open);
        let usable = |open: &&Open| !open.calls.is_closed() && lock(&open.waiting).broken.is_none();
        if let Some(open) = place.as_ref().filter(usable) {
            return open.clone();
        }
        let (calls, queue) = mpsc::unbounded_channel();
        let open = Open { calls, waiting: Arc::default() };
        tokio::spawn(carry(self.client.clone(), queue, Arc::clone(&open.waiting)));
        *place = Some(open.clone());
        open
    }
}

/// Carries a stream from its opening to its end, which comes with the last clone of the link.
async fn carry(
    mut client: RouterClient,
    queue: mpsc::UnboundedReceiver<LinkCall>,
    waiting: Arc<Mutex<Waiting>>,
) {
    let error = match client.link(UnboundedReceiverStream::new(queue)).await {
        Err(status) => to_error(&status),
        Ok(response) => {
            let mut answers = response.into_inner();
            loop {
                match answers.next().await {
                    Some(Ok(LinkAnswer { id, answer })) => {
                        let answer = match answer {
                            Some(Answer::Refusal(refusal)) => Err(from_refusal(&refusal)),
                            Some(answer) => Ok(answer),
                            None => Err(misunderstood()),
                        };
                        lock(&waiting).answer(id, answer);
                    }
                    Some(Err(status)) => break to_error(&status),
                    None => break gone(),
                }
            }
        }
    };
    lock(&waiting).fail(&error);
}

fn gone() -> Error {
    Error::unavailable("the router has closed the stream of calls")
}

/// An answer of another kind than the call.
pub(crate) fn misunderstood() -> Error {
    Error::new(ErrorCode::Internal, "the router answered another question than was asked")
}
