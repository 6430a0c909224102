//! The vault's rows: how each is read, and the bytes over which its tag is made.

use bytes::Bytes;
use quorate_ports::vault::{Ban, Pin, SealedShare, ShareState};
use quorate_types::*;
use rusqlite::{Row, params};
use sha2::{Digest as _, Sha256};

use crate::columns::{id, json, name, to_json};
use crate::head::{Change, encoded};

/// The columns of a share in the order of [`share`]; the sealed bytes come last.
pub(super) const SHARE: &str = "key_id, epoch, state, share_index, record, identities, execution, \
                                confirmations, sealed_hash, tag";

pub(super) fn state(number: u8) -> ShareState {
    match number {
        0 => ShareState::Pending,
        1 => ShareState::Active,
        _ => ShareState::Retired,
    }
}

pub(super) fn state_number(state: ShareState) -> u8 {
    match state {
        ShareState::Pending => 0,
        ShareState::Active => 1,
        ShareState::Retired => 2,
    }
}

pub(super) fn hash(sealed: &[u8]) -> [u8; 32] {
    Sha256::digest(sealed).into()
}

/// The encoding of the share row that a query of [`SHARE`] is at.
pub(super) fn share_encoding(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let (epoch, state, index): (u32, u8, u8) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let hash: Option<Vec<u8>> = row.get(8)?;
    Ok(encoded(
        "share",
        &[
            row.get_ref(0)?.as_bytes()?,
            &epoch.to_be_bytes(),
            &[state],
            &[index],
            row.get_ref(4)?.as_bytes()?,
            row.get_ref(5)?.as_bytes()?,
            row.get_ref(6)?.as_bytes()?,
            row.get_ref(7)?.as_bytes()?,
            &hash.unwrap_or_default(),
        ],
    ))
}

/// A share without its sealed bytes.
pub(super) fn share(row: &Row<'_>) -> rusqlite::Result<SealedShare> {
    Ok(SealedShare {
        key_id: KeyId(id(row, 0)?),
        epoch: row.get(1)?,
        state: state(row.get(2)?),
        share_index: ShareIndex(row.get(3)?),
        record: json(row, 4)?,
        identities: json(row, 5)?,
        execution: row.get(6)?,
        confirmations: row.get(7)?,
        sealed: Vec::new(),
    })
}

pub(super) fn insert_share(change: &mut Change<'_>, share: &SealedShare) -> rusqlite::Result<()> {
    let (record, identities) = (to_json(&share.record), to_json(&share.identities));
    let state = state_number(share.state);
    let hash = hash(&share.sealed);
    let tag = change.add(&encoded(
        "share",
        &[
            share.key_id.0.as_bytes(),
            &share.epoch.to_be_bytes(),
            &[state],
            &[share.share_index.0],
            &record,
            &identities,
            &share.execution,
            &share.confirmations,
            &hash,
        ],
    ));
    let sql = "INSERT INTO shares (key_id, epoch, state, tenant, share_index, created_at, record,
               identities, execution, confirmations, sealed, sealed_hash, tag)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    change.execute(
        sql,
        params![
            share.key_id.0.as_bytes(),
            share.epoch,
            state,
            share.record.tenant.as_str(),
            share.share_index.0,
            share.record.created_at.0,
            record,
            identities,
            share.execution,
            share.confirmations,
            share.sealed,
            hash,
            tag
        ],
    )
}

/// The columns of a ban in the order of [`ban`].
pub(super) const BAN: &str = "key_id, epoch, peer, reason, at, evidence, tag";

pub(super) fn ban_encoding(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let (epoch, at): (u32, i64) = (row.get(1)?, row.get(4)?);
    Ok(encoded(
        "ban",
        &[
            row.get_ref(0)?.as_bytes()?,
            &epoch.to_be_bytes(),
            row.get_ref(2)?.as_bytes()?,
            row.get_ref(3)?.as_bytes()?,
            &at.to_be_bytes(),
            row.get_ref(5)?.as_bytes()?,
        ],
    ))
}

pub(super) fn ban(row: &Row<'_>) -> rusqlite::Result<Ban> {
    Ok(Ban {
        key_id: KeyId(id(row, 0)?),
        epoch: row.get(1)?,
        peer: name(row, 2)?,
        reason: row.get(3)?,
        at: Timestamp(row.get(4)?),
        evidence: split(row.get_ref(5)?.as_bytes()?),
    })
}

