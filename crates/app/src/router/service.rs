//! The router as its fronts call it.

use async_trait::async_trait;
use quorate_core::policy;
use quorate_core::subscriptions::Account;
use quorate_ports::store::PartyRow;
use quorate_ports::{
    Announce, BoxStream, Commit, Deliver, Directory, ReadMessages, Urgency, Write,
};
use quorate_types::*;
use tokio::sync::oneshot;

use super::{RouterApp, State};
use crate::lock;

#[async_trait]
impl Deliver for RouterApp {
    async fn register(&self, caller: &Caller, registration: Registration) -> Result<Timestamp> {
        let owner = NameOwner::of(caller);
        let (row, registered) = {
            let now = self.0.clock.moment();
            let mut state = lock(&self.0.state);
            let reserved = state.reserved.contains(&registration.party_id);
            policy::register(caller, &registration, reserved)?;
            for (silent, owner) in state.presence.forget_silent(now) {
                let forget = Write::ForgetParty(silent, owner);
                drop(self.0.store.submit(vec![forget], Urgency::Now));
            }
            let account = Account::of(caller);
            let registered =
                state.presence.register(now, owner.clone(), account, registration.clone())?;
            let registered_at = registered.registered_at;
            (PartyRow { owner, registration, registered_at }, registered)
        };
        let registered_at = row.registered_at;
        if registered.changed {
            let party = row.registration.party_id.clone();
            let old = registered.claimed.then(|| Write::ForgetParty(party, NameOwner::Unclaimed));
            let writes = old.into_iter().chain([Write::Party(row)]).collect();
            self.0.store.submit(writes, Urgency::Now).await?;
        }
        Ok(registered_at)
    }

    async fn heartbeat(&self, caller: &Caller, party: &PartyId) -> Result<Pulse> {
        self.act_as(caller, party)?;
        let now = self.0.clock.moment();
        let mut state = lock(&self.0.state);
        state.presence.heartbeat(now, &NameOwner::of(caller), party)?;
        self.0.counts.heartbeats.inc();
        let server_time = now.wall;
        Ok(Pulse { server_time, pending_messages: state.inboxes.pending_count(party) })
    }

    async fn route(&self, caller: &Caller, request: RouteRequest) -> Result<MessageId> {
        self.act_in(caller, &request.from_party, request.session_id)?;
        self.0.store.health()?;
        let (from, session) = (request.from_party.clone(), request.session_id);
        let id = MessageId(uuid::Uuid::new_v4());
        let round = request.round;
        let (commit, settled, first) = self.accept(id, request)?;
        if first {
            self.0.progress.progress(session, &from, round);
        }
        // Whichever is first fulfils the promise: on disk, or nobody needs it any more.
        tokio::select! {
            biased;
            _ = settled => Ok(id),
            durable = commit => {
                lock(&self.0.state).settling.remove(&id);
                durable.map(|()| id)
            }
        }
    }

    async fn subscribe(
        &self,
        caller: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>> {
        match session {
            None => self.act_as(caller, party)?,
            Some(session) => {
                self.act_in(caller, party, session)?;
                lock(&self.0.state).inboxes.check_member(session, party)?;
            }
        }
        self.message_stream(caller, session, party, after)
    }

    async fn acknowledge(&self, caller: &Caller, ack: Acknowledge) -> Result<()> {
        self.act_in(caller, &ack.party_id, ack.session_id)?;
        let mut state = lock(&self.0.state);
        self.settle_one(&mut state, &ack)
    }

    async fn subscribe_events(
        &self,
        caller: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        self.act_as(caller, party)?;
        self.event_stream(caller, party, kinds)
    }
}

#[async_trait]
impl ReadMessages for RouterApp {
    async fn pending(
        &self,
        caller: &Caller,
        session: SessionId,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<Vec<Message>> {
        self.act_in(caller, party, session)?;
        let now = self.0.clock.now();
        lock(&self.0.state).inboxes.pending(now, session, party, after)
    }

    async fn message_status(
        &self,
        caller: &Caller,
        session: SessionId,
        message: MessageId,
    ) -> Result<Vec<Delivery>> {
        caller.may(Scope::Read)?;
        let state = lock(&self.0.state);
        state.visible(caller, session)?;
        state.inboxes.status(session, message)
    }
}

#[async_trait]
impl Directory for RouterApp {
    async fn parties(
        &self,
        caller: &Caller,
        role: Option<PartyRole>,
        only_online: bool,
    ) -> Result<Vec<PartyView>> {
        caller.may(Scope::Read)?;
        let now = self.0.clock.moment();
        let knows = |owner: &NameOwner| policy::knows_name(caller, owner);
        let known = lock(&self.0.state).presence.list(now, knows, role, only_online);
        Ok(known.into_iter().map(|view| policy::registered_as_seen(caller, view)).collect())
    }

