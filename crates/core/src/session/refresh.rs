//! The rules of a refresh: who takes part, what may come out, and what follows.

use quorate_types::*;

/// All holders take part, in the order of their shares.
///
/// # Errors
/// `invalid_request` for who holds no share, `threshold_not_met` naming who is missing.
pub(super) fn roster_ok(key: &KeyEpoch, parties: &[&PartyId]) -> Result<()> {
    if key.holders.iter().eq(parties.iter().copied()) {
        return Ok(());
    }
    let key_id = key.key_id;
    if let Some(stranger) = parties.iter().find(|party| !key.holders.contains(party)) {
        let problem = format!("{stranger} holds no share of key {key_id}");
        return Err(Error::invalid_field("participants", problem));
    }
    let missing = key.holders.iter().filter(|holder| !parties.contains(holder));
    let missing: Vec<_> = missing.cloned().collect();
    let problem = format!("key {key_id} is refreshed by all its holders, in their order");
    if missing.is_empty() {
        return Err(Error::invalid_field("participants", problem));
    }
    let error = Error::new(ErrorCode::ThresholdNotMet, problem).with_field("participants");
    Err(error.waiting_for(missing))
}

/// The key must come out as it was, in whatever encoding.
///
/// # Errors
/// `invalid_request` naming `public_key`.
pub(super) fn check_result(key: &KeyEpoch, reported: &[u8]) -> Result<PublicKey> {
    let public_key = quorate_schemes::normalize_public_key(key.scheme, reported)?;
    if public_key == key.public_key {
        return Ok(public_key);
    }
    let problem = "a refresh leaves the public key as it is; this is another";
    Err(Error::invalid_field("public_key", problem))
}

/// An epoch after the one that was to be replaced. Those between are of refreshes that broke off.
///
/// # Errors
/// `invalid_request` naming `epoch`.
pub(super) fn check_epoch(key: &KeyEpoch, epoch: u32) -> Result<()> {
    if epoch > key.epoch {
        return Ok(());
    }
    let problem = format!("a refresh makes an epoch after {}; {epoch} is none", key.epoch);
    Err(Error::invalid_field("epoch", problem))
}

/// The epoch that a completed refresh has made: the one that its holders have signed, or the next.
pub(super) fn made(key: &KeyEpoch, epoch: Option<u32>) -> KeyEpoch {
    let epoch = epoch.unwrap_or(key.epoch.saturating_add(1));
    KeyEpoch { epoch, ..key.clone() }
}
