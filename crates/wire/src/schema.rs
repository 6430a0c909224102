//! Schemas of words: the closed lists, taken from the types so that they cannot drift.

use quorate_types::*;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};

fn words<I: IntoIterator<Item = &'static str>>(words: I, what: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .enum_values(Some(words))
        .description(Some(what))
        .build()
}

pub(crate) fn error_code() -> Object {
    words(ErrorCode::ALL.iter().map(|code| code.name()), "The stable code.")
}

pub(crate) fn session_status() -> Object {
    words(SessionStatus::ALL.iter().map(|status| status.name()), "Where the session stands.")
}

pub(crate) fn participant_status() -> Object {
    words(ParticipantStatus::ALL.iter().map(|status| status.name()), "Where the party stands.")
}

pub(crate) fn event_kind() -> Object {
    words(EventKind::ALL.iter().map(|kind| kind.name()), "What happened.")
}

pub(crate) fn failure_reason() -> Object {
    words(FailureReason::ALL.iter().map(|reason| reason.name()), "The stable reason.")
}

pub(crate) fn scheme() -> Object {
    words(Scheme::ALL.iter().map(|scheme| scheme.name()), "The key's signature scheme.")
}

pub(crate) fn session_kind() -> Object {
    words(SessionKind::ALL.iter().map(|kind| kind.name()), "Keygen, sign or refresh.")
}

pub(crate) fn party_role() -> Object {
    words(PartyRole::ALL.iter().map(|role| role.name()), "The party's role.")
}

/// A list of scopes.
pub(crate) fn scopes() -> Array {
    let scope = words(Scope::ALL.iter().map(|scope| scope.name()), "What a key may do.");
    ArrayBuilder::new().items(scope).min_items(Some(1)).build()
}

pub(crate) fn kem() -> Object {
    words(Kem::ALL.iter().map(|kem| kem.name()), "The kind of the key.")
}

pub(crate) fn channel() -> Object {
    words(Medium::ALL.iter().map(|channel| channel.name()), "By what it is sent.")
}

pub(crate) fn notification_step() -> Object {
    words(NotificationStep::ALL.iter().map(|step| step.name()), "What it is about.")
}

pub(crate) fn notification_state() -> Object {
    words(NotificationState::ALL.iter().map(|state| state.name()), "Where it stands.")
}

pub(crate) fn delivery_state() -> Object {
    words(DeliveryState::ALL.iter().map(|state| state.name()), "Where the copy is.")
}

pub(crate) fn account_status() -> Object {
    words(["active", "disabled"], "In use or switched off.")
}
