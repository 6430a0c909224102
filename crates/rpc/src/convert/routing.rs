//! Messages, deliveries, registrations and events.

use bytes::Bytes;
use quorate_types::*;

use super::delegate::{delegate_key_in, delegate_key_out, lent_in, lent_out};
use super::{detail, millis, names, parse_all, small, tokens_in, tokens_out, view};
use crate::proto::router::v1 as ro;

/// A message to route, as it comes in.
pub fn route_in(request: ro::RouteMessageRequest) -> Result<RouteRequest> {
    Ok(RouteRequest {
        session_id: request.session_id.parse()?,
        from_party: request.from_party.parse()?,
        to_parties: parse_all(&request.to_parties)?,
        round: request.round_number,
        message_type: request.message_type,
        payload: request.payload,
        acknowledges: parse_all(&request.acknowledges)?,
        patient: false,
    })
}

/// A message to route, as it goes out.
pub fn route_out(request: RouteRequest) -> ro::RouteMessageRequest {
    ro::RouteMessageRequest {
        session_id: request.session_id.to_string(),
        from_party: request.from_party.to_string(),
        to_parties: names(&request.to_parties),
        round_number: request.round,
        message_type: request.message_type,
        payload: request.payload,
        acknowledges: request.acknowledges.iter().map(MessageId::to_string).collect(),
    }
}

/// A message as its recipient sees it.
pub fn message_out(message: Message) -> ro::MpcMessage {
    ro::MpcMessage {
        message_id: message.message_id.to_string(),
        session_id: message.session_id.to_string(),
        from_party: message.from_party.to_string(),
        is_broadcast: message.is_broadcast,
        round_number: message.round,
        message_type: message.message_type,
        payload: message.payload,
        created_at: millis(message.created_at),
    }
}

/// A message, as it comes back.
pub fn message_in(message: ro::MpcMessage) -> Result<Message> {
    Ok(Message {
        message_id: message.message_id.parse()?,
        session_id: message.session_id.parse()?,
        from_party: message.from_party.parse()?,
        is_broadcast: message.is_broadcast,
        round: message.round_number,
        message_type: message.message_type,
        payload: message.payload,
        created_at: Timestamp(message.created_at),
    })
}

fn identity_in(bytes: &[u8]) -> Result<Option<[u8; 32]>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let identity = bytes
        .try_into()
        .map_err(|_| Error::invalid_field("identity_key", "identity_key is 32 bytes"))?;
    Ok(Some(identity))
}

fn identity_out(identity: Option<[u8; 32]>) -> Bytes {
    identity.map(|identity| Bytes::copy_from_slice(&identity)).unwrap_or_default()
}

fn channel_in(channel: Option<ro::NotificationChannel>) -> NotificationChannel {
    let channel = channel.unwrap_or_default();
    NotificationChannel {
        email: channel.email,
        phone: channel.phone,
        push_token: channel.push_token,
    }
}

fn channel_out(channel: NotificationChannel) -> Option<ro::NotificationChannel> {
    (!channel.is_empty()).then_some(ro::NotificationChannel {
        email: channel.email,
        phone: channel.phone,
        push_token: channel.push_token,
    })
}

/// The question how parties are reached.
pub fn contacts_request(tenant: &Tenant, parties: &[PartyId]) -> ro::GetContactsRequest {
    let party_ids = parties.iter().map(PartyId::to_string).collect();
    ro::GetContactsRequest { tenant: tenant.as_str().to_owned(), party_ids }
}

/// How a party is reached, as it goes out.
pub fn contact_out(contact: Contact) -> ro::Contact {
    let party_id = contact.party_id.to_string();
    ro::Contact { party_id, notification: channel_out(contact.channel) }
}

/// How a party is reached, as it comes in.
pub fn contact_in(contact: ro::Contact) -> Result<Contact> {
    let party_id = contact.party_id.parse()?;
    Ok(Contact { party_id, channel: channel_in(contact.notification) })
}

/// A registration, as it comes in. No role given means `temporary`.
pub fn registration_in(request: ro::RegisterPartyRequest) -> Result<Registration> {
    Ok(Registration {
        party_id: request.party_id.parse()?,
        role: match request.party_role.as_str() {
            "" => PartyRole::Temporary,
            role => role.parse()?,
        },
        version: request.version,
        notification: channel_in(request.notification),
        identity: identity_in(&request.identity_key)?,
        delegate_key: request.delegate_key.map(delegate_key_in).transpose()?,
    })
}

