//! What a creator may ask for.

use quorate_types::*;

use super::{NewSession, delegate, keygen, refresh, sign};

/// Longest free text about a device, in bytes. Every view and event carries those of all parties.
const MAX_DEVICE_TEXT: usize = 256;

pub(super) fn check_participants(new: &NewSession) -> Result<()> {
    for (participant, _) in &new.participants {
        check_device(&participant.device)?;
    }
    let parties: Vec<_> = new.participants.iter().map(|(p, _)| &p.party_id).collect();
    let mut names = parties.clone();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid_field("participants", format!("{} is named twice", twice[0])));
    }
    let seats: Vec<_> = new.participants.iter().map(|(seat, _)| seat).collect();
    delegate::check(&new.ceremony, &seats)?;
    match &new.ceremony {
        Ceremony::Keygen { threshold, .. } => keygen::roster_ok(*threshold, &parties),
        Ceremony::Sign { key, .. } => {
            let holders: Vec<_> = seats.iter().map(|seat| seat.holder()).collect();
            sign::roster_ok(key, &holders)
        }
        Ceremony::Refresh { key } => refresh::roster_ok(key, &parties),
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

/// Whether the key's scheme signs what the creator gave.
pub(super) fn check_input(ceremony: &Ceremony) -> Result<()> {
    match ceremony {
        Ceremony::Keygen { .. } | Ceremony::Refresh { .. } => Ok(()),
        Ceremony::Sign { key, input } => quorate_schemes::check_input(key.scheme, input),
    }
}