    async fn contacts(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        parties: &[PartyId],
    ) -> Result<Vec<Contact>> {
        caller.may(Scope::System)?;
        Ok(lock(&self.0.state).presence.contacts(tenant, parties))
    }
}

#[async_trait]
impl Announce for RouterApp {
    async fn publish_event(&self, caller: &Caller, event: SessionEvent) -> Result<u32> {
        match caller {
            Caller::Open => self.take_strangers_event(event),
            _ => {
                caller.may(Scope::System)?;
                Ok(self.take_event(event))
            }
        }
    }
}

impl RouterApp {
    /// Accepts a message under one lock: acknowledgements it brings, inboxes, the ordered write,
    /// the wakers. Answers with the write, the word that all have acknowledged, and whether this
    /// was the sender's first message of its round.
    fn accept(
        &self,
        id: MessageId,
        request: RouteRequest,
    ) -> Result<(Commit, oneshot::Receiver<()>, bool)> {
        let now = self.0.clock.now();
        let mut guard = lock(&self.0.state);
        let state = &mut *guard;
        for message_id in &request.acknowledges {
            let ack = Acknowledge {
                message_id: *message_id,
                party_id: request.from_party.clone(),
                session_id: request.session_id,
                success: true,
            };
            // An acknowledgement of something that is gone is no reason to refuse the message.
            if let Err(error) = self.settle_one(state, &ack) {
                tracing::debug!(%error, message = %message_id, "an acknowledgement came late");
            }
        }
        let patient = request.patient;
        let accepted = state.inboxes.accept(now, id, request)?;
        self.0.counts.messages.inc();
        self.0.counts.bytes.inc_by(accepted.row.message.payload.len() as u64);
        let recipients = &accepted.row.recipients;
        // A recipient that listens usually acknowledges sooner than the disk could: then the
        // message need never be written, and the write may wait a little for that.
        let listening = recipients.iter().all(|party| state.wakers.contains_key(party));
        let urgency = match (listening, patient) {
            (false, _) => Urgency::Now,
            (true, false) => Urgency::Soon,
            (true, true) => Urgency::Later,
        };
        let commit = self.0.store.submit(vec![Write::Message(accepted.row.clone())], urgency);
        let (settle, settled) = oneshot::channel();
        state.settling.insert(id, settle);
        for party in recipients {
            if let Some(waker) = state.wakers.get(party) {
                waker.send_replace(());
            }
        }
        Ok((commit, settled, accepted.first_of_round))
    }

    fn settle_one(&self, state: &mut State, ack: &Acknowledge) -> Result<()> {
        let now = self.0.clock.now();
        let acked = state.inboxes.acknowledge(now, ack)?;
        if !acked.first {
            return Ok(());
        }
        self.0.counts.acknowledged.inc();
        // Behind the message; it changes nothing where that was never written.
        let (message, party) = (ack.message_id, ack.party_id.clone());
        drop(self.0.store.submit(vec![Write::Acknowledged { message, party }], Urgency::Later));
        if acked.all
            && let Some(settle) = state.settling.remove(&ack.message_id)
        {
            let _ = settle.send(());
        }
        Ok(())
    }
}
