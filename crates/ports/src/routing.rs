//! Messages and events: the router's sides, one trait for each audience.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;
use quorate_types::*;

/// A boxed stream that a front can forward.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// What a party needs to hear of its sessions and to reach the others in them.
#[async_trait]
pub trait Deliver: Send + Sync + 'static {
    /// Registers a party, or renews its registration; answers with the time of the first.
    async fn register(&self, caller: &Caller, registration: Registration) -> Result<Timestamp>;

    /// A sign of life.
    async fn heartbeat(&self, caller: &Caller, party: &PartyId) -> Result<Pulse>;

    /// Accepts a message. The answer means: durable, or acknowledged by every recipient.
    async fn route(&self, caller: &Caller, request: RouteRequest) -> Result<MessageId>;

    /// Unacknowledged messages first, then live ones, in order, none twice in one stream.
    ///
    /// `session` = `None` follows all sessions of the party. `after` skips what was accepted at or
    /// before that moment. The stream ends with an error when the router stops or the session ends.
    async fn subscribe(
        &self,
        caller: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>>;

    /// Acknowledges a message: it is not delivered to that party again. Idempotent.
    async fn acknowledge(&self, caller: &Caller, ack: Acknowledge) -> Result<()>;

    /// Events of the party's sessions: first the last one of each open session, then live.
    async fn subscribe_events(
        &self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>>;
}

/// What those ask who follow messages without a stream.
#[async_trait]
pub trait ReadMessages: Send + Sync + 'static {
    /// Unacknowledged messages accepted after `after`. Takes nothing away.
    async fn pending(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<Vec<Message>>;

    /// Where each recipient's copy of a message is.
    async fn message_status(
        &self,
        caller: &Caller,
        session: SessionId,
        message: MessageId,
    ) -> Result<Vec<Delivery>>;
}

/// Who is there.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Lists the registered parties that this caller may see.
    async fn parties(
        &self,
        caller: &Caller,
        role: Option<PartyRole>,
        only_online: bool,
    ) -> Result<Vec<PartyView>>;

    /// How those of these parties are reached that a tenant, or the operator, has registered with a
    /// channel. Only to another role of the installation.
    async fn contacts(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        parties: &[PartyId],
    ) -> Result<Vec<Contact>>;
}

/// What the coordinator tells.
#[async_trait]
pub trait Announce: Send + Sync + 'static {
    /// Takes an event from the coordinator; answers with the number of subscribers it reached.
    async fn publish_event(&self, caller: &Caller, event: SessionEvent) -> Result<u32>;
}

/// The message router, whole.
pub trait Router: Deliver + ReadMessages + Directory + Announce {}

impl<T: Deliver + ReadMessages + Directory + Announce> Router for T {}
