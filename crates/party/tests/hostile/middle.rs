//! Somebody between a party and the services, who sees and may change all that passes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use quorate_ports::{BoxStream, Deliver, ReadSession, TakePart};
use quorate_types::*;

use crate::world::World;

/// A call that a party makes.
pub(crate) enum Call<'a> {
    Register,
    Heartbeat,
    Route(&'a RouteRequest),
    Subscribe,
    Acknowledge,
    SubscribeEvents,
    Join,
    Status,
    Report(&'a Report),
}

/// What may happen to a thing that is told.
pub(crate) type Told<T> = Vec<Result<T>>;

/// Who stands in between. By default he only passes on.
#[async_trait]
pub(crate) trait Middle: Send + Sync + 'static {
    /// Sees a call before it is passed on; an error is its answer.
    async fn call(&self, party: &PartyId, call: Call<'_>) -> Result<()> {
        let _ = (party, call);
        Ok(())
    }

    fn joined(&self, party: &PartyId, joined: JoinedSession) -> Result<JoinedSession> {
        let _ = party;
        Ok(joined)
    }

    /// The answer to a question for a session, or to a report.
    fn view(&self, party: &PartyId, view: SessionView) -> Result<SessionView> {
        let _ = party;
        Ok(view)
    }

    fn event(&self, party: &PartyId, event: SessionEvent) -> Told<SessionEvent> {
        let _ = party;
        vec![Ok(event)]
    }

    fn message(&self, party: &PartyId, message: Message) -> Told<Message> {
        let _ = party;
        vec![Ok(message)]
    }
}

/// The services as one party reaches them.
pub(crate) struct Between<M> {
    pub(crate) party: PartyId,
    pub(crate) world: Arc<World>,
    pub(crate) middle: Arc<M>,
}

impl<M: Middle> Between<M> {
    pub(crate) fn new(party: PartyId, world: &Arc<World>, middle: &Arc<M>) -> Arc<Self> {
        Arc::new(Self { party, world: world.clone(), middle: middle.clone() })
    }

    async fn ask(&self, call: Call<'_>) -> Result<()> {
        self.middle.call(&self.party, call).await
    }
}

#[async_trait]
impl<M: Middle> Deliver for Between<M> {
    async fn register(&self, caller: &Caller, registration: Registration) -> Result<Timestamp> {
        self.ask(Call::Register).await?;
        self.world.router.register(caller, registration).await
    }

    async fn heartbeat(&self, caller: &Caller, party: &PartyId) -> Result<Pulse> {
        self.ask(Call::Heartbeat).await?;
        self.world.router.heartbeat(caller, party).await
    }

    async fn route(&self, caller: &Caller, request: RouteRequest) -> Result<MessageId> {
        self.ask(Call::Route(&request)).await?;
        self.world.router.route(caller, request).await
    }

    async fn subscribe(
        &self,
        caller: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>> {
        self.ask(Call::Subscribe).await?;
        let messages = self.world.router.subscribe(caller, session, party, after).await?;
        let (middle, party) = (self.middle.clone(), self.party.clone());
        let told = move |message: Result<Message>| match message {
            Ok(message) => stream::iter(middle.message(&party, message)),
            Err(error) => stream::iter(vec![Err(error)]),
        };
        Ok(messages.flat_map(told).boxed())
    }

    async fn acknowledge(&self, caller: &Caller, ack: Acknowledge) -> Result<()> {
        self.ask(Call::Acknowledge).await?;
        self.world.router.acknowledge(caller, ack).await
    }

    async fn subscribe_events(
        &self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        self.ask(Call::SubscribeEvents).await?;
        let events = self.world.router.subscribe_events(caller, party, kinds).await?;
        let (middle, party) = (self.middle.clone(), self.party.clone());
        let told = move |event: Result<SessionEvent>| match event {
            Ok(event) => stream::iter(middle.event(&party, event)),
            Err(error) => stream::iter(vec![Err(error)]),
        };
        Ok(events.flat_map(told).boxed())
    }
}

#[async_trait]
impl<M: Middle> ReadSession for Between<M> {
    async fn status(
        &self,
        caller: &Caller,
        session: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        self.ask(Call::Status).await?;
        let view = self.world.coordinator.status(caller, session, wait).await?;
        self.middle.view(&self.party, view)
    }
}

#[async_trait]
impl<M: Middle> TakePart for Between<M> {
    async fn join(&self, caller: &Caller, request: JoinSession) -> Result<JoinedSession> {
        self.ask(Call::Join).await?;
        let joined = self.world.coordinator.join(caller, request).await?;
        self.middle.joined(&self.party, joined)
    }

    async fn ready(&self, _: &Caller, _: SessionId, _: &PartyId) -> Result<ReadyCount> {
        unreachable!("parties join ready")
    }

    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView> {
        self.ask(Call::Report(&report)).await?;
        let view = self.world.coordinator.complete(caller, report).await?;
        self.middle.view(&self.party, view)
    }

    async fn submit_share(&self, caller: &Caller, submitted: SubmitShare) -> Result<()> {
        self.world.coordinator.submit_share(caller, submitted).await
    }

    async fn fetch_share(&self, _: &Caller, _: FetchShare) -> Result<DelegatedShare> {
        unreachable!("parties fetch nothing")
    }

    async fn confirm_share(&self, _: &Caller, _: FetchShare) -> Result<()> {
        unreachable!("parties fetch nothing")
    }
}
