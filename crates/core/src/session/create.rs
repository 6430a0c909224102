//! What a creator may ask for.

use quorate_types::*;

use super::NewSession;

/// Longest free text about a device, in bytes. Every view and event carries those of all parties.
const MAX_DEVICE_TEXT: usize = 256;

pub(super) fn check_participants(new: &NewSession) -> Result<()> {
    for (participant, _) in &new.participants {
        check_device(&participant.device)?;
    }
    let count = new.participants.len();
    let mut names: Vec<_> = new.participants.iter().map(|(p, _)| &p.party_id).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid_field("participants", format!("{} is named twice", twice[0])));
    }
    let (t, n) = (usize::from(new.threshold.signers()), usize::from(new.threshold.parties()));
    match &new.key {
        None if count < n => Err(Error::new(
            ErrorCode::ThresholdNotMet,
            format!("a key of {n} parties is made by exactly {n}, not {count}"),
        )
        .with_field("participants")),
        None if count > n => Err(Error::invalid_field(
            "participants",
            format!("a key of {n} parties is made by exactly {n}, not {count}"),
        )),
        Some(_) if count < t => Err(Error::new(
            ErrorCode::ThresholdNotMet,
            format!("{t} signers are needed, {count} take part"),
        )
        .with_field("participants")),
        Some(key) => {
            let strangers: Vec<_> = names
                .iter()
                .filter(|name| !key.holders.contains(name))
                .map(|name| name.as_str())
                .collect();
            if strangers.is_empty() {
                return Ok(());
            }
            Err(Error::invalid_field(
                "participants",
                format!("no share of key {} is held by {}", key.key_id, strangers.join(", ")),
            ))
        }
        None => Ok(()),
    }
}

/// Refuses texts about a device that are out of proportion.
pub(super) fn check_device(device: &DeviceInfo) -> Result<()> {
    let texts = [
        ("device_type", &device.device_type),
        ("device_id", &device.device_id),
        ("platform", &device.platform),
        ("app_version", &device.app_version),
    ];
    match texts.iter().find(|(_, text)| text.len() > MAX_DEVICE_TEXT) {
        Some((field, _)) => {
            Err(Error::invalid_field(field, format!("{field} is at most {MAX_DEVICE_TEXT} bytes")))
        }
        None => Ok(()),
    }
}

pub(super) fn check_digest(new: &NewSession) -> Result<()> {
    let problem = match (new.kind, new.digest.is_some(), new.key.is_some()) {
        (SessionKind::Keygen, false, false) | (SessionKind::Sign, true, true) => return Ok(()),
        (SessionKind::Keygen, true, _) => "a keygen session signs nothing: leave message_hash out",
        (SessionKind::Sign, false, _) => "a sign session needs message_hash: 32 bytes in hex",
        (SessionKind::Keygen, ..) => "a keygen session makes a key: name none",
        (SessionKind::Sign, ..) => "a sign session needs a key",
    };
    Err(Error::invalid_field("message_hash", problem))
}
