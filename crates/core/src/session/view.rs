//! What a session shows of itself.

use quorate_types::*;

use super::{Participant, Session, index};

impl Session {
    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.session_id
    }

    /// Who owns it.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Where it stands.
    pub fn status(&self) -> SessionStatus {
        self.status
    }

    /// What it does.
    pub fn ceremony(&self) -> &Ceremony {
        &self.ceremony
    }

    /// The kind of what it does.
    pub fn kind(&self) -> SessionKind {
        self.ceremony.kind()
    }

    /// When it was created.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Moment at which the session expires.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Refuses a signature that does not verify: this was changed where it was kept.
    pub fn verify(&self) -> Result<()> {
        let Some(Outcome::Signature(signature)) = &self.outcome else { return Ok(()) };
        let Ceremony::Sign { key, input } = &self.ceremony else {
            return Err(Error::internal());
        };
        quorate_schemes::verify(key.scheme, &key.public_key, input, signature)
    }

    /// What the initiator has signed.
    pub fn authorization(&self) -> Option<&Authorization> {
        self.authorization.as_deref()
    }

    /// The server parties that take part.
    pub fn servers(&self) -> &[PartyId] {
        &self.servers
    }

    /// Whether it is for others than server parties to make it start: for people, who may not come.
    pub fn waits_for_people(&self) -> bool {
        self.servers.len() < self.participants.len()
    }

    /// Whether a party takes part, itself or by a delegate, or did before another took its place.
    pub fn is_participant(&self, party: &PartyId) -> bool {
        self.place_of(party).is_some() || self.replaced().contains(party)
    }

    /// What happened, oldest first.
    pub fn timeline(&self) -> &[TimelineEntry] {
        &self.timeline
    }

    /// The session as callers see it. A result is shown once the session has completed.
    pub fn view(&self) -> SessionView {
        let completed = self.status == SessionStatus::Completed;
        let outcome = self.outcome.clone().filter(|_| completed);
        let participant = |(at, p): (usize, &Participant)| ParticipantView {
            party_id: p.party_id.clone(),
            party_index: index(at),
            status: p.status,
            device: p.device.clone(),
            handshake: p.handshake.clone(),
            on_behalf_of: p.on_behalf_of.clone(),
        };
        SessionView {
            tenant: self.tenant.clone(),
            session_id: self.session_id,
            ceremony: self.ceremony.clone(),
            status: self.status,
            attempt: self.attempt(),
            replaced: self.replaced().to_vec(),
            participants: self.participants.iter().enumerate().map(participant).collect(),
            authorization: self.authorization.clone(),
            outcome,
            failure: self.failure.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
        }
    }
}