pub(super) fn insert_ban(change: &mut Change<'_>, ban: &Ban) -> rusqlite::Result<()> {
    let evidence = joined(&ban.evidence);
    let tag = change.add(&encoded(
        "ban",
        &[
            ban.key_id.0.as_bytes(),
            &ban.epoch.to_be_bytes(),
            ban.peer.as_str().as_bytes(),
            ban.reason.as_bytes(),
            &ban.at.0.to_be_bytes(),
            &evidence,
        ],
    ));
    let sql = "INSERT INTO bans (key_id, epoch, peer, reason, at, evidence, tag)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let key = ban.key_id.0.as_bytes();
    let peer = ban.peer.as_str();
    change.execute(sql, params![key, ban.epoch, peer, ban.reason, ban.at.0, evidence, tag])
}

/// Each message with its length in four bytes before it.
fn joined(messages: &[Bytes]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let length = u32::try_from(message.len()).expect("a message is far below 4 GiB");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(message);
    }
    bytes
}

fn split(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = rest.len().min(u32::from_be_bytes(*length) as usize);
        let (message, rest) = rest.split_at(length);
        messages.push(Bytes::copy_from_slice(message));
        bytes = rest;
    }
    messages
}

/// The columns of a pin in the order of [`pin`].
pub(super) const PIN: &str = "tenant, peer, identity, tag";

pub(super) fn pin_encoding(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let column = |at| row.get_ref(at)?.as_bytes().map_err(rusqlite::Error::from);
    Ok(encoded("pin", &[column(0)?, column(1)?, column(2)?]))
}

pub(super) fn pin(row: &Row<'_>) -> rusqlite::Result<Pin> {
    let tenant = match row.get_ref(0)?.as_str()? {
        "" => None,
        _ => Some(name(row, 0)?),
    };
    Ok(Pin { tenant, peer: name(row, 1)?, identity: row.get(2)? })
}

/// The column of whose sessions a pin counts in.
pub(super) fn place(tenant: Option<&Tenant>) -> &str {
    tenant.map_or("", Tenant::as_str)
}

pub(super) fn insert_pin(change: &mut Change<'_>, pin: &Pin) -> rusqlite::Result<()> {
    let (place, peer) = (place(pin.tenant.as_ref()), pin.peer.as_str());
    let tag = change.add(&encoded("pin", &[place.as_bytes(), peer.as_bytes(), &pin.identity]));
    let sql = "INSERT INTO pins (tenant, peer, identity, tag) VALUES (?1, ?2, ?3, ?4)";
    change.execute(sql, params![place, peer, pin.identity, tag])
}

/// The columns of a peer's latest handshake.
pub(super) const WITNESSED: &str = "identity, generation, handshake, tag";

pub(super) fn witnessed_encoding(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let generation: i64 = row.get(1)?;
    Ok(encoded(
        "witnessed",
        &[row.get_ref(0)?.as_bytes()?, &generation.to_be_bytes(), row.get_ref(2)?.as_blob()?],
    ))
}

pub(super) fn insert_witnessed(
    change: &mut Change<'_>,
    identity: &[u8; 32],
    generation: u64,
    handshake: &[u8],
) -> rusqlite::Result<()> {
    let generation = generation.cast_signed();
    let tag = change.add(&encoded("witnessed", &[identity, &generation.to_be_bytes(), handshake]));
    let sql = "INSERT INTO witnessed (identity, generation, handshake, tag)
               VALUES (?1, ?2, ?3, ?4)";
    change.execute(sql, params![identity, generation, handshake, tag])
}

/// The columns of what is noted of the ledger.
pub(super) const LEDGER: &str = "id, generation, tag";

pub(super) fn ledger_encoding(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    Ok(encoded("ledger", &[&row.get::<_, i64>(1)?.to_be_bytes()]))
}

/// Notes how far the ledger is.
pub(super) fn note_ledger(change: &mut Change<'_>, generation: u64) -> rusqlite::Result<()> {
    let before = change.first(&format!("SELECT {LEDGER} FROM ledger"), [], ledger_encoding)?;
    if let Some(before) = before {
        change.remove(&before);
    }
    let generation = generation.cast_signed();
    let tag = change.add(&encoded("ledger", &[&generation.to_be_bytes()]));
    let sql = "INSERT OR REPLACE INTO ledger (id, generation, tag) VALUES (1, ?1, ?2)";
    change.execute(sql, params![generation, tag])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_comes_back_message_by_message() {
        for messages in [vec![], vec![Bytes::from_static(b"one")], vec![Bytes::new(); 3]] {
            assert_eq!(split(&joined(&messages)), messages);
        }
        // A cut-off row gives what is there and does not panic.
        assert_eq!(split(&[0, 0, 0, 9, b'x']), [Bytes::from_static(b"x")]);
    }
}
