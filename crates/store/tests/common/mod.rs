//! Values that the tests of the store write.
#![allow(dead_code, reason = "no test uses all of them")]

use std::sync::Arc;

use quorate_ports::Write;
use quorate_ports::store::SessionRow;
use quorate_types::*;
use uuid::Uuid;

pub(crate) fn session_id(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

pub(crate) fn message_id(n: u128) -> MessageId {
    MessageId(Uuid::from_u128(n))
}

pub(crate) fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

pub(crate) fn session(n: u128, document: &str) -> Write {
    Write::Session(SessionRow {
        session_id: session_id(n),
        tenant: Tenant::default(),
        is_final: false,
        created_at: Timestamp(i64::try_from(n).unwrap()),
        version: 1,
        document: document.into(),
    })
}

/// A message of session 1 with `n` as its id and sequence.
pub(crate) fn message(n: u64, to: &[&str]) -> Arc<MessageRow> {
    let message = Message {
        message_id: message_id(n.into()),
        session_id: session_id(1),
        from_party: party("a"),
        is_broadcast: to.len() > 1,
        round: 1,
        message_type: "t".into(),
        payload: vec![7; 10].into(),
        created_at: Timestamp(5),
    };
    Arc::new(MessageRow::new(message, n, to.iter().map(|name| party(name)).collect()))
}

pub(crate) fn acknowledged(n: u64, by: &str) -> Write {
    Write::Acknowledged { message: message_id(n.into()), party: party(by) }
}

/// How a key of [`key`] came to its epoch.
pub(crate) fn epoch(n: u128) -> EpochRecord {
    EpochRecord {
        epoch: 0,
        session_id: SessionId(Uuid::from_u128(n)),
        made_at: Timestamp(1),
        attestation: None,
    }
}

pub(crate) fn key(
    n: u128,
    holder: &str,
    public_key: u8,
    created_at: i64,
    tenant: Tenant,
) -> KeyRecord {
    KeyRecord {
        key: Arc::new(KeyEpoch {
            key_id: KeyId(Uuid::from_u128(n)),
            epoch: 0,
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 3).unwrap(),
            public_key: PublicKey(vec![public_key; 65]),
            holders: vec![party(holder)],
        }),
        tenant,
        created_at: Timestamp(created_at),
        label: None,
        frozen: None,
    }
}