/// A registration, as it goes out.
pub fn registration_out(registration: Registration) -> ro::RegisterPartyRequest {
    ro::RegisterPartyRequest {
        party_id: registration.party_id.to_string(),
        party_role: registration.role.name().into(),
        version: registration.version,
        notification: channel_out(registration.notification),
        identity_key: identity_out(registration.identity),
        delegate_key: registration.delegate_key.map(delegate_key_out),
    }
}

/// A registered party.
pub fn registered_out(party: PartyView) -> ro::RegisteredParty {
    ro::RegisteredParty {
        party_id: party.registration.party_id.to_string(),
        role: party.registration.role.name().into(),
        online: party.online,
        registered_at: millis(party.registered_at),
        last_seen_at: millis(party.last_seen_at),
        notification: match party.offline {
            true => Some(ro::NotificationChannel::default()),
            false => channel_out(party.registration.notification),
        },
        version: party.registration.version,
        identity_key: identity_out(party.registration.identity),
        delegate_key: party.registration.delegate_key.map(delegate_key_out),
    }
}

/// A registered party, as it comes back.
pub fn registered_in(party: ro::RegisteredParty) -> Result<PartyView> {
    let blank = ro::NotificationChannel::default();
    Ok(PartyView {
        offline: party.notification.as_ref() == Some(&blank),
        registration: Registration {
            party_id: party.party_id.parse()?,
            role: party.role.parse()?,
            version: party.version,
            notification: channel_in(party.notification),
            identity: identity_in(&party.identity_key)?,
            delegate_key: party.delegate_key.map(delegate_key_in).transpose()?,
        },
        online: party.online,
        registered_at: Timestamp(party.registered_at),
        last_seen_at: Timestamp(party.last_seen_at),
    })
}

/// An event, already cut to its subscriber.
pub fn event_out(event: SessionEvent) -> ro::SessionEvent {
    let session = &event.session;
    ro::SessionEvent {
        event_id: event.event_id.to_string(),
        event_type: event.kind.name().into(),
        session_id: session.session_id.to_string(),
        threshold_n: session.ceremony.threshold().parties().into(),
        threshold_t: session.ceremony.threshold().signers().into(),
        selected_parties: session.parties().map(ToString::to_string).collect(),
        join_tokens: tokens_out(&event.join_tokens),
        message_hash: super::digest_out(&session.ceremony),
        created_at: millis(event.created_at),
        expires_at: millis(session.expires_at),
        delegate_user_share: event.lent.map(lent_out),
        detail: Some(detail(session)),
    }
}

/// An event, as it comes in.
pub fn event_in(event: ro::SessionEvent) -> Result<SessionEvent> {
    Ok(SessionEvent {
        event_id: event.event_id.parse()?,
        kind: event.event_type.parse()?,
        session: view(event.detail)?,
        join_tokens: tokens_in(event.join_tokens)?,
        lent: event.delegate_user_share.map(lent_in).transpose()?,
        created_at: Timestamp(event.created_at),
    })
}

/// One recipient's delivery.
pub fn delivery_out(delivery: Delivery) -> ro::MessageDeliveryStatus {
    ro::MessageDeliveryStatus {
        party_id: delivery.party_id.to_string(),
        status: delivery.state.name().into(),
        delivered_at: delivery.delivered_at.map_or(0, millis),
        acknowledged_at: delivery.acknowledged_at.map_or(0, millis),
        retry_count: small(delivery.retry_count),
    }
}

/// One recipient's delivery, as it comes back.
pub fn delivery_in(delivery: ro::MessageDeliveryStatus) -> Result<Delivery> {
    let at = |at: i64| (at != 0).then_some(Timestamp(at));
    Ok(Delivery {
        party_id: delivery.party_id.parse()?,
        state: delivery.status.parse()?,
        delivered_at: at(delivery.delivered_at),
        acknowledged_at: at(delivery.acknowledged_at),
        retry_count: u32::try_from(delivery.retry_count).unwrap_or(0),
    })
}
